from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from typing import Any

import pytest
import pytest_asyncio
from hypothesis import given
from hypothesis import strategies as st

from sluice.proxy.answers.answers import Answers
from sluice.proxy.answers.redis_store import RedisAnswers
from sluice.proxy.answers.store import AnswerStore, MemoryAnswers
from sluice.proxy.errors import UpstreamDisconnectedError
from sluice.proxy.meter.turn import Source
from sluice.proxy.upstreams import RoutedAnswer
from sluice.proxy.wire.types import WireName
from tests.effort import examples

BODY = [b"data: one\n\n", b"data: two\n\n", b"data: [DONE]\n\n"]
EVENTS = [(b"content-type", b"text/event-stream")]


class Call:
    """An answer of an upstream that gives a chunk each time it is told to."""

    def __init__(self, status: int = 200, chunks: list[bytes] = BODY) -> None:
        self.status = status
        self.headers = EVENTS
        self.is_closed = False
        self._chunks = list(chunks)
        self._may_go_on = asyncio.Semaphore(0)
        self.breaks_off = False

    def go_on(self, num: int = 1) -> None:
        for _ in range(num):
            self._may_go_on.release()

    async def read(self) -> bytes:
        await self._may_go_on.acquire()
        if self.breaks_off:
            raise UpstreamDisconnectedError("gone")
        return self._chunks.pop(0) if self._chunks else b""

    def close(self) -> None:
        self.is_closed = True


class Upstream:
    """Counts calls and answers each when it is told to."""

    def __init__(self) -> None:
        self.calls: list[asyncio.Future[Call]] = []
        self.num_cancelled = 0

    async def send(self) -> RoutedAnswer:
        answered: asyncio.Future[Call] = asyncio.get_running_loop().create_future()
        self.calls.append(answered)
        try:
            return RoutedAnswer(await answered, "u", 0)
        except asyncio.CancelledError:
            self.num_cancelled += 1
            raise


async def settle() -> None:
    """Let everything that can go on do so."""
    for _ in range(30):
        await asyncio.sleep(0)


async def whole(answers: Answers, upstream: Upstream, **options: Any) -> tuple[bytes, Source]:
    answer = await answers.fetch(b"key", WireName.CHAT, upstream.send, **options)
    parts = []
    try:
        while data := await answer.read():
            parts.append(data)
    finally:
        answer.close()
    return b"".join(parts), answer.source


def asking(answers: Answers, upstream: Upstream, **options: Any) -> asyncio.Task[tuple[bytes, Source]]:
    return asyncio.ensure_future(whole(answers, upstream, **options))


@pytest_asyncio.fixture
async def answers() -> Answers:
    return Answers(MemoryAnswers(60.0, 2**20))


@pytest_asyncio.fixture
async def upstream() -> Upstream:
    return Upstream()


async def test_an_answer_is_kept_and_given_again_as_it_came(answers: Answers, upstream: Upstream) -> None:
    first = asking(answers, upstream)
    await settle()
    call = Call()
    call.go_on(9)
    upstream.calls[0].set_result(call)
    assert await first == (b"".join(BODY), Source.UPSTREAM)
    await settle()
    again = await answers.fetch(b"key", WireName.CHAT, upstream.send)
    assert (again.status, again.headers, again.source) == (200, EVENTS, Source.HIT)
    assert [await again.read() for _ in range(4)] == [*BODY, b""]
    assert len(upstream.calls) == 1
    assert call.is_closed


async def test_twins_share_one_call_and_get_it_as_it_comes(answers: Answers, upstream: Upstream) -> None:
    fetches = [asyncio.ensure_future(answers.fetch(b"key", WireName.CHAT, upstream.send)) for _ in range(3)]
    await settle()
    call = Call()
    upstream.calls[0].set_result(call)
    readers = await asyncio.gather(*fetches)
    assert [reader.source for reader in readers] == [Source.UPSTREAM, Source.SHARED, Source.SHARED]
    for expected in BODY:
        call.go_on()
        # The next chunk is held back until all have this one.
        assert [await reader.read() for reader in readers] == [expected] * 3
    late = await answers.fetch(b"key", WireName.CHAT, upstream.send)
    call.go_on()
    assert [await reader.read() for reader in readers] == [b""] * 3
    assert [await late.read() for _ in range(4)] == [*BODY, b""]
    for reader in (*readers, late):
        reader.close()
    assert len(upstream.calls) == 1
    assert [reader.source for reader in (*readers, late)].count(Source.UPSTREAM) == 1


async def test_a_leader_that_hangs_up_early_lets_another_take_over(answers: Answers, upstream: Upstream) -> None:
    leader, *others = (asking(answers, upstream) for _ in range(3))
    await settle()
    leader.cancel()
    await settle()
    assert (len(upstream.calls), upstream.num_cancelled) == (2, 1)
    call = Call()
    call.go_on(9)
    upstream.calls[1].set_result(call)
    assert sorted(await asyncio.gather(*others)) == [(b"".join(BODY), Source.SHARED), (b"".join(BODY), Source.UPSTREAM)]


