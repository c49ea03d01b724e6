"""Manifest: what a pod is asked to be, as people write it in TOML."""

from __future__ import annotations

import math
import re
from pathlib import Path
from typing import Any, Literal

import msgspec
from msgspec import Raw, Struct

from protocol.approval import ApprovalRule, ApprovalsSection
from protocol.errors import ManifestError
from protocol.explain import explained, unknown_key
from protocol.foreign import shown
from protocol.mcp import McpServer, check_servers, hidden_servers
from protocol.model_settings import ModelSettings, check_settings, given, joined
from protocol.names import check_name
from protocol.scope import Rule, Scope
from protocol.text import encodable
from protocol.toml import decode_toml, read_toml
from protocol.urls import without_secrets

#: Where a bare ``model="…"`` without a scheme runs: the embedded model that needs no network.
DEFAULT_SCHEME = "offline"


class PodSection(Struct, frozen=True, forbid_unknown_fields=True, omit_defaults=True):
    """``[pod]``: its name, the directory it works in, and the words it is given first."""

    name: str = "pod"
    pwd: str = ""
    system_prompt: str | None = None


class ModelSection(ModelSettings, frozen=True, forbid_unknown_fields=True, omit_defaults=True):
    """``[model]``: who answers, and how (see ``ModelSettings``).

    ``scheme`` is a kind of server (``ollama``, ``openrouter``), or an API (``openai``, ``openai_responses``,
    ``anthropic``) that one at ``base_url`` speaks; ``offline`` is the embedded model. ``api_key_env`` names
    the environment variable that holds the key; ``context_window`` is in tokens. ``num_ctx`` is the context
    that ``ollama`` is to give its model, ``api_version`` that of ``azure``.
    """

    scheme: str = DEFAULT_SCHEME
    model_id: str = ""
    base_url: str | None = None
    api_key_env: str | None = None
    context_window: int | None = None
    num_ctx: int | None = None
    api_version: str | None = None

    def with_settings(self, settings: ModelSettings) -> ModelSection:
        """The model section with ``settings`` over its own."""
        return msgspec.structs.replace(self, **joined(given(self), settings))


class WorkerSection(Struct, frozen=True, forbid_unknown_fields=True, omit_defaults=True):
    """``[worker]``: bounds of a run: tokens of one answer, requests of one run, how many read-only tools may
    run together, and how often a tool may fail in a row, or the same call have the same result (0: no limit).
    """

    max_tokens: int | None = None
    max_steps: int = 200
    parallel_tools: int = 3
    max_repeats: int = 8


class CompactionSection(Struct, frozen=True, forbid_unknown_fields=True, omit_defaults=True):
    """``[compaction]``, in tokens. A threshold that is not set, or 0, never starts a compaction."""

    compact_threshold: int | None = None
    compact_request_threshold: int | None = None
    compact_retained_tokens: int = 8000


class MemorySection(Struct, frozen=True, forbid_unknown_fields=True, omit_defaults=True):
    """``[memory]``: when a pod's history is read for what is worth keeping (thresholds: 0 is off).

    What was found waits in files until there are ``consolidate_files`` of them, or ``consolidate_bytes``
    in them; then it is worked into lasting memory. ``recall_tokens`` is how much of that may be brought
    into the start of a new session (0: nothing). ``folder`` is where the notes are, for pods that do not
    share those of their system: a project's, say.
    """

    schedule: Literal["after_run", "manual"] = "after_run"
    extract_threshold: int | None = None
    consolidate_files: int = 0
    consolidate_bytes: int = 0
    recall_tokens: int = 0
    folder: str | None = None


class BudgetSection(Struct, frozen=True, forbid_unknown_fields=True, omit_defaults=True):
    """``[budget]``: what a pod may use up in its life; not set is no limit."""

    tokens: int | None = None
    cost_usd: float | None = None
    seconds: float | None = None


