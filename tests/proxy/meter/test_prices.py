from __future__ import annotations

from pathlib import Path

import pytest

from sluice.proxy.errors import ConfigError
from sluice.proxy.meter.prices import load_prices
from sluice.proxy.meter.usage import Usage

MILLION = 1_000_000


@pytest.mark.parametrize(
    ("model", "prices"),
    [
        ("claude-sonnet-4-20250514", (3.0, 15.0, 0.30)),
        ("claude-opus-4-20250514", (15.0, 75.0, 1.50)),
        ("claude-opus-4-1", (15.0, 75.0, 1.50)),
        ("claude-opus-4-5-20251101", (5.0, 25.0, 0.50)),
        ("claude-sonnet-5-5", (2.0, 10.0, 0.10)),
        ("claude-sonnet-5", (2.0, 10.0, 0.20)),
        ("gpt-5.2", (1.75, 14.0, 0.175)),
        ("gpt-5.2-2025-12-11", (1.75, 14.0, 0.175)),
        ("gpt-5", (1.25, 10.0, 0.125)),
        ("gpt-5-mini", (0.25, 2.0, 0.025)),
        ("gpt-4o-mini", (0.15, 0.6, 0.075)),
        ("gemini-2.5-pro", (1.25, 10.0, 0.315)),
        ("deepseek-v3.2", (0.14, 0.28, 0.14)),
        ("OpenAI/GPT-5.2", (1.75, 14.0, 0.175)),
        ("openrouter/anthropic/claude-sonnet-4", (3.0, 15.0, 0.30)),
        ("us.anthropic.claude-sonnet-4-20250514-v1:0", (3.0, 15.0, 0.30)),
    ],
)
def test_models_are_priced_by_their_names(model: str, prices: tuple[float, float, float]) -> None:
    price = load_prices().find(model)
    assert price is not None
    kinds = (Usage(input_tokens=100_000), Usage(output_tokens=MILLION), Usage(cache_read=100_000))
    costs = [price.cost(usage) for usage in kinds]
    assert costs == pytest.approx([prices[0] / 10, prices[1], prices[2] / 10])


@pytest.mark.parametrize("model", ["", "smollm2-135m-instruct", "gpt-6", "my-claude-sonnet-4", "x" * 10_000])
def test_other_models_have_no_price(model: str) -> None:
    assert load_prices().find(model) is None


def test_writes_cost_a_factor_and_long_requests_their_own_prices() -> None:
    sonnet, haiku = (load_prices().find(model) for model in ("claude-sonnet-4", "claude-haiku-5-5"))
    assert sonnet is not None
    assert haiku is not None
    assert sonnet.cost(Usage(cache_write_5m=MILLION)) == pytest.approx(3.75)
    assert sonnet.cost(Usage(cache_write_1h=MILLION)) == pytest.approx(6.0)
    assert haiku.cost(Usage(input_tokens=100_000, output_tokens=MILLION)) == pytest.approx(0.01 + 0.5)
    long = Usage(input_tokens=1, cache_read=100_000, output_tokens=MILLION)
    assert haiku.cost(long) == pytest.approx((0.5 + 0.05 * 100_000) / MILLION + 2.5)


def test_a_users_own_file_is_asked_first(tmp_path: Path) -> None:
    own = tmp_path / "prices.toml"
    own.write_text('[[price]]\nmodels = ["house/*", "gpt-4o"]\ninput = 1\noutput = 2\n')
    table = load_prices(own)
    for model in ("house/llama", "gpt-4o"):
        price = table.find(model)
        assert price is not None
        assert price.cost(Usage(input_tokens=MILLION, cache_read=MILLION, output_tokens=MILLION)) == 4.0
    shipped = table.find("gpt-4o-mini")
    assert shipped is not None
    assert shipped.input == 0.15


@pytest.mark.parametrize(
    ("text", "named"),
    [
        ('[[price]]\nmodels = ["a"]\ninput = "free"\noutput = 1\n', "input"),
        ('[[price]]\nmodels = ["a"]\ninput = 1\noutput = 1\ncashe_read = 1\n', "cashe_read"),
        ('[[price]]\nmodels = ["a"]\ninput = -1\noutput = 1\n', "-1"),
        ("[[price", "prices.toml"),
    ],
)
def test_a_bad_file_stops_the_start_and_is_named(tmp_path: Path, text: str, named: str) -> None:
    own = tmp_path / "prices.toml"
    own.write_text(text)
    with pytest.raises(ConfigError, match="prices_file") as caught:
        load_prices(own)
    assert named in str(caught.value)


def test_a_missing_file_is_named(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=r"nowhere\.toml"):
        load_prices(tmp_path / "nowhere.toml")