async def test_a_leader_that_hangs_up_in_mid_stream_is_not_noticed(answers: Answers, upstream: Upstream) -> None:
    leader, other = (asking(answers, upstream) for _ in range(2))
    await settle()
    call = Call()
    upstream.calls[0].set_result(call)
    call.go_on()
    await settle()
    leader.cancel()
    await settle()
    call.go_on(9)
    # Who has it whole pays for it.
    assert await other == (b"".join(BODY), Source.UPSTREAM)
    assert len(upstream.calls) == 1


async def test_when_the_last_reader_goes_the_upstream_is_hung_up_on(answers: Answers, upstream: Upstream) -> None:
    both = [asking(answers, upstream) for _ in range(2)]
    await settle()
    call = Call()
    upstream.calls[0].set_result(call)
    call.go_on()
    await settle()
    both[0].cancel()
    await settle()
    assert not call.is_closed
    both[1].cancel()
    await settle()
    assert call.is_closed
    third = asking(answers, upstream)
    await settle()
    assert len(upstream.calls) == 2
    third.cancel()
    await settle()


async def test_a_failed_call_is_made_again_by_a_follower(answers: Answers, upstream: Upstream) -> None:
    leader, other = (asking(answers, upstream) for _ in range(2))
    await settle()
    upstream.calls[0].set_exception(UpstreamDisconnectedError("gone"))
    with pytest.raises(UpstreamDisconnectedError):
        await leader
    await settle()
    call = Call()
    call.go_on(9)
    upstream.calls[1].set_result(call)
    assert await other == (b"".join(BODY), Source.UPSTREAM)


async def test_an_error_answer_is_neither_kept_nor_shared(answers: Answers, upstream: Upstream) -> None:
    both = [asking(answers, upstream) for _ in range(2)]
    await settle()
    for number in range(2):
        call = Call(429, [b"slow down"])
        call.go_on(9)
        upstream.calls[number].set_result(call)
        await settle()
    assert [await task for task in both] == [(b"slow down", Source.UPSTREAM)] * 2
    third = asking(answers, upstream)
    await settle()
    assert len(upstream.calls) == 3
    third.cancel()
    await settle()


async def test_an_answer_that_breaks_off_fails_for_all_and_is_not_kept(answers: Answers, upstream: Upstream) -> None:
    both = [asking(answers, upstream) for _ in range(2)]
    await settle()
    call = Call()
    upstream.calls[0].set_result(call)
    call.go_on()
    await settle()
    call.breaks_off = True
    call.go_on()
    for task in both:
        with pytest.raises(UpstreamDisconnectedError):
            await task
    third = asking(answers, upstream)
    await settle()
    assert len(upstream.calls) == 2
    third.cancel()
    await settle()


async def test_an_answer_that_cannot_be_kept_is_whole_to_those_who_read_it(
    answers: Answers, upstream: Upstream
) -> None:
    odd = b'{"choices": ' + b"[" * 100_000 + b"]" * 100_000 + b"}"
    task = asking(answers, upstream)
    await settle()
    call = Call(chunks=[odd])
    call.headers = [(b"content-type", b"application/json")]
    call.go_on(9)
    upstream.calls[0].set_result(call)
    assert await task == (odd, Source.UPSTREAM)


async def test_no_cache_asks_anew_and_replaces_what_was_kept(answers: Answers, upstream: Upstream) -> None:
    for number, text in enumerate((b"data: old\n\n", b"data: new\n\n")):
        task = asking(answers, upstream, may_take=False)
        await settle()
        call = Call(chunks=[text, b"data: [DONE]\n\n"])
        call.go_on(9)
        upstream.calls[number].set_result(call)
        assert (await task)[1] is Source.UPSTREAM
        await settle()
    assert (await whole(answers, upstream))[0] == b"data: new\n\ndata: [DONE]\n\n"


async def test_what_is_too_long_is_passed_on_at_the_slowest_readers_pace(upstream: Upstream) -> None:
    answers = Answers(MemoryAnswers(60.0, 2**20), max_answer_bytes=100)
    chunks = [b"%02d" % number * 20 for number in range(50)]
    fetches = [asyncio.ensure_future(answers.fetch(b"key", WireName.CHAT, upstream.send)) for _ in range(2)]
    await settle()
    call = Call(chunks=chunks)
    call.go_on(99)
    upstream.calls[0].set_result(call)
    fast, slow = await asyncio.gather(*fetches)
    got = [await fast.read() for _ in range(3)]
    reading = asyncio.ensure_future(fast.read())
    await settle()
    assert not reading.done()
    assert len(call._chunks) >= len(chunks) - 4
    assert [await slow.read() for _ in range(2)] == chunks[:2]
    got.append(await reading)
    slow.close()
    while data := await fast.read():
        got.append(data)
    fast.close()
    assert got == chunks
    again = asking(answers, upstream)
    await settle()
    assert len(upstream.calls) == 2
    again.cancel()
    await settle()