class ToolsSection(Struct, frozen=True, forbid_unknown_fields=True, omit_defaults=True):
    """``[tools]``: the built-in tools a pod is given, by group (``files``, ``search``, ``tasks``,
    ``memory``, ``fetch``, ``pods``) or by name, and how many bytes of one tool's output reach the model.

    ``modules`` are files or modules of Python with tools of the user's own: ``weather.py`` (all that
    it makes with ``@tool``), ``weather.py:forecast``, ``mypackage.tools``; ``shop.py:tables`` may also be a
    ``ToolSource``, or a list with some. They are imported as the pod is made; pods of one process share
    what a module has made. ``mcp`` are servers of tools.
    """

    builtin: tuple[str, ...] = ()
    modules: tuple[str, ...] = ()
    mcp: tuple[McpServer, ...] = ()
    output_cap: int = 16_384


class FetchSection(Struct, frozen=True, forbid_unknown_fields=True, omit_defaults=True):
    """``[fetch]``: whether the tool ``fetch`` may reach addresses that are not on the public internet: this
    machine, its network, a cloud's metadata.
    """

    allow_private: bool = False


class SandboxSection(Struct, frozen=True, forbid_unknown_fields=True, omit_defaults=True):
    """``[sandbox]``: how the commands of the tool ``shell`` are held to the scope.

    ``mode = "scope"`` confines them; where this machine cannot do that, each needs approval. "require"
    refuses them there. "off" confines none, and each needs approval. ``network`` is whether they may use the
    network. The limits are of each process (``memory_bytes``, ``cpu_seconds``, ``file_bytes``: the longest
    file that it writes) and of all together (``processes``); not set is no limit.
    """

    mode: Literal["scope", "require", "off"] = "scope"
    network: bool = False
    memory_bytes: int | None = None
    cpu_seconds: int | None = None
    processes: int | None = None
    file_bytes: int | None = None


class DelegationSection(Struct, frozen=True, forbid_unknown_fields=True, omit_defaults=True):
    """``[delegation]``, for pods with the tools of the group ``pods``: how many sub-agents may live at a
    time, and how deep they may have some of their own (1: they may have none).
    """

    max_children: int = 8
    max_depth: int = 3


class RestartSection(Struct, frozen=True, forbid_unknown_fields=True, omit_defaults=True):
    """``[restart]``: what becomes of a pod that failed.

    With ``policy = "on_failure"`` it is started again on its session, at most ``max_restarts`` times within
    ``window_seconds``; ``always`` is the same for a pod, which never ends by itself. ``on_restart`` says
    whether the run that was interrupted stays paused or is resumed. A pod whose model sends nothing for
    ``idle_seconds`` in the middle of an answer has failed (not set: it is waited for), and so has one in a
    process of its own that does not answer its parent for ``heartbeat_seconds`` (not set: it is not asked).
    """

    policy: Literal["never", "on_failure", "always"] = "never"
    max_restarts: int = 3
    window_seconds: float = 60.0
    on_restart: Literal["pause", "resume"] = "pause"
    idle_seconds: float | None = None
    heartbeat_seconds: float | None = None

    @property
    def is_supervised(self) -> bool:
        """Whether anything here has to be looked after."""
        return self.policy != "never" or self.idle_seconds is not None


