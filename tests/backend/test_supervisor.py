"""When a server that ended is started again; with real servers: `test_engine_server.py`, `vllm/test_server.py`."""

from __future__ import annotations

import asyncio

import pytest
from hypothesis import given
from hypothesis import strategies as st

from sluice.backend.errors import GivenUpError
from sluice.backend.supervisor import Phase, RestartPolicy, ServerState, Supervisor, restart_wait_s

TIMES = st.lists(st.floats(0, 10_000), min_size=1, max_size=20).map(sorted)


def test_each_wait_is_longer_up_to_a_minute() -> None:
    policy = RestartPolicy(max_restarts=8)
    assert [restart_wait_s([0.0] * num, policy) for num in range(1, 10)] == [1, 2, 4, 8, 16, 32, 60, 60, None]


def test_what_is_long_past_does_not_count() -> None:
    policy = RestartPolicy(max_restarts=2, window_s=10)
    assert restart_wait_s([0, 1, 2], policy) is None
    assert restart_wait_s([0, 1, 2, 12], policy) == 1


@given(TIMES, st.integers(0, 6), st.floats(0.1, 5_000))
def test_it_is_given_up_where_more_ends_than_starts_are_allowed_lie_within_the_window(
    ends_s: list[float], max_restarts: int, window_s: float
) -> None:
    recent = [end_s for end_s in ends_s if ends_s[-1] - end_s < window_s]
    wait_s = restart_wait_s(ends_s, RestartPolicy(max_restarts, window_s))
    assert (wait_s is None) == (len(recent) > max_restarts)


class OneRun:
    """A run that ends when it is told to."""

    pid = None
    log_tail = "all is lost"

    def __init__(self) -> None:
        self.ended = asyncio.Event()

    @property
    def is_running(self) -> bool:
        return not self.ended.is_set()

    async def wait(self) -> int:
        await self.ended.wait()
        return 3

    async def stop(self) -> None:
        self.ended.set()


async def test_a_machine_that_cannot_fork_counts_as_an_end() -> None:
    run, states = OneRun(), list[ServerState]()
    num_starts = 0

    async def start() -> OneRun:
        nonlocal num_starts
        num_starts += 1
        if num_starts > 1:
            raise BlockingIOError("Resource temporarily unavailable")
        return run

    supervisor = Supervisor("it", start, RestartPolicy(2, 600, 0), on_event=lambda _: None, on_state=states.append)
    await supervisor.start()
    run.ended.set()
    with pytest.raises(GivenUpError, match=r"it ended 3 times .* did not start: Resource temporarily unavailable"):
        await supervisor.wait()
    assert num_starts == 3
    phases = [state.phase for state in states]
    assert phases == [Phase.STARTING, Phase.READY, Phase.RESTARTING, Phase.RESTARTING, Phase.GIVEN_UP]
    await supervisor.stop()


async def test_one_that_is_stopped_while_it_waits_is_not_started_again() -> None:
    runs: list[OneRun] = []

    async def start() -> OneRun:
        runs.append(OneRun())
        return runs[-1]

    is_down = asyncio.Event()

    def note(state: ServerState) -> None:
        if state.phase is Phase.RESTARTING:
            is_down.set()

    supervisor = Supervisor("it", start, RestartPolicy(2, 600, 60), on_event=lambda _: None, on_state=note)
    await supervisor.start()
    runs[0].ended.set()
    await is_down.wait()
    await supervisor.stop()
    assert len(runs) == 1
