from __future__ import annotations

import json
from typing import Any

from hypothesis import given
from hypothesis import strategies as st

from sluice.proxy.meter.breakpoints import Breakpoints, breakpoints_of, readable_share
from sluice.proxy.meter.counterfactual import Last, advanced, untouched
from sluice.proxy.meter.prices import load_prices
from sluice.proxy.meter.usage import Usage
from tests.effort import examples

TTL_S = 300.0
PRICE = load_prices().find("claude-sonnet-4")

counts = st.integers(0, 200_000)
usages = st.builds(Usage, counts, counts, counts, counts, counts)
lasts = st.none() | st.builds(Last, st.floats(0, 1000), st.integers(0, 400_000), st.just(0), st.floats(0, 1), st.none())


@given(usage=usages, last=lasts, at_s=st.floats(0, 5000), is_continued=st.booleans())
@examples(200)
def test_where_nothing_was_dropped_nothing_is_saved(
    usage: Usage, last: Last | None, at_s: float, is_continued: bool
) -> None:
    got = untouched(usage, num_dropped=0, at_s=at_s, ttl_s=TTL_S, last=last, is_continued=is_continued)
    assert got == usage


@given(usage=usages, dropped=st.integers(1, 100_000), before=st.integers(0, 100_000), at_s=st.floats(0, 5000))
@examples(200)
def test_what_is_dropped_at_arrival_never_counts_as_a_loss(
    usage: Usage, dropped: int, before: int, at_s: float
) -> None:
    before = min(before, dropped)
    last = Last(at_s=0.0, num_prompt=usage.num_prompt, num_dropped=before)
    got = untouched(usage, num_dropped=dropped, at_s=at_s, ttl_s=TTL_S, last=last)
    assert got.num_prompt == usage.num_prompt + dropped
    assert PRICE is not None
    assert PRICE.cost(got) >= PRICE.cost(usage) - 1e-6  # rounded to whole tokens
    assert min(got.input_tokens, got.cache_write_5m, got.cache_write_1h, got.cache_read) >= 0


@given(
    usage=usages,
    dropped=st.integers(-300_000, 300_000),
    last=st.builds(Last, st.floats(0, 1000), counts, st.integers(-300_000, 300_000), st.floats(0, 1)),
    epoch=st.sampled_from([None, "cold", "pays", "need"]),
    at_s=st.floats(0, 5000),
)
@examples(200)
def test_no_kind_is_ever_negative(usage: Usage, dropped: int, last: Last, epoch: str | None, at_s: float) -> None:
    got = untouched(usage, num_dropped=dropped, at_s=at_s, ttl_s=TTL_S, last=last, epoch=epoch)
    assert got.num_prompt == max(0, usage.num_prompt + dropped)
    # More than was dropped may have been given back, on the next turn.
    assert min(got.input_tokens, got.cache_write_5m, got.cache_write_1h) >= 0


class Provider:
    """A cache that keeps the last prompt for its time, message by message."""

    def __init__(self) -> None:
        self.held: list[int] = []
        self.until_s = 0.0

    def ask(self, prompt: list[int], at_s: float) -> Usage:
        num_common = 0
        if at_s <= self.until_s:
            while num_common < min(len(prompt), len(self.held)) and prompt[num_common] == self.held[num_common]:
                num_common += 1
        self.held, self.until_s = prompt, at_s + TTL_S
        num_read = sum(prompt[:num_common])
        return Usage(cache_write_5m=sum(prompt) - num_read, cache_read=num_read, output_tokens=7)


turns = st.lists(
    st.tuples(
        st.lists(st.tuples(st.integers(1, 5000), st.floats(0, 1)), min_size=1, max_size=3),
        st.sampled_from([1.0, 60.0, 299.0, 301.0, 4000.0]),
        st.none() | st.floats(0, 1),
    ),
    min_size=1,
    max_size=12,
)


@given(turns=turns, num_system=st.integers(1, 3000))
@examples(300)
def test_it_is_what_the_provider_would_have_charged(turns: Any, num_system: int) -> None:
    """Two conversations against one kind of cache: untouched, and with drops at arrival, epochs and cold turns."""
    forwarding, as_sent = Provider(), Provider()
    sent, forwarded = [num_system], [num_system]
    last: Last | None = None
    at_s = 0.0
    for new, gap_s, rewrite in turns:
        at_s += gap_s
        is_cold = last is not None and at_s - last.at_s > TTL_S
        epoch = None
        if rewrite is not None and len(forwarded) > 2:
            # From the middle on, what is forwarded shrinks.
            start = 1 + len(forwarded) // 2
            shrunk = [int(size * rewrite) for size in forwarded[start:]]
            if shrunk != forwarded[start:]:
                forwarded[start:] = shrunk
                epoch = "cold" if is_cold else "pays"
        sent += [size for size, _ in new]
        forwarded += [int(size * kept) for size, kept in new]
        usage = forwarding.ask(list(forwarded), at_s)
        truth = as_sent.ask(list(sent), at_s)
        num_dropped = sum(sent) - sum(forwarded)
        got = untouched(usage, num_dropped=num_dropped, at_s=at_s, ttl_s=TTL_S, last=last, epoch=epoch)
        assert abs(got.cache_read - truth.cache_read) <= 1
        assert got.num_prompt == truth.num_prompt
        last = advanced(usage, num_dropped=num_dropped, at_s=at_s, ttl_s=TTL_S, last=last, epoch=epoch)


