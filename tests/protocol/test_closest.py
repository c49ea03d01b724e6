"""The name that a mistyped one probably stands for."""

import pytest

from protocol.closest import closest

KNOWN = ["modules", "model", "max_steps", "attempts", "temperature"]


@pytest.mark.parametrize(
    ("name", "meant"),
    [("modle", "model"), ("temp", "temperature"), ("max_stepz", "max_steps"), ("xyz", None), ("te", None)],
)
def test_the_name_that_is_meant_is_found(name: str, meant: str | None) -> None:
    assert closest(name, iter(KNOWN)) == meant