class PodManifest(Struct, frozen=True, forbid_unknown_fields=True, omit_defaults=True):
    """All of a manifest. Paths are absolute once it is loaded."""

    pod: PodSection = PodSection()
    model: ModelSection = ModelSection()
    worker: WorkerSection = WorkerSection()
    compaction: CompactionSection = CompactionSection()
    memory: MemorySection = MemorySection()
    budget: BudgetSection = BudgetSection()
    scope: Scope = Scope()
    tools: ToolsSection = ToolsSection()
    fetch: FetchSection = FetchSection()
    sandbox: SandboxSection = SandboxSection()
    approval: tuple[ApprovalRule, ...] = ()
    approvals: ApprovalsSection = ApprovalsSection()
    restart: RestartSection = RestartSection()
    delegation: DelegationSection = DelegationSection()

    @property
    def name(self) -> str:
        """The pod's name."""
        return self.pod.name

    @property
    def max_tokens(self) -> int | None:
        """The most tokens of one answer: of the model, or else of the worker; None where nobody says."""
        return self.worker.max_tokens if self.model.max_tokens is None else self.model.max_tokens

    @property
    def approval_rules(self) -> tuple[ApprovalRule, ...]:
        """The rules of ``approval``, then those that hold for all calls of a server of ``tools.mcp``."""
        of_servers = (each.approval_rule() for each in self.tools.mcp)
        return (*self.approval, *(rule for rule in of_servers if rule is not None))

    @classmethod
    def from_toml(cls, text: str) -> PodManifest:
        """A manifest from TOML text; relative paths are relative to the working directory.

        Raises ManifestError, which names the key and what was expected.
        """
        return _convert(decode_toml(text, "manifest"), where="manifest", base=_here())

    @classmethod
    def load(cls, path: str | Path) -> PodManifest:
        """A manifest from a TOML file; relative paths are relative to that file.

        Raises ManifestError, which names the file, the key and what was expected.
        """
        try:
            path = Path(path)
        except TypeError as error:
            raise ManifestError(f"path: expected the path of a manifest, got {shown(path)}") from error
        return _convert(read_toml(path, "a manifest"), where=str(path), base=path.resolve().parent)

    @classmethod
    def of(
        cls,
        *,
        name: str = "pod",
        model: str | ModelSection | dict[str, Any] | None = None,
        base_url: str | None = None,
        system_prompt: str | None = None,
        **settings: Any,
    ) -> PodManifest:
        """A manifest from Python: ``model`` is ``scheme/model_id``, a scheme alone, or the whole section.

        ``settings`` are keys of any section (``max_steps=5``, ``compact_threshold=20_000``,
        ``pwd="…"``) or whole sections (``scope=Scope.writable("…")``, ``tools={"builtin": ["files"]}``,
        ``approval=[ApprovalRule("shell", "ask")]``).
        Raises ManifestError for a key that does not exist or is of the wrong type.
        """
        data: dict[str, Any] = {"pod": {"name": name}, "model": {}}
        if system_prompt is not None:
            data["pod"]["system_prompt"] = system_prompt
        if isinstance(model, str):
            data["model"] = _model_of(model)
        elif model is not None:
            settings = {"model": model, **settings}
        if base_url is not None:
            settings["base_url"] = base_url
        _put_settings(data, settings, "manifest")
        return _convert(data, where="manifest", base=_here())

    def merged(self, profile: dict[str, Any], where: str, base: Path) -> PodManifest:
        """The manifest with the keys of a ``profile`` over its own: the keys are those of ``of``, and
        relative paths in them are relative to ``base``.

        A table is merged key by key, and a list stands in place of the one before; but rules of approval come
        before those of the manifest, and what it denies stays denied. A profile that names a model replaces
        the whole ``[model]`` section. Raises ManifestError, in which ``where`` names the profile.
        """
        if not isinstance(profile, dict):
            raise ManifestError(f"{where}: expected a table, got {shown(profile)}")
        said: dict[str, Any] = {}
        if isinstance(named := profile.get("model"), str):
            profile = {**profile, "model": _model_of(named)}
        _put_settings(said, profile, where)
        _decode(said, where)
        data = msgspec.to_builtins(self)
        if {"scheme", "model_id"} & said.get("model", {}).keys():
            data.pop("model", None)
        for kept, table in (("approval", said), ("deny", said.get("scope", {}))):
            if kept in table:
                before = data if table is said else data.get("scope", {})
                table[kept] = [*table[kept], *before.get(kept, ())]
        for key, value in said.items():
            data[key] = {**data.get(key, {}), **value} if isinstance(value, dict) else value
        return _convert(data, where=where, base=base)

    def without_secrets(self) -> PodManifest:
        """The manifest as it may be recorded and shown: no user, password or query in ``base_url``, no
        values of variables of ``mcp`` servers.
        """
        manifest, url = self, self.model.base_url
        if self.tools.mcp:
            servers = tuple(each.without_secrets() for each in self.tools.mcp)
            manifest = self.replace(tools=msgspec.structs.replace(self.tools, mcp=servers))
        if url is None or (shown := without_secrets(url)) == url:
            return manifest
        return manifest.replace(model=msgspec.structs.replace(self.model, base_url=shown))

    def replace(self, **sections: Struct) -> PodManifest:
        """The manifest with whole sections exchanged."""
        return msgspec.structs.replace(self, **sections)


