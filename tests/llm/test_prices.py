"""What calls cost is known to the cent or not at all."""

import re
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from actors.llm.http.presets import PRESETS
from actors.llm.prices import Price, Prices, cost, load_prices, standard_prices
from protocol.errors import ManifestError
from protocol.usage import Usage

MILLION = 1_000_000
OPUS = "anthropic/claude-opus-4-5"
TABLE = Prices(
    {
        "a/full": Price(input=10.0, output=50.0, cache_read=1.0, cache_write_5m=12.5, cache_write_1h=20.0),
        "a/plain": Price(input=10.0, output=50.0),
    },
    frozenset({"ollama"}),
)


def test_input_and_output_cost_what_the_table_says():
    assert cost("a/plain", Usage(MILLION, MILLION), TABLE) == 60.0


def test_what_came_from_the_cache_costs_less_and_what_went_there_more():
    usage = Usage(1000, 0, cache_read_tokens=600, cache_write_tokens=300)
    assert cost("a/full", usage, TABLE) == pytest.approx((100 * 10 + 600 * 1 + 300 * 12.5) / MILLION)


def test_what_is_kept_for_an_hour_costs_more_than_what_is_kept_for_minutes():
    usage = Usage(300, 0, cache_write_tokens=300, cache_write_1h_tokens=100)
    assert cost("a/full", usage, TABLE) == pytest.approx((200 * 12.5 + 100 * 20) / MILLION)


def test_what_has_no_price_of_its_own_costs_as_much_as_any_input():
    usage = Usage(1000, 0, cache_read_tokens=600, cache_write_tokens=300, cache_write_1h_tokens=100)
    assert cost("a/plain", usage, TABLE) == pytest.approx(1000 * 10 / MILLION)


@pytest.mark.parametrize("usage", [None, Usage(), Usage(input_tokens=5), Usage(output_tokens=5)])
def test_a_cost_whose_usage_is_unknown_is_unknown_and_not_zero(usage):
    assert cost("a/plain", usage, TABLE) is None


def test_a_model_without_a_price_has_an_unknown_cost():
    assert cost("a/other", Usage(1, 1), TABLE) is None
    assert cost("", Usage(1, 1), TABLE) is None


def test_a_local_model_costs_nothing_though_nobody_counted():
    assert cost("ollama/qwen3", Usage(5, 5), TABLE) == 0.0
    assert cost("ollama", None, TABLE) == 0.0


@given(*(st.integers(0, 10**6) for _ in range(5)))
def test_a_cost_is_never_negative_whatever_a_server_says(prompt, output, read, written, hour):
    usage = Usage(prompt, output, read, written, cache_write_1h_tokens=hour)
    assert cost("a/full", usage, TABLE) >= 0


@given(st.integers(0, 10**6), st.integers(0, 10**6), st.integers(0, 10**6))
def test_reading_from_the_cache_never_costs_more(fresh, read, output):
    without = cost("a/full", Usage(fresh + read, output), TABLE)
    assert cost("a/full", Usage(fresh + read, output, read), TABLE) <= without


# -- the table that comes along ------------------------------------------------------------------


def test_every_standard_price_says_when_it_was_read_and_what_caches_cost():
    for model, price in standard_prices().models.items():
        assert re.fullmatch(r"(anthropic|openai)/[a-z0-9.-]+", model)
        assert re.fullmatch(r"\d{4}-\d\d-\d\d", price.as_of)
        assert 0 < price.cache_read < price.input < price.output
        if model.startswith("anthropic/"):
            assert price.input < price.cache_write_5m < price.cache_write_1h


def test_presets_without_a_key_run_on_ones_own_machine_and_cost_nothing():
    free = {scheme for scheme, preset in PRESETS.items() if preset.key_env is None} | {"offline"}
    assert free <= standard_prices().local
    assert not {scheme for scheme, preset in PRESETS.items() if preset.key_env} & standard_prices().local


def test_a_known_model_has_its_price():
    assert cost(OPUS, Usage(MILLION, MILLION), standard_prices()) == 30.0


# -- a user's own --------------------------------------------------------------------------------


def written(folder: Path, text: str) -> Path:
    path = folder / "prices.toml"
    path.write_text(text, encoding="utf-8")
    return path


def test_own_prices_come_on_top_of_the_standard_ones(tmp_path: Path):
    table = load_prices(
        written(
            tmp_path,
            f'local = ["mine"]\n[[price]]\nmodels = ["openai/own", "{OPUS}"]\ninput = 1\noutput = 2.5\n',
        )
    )
    assert cost("openai/own", Usage(MILLION, MILLION), table) == 3.5
    assert cost(OPUS, Usage(MILLION, MILLION), table) == 3.5
    assert cost("openai/gpt-4o-mini", Usage(MILLION, MILLION), table) == pytest.approx(0.75)
    assert cost("mine/x", None, table) == cost("ollama/x", None, table) == 0.0


def test_an_own_price_of_a_local_model_counts(tmp_path: Path):
    table = load_prices(written(tmp_path, '[[price]]\nmodels = ["ollama/x"]\ninput = 1\noutput = 1\n'))
    assert cost("ollama/x", Usage(MILLION, 0), table) == 1.0


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("[[price", "not valid TOML"),
        ("prices = 1", "unknown key 'prices'"),
        ('[[price]]\nmodels = ["a/b"]\noutput = 1', "the key 'input' is missing"),
        (
            '[[price]]\nmodels = ["a/b"]\ninput = "1"\noutput = 1',
            "price[0].input: expected a number, got '1'",
        ),
        ('[[price]]\nmodels = ["a/b"]\ninput = 1\noutput = -1', "price[0].output: expected 0 or more"),
        ('[[price]]\nmodels = ["a/b"]\ninput = nan\noutput = 1', "price[0].input: expected 0 or more"),
        (
            '[[price]]\nmodels = ["a/b"]\ninput = 1\noutput = 1\ncache_raed = 1',
            "unknown key 'price[0].cache_raed'",
        ),
        ('[[price]]\nmodels = "a/b"\ninput = 1\noutput = 1', "price[0].models: expected a list of strings"),
    ],
)
def test_a_table_that_is_wrong_is_refused_with_file_key_and_what_was_expected(tmp_path, text, words):
    path = written(tmp_path, text)
    with pytest.raises(ManifestError) as caught:
        load_prices(path)
    assert str(path) in caught.value.message
    assert words in caught.value.message


def test_the_hint_for_an_unknown_key_names_the_known_ones(tmp_path):
    with pytest.raises(ManifestError) as caught:
        load_prices(written(tmp_path, "prices = 1"))
    assert caught.value.hint == "did you mean 'price'? keys of a price table: local, price"


def test_a_table_that_is_no_text_or_no_toml_has_a_hint(tmp_path):
    for data in (b"\xff\xfe\x00", b"[[price"):
        (tmp_path / "prices.toml").write_bytes(data)
        with pytest.raises(ManifestError) as caught:
            load_prices(tmp_path / "prices.toml")
        assert caught.value.hint


def test_a_file_that_is_not_there_is_a_clear_error(tmp_path):
    with pytest.raises(ManifestError, match="cannot be read: No such file"):
        load_prices(tmp_path / "none.toml")
