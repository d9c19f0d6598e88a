from __future__ import annotations

import asyncio
import subprocess
import sys

from sluice.backend.child import ChildProcess


async def run(code: str) -> tuple[ChildProcess, int]:
    child = ChildProcess([sys.executable, "-c", code])
    await child.start()
    async with asyncio.timeout(30):
        return child, await child.wait()


async def test_its_last_lines_and_its_status_are_kept() -> None:
    child, status = await run("import sys\nfor n in range(100): print('line', n)\nsys.exit(3)")
    assert status == 3
    assert not child.is_running
    lines = child.log_tail.splitlines()
    assert lines[-1] == "line 99"
    assert len(lines) == 60
    await child.kill()


async def test_a_line_without_end_hides_none_that_follow() -> None:
    child, _ = await run("print('x' * 500_000, flush=True)\nprint('after')")
    assert child.log_tail.splitlines()[-1] == "after"
    assert len(child.log_tail) < 100_000


async def test_one_that_says_nothing_is_quoted_as_that() -> None:
    child, _ = await run("")
    assert child.log_tail == "(none)"


async def test_one_that_does_not_end_when_asked_is_ended() -> None:
    code = (
        "import signal, time\nsignal.signal(signal.SIGTERM, signal.SIG_IGN)\nprint('deaf', flush=True)\ntime.sleep(600)"
    )
    is_deaf = asyncio.Event()
    child = ChildProcess([sys.executable, "-c", code], on_line=lambda _: is_deaf.set())
    await child.start()
    async with asyncio.timeout(30):
        await is_deaf.wait()
        await child.stop(0.1)
        assert await child.wait() == -9
    await child.stop(0.1)


async def test_lines_that_nobody_can_take_hold_up_nothing() -> None:
    def fail(_: str) -> None:
        raise OSError("No space left on device")

    code = "for n in range(20_000): print('line', n)\nprint('end', flush=True)\nimport time; time.sleep(600)"
    child = ChildProcess([sys.executable, "-c", code], on_line=fail)
    await child.start()
    async with asyncio.timeout(60):
        while not child.log_tail.endswith("end"):  # noqa: ASYNC110 - nothing tells of a line here
            await asyncio.sleep(0.01)
        await child.stop(5)
    assert not child.is_running


def test_what_vllms_command_cannot_say_ends_nothing() -> None:
    code = "from sluice.backend.vllm.cli import _say; _say('vLLM is ready again'); print('goes on', flush=True)"
    with open("/dev/full", "w") as full:
        done = subprocess.run([sys.executable, "-c", code], stderr=full, stdout=subprocess.PIPE, check=False)
    assert done.stdout == b"goes on\n"
