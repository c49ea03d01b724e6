"""``Top``: the screen of ``polypod top``; the service of the swarm does all that is done."""

from __future__ import annotations

import asyncio
import os
from collections.abc import AsyncGenerator, Awaitable, Callable, Coroutine, Sequence
from functools import partial
from typing import Any, ClassVar, TypeVar

import click
from rich.text import Text
from textual import work
from textual.app import App, ComposeResult
from textual.binding import Binding, BindingType
from textual.events import Key
from textual.screen import Screen
from textual.widgets import Footer, OptionList, Static

from actors.cli.display.event_format import Line
from actors.cli.errors import words_for
from actors.cli.interrupts import SIGNALS
from actors.cli.swarm.client import Client
from actors.cli.swarm.rows import ENDED, Row
from actors.cli.swarm.wire import Asked
from actors.cli.top.driver import TopDriver
from actors.cli.top.listing import Listing
from actors.cli.top.pods import answer_pod, entries_of_pod, rows_of_pods
from actors.cli.top.questions import Approval, Decision, Removal, Words
from actors.cli.top.service_client import Service
from actors.cli.top.task_line import asked_in
from actors.cli.top.transcript import Transcript, text_of
from protocol.entries import Entry, OtherEntry
from protocol.errors import AgentNotRunning, PolypodError
from protocol.events import ApprovalRequested, Event
from protocol.wire import decode_event

A = TypeVar("A")

#: Seconds between two looks at the agents and at the pods.
_LOOK, _LOOK_AT_PODS = 0.5, 2.0
_TITLE = "polypod top"
#: What can go wrong with a question; all of it is said in a line.
_ERRORS = (PolypodError, OSError, click.ClickException)


