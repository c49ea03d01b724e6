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
    (``switchable``). ``alternate``: results and a user's words share one message. ``long_answers``: the model
    has room for answers of VENDOR_MAX_TOKENS.
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
    long_answers: bool = False


def adapted(
    dialect: Dialect, words: str, *, unsigned: bool = False, unlimited: bool = False
) -> Dialect | None:
    """The dialect for a server that refused a request with ``words``; None where they say nothing of it.

    ``unsigned``: the request had reasoning without a signature; ``unlimited``: it did not say how long its
    answer may get.
    """
    words = words.lower()
    has = {"unsigned": unsigned, "long_answers": unlimited}
    for field, learnt, about in _REFUSED:
        if has.get(field, True) and getattr(dialect, field) != learnt and re.search(about, words):
            return msgspec.structs.replace(dialect, **{field: learnt})
    return None


#: What refusals say of each; reasoning is refused where another model's was sent back, or none. Some options
#: are refused only "in adaptive mode".
_REFUSED: tuple[tuple[str, bool, str], ...] = (
    ("caching", False, r"cache_control"),
    ("forced_answer", False, r"tool_choice|tool choice|forced tool|forces tool"),
    ("budgets", False, r"thinking\.type\.enabled\W{1,3}(is )?not supported"),
    ("switchable", False, r"thinking\.type\.disabled\W{1,3}(is )?not supported"),
    ("adaptive", False, r"(?<!in )adaptive|enabled\W{1,4}(or|and)\W{1,4}disabled"),
    ("temperature", False, r"temperature"),
    ("thinking_option", False, r"must start with a thinking block|expected `?thinking`?.*found"),
    ("alternate", True, r"must alternate|alternat\w+ (user|between)|unexpected role|multiple .?user.? roles"),
    ("unsigned", False, r"signature|thinking block"),
    ("reasoning", False, r"signature|thinking block|redacted_thinking|`thinking`"),
    ("images", False, SEES_NONE),
    (
        "long_answers",
        False,
        r"maximum (allowed )?number of output tokens|input length and `?max_tokens`? exceed context limit",
    ),
)
