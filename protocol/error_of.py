"""``error_of``: the error that a ``Failure`` of another process describes, as its class again."""

from __future__ import annotations

from protocol.errors import (
    MODEL_ERROR_KINDS,
    Failure,
    ForeignError,
    ModelError,
    PolypodError,
    RunFailed,
)


def error_of(failure: Failure) -> PolypodError:
    """The error that a failure describes: an instance of its class if that is polypod's, with the details
    that this version knows; otherwise a ForeignError.
    """
    kind = _classes().get(failure.kind)
    message, hint, details = failure.message, failure.hint, failure.details
    of_no_kind = details.get("kind") not in list(MODEL_ERROR_KINDS)
    if kind is None or issubclass(kind, ForeignError) or (issubclass(kind, ModelError) and of_no_kind):
        return ForeignError(message, kind=failure.kind, hint=hint, details=details)
    if issubclass(kind, RunFailed):
        of_cause = {key: value for key, value in details.items() if key not in {"cause", "run_id"}}
        cause = Failure(str(details.get("cause", "PolypodError")), message, hint, of_cause)
        return RunFailed(error_of(cause), run_id=details.get("run_id"))
    error = kind.__new__(kind)
    if isinstance(error, ModelError):
        known = {key: value for key, value in details.items() if key in _OF_MODELS}
        ModelError.__init__(error, message, hint=hint, **known)
        error.take_details(details)
    else:
        PolypodError.__init__(error, message, hint=hint)
    for name, value in details.items():
        usual = None if name.startswith("_") else getattr(kind, name, None)
        if isinstance(usual, str | int | float) and isinstance(value, type(usual)):
            setattr(error, name, value)
    return error


#: What the details of a ModelError are.
_OF_MODELS = frozenset(
    {"kind", "status", "retry_after", "where", "prompt_tokens", "context_window", "retryable"}
)


def _classes() -> dict[str, type[PolypodError]]:
    """All of polypod's errors by name, without subclasses that programs define."""
    found: dict[str, type[PolypodError]] = {}
    kinds = [PolypodError]
    while kinds:
        kind = kinds.pop()
        found.setdefault(kind.__name__, kind)
        kinds += [each for each in kind.__subclasses__() if each.__module__ == PolypodError.__module__]
    return found
