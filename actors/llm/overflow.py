"""Recognises a context overflow by a server's words, pure: words in, numbers of tokens out.

A shape is how one or several servers word it, with the numbers of tokens where it has them: ``used`` by the
prompt, ``answer`` for the answer asked for, ``room`` in all. Each names where the wording was seen: the
server's own source, its documentation, or reports of its users.
"""

from __future__ import annotations

import re
from functools import cache
from typing import Any

from msgspec import Struct

#: How much of a server's words is looked through.
MAX_LOOK = 4_000


class Overflow(Struct, frozen=True):
    """A prompt that does not fit: the tokens it takes and those there are, where the server states them."""

    used: int | None = None
    room: int | None = None


def overflow_of(identifiers: str, words: str) -> Overflow | None:
    """What a refusal says of an overflow; None where it is none.

    ``identifiers`` are the server's own types and codes, which decide; else its ``words`` do.
    """
    words = words[:MAX_LOOK]
    found = _shape_of(words)
    if found is None or any(_matches(each, words) for shapes in NO_OVERFLOW.values() for each in shapes):
        return Overflow() if _matches(_IDENTIFIERS, identifiers) else None
    used, answer, room = (_count(found, name) for name in ("used", "answer", "room"))
    if answer is not None and room is not None and answer >= room:
        return None  # the answer asked for has no room either: no shorter history helps
    return Overflow(used, room)


def is_rate_limit(words: str) -> bool:
    """Whether words that speak of too many tokens mean tokens in a time."""
    return _matches(_RATE, words[:MAX_LOOK])


_IDENTIFIERS = (
    r"exceed_context_size_error|context_?length_?(exceeded|error)|context_?window_?exceeded|context_overflow"
    r"|(model_)?max_prompt_tokens_exceeded|prompt_too_long|input_too_long|request_too_large"
    r"|tokens_limit_reached|token_limit_exceeded"
)

#: Limits of tokens in a time: Groq (413 too), OpenAI, Anthropic, Bedrock's ThrottlingException.
_RATE = (
    r"tokens? per (second|min|minute|hour|day|month)|\b[io]?tp[md]\b|rate[ _-]?limit|too many requests"
    r"|throttl|too many tokens, please wait|exceeded your current quota"
)

#: What speaks of lengths and limits and is not an overflow of the history, by who says it.
NO_OVERFLOW: dict[str, tuple[str, ...]] = {
    "any, of tokens in a time": (_RATE,),
    "OpenAI, Azure": (
        r"at most \d+ (completion|output) tokens",
        # a field of another name than the history's
        r"invalid '?(?!messages|input)[\w.\[\]]+'?: string too long",
    ),
    "Anthropic": (
        r"maximum (allowed )?number of output tokens",
        r"\bimages?\b(?! and text)[^.]{0,60}\b(exceeds?|exceeded|too (large|big|many)|maximum of)",
        r"image dimensions|pdf pages|too many images",
    ),
    "Groq": (r"maximum value for `?max_(completion_)?tokens",),
    "Bedrock": (r"maximum tokens you requested",),
    "Vertex": (r"maxoutputtokens",),
    "DashScope, DeepSeek": (r"range of `?max_tokens",),
    "gateways": (
        r"max(imum)?[ _]output[ _]tokens (reached|limit)|output token (maximum|limit)",
        r"\btools?\b[^.]{0,40}\binput length",
    ),
}

#: A number of tokens; ``128k`` is none that could be kept to.
_N = r"\d[\d,_]{0,19}(?![\d,_]*[km]\b)"
_USED, _ROOM, _ANSWER = rf"(?P<used>{_N})", rf"(?P<room>{_N})", rf"(?P<answer>{_N})"
_MAXIMUM = rf"maximum context length is {_ROOM}"
_CONTEXT = r"context[ _](length|window|size|limit)"
#: Some words between two numbers.
_GAP = r".{0,240}?"