steps = st.lists(
    st.one_of(
        st.tuples(st.just("ask"), st.integers(0, 0)),
        st.tuples(st.just("hang up"), st.integers(0, 7)),
        st.tuples(st.sampled_from(["answer", "fail", "refuse"]), st.integers(0, 7)),
        st.tuples(st.just("go on"), st.integers(1, 3)),
        st.tuples(st.just("break off"), st.integers(0, 0)),
    ),
    max_size=25,
)


@given(steps=steps)
@examples(150)
def test_whatever_happens_nobody_hangs_and_everybody_gets_a_whole_answer_or_an_error(steps: Any) -> None:
    async def run() -> None:
        answers, upstream = Answers(MemoryAnswers(60.0, 2**20)), Upstream()
        tasks: list[asyncio.Task[tuple[bytes, Source]]] = []
        calls: list[Call] = []
        for step, number in steps:
            waiting = [future for future in upstream.calls if not future.done()]
            if step == "ask":
                tasks.append(asking(answers, upstream))
            elif step == "hang up" and tasks:
                tasks[number % len(tasks)].cancel()
            elif step in ("answer", "refuse") and waiting:
                calls.append(Call() if step == "answer" else Call(500, [b"no"]))
                waiting[number % len(waiting)].set_result(calls[-1])
            elif step == "fail" and waiting:
                waiting[number % len(waiting)].set_exception(UpstreamDisconnectedError("gone"))
            elif step == "go on" and calls:
                calls[-1].go_on(number)
            elif step == "break off" and calls:
                calls[-1].breaks_off = True
            await settle()
        # From here on the upstream works.
        for _ in range(len(tasks) + 1):
            for future in upstream.calls:
                if not future.done():
                    calls.append(Call())
                    future.set_result(calls[-1])
            for call in calls:
                call.go_on(9)
            await settle()
        done = await asyncio.wait_for(asyncio.gather(*tasks, return_exceptions=True), 10)
        for outcome in done:
            if isinstance(outcome, tuple):
                assert outcome[0] in (b"".join(BODY), b"no")
            else:
                assert isinstance(outcome, UpstreamDisconnectedError | asyncio.CancelledError)
        assert all(call.is_closed for call in calls)
        assert not answers._flights
        assert not answers._pending
        paid = sum(1 for outcome in done if isinstance(outcome, tuple) and outcome[1] is Source.UPSTREAM)
        assert paid <= len(calls)

    asyncio.run(run())


@pytest_asyncio.fixture(params=["memory", pytest.param("redis", marks=pytest.mark.redis)])
async def store(request: pytest.FixtureRequest) -> AsyncIterator[AnswerStore]:
    made: AnswerStore = (
        MemoryAnswers(60.0, 2**20)
        if request.param == "memory"
        else RedisAnswers(request.getfixturevalue("redis_url"), 60.0, timeout_s=5.0)
    )
    yield made
    await made.aclose()


async def test_both_stores_give_back_what_was_kept(store: AnswerStore, upstream: Upstream) -> None:
    answers = Answers(store)
    task = asking(answers, upstream)
    async with asyncio.timeout(20):
        while not upstream.calls:  # noqa: ASYNC110  # the store is asked first, over a socket
            await asyncio.sleep(0.001)
        call = Call()
        call.go_on(9)
        upstream.calls[0].set_result(call)
        await task
        while await store.get(b"key") is None:  # noqa: ASYNC110  # kept behind the reader's back
            await asyncio.sleep(0.001)
        assert await whole(answers, upstream) == (b"".join(BODY), Source.HIT)


async def test_memory_is_bounded_and_answers_age(upstream: Upstream) -> None:
    from sluice.proxy.answers.kept import Kept

    now_s = 0.0
    store = MemoryAnswers(60.0, 10_000, clock=lambda: now_s)
    for number in range(100):
        await store.put(b"%d" % number, Kept([], [b"x" * 1000], now_s))
    assert store._num_bytes <= 10_000
    assert await store.get(b"99") is not None
    assert await store.get(b"1") is None
    await store.put(b"long", Kept([], [b"x" * 20_000], now_s))
    assert store._num_bytes == 0
    await store.put(b"old", Kept([], [b"x"], now_s))
    now_s = 61.0
    assert await store.get(b"old") is None


@pytest.mark.redis
async def test_a_lost_redis_is_an_empty_cache(upstream: Upstream) -> None:
    answers = Answers(RedisAnswers("redis://127.0.0.1:9/0", 60.0))
    task = asking(answers, upstream)
    async with asyncio.timeout(20):
        while not upstream.calls:  # noqa: ASYNC110  # as above
            await asyncio.sleep(0.001)
    call = Call()
    call.go_on(9)
    upstream.calls[0].set_result(call)
    assert (await task)[0] == b"".join(BODY)
    await answers.aclose()
