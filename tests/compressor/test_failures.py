from __future__ import annotations

import pytest

from sluice.compressor.failures import says_failure


@pytest.mark.parametrize(
    "line",
    [
        "Traceback (most recent call last):",
        '  File "/repo/src/a.py", line 17, in load',
        "TypeError: unhashable type: 'list'",
        "E       assert 1 == 2",
        "FAILED tests/test_a.py::test_x - AssertionError",
        "--- FAIL: TestReset (0.00s)",
        "    at Object.<anonymous> (/repo/src/a.test.ts:10:5)",
        "error[E0308]: mismatched types",
        "  --> src/main.rs:4:18",
        "thread 'main' panicked at src/main.rs:4:5:",
        "./reset.go:12:2: undefined: foo",
        "goroutine 1 [running]:",
    ],
)
def test_what_went_wrong(line: str) -> None:
    assert says_failure(line)


@pytest.mark.parametrize(
    "line", ["ok  	cmd/entire/cli	0.31s", "collected 12 items", "def terror():", "", "  x = 1"]
)
def test_all_else(line: str) -> None:
    assert not says_failure(line)


def test_a_long_line_is_read_once() -> None:
    assert not says_failure("at x" + "(" * 1_000_000)
    assert says_failure("at x" + "(" * 1_000_000 + "a.js:1")
