"""``McpServer``: a server of tools that speaks the Model Context Protocol, as a manifest names it; pure."""

from __future__ import annotations

import math
import re
from collections.abc import Callable, Mapping
from typing import Any
from urllib.parse import urlsplit

from msgspec import Struct
from msgspec.structs import replace

from protocol.approval import ApprovalRule, Policy
from protocol.errors import ManifestError
from protocol.foreign import shown
from protocol.tools import Concurrency
from protocol.urls import without_secrets

#: Names that stand before the names of tools: ``__`` comes behind them, and is in none of them.
_NAME = r"(?!.*__)[A-Za-z](?:[A-Za-z0-9_-]{0,30}[A-Za-z0-9])?"
_NAME_WORDS = "1 to 32 letters, digits, '-' or '_' (no two in a row), with a letter first"
_VARIABLE = r"[A-Za-z_]\w*"
#: A variable of the environment: ``${NAME}``, ``${env:NAME}``, ``${NAME:-what stands for it}``.
_REFERENCE = r"\$\{(?:env:)?(?P<name>[A-Za-z_]\w*)(?::-(?P<default>[^}]*))?\}"
#: A reference to what polypod knows nothing of, such as ``${input:token}``.
_ANY_REFERENCE = r"\$\{[^}]*\}"
#: What may be a header's value: the name of a variable, or one behind the name of a scheme.
_HEADER_VALUE = rf"{_VARIABLE}|(?:[A-Za-z][\w-]* )?\$\{{(?:env:)?{_VARIABLE}\}}"
_HEADER_NAME = r"[A-Za-z0-9!#$%&'*+.^_`|~-]+"


class McpServer(Struct, frozen=True, forbid_unknown_fields=True, omit_defaults=True):
    """``[[tools.mcp]]``: a server of tools, which is started by its ``command`` or reached at its ``url``.

    ``command`` is a list of words, or a line as a shell splits it. It runs in ``cwd`` (by default where the
    pod works) with the variables that children are allowed and ``env``; each header of ``headers_env`` has
    the value of the variable that is named there, or ``Bearer ${NAME}``. In all of these but ``headers_env``,
    ``${NAME}`` and ``${NAME:-otherwise}`` stand for variables of the environment. Of its tools the pod has
    those that ``allow`` names (not set: all) and ``deny`` does not, by patterns. A call may take ``timeout``
    seconds. ``concurrency`` stands in place of what the server says of its tools, and ``approval`` says what
    becomes of their calls where no rule matches: by default those that are not read-only are asked for.
    """

    name: str
    command: tuple[str, ...] | str = ()
    url: str | None = None
    cwd: str = ""
    env: dict[str, str] = {}
    headers_env: dict[str, str] = {}
    timeout: float = 60.0
    allow: tuple[str, ...] = ()
    deny: tuple[str, ...] = ()
    concurrency: Concurrency | None = None
    approval: Policy | None = None

    @property
    def words(self) -> tuple[str, ...]:
        """The command's words, once it was checked."""
        return (self.command,) if isinstance(self.command, str) else self.command

    def approval_rule(self) -> ApprovalRule | None:
        """What becomes of calls of its tools where no rule of the manifest matches; None where that depends
        on the tool.
        """
        return None if self.approval is None else ApprovalRule(f"{self.name}__*", self.approval)

    def without_secrets(self) -> McpServer:
        """The server as it may be recorded and shown: of ``env`` the names alone, each with a reference to
        the variable of that name where its value was not a reference; no query in ``url``.
        """
        env = {name: _recordable(name, value) for name, value in self.env.items()}
        url = self.url if self.url is None else without_secrets(self.url)
        return replace(self, env=env, url=url)


def _recordable(name: str, value: str) -> str:
    found = re.fullmatch(_REFERENCE, value)
    return value if found is not None and found["default"] is None else f"${{{name}}}"


def variables_in(text: str) -> list[str]:
    """The variables of the environment that a text refers to."""
    return [found["name"] for found in re.finditer(_REFERENCE, text)]


def expand(text: str, variables: Mapping[str, str]) -> str:
    """``text`` with the variables that it refers to. Raises ManifestError, which names the one that is
    missing, or what is not a variable.
    """

    def value_of(found: re.Match[str]) -> str:
        if found["name"] in variables:
            return variables[found["name"]]
        if found["default"] is not None:
            return found["default"]
        raise ManifestError(f"the variable {found['name']} is not set", hint="export it")

    for other in re.findall(_ANY_REFERENCE, text):
        if not re.fullmatch(_REFERENCE, other):
            raise ManifestError(f"{other} is not an environment variable", hint="write ${NAME}")
    return re.sub(_REFERENCE, value_of, text)


