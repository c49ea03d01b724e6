"""A prompt that does not fit is known by the words of any server, and nothing else is taken for one."""

import json
import re

import pytest
from hypothesis import given
from hypothesis import strategies as st

from actors.llm.errors import classify
from actors.llm.overflow import NO_OVERFLOW, SHAPES, overflow_of
from protocol.errors import ModelError


def refused(status: int | None, body: object) -> ModelError:
    data = body if isinstance(body, bytes) else json.dumps(body).encode()
    return classify(status, {}, data, where="host:1")


def said(message: str, kind: str = "", code: object = None) -> dict:
    return {"error": {"message": message, "type": kind, "code": code}}


#: Words of real servers, with the tokens of the prompt and the room they say.
OVERFLOWS: dict[str, tuple[object, int | None, int | None]] = {
    "anthropic": (said("prompt is too long: 213462 tokens > 200000 maximum"), 213462, 200000),
    "anthropic with max_tokens": (
        said(
            "input length and `max_tokens` exceed context limit: 188240 + 21333 > 200000, decrease input length"
        ),
        188240,
        200000,
    ),
    "anthropic by size": (said("Request exceeds the maximum size", "request_too_large"), None, None),
    "openai": (
        said(
            "Your input exceeds the context window of this model. Please adjust your input and try again.",
            "invalid_request_error",
        ),
        None,
        None,
    ),
    "openai by code": (said("no", "invalid_request_error", "context_length_exceeded"), None, None),
    "openai, old": (
        said(
            "This model's maximum context length is 8191 tokens, however you requested 10346 tokens (10346 in "
            "your prompt; 0 for the completion). Please reduce your prompt; or completion length."
        ),
        10346,
        8191,
    ),
    "openai, messages": (
        said(
            "This model's maximum context length is 4097 tokens. However, your messages resulted in 5747 tokens."
        ),
        5747,
        4097,
    ),
    "openai, one message": (
        said(
            "Invalid 'messages[1].content': string too long. Expected a string with maximum length 1048576, "
            "but got a string with length 1324521 instead.",
            "invalid_request_error",
            "string_above_max_length",
        ),
        None,
        None,
    ),
    "azure": (
        said(
            "Input tokens exceed the configured limit of 272000 tokens. Your messages resulted in 509178 tokens."
        ),
        509178,
        272000,
    ),
    "deepseek": (
        said(
            "This model's maximum context length is 131072 tokens. However, you requested 133034 tokens (125034 "
            "in the messages, 8000 in the completion). Please reduce the length of the messages or completion."
        ),
        125034,
        131072,
    ),
    "openrouter": (
        said(
            "This endpoint's maximum context length is 32768 tokens. However, you requested about 50000 tokens "
            "(41000 of text input, 9000 in the output)."
        ),
        50000,
        32768,
    ),
    "vllm, decoder": (
        said(
            "The decoder prompt (length 163840) is longer than the maximum model length of 131072. Make sure that "
            "`max_model_len` is no smaller than the number of text tokens plus multimodal tokens. For image inputs, "
            "the number of image tokens depends on the number of images, and possibly their aspect ratios as well.",
            "BadRequestError",
            400,
        ),
        163840,
        131072,
    ),
    "vllm, new": (
        said(
            "This model's maximum context length is 262144 tokens. However, you requested 0 output tokens and your "
            "prompt contains at least 262145 input tokens, for a total of at least 262145 tokens."
        ),
        262145,
        262144,
    ),
    "vllm, prompt and answer": (
        said(
            "'max_tokens' or 'max_completion_tokens' is too large: 2000. This model's maximum context length is "
            "4096 tokens and your request has 2104 input tokens (2000 > 4096 - 2104)."
        ),
        2104,
        4096,
    ),
    "vllm, engine": (
        said("The engine prompt length 227861 exceeds the max_model_len 131072. Please reduce prompt."),
        227861,
        131072,
    ),
    "sglang": (
        said("The input (5012 tokens) is longer than the model's context length (4096 tokens)."),
        5012,
        4096,
    ),
    "sglang, total": (
        said(
            "Requested token count exceeds the model's maximum context length of 131072 tokens. You requested a "
            "total of 140000 tokens: 130000 tokens from the input messages and 10000 tokens for the completion."
        ),
        140000,
        131072,
    ),
    "chutes": (
        said("Input length (265330) exceeds model's maximum context length (262144)."),
        265330,
        262144,
    ),
    "tgi": (
        {
            "error": "Input validation error: `inputs` tokens + `max_new_tokens` must be <= 4096. Given: 5000 "
            "`inputs` tokens and 100 `max_new_tokens`",
            "error_type": "validation",
        },
        5000,
        4096,
    ),
    "tgi, inputs": (
        {"error": "Input validation error: `inputs` must have less than 1024 tokens. Given: 2300"},
        2300,
        1024,
    ),
    "llama.cpp": (
        said("request (36011 tokens) exceeds the available context size (4096 tokens), try increasing it"),
        36011,
        4096,
    ),
    "llama.cpp, old": (
        said("the request exceeds the available context size. try increasing the context size"),
        None,
        None,
    ),
    "llama.cpp, typed": (
        {"error": {"code": 400, "type": "exceed_context_size_error", "n_prompt_tokens": 5, "n_ctx": 4}},
        5,
        4,
    ),
    "llama-cpp-python": (said("Requested tokens (5231) exceed context window of 4096"), 5231, 4096),
    "tabbyapi": (said("Context length 9000 is greater than max_seq_len 8192"), 9000, 8192),
    "lm studio": (
        {
            "error": "Trying to keep the first 111490 tokens when context the overflows. However, the model is loaded "
            "with context length of only 32768 tokens, which is not enough."
        },
        111490,
        32768,
    ),
    "lm studio, keep": (
        {"error": "The number of tokens to keep from the initial prompt is greater than the context length."},
        None,
        None,
    ),
    "lm studio, mid answer": (
        {"error": "Reached context length of 4096 tokens with model (arch: llama) that does not support it."},
        None,
        4096,
    ),
    "lm studio, mlx": ({"error": "Context size has been exceeded."}, None, None),
    "ollama": (said("the input length exceeds the context length"), None, None),
    "ollama cloud": (said("prompt too long; exceeded max context length by 4 tokens"), None, None),
    "ollama, bare": (said("context length exceeded, too many tokens"), None, None),
    "gemini": (
        [
            {
                "error": {
                    "code": 400,
                    "message": "The input token count (1200293) exceeds the maximum number of tokens allowed (1048576).",
                    "status": "INVALID_ARGUMENT",
                }
            }
        ],
        1200293,
        1048576,
    ),
    "vertex": (said("input exceeds the maximum number of tokens", "INVALID_ARGUMENT"), None, None),
    "bedrock": ({"message": "Input is too long for requested model."}, None, None),
    "bedrock, bytes": ({"message": "too many total text bytes: 30000000 > 25000000"}, None, None),
    "bedrock, nova": (
        {"message": "Input Tokens Exceeded: Number of input tokens exceeds maximum length."},
        None,
        None,
    ),
    "bedrock, count": (
        {"message": "Input token count exceeds the maximum number of input tokens"},
        None,
        None,
    ),
    "bedrock, titan": (
        {"message": "Too many input tokens. Max input tokens: 8192, request input token count: 9000"},
        9000,
        8192,
    ),
    "mistral": (
        {
            "object": "error",
            "message": "Prompt contains 60000 tokens and 0 draft tokens, too large for model with 32768 maximum "
            "context length",
            "type": "invalid_request_prompt_too_long",
            "code": "3051",
        },
        60000,
        32768,
    ),
    "xai": (
        {
            "code": "invalid-argument",
            "error": "This model's maximum prompt length is 131072 but the request contains 537812 tokens.",
        },
        537812,
        131072,
    ),
    "groq": (said("Please reduce the length of the messages or completion."), None, None),
    "cerebras": (
        {
            "message": "Please reduce the length of the messages or completion. Current length is 9000 while limit "
            "is 8192",
            "code": "context_length_exceeded",
        },
        9000,
        8192,
    ),
    "cohere": (
        {
            "message": "too many tokens: total number of tokens in the prompt cannot exceed 4081 - received 4292. Try "
            "using a shorter prompt"
        },
        4292,
        4081,
    ),
    "cohere, chat": (
        {
            "message": "too many tokens: size limit exceeded by 11326 tokens. Try using shorter or fewer inputs. The "
            "limit for this model is 288000 tokens."
        },
        None,
        288000,
    ),
    "github copilot": (
        said(
            "prompt token count of 130001 exceeds the limit of 128000", "", "model_max_prompt_tokens_exceeded"
        ),
        130001,
        128000,
    ),
    "kimi": (
        said("Invalid request: Your request exceeded model token limit: 262144 (requested: 300000)"),
        300000,
        262144,
    ),
    "minimax": (said("invalid params, context window exceeds limit (2013)"), None, None),
    "z.ai": (said("tokens in request more than max tokens allowed", "", "1210"), None, None),
    "z.ai, prompt": (said("Prompt exceeds max length", "", "1261"), None, None),
    "dashscope": (
        said("<400> InternalError.Algo.InvalidParameter: Range of input length should be [1, 129024]"),
        None,
        129024,
    ),
    "poolside": (
        said("Input length 131393 exceeds the maximum allowed input length of 131040 tokens."),
        131393,
        131040,
    ),
    "ds4": (
        said("Prompt has 12,345 tokens, but the configured context size is 8,192 tokens"),
        12345,
        8192,
    ),
    "cloudflare": (
        {
            "errors": [
                {
                    "code": 5021,
                    "message": "AiError: The estimated number of input and maximum output tokens (9000) exceeded this "
                    "model context window limit (8192).",
                }
            ]
        },
        9000,
        8192,
    ),
    "mlx-serve": (said("Prompt exceeds maximum context length"), None, None),
    "localai": (
        said("rpc error: code = Internal desc = the request exceeds the available context size"),
        None,
        None,
    ),
    "gpt4all": (
        said("ERROR: The prompt size exceeds the context window size and cannot be processed."),
        None,
        None,
    ),
    "litellm": (
        said("litellm.ContextWindowExceededError: litellm.BadRequestError: this does not fit"),
        None,
        None,
    ),
    "litellm, wrapped": (
        said(
            "litellm.BadRequestError: AnthropicException - "
            '{"type":"error","error":{"type":"invalid_request_error","message":"prompt is too long: 213462 tokens > '
            '200000 maximum"}}'
        ),
        213462,
        200000,
    ),
    "openrouter, wrapped": (
        {
            "error": {
                "message": "Provider returned error",
                "code": 400,
                "metadata": {"raw": json.dumps(said("Input is too long for requested model."))},
            }
        },
        None,
        None,
    ),
    "vllm, nothing left": (said("max_tokens must be at least 1, got -1054."), None, None),
    "kimi, old": (said("Invalid request: Your request exceeded model token limit: 8192"), None, None),
    "novita": (said("the context length exceeds limit"), None, None),
    "doubao": (said("Total tokens of image and text exceed max message tokens."), None, None),
    "ernie": ({"error_code": 336103, "error_msg": "prompt tokens too long"}, None, None),
    "snowflake": ({"message": "max tokens of 4096 exceeded"}, None, 4096),
    "databricks": ({"message": "Input length 9000 exceeds maximum of 8192"}, 9000, 8192),
    "github models": (
        said("Request body too large for gpt-4o model. Max size: 8000 tokens.", "", "tokens_limit_reached"),
        None,
        8000,
    ),
    "a gateway": (said("Model context window is 128k tokens, you requested 256k tokens"), None, None),
    "another gateway": (said("Model context window is 128000 tokens, you requested 256000"), 256000, 128000),
    "a third": (said("The prompt exceeds the model's limit"), None, None),
    "a fourth": (said("Context overflow: prompt too large for the model."), None, None),
    "without a number": (said("This model's maximum context length is 128k tokens."), None, None),
    "spring": ({"status": 400, "error": "Bad Request", "message": "context length exceeded"}, None, None),
    "chinese": (said("输入内容超过最大长度限制"), None, None),
}