#: What a wording looks like, by who uses it. Of several that fit the one with the most numbers counts.
SHAPES: dict[str, tuple[str, ...]] = {
    "Anthropic; Bedrock and Vertex for Claude": (
        rf"prompt is too long: {_USED} tokens? > {_ROOM}",
        rf"input length and `?max_tokens`? exceed context limit: {_USED} \+ {_ANSWER} > {_ROOM}",
    ),
    "OpenAI, Azure, DeepSeek, OpenRouter, Together, litellm": (
        rf"{_MAXIMUM}{_GAP}\({_USED} (in|of) [^)]*?,\s*{_ANSWER} (in|for) the completion",
        rf"{_MAXIMUM}{_GAP}(resulted in|requested|contains|has) (about |at least )?{_USED}",
        rf"maximum context (length|limit) (is|of) {_ROOM}",
        r"maximum context (length|limit|window|size)",
        rf"exceed the configured limit of {_ROOM} tokens{_GAP}resulted in {_USED} tokens",
        r"input tokens exceed the configured limit",
        r"reduce the length of (the|your) (messages|prompt|input)",
        # one message beyond the bound of a string; for other fields see above
        r"expected a string with maximum length",
    ),
    "vLLM, serving_engine.py and its renderers (pull request 36197)": (
        rf"is too large: {_ANSWER}\.{_GAP}{_MAXIMUM}{_GAP}has {_USED} input tokens",
        rf"{_MAXIMUM}{_GAP}requested {_ANSWER} output tokens{_GAP}contains (at least )?{_USED} input tokens",
        rf"\(length {_USED}\) is longer than the maximum model length of {_ROOM}",
        rf"prompt length {_USED} exceeds the max_model_len {_ROOM}",
        # what is left for the answer is less than nothing
        r"max(_new|_completion)?_tokens`? must be at least 1, got -\d",
    ),
    "SGLang, tokenizer_manager.py; Together, Chutes": (
        rf"maximum context length of {_ROOM} tokens{_GAP}total of {_USED} tokens",
        rf"\({_USED}\) exceeds (the )?(model'?s )?maximum context length \({_ROOM}\)",
        rf"\({_USED} tokens\) is longer than the model'?s context length \({_ROOM} tokens\)",
    ),
    "TGI, validation.rs; Together's older models": (
        rf"`max_new_tokens` must be <= {_ROOM}\. given: {_USED} `inputs` tokens and {_ANSWER}",
        rf"`inputs` must have less than {_ROOM} tokens\. given: {_USED}",
    ),
    "TensorRT-LLM": (r"prompt length[^.]{0,40}(exceeds|should not exceed) max",),
    "llama.cpp, server": (rf"\({_USED} tokens\) exceeds (the )?available context size \({_ROOM}",),
    "llama-cpp-python, llama.py": (rf"requested tokens( \({_USED}\))? exceed context window of {_ROOM}",),
    "TabbyAPI, exllamav2 backend": (rf"length {_USED} (is greater than|exceeds) (the )?max_seq_len {_ROOM}",),
    "LM Studio": (
        rf"keep the first {_USED} tokens when context{_GAP}context length of only {_ROOM}",
        # the limit in the middle of an answer
        rf"reached context length of {_ROOM} tokens",
        r"(greater|larger|longer) than the (model'?s )?(maximum )?(context|model) (length|window|size)",
    ),
    "Ollama": (
        r"input length exceeds the (maximum|context) length",
        r"(prompt|input)( is)? too (long|large)(?! for (this )?(endpoint|field))",
    ),
    "DS4 server": (rf"prompt has {_USED} tokens?, but the configured context size is {_ROOM}",),
    "Gemini, Vertex": (
        rf"input token count \({_USED}\) exceeds the maximum number of (input )?tokens{_GAP}\({_ROOM}\)",
        r"exceeds? the maximum number of (input )?tokens|maximum allowed number of input tokens",
    ),
    "Bedrock, its own models": (
        rf"too many input tokens\. max input tokens: {_ROOM}, request input token count: {_USED}",
        r"input is too long for (the |this )?(requested )?model|too many total text bytes",
        r"input tokens exceeded|input tokens exceeds maximum length",
    ),
    "Mistral": (rf"prompt contains {_USED} tokens{_GAP}too large for model with {_ROOM} maximum context",),
    "xAI": (rf"maximum prompt length is {_ROOM} but the request contains {_USED}",),
    "Groq, Cerebras": (rf"current length is {_USED} while limit is {_ROOM}",),
    "Cohere, documentation and its chat": (
        rf"tokens? in the (prompt|request) cannot exceed {_ROOM} - received {_USED}",
        rf"size limit exceeded by \d+ tokens\.{_GAP}limit for this model is {_ROOM}",
    ),
    "GitHub Copilot": (rf"prompt token count of {_USED} exceeds the limit of {_ROOM}",),
    "GitHub Models": (rf"request body too large for [^.]{{1,60}}\. max size: {_ROOM} tokens",),
    "Kimi": (
        rf"exceeded model token limit: {_ROOM} \(requested: {_USED}\)",
        r"(exceeded|exceeds?) (the )?model('s)? token limit",
    ),
    "MiniMax, Novita": (rf"{_CONTEXT} exceeds (the )?(limit|max)",),
    "Doubao": (r"exceed max message tokens",),
    "ERNIE": (r"prompt tokens too long",),
    "Snowflake, Databricks": (
        rf"max tokens of {_ROOM} exceeded",
        rf"input length {_USED}( tokens)? exceeds (the )?(maximum|model limit)( of {_ROOM})?",
    ),
    "Z.ai, GLM (codes 1210 and 1261)": (
        r"tokens? in request more than max tokens? allowed|prompt exceeds max(imum)? length",
    ),
    "DashScope, Qwen": (rf"range of input length should be \[\d+, {_ROOM}\]",),
    "Poolside": (rf"input length {_USED}( tokens)? exceeds the maximum allowed input length of {_ROOM}",),
    "SambaNova": (rf"prompt is {_USED} tokens long{_GAP}supported sequence length is (just )?{_ROOM}",),
    "Cloudflare Workers AI": (
        rf"output tokens \({_USED}\) exceeded this model context window limit \({_ROOM}\)",
    ),
    "Chinese gateways of GLM, Qwen and Kimi": (
        r"上下文(过长|超出|长度超)|超(出|过)最大(上下文|长度)|输入长度超",
    ),
    "gateways, LocalAI, GPT4All, servers for MLX": (
        rf"context window is {_ROOM}[^.]*, you requested {_USED}",
        r"context window is \d+k tokens, you requested",
        r"prompt (token count |tokens? |length )?exceeds? (the |this )?(model|context|maximum|limit)",
        r"too many tokens:|token数量?超",
        rf"exceed(s|ed|ing)? ((the|this|its|your|model'?s?|available|max(imum)?) ){{0,4}}{_CONTEXT}",
        rf"{_CONTEXT} (is |was |has been )?(exceeded|full|overflow)",
        r"context overflow|too many tokens in (the )?(request|prompt|input|messages)|token limit exceeded",
        _IDENTIFIERS,
    ),
}


@cache
def _compiled(pattern: str) -> re.Pattern[str]:
    """Patterns are compiled when first used, which only a refusal makes them be."""
    return re.compile(pattern, re.IGNORECASE | re.DOTALL)


def _matches(pattern: str, text: str) -> bool:
    return _compiled(pattern).search(text) is not None


def _shape_of(words: str) -> re.Match[str] | None:
    """The shape that fits with the most numbers."""
    found = [
        match for shapes in SHAPES.values() for each in shapes if (match := _compiled(each).search(words))
    ]
    return max(found, key=_numbers_in, default=None)


def _numbers_in(found: re.Match[str]) -> int:
    return sum(number is not None for number in found.groupdict().values())


def _count(found: re.Match[str], name: str) -> int | None:
    groups: dict[str, Any] = found.groupdict()
    digits = re.sub(r"\D", "", groups.get(name) or "")
    return int(digits) if digits and len(digits) <= 15 else None