class Top(App[None]):
    """Agents and pods in groups, one's transcript, and keys for what is done with them.

    A service that has not answered for ``patience`` seconds is said to be silent.
    """

    ENABLE_COMMAND_PALETTE = False
    CSS = """
    Listing { border: none; padding: 0; height: 1fr; text-wrap: nowrap; text-overflow: ellipsis; }
    Listing > .option-list--option { padding: 0; }
    Listing > .option-list--option-disabled { color: $foreground; }
    RichLog { height: 1fr; }
    #title, #line { height: 1; }
    #title { text-style: bold; background: $panel; }
    #piece { height: auto; max-height: 6; }
    ModalScreen { align: center middle; }
    ModalScreen > Vertical { width: 90%; height: auto; max-height: 90%; padding: 1; background: $panel; }
    TextArea { height: 6; }
    VerticalScroll { height: auto; max-height: 60vh; }
    """
    BINDINGS: ClassVar[list[BindingType]] = [
        Binding("n", "new", "new"),
        Binding("p", "prompt", "send"),
        Binding("a", "answer", "answer"),
        Binding("R", "resume", "resume"),
        Binding("k", "kill", "kill"),
        Binding("r", "remove", "remove"),
        Binding("q", "quit", "quit"),
        Binding("ctrl+c", "quit", "quit", show=False, priority=True),
        Binding("ctrl+z", "suspend_process", "suspend", show=False),
    ]

    def __init__(self, client: Client, patience: float = 5.0) -> None:
        super().__init__(driver_class=TopDriver)
        self._patience = patience
        self._service = Service(client)
        self._head, self._listing = Static(_TITLE, id="title"), Listing()
        self._agents = dict[str, Row]()
        self._pods = list[Row]()
        #: Whether the agents were asked for once: what is theirs is not a pod of the store.
        self._asked = False
        self._store = ""
        #: What was to be sent to an agent, and could not be.
        self._drafts = dict[str, str]()
        self._said = Line("quiet", "n starts an agent, enter shows what one has done")
        self._trouble: Line | None = Line("quiet", "asking the swarm's service…")

    def compose(self) -> ComposeResult:
        yield self._head
        yield self._listing
        yield Static(id="line")
        yield Footer(compact=True)

    async def run_at_terminal(self) -> None:
        """Run until it is quit, or ended by a signal: from the first moment on that leaves the terminal as it
        was, since textual takes a cancel for none of its own.
        """
        for number in SIGNALS:
            asyncio.get_running_loop().add_signal_handler(number, self.exit, None, 128 + number)
        await self.run_async()

    def on_mount(self) -> None:
        """Begin to look at the agents and the pods."""
        self._show_line()
        self._look_at_agents()
        self._look_at_pods()

    def on_resize(self) -> None:
        """Lay the list out anew, once its width is known."""
        self.call_after_refresh(self._show)

    # -- what is shown ---------------------------------------------------------------------------

    @work
    async def _look_at_agents(self) -> None:
        asked = self._service.ask
        while True:
            try:
                async with asyncio.timeout(self._patience):
                    self._store = self._store or (await asked(Asked(do="ping"))).store
                    said = await asked(Asked(do="ls"))
            except TimeoutError:
                self._trouble = Line("error", "the swarm's service does not answer; asking again")
            except _ERRORS as error:
                self._trouble = Line("error", _words(error))
            else:
                self._agents = {row.id: row for row in said.rows}
                self._show_problems(said.problems)
                self._trouble = None
                self._show()
            self._asked = True
            self._show_line()
            await asyncio.sleep(_LOOK)

    @work
    async def _look_at_pods(self) -> None:
        while True:
            store = self._store if self._asked else None
            if store:
                try:
                    self._pods = await asyncio.to_thread(rows_of_pods, store, set(self._agents))
                except _ERRORS as error:
                    self.say(f"cannot list the pods of {store}: {_words(error)}", "error")
                self._show()
            await asyncio.sleep(_LOOK_AT_PODS if store else _LOOK)

    def _show(self) -> None:
        if self._listing.is_attached:  # not before the screen is there, nor once it is gone
            pods = [row for row in self._pods if row.id.partition(".")[0] not in self._agents]
            self._listing.show(list(self._agents.values()), pods)

    def say(self, words: str, tone: str = "quiet") -> None:
        """Say something in the line at the foot of the screen, until something else is said."""
        self._said = Line(tone, " ".join(words.split()))
        self._show_line()

    def _show_problems(self, problems: Sequence[str]) -> None:
        """Say at the head of the screen what of the agents cannot be read, as long as that is so."""
        words = "; ".join(" ".join(each.split()) for each in problems)
        title = text_of(Line("note", f"{_TITLE}: passed over: {words}")) if words else Text(_TITLE)
        title.no_wrap, title.overflow = True, "ellipsis"
        if self._head.is_attached:
            self._head.update(title)

    def _show_line(self) -> None:
        text = text_of(self._trouble or self._said)
        text.no_wrap, text.overflow = True, "ellipsis"
        for screen in self.screen_stack:
            for line in screen.query("#line").results(Static):
                line.update(text)

    # -- what is done ----------------------------------------------------------------------------

    # What goes on beside the screens may go on once they are gone: then there is no self.screen.

    @property
    def _transcript(self) -> Transcript | None:
        """The transcript, where it is what is on the screen."""
        top = self.screen_stack[-1:]
        return top[0] if top and isinstance(top[0], Transcript) else None

    @property
    def _key(self) -> str:
        """What the row that keys are about is called by."""
        transcript = self._transcript
        return (transcript.key if transcript else self._listing.key) or ""

    def _agent(self) -> Row | None:
        """The agent that keys are about; says why where there is none."""
        kind, _, name = self._key.partition(" ")
        if kind == "pod":
            self.say(f"a pod, not an agent: continue it with polypod resume {name}", "note")
        elif name not in self._agents:
            self.say("there is no agent here: n starts one", "note")
        return self._agents.get(name) if kind == "agent" else None

    async def _ask(self, asked: Asked, doing: str, done: str) -> bool:
        """Ask one thing of the service, and say how it went."""
        return await self._try(self._ask_service(asked), doing, done)

    async def _ask_service(self, asked: Asked) -> None:
        for row in (await self._service.ask(asked)).rows:
            self._agents[row.id] = row

    async def _try(self, work: Awaitable[None], doing: str, done: str) -> bool:
        """Say what is being done, and how it went; False where it failed."""
        self.say(f"{doing}…")
        try:
            await work
        except AgentNotRunning as error:
            self.say(f"{_words(error)}: press R to resume it", "error")
        except _ERRORS as error:
            self.say(_words(error), "error")
        else:
            self.say(done)
            self._show()
            return True
        return False

    def on_option_list_option_selected(self, _event: OptionList.OptionSelected) -> None:
        """Open the transcript of the row under the cursor."""
        if len(self.screen_stack) > 1:  # a key before this one has opened it
            return
        key = self._key
        kind, _, name = key.partition(" ")
        title = next((row.id for row in self._pods if row.session_id == name), name)

        async def events_of_agent() -> AsyncGenerator[Event | Entry | OtherEntry, None]:
            async for said in self._service.stream(Asked(do="events", id=name, follow=True)):
                if said.event:
                    yield decode_event(said.event.encode())

        def lives() -> bool:
            return kind == "pod" or (name in self._agents and self._agents[name].status not in ENDED)

        source = events_of_agent if kind == "agent" else lambda: entries_of_pod(self._store, name)
        self.push_screen(Transcript(key, title, source, lives))
        self.call_after_refresh(self._show_line)

    # A question is there at once, so that no key behind the one that asks for it acts on the list: who types
    # quickly writes an answer, in which each k would stop an agent.

    def on_key(self, event: Key) -> None:
        """Have keys that were pressed before the question for words had the focus among these."""
        if isinstance(self.screen, Words) and event.is_printable and event.character is not None:
            self.screen.write(event.character)

    def _put(self, question: Screen[A], then: Callable[[A | None], Coroutine[Any, Any, None]]) -> None:
        """Show a question, and have done with its answer what ``then`` does, while keys go on to act."""

        def begin(answer: A | None) -> None:
            self.run_worker(then(answer))

        self.push_screen(question, begin)

    def action_suspend_process(self) -> None:
        """Stop, where a shell has started it, which takes the terminal and can have it go on."""
        parent = os.getppid()
        if os.getsid(parent) == os.getsid(0) and os.getpgid(parent) != os.getpgrp():
            super().action_suspend_process()

    def action_new(self) -> None:
        """Ask for a task, and start an agent."""
        self._put(Words("New task (--model M, --runner R, … may come first)"), self._start)

    async def _start(self, line: str | None) -> None:
        if line is None:
            return
        self.say("looking for a model…")
        try:
            asked, notes = await asyncio.to_thread(asked_in, line)
        except _ERRORS as error:
            self.say(_words(error), "error")
        else:
            await self._ask(asked, "starting", "; ".join(["started", *notes]))

    def action_prompt(self) -> None:
        """Ask for words, and send them to the agent."""
        if (row := self._agent()) is None:
            return
        if row.status in ENDED:
            self.say(f"{row.id} has ended: press R to resume it", "note")
            return
        self._put(Words(f"To {row.id}", self._drafts.pop(row.id, "")), partial(self._send, row.id))

    async def _send(self, agent: str, words: str | None) -> None:
        asked = Asked(do="send", id=agent, text=words or "")
        if words is not None and not await self._ask(asked, f"sending to {agent}", f"sent to {agent}"):
            self._drafts[agent] = words  # they stand there again when the key is pressed

    def action_answer(self) -> None:
        """Ask whether the call may be made that the agent or pod waits with."""
        pod = next((row for row in self._pods if self._key == f"pod {row.session_id}"), None)
        if (row := pod or self._agent()) is None:
            return
        if not row.approvals:
            self.say(f"{row.id} is not waiting for approval", "note")
            return
        request = row.approvals[0]
        self._put(Approval(row.id, request), partial(self._answer, row, pod, request))

    async def _answer(
        self, row: Row, pod: Row | None, request: ApprovalRequested, decision: Decision | None
    ) -> None:
        if decision is None:
            return
        approved, always = decision != "deny", decision == "always"
        if pod is not None:
            work = asyncio.to_thread(answer_pod, self._store, pod, approved=approved, always=always)
        else:
            asked = Asked(do="approve" if approved else "deny", id=request.approval_id, always=always)
            work = self._ask_service(asked)
        said = f"{'allowed' if approved else 'denied'} {request.tool} for {row.id}"
        await self._try(work, f"answering {row.id}", said)

    @work
    async def action_kill(self) -> None:
        """Stop the agent."""
        if (row := self._agent()) is not None:
            await self._ask(Asked(do="stop", id=row.id), f"stopping {row.id}", f"{row.id} stopped")

    @work
    async def action_resume(self) -> None:
        """Have the agent live again."""
        if (row := self._agent()) is not None:
            await self._ask(Asked(do="resume", id=row.id), f"resuming {row.id}", f"{row.id} is running again")

    def action_remove(self) -> None:
        """Ask once more, and remove what is kept of the agent."""
        if (row := self._agent()) is None:
            return
        if row.status not in ENDED:
            self.say(f"{row.id} is still running: k stops it", "note")
        else:
            self._put(Removal(row.id), partial(self._remove, row.id))

    async def _remove(self, agent: str, wanted: bool | None) -> None:
        asked = Asked(do="rm", id=agent)
        if not wanted or not await self._ask(asked, f"removing {agent}", f"{agent} is removed"):
            return
        self._agents.pop(agent, None)
        self._show()
        if self._transcript:
            self.pop_screen()


def _words(error: BaseException) -> str:
    """An error, with what may be done about it."""
    return ": ".join(filter(None, words_for(error) or ("",)))