#: Words that speak of lengths, limits, tokens or contexts and mean something else.
OTHERS: dict[str, tuple[int, object, str]] = {
    "groq, tokens per minute": (
        413,
        said(
            "Request too large for model `llama` in organization `o` on tokens per minute (TPM): Limit 6000, "
            "Requested 6500, please reduce your message size and try again.",
            "tokens",
            "rate_limit_exceeded",
        ),
        "rate_limit",
    ),
    "groq, output tokens per minute": (
        429,
        said(
            "Request too large for model `x` on output tokens per minute (OTPM): Limit 1000, Requested 2048"
        ),
        "rate_limit",
    ),
    "openai, tokens per minute": (
        429,
        said("Request too large for gpt-4 on tokens per min (TPM): Limit 10000, Requested 12000.", "tokens"),
        "rate_limit",
    ),
    "anthropic, tokens per minute": (
        429,
        said("This request would exceed your organization's rate limit of 40,000 input tokens per minute."),
        "rate_limit",
    ),
    "bedrock, throttled": (
        429,
        {"message": "Too many tokens, please wait before trying again.", "__type": "ThrottlingException"},
        "rate_limit",
    ),
    "a day's tokens": (
        429,
        said("request reached organization TPD rate limit, current: 1506556, limit: 1500000"),
        "rate_limit",
    ),
    "openai, max_tokens": (
        400,
        said("max_tokens is too large: 5000. This model supports at most 4096 completion tokens"),
        "invalid_request",
    ),
    "anthropic, max_tokens": (
        400,
        said("max_tokens: 300000 > 64000, which is the maximum allowed number of output tokens for claude"),
        "invalid_request",
    ),
    "groq, max_tokens": (
        400,
        said(
            "`max_tokens` must be less than or equal to `16384`, the maximum value for `max_tokens` is less than the "
            "`context_window` for this model"
        ),
        "invalid_request",
    ),
    "bedrock, max_tokens": (
        400,
        {
            "message": "The maximum tokens you requested exceeds the model limit of 2048. Try again with a maximum "
            "tokens value that is lower than 2048."
        },
        "invalid_request",
    ),
    "vertex, max_tokens": (
        400,
        said(
            "Unable to submit request because it has a maxOutputTokens value of 100000 but the supported range is "
            "from 1 (inclusive) to 65537 (exclusive)."
        ),
        "invalid_request",
    ),
    "dashscope, max_tokens": (400, said("Range of max_tokens should be [1, 8192]"), "invalid_request"),
    "deepseek, max_tokens": (
        400,
        said("Invalid max_tokens value, the valid range of max_tokens is [1, 8192]"),
        "invalid_request",
    ),
    "vllm, max_tokens alone": (
        400,
        said(
            "'max_tokens' or 'max_completion_tokens' is too large: 8192. This model's maximum context length is 4096 "
            "tokens and your request has 30 input tokens (8192 > 4096 - 30).",
            "BadRequestError",
            400,
        ),
        "invalid_request",
    ),
    "openai, max_tokens alone": (
        400,
        said(
            "This model's maximum context length is 4097 tokens. However, you requested 5020 tokens (20 in the "
            "messages, 5000 in the completion)."
        ),
        "invalid_request",
    ),
    "anthropic, an image": (
        400,
        said(
            "messages.0.content.1.image.source.base64: image exceeds 5 MB maximum: 5316852 bytes > 5242880 bytes"
        ),
        "invalid_request",
    ),
    "anthropic, many images": (
        400,
        said(
            "At least one of the image dimensions exceed max allowed size for many-image requests: 2000 pixels"
        ),
        "invalid_request",
    ),
    "an image by status": (413, said("image is too large"), "invalid_request"),
    "a tool's description": (
        400,
        said(
            "Invalid 'tools[0].function.description': string too long. Expected a string with maximum length 1024, "
            "but got a string with length 1500 instead.",
            "invalid_request_error",
            "string_above_max_length",
        ),
        "invalid_request",
    ),
    "too many tools": (
        400,
        said("Invalid 'tools': array too long. Expected an array with maximum length 128"),
        "invalid_request",
    ),
    "a user's name": (400, said("request field `user` is too long for this endpoint"), "invalid_request"),
    "a tool's argument": (
        400,
        said("Tool argument validation failed: input length exceeds 1000 characters"),
        "invalid_request",
    ),
    "a deadline": (504, said("context deadline exceeded"), "timeout"),
    "a cancelled context": (500, said("context canceled"), "server"),
    "a model too small": (
        400,
        said("Model context window too small (minimum is 128k tokens)"),
        "invalid_request",
    ),
    "a context that is fine": (400, said("The context is large, but acceptable."), "invalid_request"),
    "a cache": (400, said("Cached content is too small. total_token_count=500, min=4096"), "invalid_request"),
    "a quota": (429, said("You exceeded your current quota", "insufficient_quota"), "billing"),
    "a path": (404, said("context_length_exceeded is not a path"), "not_found"),
}


