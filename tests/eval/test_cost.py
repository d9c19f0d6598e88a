"""Both meters, worked by hand. A message of 4·n − 16 characters has n tokens."""

from __future__ import annotations

import pytest

from sluice.eval.cost import PRICES, BreakpointMeter, PrefixMeter, Usage
from sluice.eval.message import Message, encode, read_message
from tests.eval.builders import user


def message(num_tokens: int, letter: str, *, is_marked: bool = False) -> Message:
    mark = {"cache_control": {"type": "ephemeral"}} if is_marked else {}
    return read_message(encode({**user(letter * (4 * num_tokens - 16)), **mark}))


def test_prices() -> None:
    usage = Usage(read=100, write=20, plain=3)
    assert usage.num_tokens == 123
    assert usage.cost(PRICES["anthropic"]) == pytest.approx(100 * 0.1 + 20 * 1.25 + 3)
    assert usage.cost(PRICES["anthropic-1h"]) == pytest.approx(100 * 0.1 + 20 * 2.0 + 3)
    assert usage.cost(PRICES["openai"]) == pytest.approx(100 * 0.1 + 20 * 1.0 + 3)
    assert usage.cost(PRICES["self-hosted"]) == pytest.approx(0 + 20 + 3)


def test_prefix_meter_reads_what_was_shared_and_writes_the_rest() -> None:
    messages = [message(10, "a"), message(20, "b"), message(30, "c")]
    assert PrefixMeter().bill(messages, num_shared=2, is_cold=False) == Usage(read=30, write=30)
    assert PrefixMeter().bill(messages, num_shared=0, is_cold=False) == Usage(write=60)
    assert PrefixMeter().bill(messages, num_shared=2, is_cold=True) == Usage(write=60)


def test_breakpoints_read_what_an_earlier_breakpoint_wrote() -> None:
    meter = BreakpointMeter()
    first = [message(10, "a"), message(20, "b", is_marked=True)]
    assert meter.bill(first, num_shared=0, is_cold=False) == Usage(write=30)
    second = [message(10, "a"), message(20, "b"), message(5, "c"), message(6, "d", is_marked=True)]
    assert meter.bill(second, num_shared=2, is_cold=False) == Usage(read=30, write=11)
    rewritten = [message(10, "x"), *second[1:]]
    assert meter.bill(rewritten, num_shared=0, is_cold=False) == Usage(write=41)
    assert meter.bill(second, num_shared=0, is_cold=False) == Usage(read=41)
    assert meter.bill(second, num_shared=4, is_cold=True) == Usage(write=41)


def test_what_follows_the_last_breakpoint_is_plain() -> None:
    messages = [message(10, "a", is_marked=True), message(20, "b")]
    assert BreakpointMeter().bill(messages, num_shared=0, is_cold=False) == Usage(write=10, plain=20)
    assert BreakpointMeter().bill([message(9, "a")], num_shared=0, is_cold=False) == Usage(plain=9)


@pytest.mark.parametrize(("num_between", "is_found"), [(18, True), (19, False)])
def test_a_breakpoint_looks_back_20_blocks(num_between: int, is_found: bool) -> None:
    meter = BreakpointMeter()
    meter.bill([message(10, "a", is_marked=True)], num_shared=0, is_cold=False)
    # The breakpoint is the first of the 20 blocks; the entry is found if it is the 20th.
    between = [message(5, letter) for letter in "bcdefghijklmnopqrstuvwxyz"[:num_between]]
    usage = meter.bill([message(10, "a"), *between, message(5, "A", is_marked=True)], num_shared=1, is_cold=False)
    assert usage.read == (10 if is_found else 0)


def test_no_more_than_four_breakpoints_count() -> None:
    meter = BreakpointMeter()
    marked = [message(10, letter, is_marked=True) for letter in "abcde"]
    meter.bill(marked, num_shared=0, is_cold=False)
    # The first of the five was left out, so nothing is cached at its end.
    assert meter.bill([marked[0]], num_shared=1, is_cold=False) == Usage(write=10)
    assert meter.bill(marked[:2], num_shared=1, is_cold=False) == Usage(read=20)
