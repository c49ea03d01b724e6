"""What servers of Anthropic's format understand, pure: known beforehand or learnt from their refusals."""

from __future__ import annotations

import re

import msgspec
from msgspec import Struct

from actors.llm.picture_refusals import SEES_NONE


class Dialect(Struct, frozen=True):
    """What a model or server understands of a request; learnt from its refusals.

    ``reasoning``: it takes reasoning back, ``unsigned`` that without a signature too. ``thinking_option``: it
    can be asked to think, within a budget (``budgets``) or as long as it decides (``adaptive``), and not to
    (``switchable``). ``alternate``: results and a user's words share one message.
    """

    temperature: bool = True
    forced_answer: bool = True
    caching: bool = True
    reasoning: bool = True
    unsigned: bool = True
    thinking_option: bool = True
    adaptive: bool = True
    budgets: bool = True
    switchable: bool = True
    alternate: bool = False
    images: bool = True


def adapted(dialect: Dialect, words: str, *, unsigned: bool = False) -> Dialect | None:
    """The dialect for a server that refused a request with ``words``; None where they say nothing of it.

    ``unsigned``: the request had reasoning without a signature.
    """
    words = words.lower()
    for field, learnt, about in _REFUSED:
        if field == "unsigned" and not unsigned:
            continue
        if getattr(dialect, field) != learnt and re.search(about, words):
            return msgspec.structs.replace(dialect, **{field: learnt})
    return None


_NOT = r".{0,40}\b(not (supported|available|allowed)|unsupported|unknown|n't support|invalid)"
#: What refusals say of each; reasoning is refused where another model's was sent back, or none.
_REFUSED: tuple[tuple[str, bool, str], ...] = (
    ("caching", False, r"cache_control"),
    ("forced_answer", False, r"tool_choice|tool choice|forced tool|forces tool"),
    ("budgets", False, r"thinking\.type\.enabled\W{1,3}(is )?not supported"),
    ("switchable", False, r"thinking\.type\.disabled\W{1,3}(is )?not supported"),
    ("adaptive", False, rf"adaptive{_NOT}|enabled\W{{1,4}}(or|and)\W{{1,4}}disabled"),
    ("temperature", False, r"temperature"),
    ("thinking_option", False, r"must start with a thinking block|expected `?thinking`?.*found"),
    ("alternate", True, r"must alternate|alternat\w+ (user|between)|unexpected role|multiple .?user.? roles"),
    ("unsigned", False, r"signature|thinking block"),
    ("reasoning", False, r"signature|thinking block|redacted_thinking|`thinking`"),
    ("images", False, SEES_NONE),
)