def without_secrets_in(recorded: Raw) -> Raw:
    """The bytes of a manifest as it may be recorded, also where a later version has added to them."""
    table = msgspec.json.decode(recorded)
    changed = hidden_servers(table)
    model = table.get("model") if isinstance(table, dict) else None
    if isinstance(model, dict) and isinstance(url := model.get("base_url"), str):
        shown = without_secrets(url)
        changed, model["base_url"] = changed or shown != url, shown
    return Raw(msgspec.json.encode(table)) if changed else recorded


_SECTION_OF: dict[str, str] = {
    field: section
    for section, default in msgspec.structs.asdict(PodManifest()).items()
    if section not in {"scope", "approval", "approvals", "sandbox"}  # given as a whole
    for field in default.__struct_fields__
}


def _model_of(named: str) -> dict[str, Any]:
    scheme, _, model_id = named.partition("/")
    return {"scheme": scheme, "model_id": model_id}


def _put_settings(data: dict[str, Any], settings: dict[str, Any], where: str) -> None:
    """Put keys of any section, or whole sections, where a manifest has them. Raises ManifestError."""
    for key, value in settings.items():
        section = _SECTION_OF.get(key)
        if key in PodManifest.__struct_fields__:
            plain = _plain(value)
            data[key] = {**data.get(key, {}), **plain} if isinstance(plain, dict) else plain
        elif section is not None:
            if isinstance(data.setdefault(section, {}), dict):  # else what it is will be refused
                data[section][key] = _plain(value)
        else:
            known = sorted({*_SECTION_OF, *PodManifest.__struct_fields__})
            raise unknown_key(where, key, known, "all sections")


def _plain(value: Any) -> Any:
    """``value`` as TOML would have it; one that cannot be written so is left, to be refused by its key."""
    try:
        return msgspec.to_builtins(value)
    except TypeError:
        return value


def _decode(data: dict[str, Any], where: str) -> PodManifest:
    try:
        return msgspec.convert(data, PodManifest)
    except msgspec.ValidationError as error:
        raise explained(error, data, PodManifest, where, frozenset({"within"})) from None
    except SystemError:  # of msgspec before 0.22: an int that no float can be
        raise ManifestError(f"{where}: a number is so large that it cannot be shown") from None
    except UnicodeEncodeError:
        raise ManifestError(
            f"{where}: a string contains half a character (a lone surrogate), which no file or server accepts"
        ) from None


def _here() -> Path:
    """The working directory, which paths of a text are relative to. Raises ManifestError."""
    try:
        return Path.cwd()
    except FileNotFoundError as error:
        raise ManifestError(
            "manifest: the working directory no longer exists", hint="change to another one"
        ) from error


def _convert(data: dict[str, Any], *, where: str, base: Path) -> PodManifest:
    manifest = _decode(data, where)
    check_manifest(manifest, where)
    manifest = manifest.replace(pod=_absolute(manifest.pod, base), scope=anchored(manifest.scope, base))
    if (folder := manifest.memory.folder) is not None:
        if not folder:
            raise ManifestError(f"{where}: memory.folder: expected a folder, got ''")
        memory = msgspec.structs.replace(manifest.memory, folder=_path(folder, base))
        manifest = manifest.replace(memory=memory)
    tools = manifest.tools
    if not tools.modules and not tools.mcp:
        return manifest
    modules = tuple(module_path(name, base) for name in tools.modules)
    servers = check_servers(tools.mcp, where, lambda folder: _path(folder, base))
    return manifest.replace(tools=msgspec.structs.replace(tools, modules=modules, mcp=servers))


_POSITIVE = {
    "model": ("context_window", "num_ctx"),
    "worker": ("max_tokens", "max_steps", "parallel_tools"),
    "tools": ("output_cap",),
    "delegation": ("max_children",),
    "sandbox": ("memory_bytes", "cpu_seconds", "processes", "file_bytes"),
}
_NOT_NEGATIVE = {
    "worker": ("max_repeats",),
    "compaction": ("compact_threshold", "compact_request_threshold", "compact_retained_tokens"),
    "memory": ("extract_threshold", "consolidate_files", "consolidate_bytes", "recall_tokens"),
    "budget": ("tokens", "cost_usd", "seconds"),
    "delegation": ("max_depth",),
    "restart": ("max_restarts",),
}
_ABOVE_ZERO = {"approvals": ("timeout",), "restart": ("window_seconds", "idle_seconds", "heartbeat_seconds")}


