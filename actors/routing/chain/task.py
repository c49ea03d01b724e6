"""What a chain reads from a request, pure: the task, the tier it is at, and what a tier is to be shown."""

from __future__ import annotations

from collections.abc import Container, Iterable, Sequence
from typing import Any, Literal

from msgspec import Struct
from msgspec.structs import replace

from actors.llm.base import Request
from actors.llm.output import Misfit, parse_output
from protocol.items import AssistantItem, Item, TextPart, UserItem
from protocol.model_settings import ModelSettings
from protocol.routing import AttemptRecord
from protocol.tools import ToolSpec

#: Which tools a tier is offered whose answer may be rejected.
ToolRule = Literal["read_only", "all", "none"]
#: How the feedback begins where a verifier gave no verdict: it is not of the answer.
NO_VERDICT = "verifier error: "
#: What stands between a task and the feedback to an answer before.
_FEEDBACK = "\n\nPrior attempt feedback: "


class Progress(Struct):
    """How far a task is, kept in a request's scratch; lost when a history is read back."""

    #: With what the task begins: another item there is another task.
    first: Item | None
    #: The order of the tiers by their places in the chain, and which of them, in that order, is asked next.
    order: tuple[int, ...]
    next: int = 0
    #: Whether that is where it goes on, since what was shown of a tier broke, and how often that one did.
    goes_on: bool = False
    broke: int = 0
    #: What verifiers said of earlier tiers, how far behind the task's beginning the words stand that this
    #: joins, and what came of these tiers.
    notes: tuple[str, ...] = ()
    words: int | None = None
    #: Whether a tier's model was loaded when it was asked first, by the tier's place.
    warm: dict[int, bool] = {}
    attempts: tuple[AttemptRecord, ...] = ()
    errors: tuple[tuple[str, str], ...] = ()
    best: str | None = None


def task_start(request: Request) -> int:
    """The index of the item with which the task at hand begins: behind the last answer that was whole, where
    who asks does not say.
    """
    items = request.items
    if request.task_items is not None:
        return max(0, len(items) - request.task_items)
    for index in range(len(items) - 1, -1, -1):
        item = items[index]
        if type(item) is AssistantItem and not item.calls and not item.cut:
            return index + 1
    return 0


def task_words(items: Sequence[Item], at: int) -> str:
    """What the user asks for in the task that begins there."""
    words = (item.text for item in items[at:] if type(item) is UserItem)
    return "\n\n".join(each for each in words if each)


def tier_at_work(items: Sequence[Item], at: int, names: Sequence[str]) -> int | None:
    """The place of the tier that has answered last in this task: it goes on with its calls."""
    for item in reversed(items[at:]):
        if type(item) is AssistantItem:
            return _place(item.tier, names)
    return None


def _place(tier: str | None, names: Sequence[str]) -> int | None:
    """The place of a tier by its name, or of the chain within the chain that it is in."""
    for part in (tier or "").split(" > "):
        if part in names:
            return names.index(part)
    return None


def unique(names: Iterable[str]) -> tuple[str, ...]:
    """The names of tiers; a model that is asked more than once has numbers from the second time on."""
    seen: dict[str, int] = {}
    made = []
    for each in names:
        count = seen[each] = seen.get(each, 0) + 1
        made.append(each if count == 1 else f"{each}#{count}")
    return tuple(made)


def with_feedback(items: Sequence[Item], at: int | None, notes: Sequence[str]) -> Sequence[Item]:
    """The history as shown to a later tier: the words at that place end with what was said about earlier
    answers.
    """
    if at is None or not notes:
        return items
    item = items[at]
    assert isinstance(item, UserItem)
    feedback, content = "".join(_FEEDBACK + each for each in notes), item.content
    if content and type(content[-1]) is TextPart and content[-1].vendor is None:
        feedback, content = content[-1].text + feedback, content[:-1]
    return [*items[:at], UserItem((*content, TextPart(feedback))), *items[at + 1 :]]


def notes_of(attempts: Iterable[AttemptRecord], models: Container[str]) -> tuple[str, ...]:
    """What was said of rejected answers of these models, as records of the attempts have it."""
    return tuple(
        each.feedback
        for each in attempts
        if each.verdict == "escalate"
        and each.model in models
        and each.feedback
        and not each.feedback.startswith(NO_VERDICT)
    )


def first_words_at(items: Sequence[Item], at: int) -> int | None:
    """Where the user's last words stand that the first answer of a task had before it."""
    answered = (n for n in range(at, len(items)) if type(items[n]) is AssistantItem)
    return last_words_at(items[: next(answered, len(items))], at)


def last_words_at(items: Sequence[Item], at: int) -> int | None:
    """Where the user's last words of a task stand."""
    return next((n for n in range(len(items) - 1, at - 1, -1) if type(items[n]) is UserItem), None)


def offered(tools: tuple[ToolSpec, ...], rule: ToolRule) -> tuple[ToolSpec, ...]:
    """The tools that are offered to a tier whose answer may be rejected."""
    if rule == "all":
        return tools
    return tuple(each for each in tools if rule == "read_only" and each.concurrency == "read_only")


def choosing(settings: ModelSettings | None, tools: tuple[ToolSpec, ...]) -> ModelSettings | None:
    """The settings without a choice of a tool that is not offered."""
    if settings is None or settings.tool_choice in {None, "auto", "none"}:
        return settings
    names = {each.name for each in tools}
    fits = settings.tool_choice in names or (settings.tool_choice == "required" and names)
    return settings if fits else replace(settings, tool_choice=None)


def misfit(request: Request, text: str) -> str | None:
    """Why an answer does not have the form that was asked for; None if it has."""
    if request.output_kind is not None:
        read = parse_output(text, request.output_kind)
        return read.why if isinstance(read, Misfit) else None
    if request.output_schema is None:
        return None
    read = parse_output(text, dict[str, Any])
    if isinstance(read, Misfit):
        return read.why
    missing = set(request.output_schema.get("required", ())) - read.value.keys()
    return f"The answer lacks {', '.join(sorted(missing))}." if missing else None


def scratch_of(request: Request, tier: str, shown: tuple[Any, ...] = ()) -> dict[str, Any]:
    """What the client of a tier keeps from request to request. ``shown`` is what it is shown otherwise than
    the history has it: where that is another than before it begins anew.
    """
    tiers: dict[str, Any] = request.scratch.setdefault("chain.tiers", {})
    slot = f"{tier} after feedback" if shown else tier
    before, kept = tiers.get(slot, ((), {}))
    if slot not in tiers or before != shown:
        kept = {}
        tiers[slot] = (shown, kept)
    made: dict[str, Any] = kept
    return made


def progress_of(request: Request, at: int) -> Progress | None:
    """How far the task that begins there is; None if nothing is known of it."""
    kept: Progress | None = request.scratch.get(_PROGRESS)
    first = request.items[at] if at < len(request.items) else None
    return kept if kept is not None and kept.first is first else None


def keep_progress(request: Request, progress: Progress) -> None:
    """Keep how far the task is, for the next request."""
    request.scratch[_PROGRESS] = progress


_PROGRESS = "chain.progress"
