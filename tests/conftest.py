from __future__ import annotations

import os
import shutil
import signal
from collections.abc import Iterator

import pytest
from hypothesis import settings

from tests.effort import examples
from tests.redis_server import RedisServer

if shutil.which("nvidia-smi") is None:  # without a GPU, kernels run under Triton's interpreter; read at its import
    os.environ["TRITON_INTERPRET"] = "1"

# Property tests that ask for nothing of their own: as many examples as ever, and none with a deadline.
settings.register_profile("sluice", examples(100))
settings.load_profile("sluice")


def pytest_terminal_summary(terminalreporter: pytest.TerminalReporter) -> None:
    """Say what tests counted (`record_property("counts", …)`), whether they passed or not."""
    told = [
        (report.nodeid.rpartition("::")[2], value)
        for outcome in ("passed", "failed")
        for report in terminalreporter.getreports(outcome)
        if report.when == "call"
        for name, value in report.user_properties
        if name == "counts"
    ]
    if told:
        terminalreporter.section("counts")
        for test, counts in told:
            terminalreporter.write_line(f"{test}: {counts}")


@pytest.fixture(scope="session", autouse=True)
def heard_signals() -> Iterator[None]:
    """What is started under `nohup`, or by a script in the background, is deaf to signals, and so are its children."""
    deaf = [number for number in (signal.SIGINT, signal.SIGHUP) if signal.getsignal(number) is signal.SIG_IGN]
    for number in deaf:
        signal.signal(number, signal.default_int_handler if number is signal.SIGINT else signal.SIG_DFL)
    yield
    for number in deaf:
        signal.signal(number, signal.SIG_IGN)


@pytest.fixture(scope="session")
def shared_redis(tmp_path_factory: pytest.TempPathFactory) -> Iterator[RedisServer]:
    """One server for all tests that leave it as it is."""
    server = RedisServer(tmp_path_factory.mktemp("redis"))
    server.start()
    yield server
    server.kill()


@pytest.fixture
def redis_url(shared_redis: RedisServer) -> str:
    """An empty Redis."""
    shared_redis.command("FLUSHALL")
    return shared_redis.url


@pytest.fixture
def redis_server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[RedisServer]:
    """A server of the test's own, to kill, hang and start again."""
    server = RedisServer(tmp_path_factory.mktemp("redis"))
    server.start()
    yield server
    server.kill()