def check_manifest(manifest: PodManifest, where: str) -> None:
    """Raise ManifestError, which begins with ``where``, for what types alone do not refuse."""
    check_name(manifest.pod.name, f"{where}: pod.name")
    if not re.fullmatch(r"[A-Za-z_]\w*", manifest.model.api_key_env or "_"):
        # The value is not shown: it may well be the key itself.
        raise ManifestError(
            f"{where}: model.api_key_env: expected the name of an environment variable",
            hint="a manifest never contains the key: export it, and name the variable here",
        )
    check_settings(manifest.model, f"{where}: model")
    try:
        msgspec.json.encode(manifest.model)
    except UnicodeEncodeError as error:
        raise ManifestError(
            f"{where}: model: a string contains half a character (a lone surrogate such as U+DC00)"
        ) from error
    _check_numbers(manifest, where)
    for rule in (*manifest.scope.allow, *manifest.scope.deny):
        if not rule.target:
            raise ManifestError(f"{where}: scope: a rule's target is empty")
    _check_paths(manifest, where)
    for number, each in enumerate(manifest.approval):
        if not each.tool:
            raise ManifestError(
                f"{where}: approval[{number}].tool: expected the name of a tool, got ''",
                hint='tool = "*" matches every tool',
            )


def _check_paths(manifest: PodManifest, where: str) -> None:
    named = [("pod.pwd", manifest.pod.pwd), ("memory.folder", manifest.memory.folder)]
    named += [("scope", each.target) for each in (*manifest.scope.allow, *manifest.scope.deny)]
    named += [("tools.modules", each) for each in manifest.tools.modules]
    for key, path in named:
        if path is not None and _names_nothing(path):
            raise ManifestError(f"{where}: {key}: expected a path, got {path!r}, which is not a valid path")


def _names_nothing(path: str) -> bool:
    try:
        return b"\0" in path.encode("utf-8", "surrogateescape")
    except UnicodeEncodeError:
        return True


def _check_numbers(manifest: PodManifest, where: str) -> None:
    kinds = (
        (_POSITIVE, 1, "at least 1"),
        (_NOT_NEGATIVE, 0, "0 or more"),
        (_ABOVE_ZERO, math.ulp(0), "more than 0"),
    )
    for sections, least, word in kinds:
        for section, keys in sections.items():
            for key in keys:
                value = getattr(getattr(manifest, section), key)
                if value is not None and not least <= value < math.inf:  # a TOML number may be nan or inf
                    raise ManifestError(f"{where}: {section}.{key}: expected {word}, got {value}")


def _absolute(pod: PodSection, base: Path) -> PodSection:
    prompt = None if pod.system_prompt is None else encodable(pod.system_prompt)
    return msgspec.structs.replace(pod, pwd=_path(pod.pwd or ".", base), system_prompt=prompt)


def anchored(scope: Scope, base: Path) -> Scope:
    """``scope`` with absolute targets: those that are relative are so to ``base``."""

    def rules_of(rules: tuple[Rule, ...]) -> tuple[Rule, ...]:
        return tuple(msgspec.structs.replace(r, target=_path(r.target, base)) for r in rules)

    within = None if scope.within is None else anchored(scope.within, base)
    return Scope(rules_of(scope.allow), rules_of(scope.deny), within)


def module_path(name: str, base: Path | None = None) -> str:
    """``FILE.py`` or ``FILE.py:NAME`` with the whole path of the file, which is relative to ``base`` (by
    default the working directory); the name of a module as it is.
    """
    place, colon, attribute = name.partition(":")
    return f"{_path(place, base or Path.cwd())}{colon}{attribute}" if place.endswith(".py") else name


def _path(text: str, base: Path) -> str:
    # ``~name`` is some other user's home, which nobody means here: it is a file's name like any other.
    path = Path(text).expanduser() if text == "~" or text.startswith("~/") else Path(text)
    return str(path if path.is_absolute() else Path(f"{base}/{path}"))
