"""``runner_of``: the runner that a name or a command means."""

from __future__ import annotations

import shlex
from collections.abc import Callable, Iterable, Sequence
from importlib.util import find_spec

from actors.swarm.runners.base import Host, Launch, Life, Runner, RunnerSpec
from actors.swarm.runners.program import ProgramLife
from actors.swarm.runners.program_contract import Bounds, Program
from actors.swarm.runners.stream import Recorder
from protocol.config import LocalModelSection, RunnerSection
from protocol.errors import UnknownRunner

_Make = Callable[[RunnerSection, Launch, Recorder], Program]


class CommandRunner:
    """The runner of one program."""

    def __init__(self, name: str, section: RunnerSection, make: _Make, *, one_shot: bool) -> None:
        self.name = name
        self.one_shot = one_shot
        self._section = section
        self._make = make

    def __repr__(self) -> str:
        return f"<Runner {self.name}>"

    def start(self, launch: Launch, host: Host, /) -> Life:
        """Start an agent with that program."""
        recorder = Recorder(launch.agent_id)
        program = self._make(self._section, launch, recorder)
        section = self._section
        bounds = Bounds(section.max_retries, section.max_wait, section.quiet_seconds)
        return ProgramLife(self.name, launch, host, program, recorder, one_shot=self.one_shot, bounds=bounds)


def runner_of(
    spec: RunnerSpec, sections: Iterable[RunnerSection] = (), local_model: LocalModelSection | None = None
) -> Runner:
    """The runner that is meant: ``claude``, ``codex``, ``gemini``, ``acp:COMMAND``, the name of a section
    with a command, ``local`` where there is a local model, a command as a list, or a runner, which is given
    back. Raises UnknownRunner.
    """
    known = {section.name: section for section in sections}
    if isinstance(spec, str):
        section = known.get(spec) or RunnerSection(spec)
        return _local(local_model) if spec == "local" and not section.command else _by_name(spec, section)
    if isinstance(spec, Sequence):
        if not spec or not all(isinstance(word, str) for word in spec):
            raise UnknownRunner(
                "a runner given as a list must be a command: its program and arguments, as strings"
            )
        return CommandRunner(spec[0], RunnerSection(spec[0], tuple(spec)), _listening, one_shot=False)
    return spec


def _by_name(name: str, section: RunnerSection) -> Runner:
    if name == "claude":
        return CommandRunner(name, section, _claude, one_shot=False)
    if name == "codex":
        return CommandRunner(name, section, _codex, one_shot=True)
    if name == "gemini":
        return CommandRunner(name, section, _gemini, one_shot=True)
    if name.startswith("acp:"):
        return _acp(name, section)
    if section.command:
        return CommandRunner(name, section, _listening, one_shot=False)
    raise UnknownRunner(
        f"there is no runner {name!r}",
        hint="use claude, codex, gemini, local, acp:COMMAND or a [[runner]], or pass a command",
    )


def _local(model: LocalModelSection | None) -> Runner:
    if model is None or not model.endpoint:
        raise UnknownRunner(
            "there is no local model, so there is no runner 'local'",
            hint="set [local_model] endpoint in polypod.toml, here or in ~/.config/polypod",
        )
    from actors.swarm.runners.local import LocalRunner  # noqa: PLC0415 - paid for by whoever starts one

    return LocalRunner(model)


def _words(section: RunnerSection) -> tuple[str, ...]:
    return (*(section.command or (section.name,)), *section.args)


def _claude(section: RunnerSection, launch: Launch, recorder: Recorder) -> Program:
    from actors.swarm.runners.claude import ClaudeProgram  # noqa: PLC0415 - paid for by whoever starts one

    return ClaudeProgram(launch, recorder, _words(section), section.env, section.max_retries)


def _codex(section: RunnerSection, launch: Launch, recorder: Recorder) -> Program:
    from actors.swarm.runners.one_task import CodexProgram  # noqa: PLC0415

    return CodexProgram(launch, recorder, _words(section), section.env)


def _gemini(section: RunnerSection, launch: Launch, recorder: Recorder) -> Program:
    from actors.swarm.runners.one_task import GeminiProgram  # noqa: PLC0415

    return GeminiProgram(launch, recorder, _words(section), section.env)


def _listening(section: RunnerSection, launch: Launch, recorder: Recorder) -> Program:
    from actors.swarm.runners.listening import ListeningProgram  # noqa: PLC0415

    return ListeningProgram(launch, recorder, _words(section), section.env)


def _acp(name: str, section: RunnerSection) -> Runner:
    """Raises UnknownRunner."""
    try:
        command = tuple(shlex.split(name.removeprefix("acp:")))
    except ValueError as error:
        raise UnknownRunner(f"{name!r} is not a valid command: {error}") from error
    if not command:
        raise UnknownRunner("acp: must be followed by a command, as in acp:gemini --acp")
    if find_spec("acp") is None:
        raise UnknownRunner(f"{name!r} needs the Agent Client Protocol", hint="pip install 'polypod[acp]'")

    def make(section: RunnerSection, launch: Launch, recorder: Recorder) -> Program:
        from actors.swarm.runners.acp import AcpProgram  # noqa: PLC0415

        words = (*(section.command or command), *section.args)
        return AcpProgram(launch, recorder, words, section.env)

    return CommandRunner(name, section, make, one_shot=False)