def test_a_conversation_whose_beginning_is_not_known_counts_as_read() -> None:
    usage = Usage(cache_write_5m=100, cache_read=900)
    got = untouched(usage, num_dropped=1000, at_s=0.0, ttl_s=TTL_S, is_continued=True)
    assert got == Usage(cache_write_5m=200, cache_read=1800)
    first = untouched(usage, num_dropped=1000, at_s=0.0, ttl_s=TTL_S)
    assert first == Usage(cache_write_5m=1100, cache_read=900)


def test_the_marks_life_decides_whether_the_untouched_prompt_was_still_cached() -> None:
    usage = Usage(cache_write_5m=500)
    hour = Breakpoints(ends=(5,), shares=(1.0,), ttl_s=3600.0)
    for marks, num_read in ((None, 0), (hour, 1200)):
        last = Last(at_s=0.0, num_prompt=1000, num_dropped=200, breakpoints=marks)
        got = untouched(usage, num_dropped=900, at_s=1000.0, ttl_s=TTL_S, last=last, breakpoints=marks, epoch="pays")
        assert got.cache_read == num_read


def mark(text: str, ttl: str | None = None) -> dict[str, Any]:
    control = {"type": "ephemeral"} | ({"ttl": ttl} if ttl else {})
    return {"type": "text", "text": text, "cache_control": control}


def test_marks_are_found_wherever_they_stand() -> None:
    body = {
        "model": "claude-sonnet-4",
        "tools": [{"name": "Read", "input_schema": {}}],
        "system": [{"type": "text", "text": "a"}, mark("b", "1h")],
        "messages": [
            {"role": "user", "content": "plain"},
            {"role": "assistant", "content": [{"type": "text", "text": "c"}, {"type": "text", "text": "d"}]},
            {"role": "user", "content": [mark("e" * 50)]},
        ],
    }
    marks = breakpoints_of(json.dumps(body).encode())
    assert marks is not None
    assert (marks.ends, marks.ttl_s) == ((3, 7), 300.0)
    assert 0 < marks.shares[0] < marks.shares[1] == 1.0
    assert breakpoints_of(json.dumps({"messages": [], "system": "s"}).encode()) == Breakpoints()
    automatic = breakpoints_of(json.dumps({**body, "cache_control": {"ttl": "1h"}}).encode())
    assert automatic is not None
    assert (automatic.ends, automatic.ttl_s) == ((3, 7), 3600.0)
    assert breakpoints_of(b"no json") is None
    many = {"messages": [{"role": "user", "content": [mark(str(number)) for number in range(6)]}]}
    four = breakpoints_of(json.dumps(many).encode())
    assert four is not None
    assert four.ends == (3, 4, 5, 6)
    inner = {"type": "tool_result", "tool_use_id": "t", "content": [mark("x", "1h"), {"type": "text", "text": "y"}]}
    within = breakpoints_of(json.dumps({"messages": [{"role": "user", "content": [inner, "odd"]}]}).encode())
    assert within == Breakpoints(ends=(1,), shares=within.shares if within else (), ttl_s=3600.0)


def test_half_an_emoji_hides_no_mark() -> None:
    body = {"messages": [{"role": "user", "content": [{"type": "text", "text": "cut \ud83d"}, mark("x", "1h")]}]}
    marks = breakpoints_of(json.dumps(body).encode())
    assert marks is not None
    assert (marks.ends, marks.ttl_s) == ((2,), 3600.0)


def test_a_mark_looks_twenty_blocks_back() -> None:
    before = Breakpoints(ends=(2, 10), shares=(0.25, 1.0))
    assert readable_share(before, Breakpoints(ends=(2, 12), shares=(0.2, 1.0))) == 1.0
    assert readable_share(before, Breakpoints(ends=(29,), shares=(1.0,))) == 1.0
    assert readable_share(before, Breakpoints(ends=(2, 30), shares=(0.1, 1.0))) == 0.25
    assert readable_share(before, Breakpoints(ends=(40,), shares=(1.0,))) == 0.0
    assert readable_share(Breakpoints(), before) == 0.0
