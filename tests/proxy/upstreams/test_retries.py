from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from sluice.proxy.errors import UpstreamDisconnectedError, UpstreamReadTimeoutError
from sluice.proxy.upstreams.retries import (
    BASE_S,
    CAP_S,
    asked_wait_s,
    forbids_retry,
    retry_wait_s,
    speaks_against_upstream,
)
from tests.effort import examples

DRAWS = st.floats(0, 1, exclude_max=True)


@examples(100)
@given(num=st.integers(0, 20), draw=DRAWS)
def test_waits_are_jittered_and_bounded(num: int, draw: float) -> None:
    wait_s = retry_wait_s(num, draw, None, 100.0)
    assert wait_s is not None
    assert 0 <= wait_s <= min(CAP_S, BASE_S * 2**num)


@examples(100)
@given(draw=DRAWS, asked_s=st.floats(0, 1000), max_s=st.floats(0, 100))
def test_what_the_upstream_asks_for_is_waited_or_not_retried(draw: float, asked_s: float, max_s: float) -> None:
    wait_s = retry_wait_s(0, draw, asked_s, max_s)
    if asked_s > max_s:
        assert wait_s is None
    else:
        assert wait_s is not None
        assert asked_s <= wait_s <= asked_s + BASE_S


@pytest.mark.parametrize(
    ("headers", "wait_s"),
    [
        ([], None),
        ([(b"retry-after", b"3")], 3.0),
        ([(b"retry-after", b"0.5")], 0.5),
        ([(b"retry-after-ms", b"250"), (b"retry-after", b"9")], 0.25),
        ([(b"retry-after", b"Thu, 01 Jan 1970 00:01:40 GMT")], 40.0),
        ([(b"retry-after", b"Thu, 01 Jan 1970 00:00:00 GMT")], 0.0),
        ([(b"retry-after", b"soon")], None),
        ([(b"retry-after", b"Mon, 01 Jan 99999999999 00:00:00 GMT")], None),
    ],
)
def test_what_an_answer_asks_for_is_read(headers: list[tuple[bytes, bytes]], wait_s: float | None) -> None:
    assert asked_wait_s(headers, now_s=60.0) == wait_s


def test_a_used_up_quota_is_not_asked_again() -> None:
    assert forbids_retry([], b'{"error": {"code": "insufficient_quota"}}')
    assert forbids_retry([(b"x-should-retry", b"false")], b"")
    assert not forbids_retry([(b"x-should-retry", b"true")], b'{"error": {"code": "rate_limit_exceeded"}}')


def test_a_kept_connection_that_was_closed_meanwhile_does_not_speak_against_its_upstream() -> None:
    broke, stale = UpstreamDisconnectedError("gone"), UpstreamDisconnectedError("gone")
    stale.was_stale = True
    assert speaks_against_upstream(broke)
    assert speaks_against_upstream(UpstreamReadTimeoutError("http://u", 1.0))
    assert not speaks_against_upstream(stale)
