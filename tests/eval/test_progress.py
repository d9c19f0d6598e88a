"""Progress where there is no terminal."""

from __future__ import annotations

from sluice.eval.progress import lines


def test_a_log_gets_a_line_now_and_then_and_nothing_of_what_is_short() -> None:
    times_s = iter((0.0, 1.0, 11.0, 12.0, 30.0))
    written: list[str] = []
    progress = lines(written.append, {"safe": 3}, None, clock=lambda: next(times_s))
    for phase, num_done in (("safe", 1), ("safe", 2), ("safe", 3), ("asking", 7)):
        progress(phase, num_done)
    assert written == ["safe: 2 of 3", "asking: 7"]