def header_value(text: str, variables: Mapping[str, str]) -> str:
    """The value of a header that ``headers_env`` speaks of. Raises ManifestError as ``expand``."""
    return expand(text if "$" in text else f"${{{text}}}", variables)


def check_servers(
    servers: tuple[McpServer, ...], where: str, absolute: Callable[[str], str]
) -> tuple[McpServer, ...]:
    """The servers with their commands as words and absolute folders. Raises ManifestError."""
    names = [each.name for each in servers]
    for number, each in enumerate(servers):
        at = f"{where}: tools.mcp[{number}]"
        if names.index(each.name) < number:
            raise ManifestError(f"{at}.name: there is already a server {each.name!r}")
        _check(each, at)
    return tuple(_settled(each, f"{where}: tools.mcp[{n}]", absolute) for n, each in enumerate(servers))


def _settled(server: McpServer, at: str, absolute: Callable[[str], str]) -> McpServer:
    command = server.command
    if isinstance(command, str):
        import shlex  # noqa: PLC0415 - paid for by whoever writes a line

        try:
            command = tuple(shlex.split(command))
        except ValueError as error:
            raise ManifestError(f"{at}.command: cannot be split into words: {error}") from None
    return replace(server, command=command, cwd=absolute(server.cwd) if server.cwd else "")


def _check(server: McpServer, at: str) -> None:
    if not re.fullmatch(_NAME, server.name):
        raise ManifestError(f"{at}.name: expected {_NAME_WORDS}, got {shown(server.name)}")
    if bool(server.command) == (server.url is not None):
        raise ManifestError(f"{at}: expected either a command or a url")
    if server.url is None:
        if server.headers_env:
            raise ManifestError(f"{at}.headers_env: only a server with a url has headers")
    else:
        _check_url(server, at)
    for name in server.env:
        if not re.fullmatch(_VARIABLE, name):
            raise ManifestError(f"{at}.env: expected names of variables, got {shown(name)}")
    if not 0 < server.timeout < math.inf:
        raise ManifestError(f"{at}.timeout: expected more than 0, got {server.timeout}")
    if not all((*server.allow, *server.deny)):
        raise ManifestError(f"{at}: allow and deny: expected names or patterns of tools, got ''")


def _check_url(server: McpServer, at: str) -> None:
    assert server.url is not None
    if server.env or server.cwd:
        raise ManifestError(f"{at}: only a server with a command has env and cwd")
    try:
        parts = urlsplit(server.url)
        sound = parts.scheme in {"http", "https"} and bool(parts.hostname) and "@" not in parts.netloc
    except ValueError:
        sound = False
    if not sound and "${" not in server.url:
        raise ManifestError(
            f"{at}.url: expected a URL like https://example.com/mcp, got {without_secrets(server.url)!r}",
            hint="put a user, password or token in headers_env",
        )
    for name, value in server.headers_env.items():
        if not re.fullmatch(_HEADER_NAME, name):
            raise ManifestError(f"{at}.headers_env: {shown(name)} is not a valid header name")
        if not re.fullmatch(_HEADER_VALUE, value):
            # The value is not shown: it may well be the secret itself.
            raise ManifestError(
                f"{at}.headers_env.{name}: expected the name of an environment variable, or a "
                "string like 'Bearer ${NAME}'",
                hint="a manifest never contains the value: export it, and name the variable here",
            )


def hidden_servers(table: Any) -> bool:
    """Take the secrets out of the servers of a manifest that was decoded to plain data; whether there were
    any.
    """
    tools = table.get("tools") if isinstance(table, dict) else None
    servers = tools.get("mcp") if isinstance(tools, dict) else None
    changed = False
    for each in servers if isinstance(servers, list) else ():
        if not isinstance(each, dict):
            continue
        env, url = each.get("env"), each.get("url")
        if isinstance(env, dict):
            safe = {name: _recordable(name, str(value)) for name, value in env.items()}
            changed, each["env"] = changed or safe != env, safe
        if isinstance(url, str) and (shown := without_secrets(url)) != url:
            changed, each["url"] = True, shown
    return changed
