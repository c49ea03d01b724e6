"""The summarizer: a helper agent that writes the summary of a history, and what is made of its result."""

from __future__ import annotations

from functools import cache, partial
from typing import NamedTuple

from actors.compaction import policy
from actors.compaction.compose import Composed, Reference, RequiredFile, Split, compose, split, summary_in
from actors.compaction.cut import Cut, cut
from actors.compaction.policy import Limits
from actors.compaction.retry_plans import ladder
from actors.compaction.summary import (
    NO_SUMMARY,
    NUDGE_NO_FILE,
    NUDGE_NO_SUMMARY,
    SUMMARISER_PROMPT,
    extractive_summary,
    has_headings,
    summariser_request,
    with_words,
)
from actors.compaction.tokens import text_tokens, tokens_in
from actors.compaction.transcript import entries, recent_files, shortened
from actors.compaction.user_words import words_of
from actors.memory.helper_agent import HelperAgent, Reminder
from actors.memory.helper_words import says_nothing, summary_in_words
from actors.pod.accounts.spending import Spending
from actors.pod.history.context import Context
from actors.pod.history.task_list import TaskStore
from actors.pod.resources import PodResources
from actors.runtime.in_thread import in_thread
from actors.tools.base import ToolContext, tool
from actors.tools.filesystem.place import opened
from actors.tools.toolbox import Toolbox
from protocol.errors import CompactionFailed, ModelError, ToolError
from protocol.events import CompactReason, SummarySource
from protocol.items import Item
from protocol.wire import encode

#: How many requests one reading of a summariser may need.
MOST_STEPS = 16
#: Bytes of a file that can be required; no model's window takes more.
MOST_READ = 8 << 20


class Folding(NamedTuple):
    """What is to be folded: the history, its size, how much of its end to keep, and who pays.

    ``without_model`` asks for an extractive summary. ``density`` is how many of the server's tokens an
    estimated one stands for; ``mid_run`` says that a run is open, whose model may not have seen its last
    results.
    """

    items: list[Item]
    context: Context
    limits: Limits
    retained: int
    occupancy: int
    reason: CompactReason
    spending: Spending
    density: float = 1.0
    without_model: bool = False
    mid_run: bool = False

    def estimated(self, tokens: int) -> int:
        """Convert a number of the server's tokens to the scale of our estimates."""
        return int(tokens / self.density)

    @property
    def room(self) -> int | None:
        """The most tokens that the new history may have; where nobody says, an automatic compaction takes the
        present size.
        """
        known = self.limits.room or (None if self.reason == "manual" else self.occupancy)
        return None if known is None else self.estimated(known)


class SummaryDraft:
    """What the summariser's tools work on: the summary, the files it requires, and its references."""

    def __init__(self, room: int) -> None:
        """``room`` is what the texts of required files may take together, in tokens."""
        self.room = room
        self.summary: str | None = None
        self.source: SummarySource = "tool"
        self.files: list[RequiredFile] = []
        self.references: list[Reference] = []


@tool
async def write_summary(text: str, ctx: ToolContext[SummaryDraft]) -> str:
    """Write the whole summary; a later call replaces an earlier one."""
    if not text.strip():
        raise ToolError("text is empty", hint="write what is needed to continue")
    ctx.deps.summary = text
    return "written"


@tool
def mark_read_required(path: str, ctx: ToolContext[SummaryDraft]) -> str:
    """Have the text of a file at hand after the compaction."""
    draft = ctx.deps
    if any(file.path == path for file in draft.files):
        return f"{path} is already marked"
    with opened(ctx.path(path)) as file:
        data = file.read(MOST_READ + 1)
    if len(data) > MOST_READ:
        raise ToolError(f"{path} is too large to be a required file")
    text = data.decode("utf-8", "replace")
    needed = text_tokens(text)
    if needed > draft.room:
        raise ToolError(f"{path} needs {needed} tokens, but only {draft.room} are left for required files")
    draft.room -= needed
    draft.files.append(RequiredFile(path, text))
    return f"{path} will be at hand ({needed} tokens)"


@tool
async def add_reference(path: str, ctx: ToolContext[SummaryDraft], why: str = "") -> str:
    """Name a place that may have to be looked at again, and why."""
    draft = ctx.deps
    draft.references = [each for each in draft.references if each.path != path]
    draft.references.append(Reference(path, why))
    return "noted"


@cache
def _toolbox(*, may_read: bool) -> Toolbox:
    """The summariser's tools, made once."""
    tools = [write_summary, add_reference]
    if may_read:
        from actors.tools.filesystem.files import read_file  # noqa: PLC0415 - paid for by whoever compacts

        tools += [mark_read_required, read_file]
    return Toolbox(tools)


class _Reading(NamedTuple):
    """The items to fold, and their transcript."""

    halves: Split
    words: list[str]
    texts: list[str]
    files: list[str]
    earlier: str | None
    snapshot: str

    @classmethod
    def of(cls, items: list[Item], at: Cut) -> _Reading:
        """Read a history. That takes time in proportion to its length, so it is not done on a loop."""
        halves = split(items, at)
        folded = halves.folded
        snapshot = TaskStore.replayed(items).snapshot()
        earlier = summary_in(folded)
        return cls(halves, words_of(folded), entries(folded), recent_files(folded), earlier, snapshot)