@pytest.mark.parametrize(("body", "used", "room"), OVERFLOWS.values(), ids=OVERFLOWS)
@pytest.mark.parametrize("status", [400, 500, None])
def test_an_overflow_is_known_by_the_words_of_any_server(status, body, used, room):
    error = refused(status, body)
    assert error.kind == "context_overflow"
    assert not error.retryable
    assert (error.prompt_tokens, error.context_window) == (used, room)


@pytest.mark.parametrize(("status", "body", "kind"), OTHERS.values(), ids=OTHERS)
def test_what_speaks_of_limits_and_is_no_overflow_is_not_taken_for_one(status, body, kind):
    error = refused(status, body)
    assert error.kind == kind
    assert (error.prompt_tokens, error.context_window) == (None, None)


def test_a_request_beyond_the_tokens_of_a_minute_is_not_sent_again_as_it_is():
    status, body, _ = OTHERS["groq, tokens per minute"]
    error = refused(status, body)
    assert not error.retryable
    assert "smaller" in error.hint


def test_every_shape_is_needed_by_one_of_the_words_here():
    words = [json.dumps(body, ensure_ascii=False) for body, _, _ in OVERFLOWS.values()]
    missing = [
        source
        for source, shapes in SHAPES.items()
        if not any(_fits(shape, each) for shape in shapes for each in words)
    ]
    assert missing == ["TensorRT-LLM", "SambaNova"]  # known from reports that give no whole body
    others = [json.dumps(body) for _, body, _ in OTHERS.values()]
    assert all(
        any(_fits(shape, each) for shape in shapes for each in others) for shapes in NO_OVERFLOW.values()
    )


def _fits(shape: str, words: str) -> bool:
    return re.search(shape, words, re.IGNORECASE | re.DOTALL) is not None


@given(
    st.text("prompt is too long: 0123456789 tokens > maximum context length is, exceeds `()'", max_size=300)
)
def test_no_words_break_the_reading(words):
    found = overflow_of("", words)
    assert found is None or all(each is None or 0 <= each < 10**15 for each in (found.used, found.room))
