"""Budgets as people write them."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from actors.cli.pods.amounts import Amount, read_amount


@pytest.mark.parametrize(
    ("text", "amount"),
    [
        ("$0.50", Amount("cost_usd", 0.5)),
        ("$ 3", Amount("cost_usd", 3)),
        (".25usd", Amount("cost_usd", 0.25)),
        ("2 USD", Amount("cost_usd", 2)),
        ("200000", Amount("tokens", 200_000)),
        ("200_000", Amount("tokens", 200_000)),
        ("1,500 tokens", Amount("tokens", 1500)),
        ("200k", Amount("tokens", 200_000)),
        ("1.5k tok", Amount("tokens", 1500)),
        ("2M tokens", Amount("tokens", 2_000_000)),
        ("90s", Amount("seconds", 90)),
        ("10min", Amount("seconds", 600)),
        ("1.5h", Amount("seconds", 5400)),
    ],
)
def test_an_amount_is_money_tokens_or_time(text: str, amount: Amount):
    assert read_amount(text) == amount


@pytest.mark.parametrize(
    "text",
    [
        "",
        "much",
        "10m",
        "10M",
        "$",
        "-5",
        "0",
        "$0",
        "5 euros",
        "1h30",
        "nan",
        "k",
        "9" * 400,
        f"${'9' * 400}",
    ],
)
def test_what_is_no_amount_or_may_mean_two_is_refused_with_what_to_write(text: str):
    with pytest.raises(ValueError, match=r"\$0\.50, 200k"):
        read_amount(text)


@given(st.text(max_size=12))
def test_any_text_is_an_amount_above_nothing_or_refused(text: str):
    try:
        assert read_amount(text).value > 0
    except ValueError as error:
        assert "write" in str(error)  # noqa: PT017 - what it says is what is tested