class Folded(NamedTuple):
    """A compacted history, and the tokens it takes."""

    composed: Composed
    occupancy: int


async def fold(resources: PodResources, folding: Folding) -> Folded:
    """The history with its older part folded into a summary. Raises CompactionFailed, OverBudget, or what the
    client raises.

    If the summariser's own request does not fit its context, it is given less to read, and in the end
    nothing: then the summary is extractive. It is extractive too for a folding ``without_model``, and where
    the summariser refuses, or neither calls its tool nor says a word; in these last cases a compaction by
    hand fails instead.
    """
    at = cut(folding.items, folding.context.since, folding.retained, keep_open_turn=folding.mid_run)
    read = await in_thread(_Reading.of, folding.items, at)
    draft = SummaryDraft(policy.required_budget(folding.room))
    written = None
    if not folding.without_model:
        written = await _Summarizer(resources, folding, draft, read).written()
    composed = await in_thread(_composed, folding, read, draft, written)
    folded = Folded(composed, Context.of(composed.items).occupancy())
    policy.check_shrunk(folding.reason, folding.occupancy, folded.occupancy)
    return folded


def _composed(folding: Folding, read: _Reading, draft: SummaryDraft, written: str | None) -> Composed:
    """The new history with the summary that was ``written``, or else an extractive one."""
    room, occupancy = folding.room, folding.estimated(folding.occupancy)
    words = policy.words_budget(folding.reason, occupancy, room if folding.limits.room else None)
    longest = policy.summary_budget(room)
    if written is None:
        draft.source = "extractive"
        summary = extractive_summary(read.halves, budget=longest, words=words)
    else:
        summary = with_words(shortened(written, longest), read.words, words)
    return compose(
        summary,
        read.halves.kept,
        files=draft.files,
        references=draft.references,
        snapshot=read.snapshot,
        source=draft.source,
    )


class _Summarizer:
    """The helper agent itself: its tools, and how it is asked."""

    def __init__(
        self, resources: PodResources, folding: Folding, draft: SummaryDraft, read: _Reading
    ) -> None:
        window = folding.limits.context_window
        self._window = None if window is None else folding.estimated(window)
        self._draft = draft
        self._read = read
        self._may_read = bool(resources.template.manifest.scope.allow)
        self._agent = HelperAgent(
            folding.spending.ask,
            resources.template.manifest.model.model_id,
            _toolbox(may_read=self._may_read),
            partial(resources.template.tools.context, resources.name, draft),
            prompt=SUMMARISER_PROMPT,
            max_tokens=policy.summary_budget(folding.limits.room),
            most_steps=MOST_STEPS,
        )
        self._by_hand = folding.reason == "manual"

    async def written(self) -> str | None:
        """The model's summary; None if even the shortest request does not fit its context, or if it writes
        none or refuses (a compaction by hand raises then).
        """
        prompt = text_tokens(SUMMARISER_PROMPT + self._read.snapshot)
        fixed = prompt + tokens_in(len(encode(self._agent.toolbox.specs)))
        budget = policy.summariser_budget(self._window, self._agent.max_tokens, fixed)
        steps = ladder(self._read.texts, budget)
        while (parts := await in_thread(next, steps, None)) is not None:
            try:
                return await self._summarize_parts(parts)
            except ModelError as error:
                if error.kind == "content_filter" and not self._by_hand:
                    return None  # it would refuse the next time too, and the session could never be compacted
                if error.kind != "context_overflow":
                    raise
        return None

    async def _summarize_parts(self, texts: list[str]) -> str | None:
        """The summary of a transcript in parts; each request contains the summary of the parts before."""
        read, written = self._read, self._read.earlier
        for part, text in enumerate(texts, 1):
            self._draft.summary = None
            request = summariser_request(
                text,
                earlier=written,
                part=part,
                parts=len(texts),
                files=read.files,
                snapshot=read.snapshot,
            )
            written = await self._summarize_part(request)
            if written is None:
                return None
        return written

    async def _summarize_part(self, request: str) -> str | None:
        """What the summariser writes about one part; it is reminded once of what it forgot. If it then
        answers in words, those are the summary, unless it has given a longer one, with its headings, before.
        """
        draft, words, reminded = self._draft, "", False

        def answered(text: str) -> Reminder | None:
            nonlocal words, reminded
            first, reminded = not reminded, True
            if has_headings(text) or not (first or says_nothing(text)):
                words = max(words, summary_in_words(text), key=len)
            if first and draft.summary is None:
                return Reminder(NUDGE_NO_SUMMARY, write_summary.name)
            if first and not draft.files and self._may_read and self._read.files:
                return Reminder(NUDGE_NO_FILE)
            return None

        await self._agent.work(
            request,
            answered=answered,
            stands=lambda error: isinstance(error, ModelError) and draft.summary is not None,
        )
        draft.source = "words" if draft.summary is None else "tool"
        if draft.summary is None and words:
            return words
        if draft.summary is None and self._by_hand:
            raise CompactionFailed(NO_SUMMARY)
        return draft.summary
