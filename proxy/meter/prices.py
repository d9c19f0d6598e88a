"""What tokens cost: prices per model from `prices.toml` and from a file of the user's own, which is asked first.

Knows no provider's rules beyond factors on the input price; a model that is in neither file has no price.
"""

from __future__ import annotations

import fnmatch
import functools
import re
from collections.abc import Sequence
from pathlib import Path

import msgspec

from sluice.proxy.errors import ConfigError
from sluice.proxy.meter.usage import Usage

SHIPPED = Path(__file__).with_name("prices.toml")
_PER = 1_000_000
# Routers and clouds put the provider, and more, before a model's name: openrouter/anthropic/…, us.anthropic.…
_PREFIX = re.compile(r"^(?:.*/)?(?:(?:us|eu|apac|jp|au|global)\.)?(?:(?:anthropic|openai|google|deepseek)\.)?")


class Long(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """Prices of long requests, in dollars per million tokens."""

    over_tokens: int
    """Tokens of prompt above which they apply to the whole request."""
    input: float
    output: float
    cache_read: float | None = None


class Price(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """What a model costs, in dollars per million tokens. The fields are explained in `prices.toml`."""

    models: tuple[str, ...]
    input: float
    output: float
    cache_read: float | None = None
    cache_write: float = 1.0
    cache_write_1h: float | None = None
    cache_ttl_s: float | None = None
    long: Long | None = None

    @property
    def relative_read(self) -> float | None:
        """What a token read from the cache costs beside one of plain input; None where that is not known."""
        return self.cache_read / self.input if self.cache_read is not None and self.input > 0 else None

    @property
    def relative_write_1h(self) -> float:
        """What a token costs that is written to the cache for an hour, beside one of plain input."""
        return self.cache_write if self.cache_write_1h is None else self.cache_write_1h

    def cost(self, usage: Usage) -> float:
        """What this usage costs, in dollars."""
        rates: Price | Long = self
        if self.long is not None and usage.num_prompt > self.long.over_tokens:
            rates = self.long
        read = rates.input if rates.cache_read is None else rates.cache_read
        written = self.cache_write * usage.cache_write_5m + self.relative_write_1h * usage.cache_write_1h
        return (
            rates.input * (usage.input_tokens + written) + read * usage.cache_read + rates.output * usage.output_tokens
        ) / _PER


class _File(msgspec.Struct, forbid_unknown_fields=True):
    price: tuple[Price, ...] = ()


class PriceTable:
    """Prices by model name.

    Args:
        shipped: what providers charge.
        own: the user's, asked first.
    """

    def __init__(self, shipped: Sequence[Price], own: Sequence[Price] = ()) -> None:
        self._own = own
        self._all = [*own, *shipped]
        self._find = functools.lru_cache(4096)(self._search)

    def find(self, model: str, *, is_local: bool = False) -> Price | None:
        """The price of a model; None where it has none.

        Args:
            model: by the name that its upstream has for it.
            is_local: whether that is self-hosted: what providers charge for a model of this name says nothing then.
        """
        return self._find(model[:200], is_local)

    def _search(self, model: str, is_local: bool) -> Price | None:
        name = model.lower()
        for tried in dict.fromkeys((name, _PREFIX.sub("", name, count=1))):
            for price in self._own if is_local else self._all:
                if any(fnmatch.fnmatchcase(tried, pattern.lower()) for pattern in price.models):
                    return price
        return None


def load_prices(own: Path | None = None) -> PriceTable:
    """Read the price files.

    Args:
        own: the user's file; None leaves it at the shipped one.

    Raises:
        ConfigError: a file cannot be read, or holds what is no price. The message names file and place.
    """
    return PriceTable(_read(SHIPPED), _read(own) if own is not None else ())


def _read(path: Path) -> Sequence[Price]:
    try:
        prices = msgspec.toml.decode(path.read_bytes(), type=_File).price
    except OSError as error:
        raise ConfigError(f"bad value for prices_file: cannot read {path}: {error.strerror}") from None
    except (msgspec.DecodeError, ValueError) as error:
        raise ConfigError(f"bad value for prices_file: {path}: {error}") from None
    for price in prices:
        rates = [
            price.input,
            price.output,
            price.cache_read,
            price.cache_write,
            price.cache_write_1h,
            price.cache_ttl_s,
        ]
        if price.long is not None:
            rates += [price.long.input, price.long.output, price.long.cache_read]
        for rate in rates:
            if rate is not None and not 0 <= rate < float("inf"):
                raise ConfigError(f"bad value for prices_file: {path}: {price.models}: {rate} is no price")
    return prices
