"""Decides when to compact, how much to keep, and when to give up; pure."""

from __future__ import annotations

from typing import Literal, Self

from msgspec import Struct

from protocol.errors import CompactionFailed
from protocol.events import CompactReason
from protocol.manifest import CompactionSection, MemorySection, PodManifest

#: The breaker opens after so many automatic compactions that fail in a row.
BREAKER_AT = 3
#: The least number of answered requests between two compactions of one run.
REQUESTS_BETWEEN = 2
#: An automatic compaction of more tokens than this must shrink the history.
MUST_SHRINK_ABOVE = 2000
#: The largest share of the context window that the summariser's request may take, since its tokens are
#: estimated, and its answer must fit too.
SUMMARISER_SHARE = 0.75
#: The most that a summariser reads if no context window is known.
SUMMARISER_TOKENS = 50_000
#: The least that a summariser is given to read, however small the window.
LEAST_SUMMARISER_TOKENS = 256
#: The most tokens of a summary, the most as a part of the room (one sixth), and the least that it gets.
SUMMARY_TOKENS = 4000
SUMMARY_PART = 6
LEAST_SUMMARY_TOKENS = 256
#: The most that one answer of a memory job takes.
NOTES_TOKENS = 4000
#: The most tokens of all required files' texts together, and the most as a part of the room (one eighth).
REQUIRED_TOKENS = 8000
REQUIRED_PART = 8
#: Bounds of the user's own words in a summary, which get a quarter of what was there, and the most as a
#: fraction of the room (one sixth).
LEAST_WORDS_TOKENS = 256
MOST_WORDS_TOKENS = 2000
WORDS_PART = 6

Verdict = Literal["send", "compact", "thrash"]

THRASH = "compaction thrash: context still exceeds threshold immediately after compact"


