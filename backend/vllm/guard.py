"""Runs a command in this process's group and ends all of it when stdin ends: for a parent that was killed outright.

`python guard.py DRAIN_S COMMAND …`. On SIGTERM, or at the end of stdin, the command alone is asked to end, as its own
children are its to stop; the whole group is killed once the command has gone or the time is up.
"""

from __future__ import annotations

import contextlib
import os
import signal
import subprocess
import sys
import threading

GRACE_S = 5.0
"""Seconds on top of the drain, for what comes after it."""


def main(drain_s: float, command: list[str]) -> int:
    """Run the command; its exit status."""
    # The command gets no stdin: the pipe's end is what we watch.
    try:
        child = subprocess.Popen(command, stdin=subprocess.DEVNULL)  # noqa: S603 - what our parent asks for
    except OSError as error:
        print(f"cannot run {command[0]}: {error.strerror}", flush=True)  # noqa: T201 - read by our parent
        return 127

    def ask_to_end(*_: object) -> None:
        child.terminate()
        timer = threading.Timer(drain_s + GRACE_S, end_group)
        timer.daemon = True
        timer.start()

    def end_group() -> None:
        with contextlib.suppress(ProcessLookupError):
            os.killpg(os.getpgrp(), signal.SIGKILL)

    def watch_stdin() -> None:
        while os.read(0, 4096):
            pass
        ask_to_end()

    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, ask_to_end)
    threading.Thread(target=watch_stdin, daemon=True).start()
    status = child.wait()
    # What it may have left; we lead the group ourselves, so this is the last that we do.
    with contextlib.suppress(OSError):  # our parent may be gone, and its end of the pipe with it
        print(f"vllm ended with exit status {status}", flush=True)  # noqa: T201 - read by our parent
    end_group()
    return status


if __name__ == "__main__":
    sys.exit(main(float(sys.argv[1]), sys.argv[2:]))
