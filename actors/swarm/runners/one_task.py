"""``codex`` and ``gemini``: command lines that do one task and end, and take up a conversation by its id."""

from __future__ import annotations

from actors.swarm.runners.base import Launch
from actors.swarm.runners.codex_format import CodexTranslator
from actors.swarm.runners.gemini_format import GeminiTranslator
from actors.swarm.runners.piped import PipedProgram
from actors.swarm.runners.stream import Recorder
from protocol.usage import Usage

_PROXIES = ("HTTPS_PROXY", "HTTP_PROXY", "NO_PROXY", "https_proxy", "http_proxy", "no_proxy")
#: Their logins and servers, where they do not find them in their own files.
CODEX_ENV = ("OPENAI_API_KEY", "OPENAI_BASE_URL", "CODEX_API_KEY", "CODEX_HOME", *_PROXIES)
GEMINI_ENV = (
    *("GEMINI_API_KEY", "GOOGLE_API_KEY", "GOOGLE_GEMINI_BASE_URL", "GOOGLE_CLOUD_PROJECT"),
    *("GOOGLE_CLOUD_LOCATION", "GOOGLE_GENAI_USE_VERTEXAI", "GEMINI_CLI_HOME", *_PROXIES),
)


class CodexProgram(PipedProgram):
    """``codex exec --json``."""

    def __init__(
        self, launch: Launch, recorder: Recorder, command: tuple[str, ...], env: tuple[str, ...]
    ) -> None:
        used = launch.used if launch.session else Usage()
        super().__init__(launch, CodexTranslator(recorder, used=used), (*CODEX_ENV, *env))
        self._command = command

    def argv(self, task: str | None) -> list[str]:  # noqa: ARG002 - it goes by the input
        """Its command."""
        launch = self.launch
        model = ["-m", launch.model] if launch.model else []
        provider = ["-c", f"model_provider={launch.provider}"] if launch.provider else []
        goes_on = ["resume", launch.session] if launch.session else []
        first, *flags = self._command
        return [first, "exec", "--json", "--skip-git-repo-check", *flags, *model, *provider, *goes_on, "-"]


class GeminiProgram(PipedProgram):
    """``gemini --output-format stream-json``."""

    def __init__(
        self, launch: Launch, recorder: Recorder, command: tuple[str, ...], env: tuple[str, ...]
    ) -> None:
        super().__init__(launch, GeminiTranslator(recorder), (*GEMINI_ENV, *env))
        self._command = command

    def argv(self, task: str | None) -> list[str]:  # noqa: ARG002 - it goes by the input
        """Its command. Raises AgentError."""
        launch = self.launch
        self.refuse_provider(self._command[0])
        model = ["-m", launch.model] if launch.model else []
        goes_on = ["--resume", launch.session] if launch.session else []
        return [*self._command, "--output-format", "stream-json", *model, *goes_on]