class Limits(Struct, frozen=True):
    """A manifest's settings for compaction, in tokens; a threshold that is unset (None) or 0 never fires."""

    before_run: int | None
    before_request: int | None
    retained: int
    context_window: int | None = None

    @classmethod
    def of(cls, manifest: PodManifest) -> Self:
        """The limits of a manifest."""
        section: CompactionSection = manifest.compaction
        return cls(
            section.compact_threshold,
            section.compact_request_threshold,
            section.compact_retained_tokens,
            manifest.model.context_window,
        )

    @property
    def room(self) -> int | None:
        """The size to which a history may grow before it is compacted again, None if unknown."""
        return min(filter(None, (self.context_window, self.before_request, self.before_run)), default=None)

    def within(self, window: int | None) -> Limits:
        """The limits, given the ``window`` that a server has reported, which counts more than the
        manifest.
        """
        if window is None:
            return self
        return Limits(self.before_run, self.before_request, self.retained, window)

    def warnings(self) -> list[str]:
        """Limits that cannot be meant, in words for a person."""
        found = []
        if self.before_run and self.before_request and self.before_request < self.before_run:
            found.append(
                f"compact_request_threshold ({self.before_request}) is below compact_threshold "
                f"({self.before_run}): runs will be interrupted for compactions that could "
                "happen before them; swap the two"
            )
        window, most = self.context_window, self.before_request or self.before_run
        if window and most and most >= window:
            found.append(
                f"the compaction threshold ({most}) is not below the model's context_window "
                f"({window}): only the server's overflow error can start a compaction"
            )
        return found

    def retained_for(self, reason: CompactReason, occupancy: int, wanted: int | None = None) -> int:
        """How much of the end to keep: as ``wanted`` or configured. An automatic compaction keeps at most
        half of what it finds, one after an overflow at most a quarter.
        """
        retained = self.retained if wanted is None else wanted
        if reason == "manual":
            return retained
        bound = occupancy if self.context_window is None else min(occupancy, self.context_window)
        return min(retained, bound // (4 if reason == "overflow" else 2))


class Guard(Struct, frozen=True):
    """What a pod remembers of its compactions, so that it does not retry in vain for ever.

    ``failures`` counts the automatic ones that failed in a row. ``answered`` counts the requests of this run
    that were answered since its last compaction (None: it had none). ``overflowed`` says that the current
    request has had its emergency compaction. ``fresh`` says that no request was answered since the last
    compaction of any kind.
    """

    failures: int = 0
    answered: int | None = None
    overflowed: bool = False
    fresh: bool = False

    @property
    def open(self) -> bool:
        """Whether the breaker is open: automatic compactions are no longer tried."""
        return self.failures >= BREAKER_AT

    def run_started(self) -> Guard:
        """The guard after a run has begun; a compaction just before it still spares its first request the
        check.
        """
        if self.answered is None and not self.overflowed:
            return self
        return Guard(self.failures, None, False, self.fresh)

    def request_answered(self) -> Guard:
        """The guard after the model has answered a request of the run."""
        if self.answered is None and not self.overflowed and not self.fresh:
            return self
        return Guard(self.failures, None if self.answered is None else self.answered + 1)

    def compacted(self, reason: CompactReason) -> Guard:
        """The guard after a successful compaction; only a manual one closes the breaker."""
        failures = self.failures if self.open and reason != "manual" else 0
        if reason in {"request_threshold", "overflow"}:
            return Guard(failures, 0, self.overflowed or reason == "overflow", True)
        return Guard(failures, self.answered, self.overflowed, True)

    def failed(self, reason: CompactReason) -> Guard:
        """The guard after a failed compaction; only automatic ones count."""
        if reason == "manual":
            return self
        overflowed = self.overflowed or reason == "overflow"
        return Guard(self.failures + 1, self.answered, overflowed, self.fresh)


def before_run(limits: Limits, guard: Guard, occupancy: int, items: int) -> bool:
    """Whether to compact at the start of a run, before its input is logged; never twice without an answer in
    between.
    """
    return exceeds(occupancy, limits.before_run) and items > 0 and not guard.fresh and not guard.open


def before_request(limits: Limits, guard: Guard, occupancy: int, items: int) -> Verdict:
    """What to do before a request of a run: send it, compact first, or end the run with ``THRASH``.

    The request after a compaction is always sent.
    """
    if not exceeds(occupancy, limits.before_request) or items == 0 or guard.fresh or guard.open:
        return "send"
    if guard.answered is not None and guard.answered < REQUESTS_BETWEEN:
        return "thrash"
    return "compact"


def can_shrink(occupancy: int, kept: int) -> bool:
    """Whether a compaction that keeps ``kept`` tokens as they are can be expected to shrink the history, if
    it has to: a short summary must fit beside them.
    """
    return occupancy <= MUST_SHRINK_ABOVE or kept + LEAST_SUMMARY_TOKENS < occupancy


def after_overflow(guard: Guard, items: int) -> bool:
    """Whether to answer a provider's overflow error by an emergency compaction: once per request, and if
    there is more than the one item that has to stay. Also with the breaker open; then the compaction is made
    ``without_model``.
    """
    return items > 1 and not guard.overflowed


def without_model(reason: CompactReason, guard: Guard) -> bool:
    """Whether to compact without the summariser: it has failed too often lately, and the server accepts no
    request as long as this one.
    """
    return reason == "overflow" and guard.open


def exceeds(occupancy: int, threshold: int | None) -> bool:
    """Whether a threshold fires: only above it; None and 0 never do."""
    return threshold is not None and 0 < threshold < occupancy


def check_shrunk(reason: CompactReason, before: int, after: int) -> None:
    """Raise CompactionFailed if an automatic compaction had to shrink the history and did not."""
    if reason != "manual" and before > MUST_SHRINK_ABOVE and after >= before:
        raise CompactionFailed(
            f"compaction did not shrink the history: {before} tokens before, {after} after",
            hint="lower compact_retained_tokens, or mark fewer files as required",
        )


def summariser_budget(context_window: int | None, answer_tokens: int, fixed_tokens: int) -> int:
    """The tokens of history that a summariser can be given in one request.

    ``answer_tokens`` are left free for its answer; ``fixed_tokens`` are its prompt and tools.
    """
    if context_window is None:
        return SUMMARISER_TOKENS
    free = int(context_window * SUMMARISER_SHARE) - answer_tokens - fixed_tokens
    return max(LEAST_SUMMARISER_TOKENS, min(SUMMARISER_TOKENS, free))


def summary_budget(room: int | None) -> int:
    """The tokens that a summary may take of the ``room`` for a history (None: unknown)."""
    if room is None:
        return SUMMARY_TOKENS
    return max(LEAST_SUMMARY_TOKENS, min(SUMMARY_TOKENS, room // SUMMARY_PART))


def notes_budget(window: int | None) -> int:
    """The most tokens of one answer of a memory job, given a context ``window`` (None: unknown); a weak model
    would otherwise go on until the window is full.
    """
    if window is None:
        return NOTES_TOKENS
    return max(LEAST_SUMMARY_TOKENS, min(NOTES_TOKENS, window // SUMMARY_PART))


def required_budget(room: int | None) -> int:
    """The tokens that the texts of required files may take together of the ``room`` for a history."""
    return REQUIRED_TOKENS if room is None else min(REQUIRED_TOKENS, room // REQUIRED_PART)


def words_budget(reason: CompactReason, occupancy: int, room: int | None) -> int:
    """The tokens that the user's own words may take in a summary. A manual compaction need not shrink
    anything, so repeated ones forget nothing.
    """
    bounds = [MOST_WORDS_TOKENS]
    if reason != "manual":
        bounds.append(occupancy // 4)
    if room is not None:
        bounds.append(room // WORDS_PART)
    return max(LEAST_WORDS_TOKENS, min(bounds))


def extraction_due(section: MemorySection, new_tokens: int) -> bool:
    """Whether to start a memory extraction: ``new_tokens`` were added since the last one (0 is off)."""
    threshold = section.extract_threshold
    return threshold is not None and 0 < threshold <= new_tokens


def consolidation_due(section: MemorySection, files: int, size: int) -> bool:
    """Whether to consolidate: there are so many staged files or bytes (0 is off)."""
    by_files = section.consolidate_files > 0 and files >= section.consolidate_files
    return by_files or (section.consolidate_bytes > 0 and size >= section.consolidate_bytes)
