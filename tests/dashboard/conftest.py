from __future__ import annotations

import asyncio
import os
import shutil
import threading
from collections.abc import Callable, Coroutine, Iterator
from concurrent.futures import Future
from pathlib import Path
from typing import Any, TypeVar

import pytest
from fastapi import FastAPI
from pydantic import SecretStr

from sluice.compressor import Compressor, CompressorSettings, MemoryStore
from sluice.proxy.app import create_app
from sluice.proxy.settings import Settings
from tests.dashboard.traffic import CachingProvider
from tests.proxy.servers import ScriptedUpstream, serving

T = TypeVar("T")
OWNER = "the-owners-key"


class Pausing:
    """A clock by which the provider's cache expires before every seventh request."""

    def __init__(self) -> None:
        self._now_s = 1e6
        self._num_looks = 0

    def __call__(self) -> float:
        self._num_looks += 1
        self._now_s += 400.0 if self._num_looks % 7 == 0 else 5.0
        return self._now_s


class Served:
    """A proxy with an upstream, in a thread of their own, for a browser that is driven from this one."""

    def __init__(self, *, app_options: dict[str, Any] | None = None, **settings: Any) -> None:
        self.app: FastAPI
        self._app_options = app_options or {}
        self.url = ""
        self._settings = settings
        self._ready: Future[asyncio.AbstractEventLoop] = Future()
        self._stop: Callable[[], object] = lambda: None
        self._thread = threading.Thread(target=asyncio.run, args=(self._serve(),))

    def __enter__(self) -> Served:
        self._thread.start()
        self._loop = self._ready.result(30)
        return self

    def __exit__(self, *_: object) -> None:
        self._stop()
        self._thread.join()

    def run(self, work: Coroutine[Any, Any, T]) -> T:
        """Run something on the proxy's loop."""
        return asyncio.run_coroutine_threadsafe(work, self._loop).result(300)

    async def _serve(self) -> None:
        loop = asyncio.get_running_loop()
        stop = loop.create_future()
        upstream = ScriptedUpstream()
        upstream.answer = CachingProvider()
        generous = {"tokens_wait_s": 30.0, "compress_timeout_s": 30.0}
        async with serving(upstream) as url:
            self.app = create_app(Settings(upstream=url, **{**generous, **self._settings}), **self._app_options)
            async with serving(self.app) as self.url:
                self._stop = lambda: loop.call_soon_threadsafe(stop.set_result, None)
                self._ready.set_result(loop)
                await stop


def start_browser(profile: Path) -> Any:
    """Start a real Chromium without a window and without a network beyond this machine.

    Args:
        profile: an empty folder of its own.
    """
    from selenium import webdriver
    from selenium.webdriver.chrome.service import Service

    options = webdriver.ChromeOptions()
    options.binary_location = shutil.which("chromium") or ""
    for flag in (
        "headless", "no-sandbox", "disable-gpu", "disable-dev-shm-usage", "disable-quic", "disable-component-update",
        "disable-background-networking", "disable-sync", "no-first-run", "hide-scrollbars", "lang=en-US",
        f"user-data-dir={profile}",
    ):  # fmt: skip
        options.add_argument(f"--{flag}")
    options.set_capability("goog:loggingPrefs", {"browser": "ALL"})
    return webdriver.Chrome(options=options, service=Service(shutil.which("chromedriver")))


@pytest.fixture(scope="session")
def browser(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Any]:
    """See `start_browser`. Where there is none, tests fail if SLUICE_TEST_BROWSER is set, and are skipped if not."""
    if shutil.which("chromium") is None or shutil.which("chromedriver") is None:
        missing = "needs chromium and chromedriver on the PATH (Debian's chromium and chromium-driver)"
        if os.environ.get("SLUICE_TEST_BROWSER"):
            pytest.fail(missing)
        pytest.skip(missing)
    made = start_browser(tmp_path_factory.mktemp("chromium"))
    made.set_page_load_timeout(60)
    made.set_script_timeout(60)
    yield made
    made.quit()


@pytest.fixture(scope="session")
def empty() -> Iterator[Served]:
    """A proxy through which nothing has come."""
    with Served() as served:
        yield served


@pytest.fixture(scope="session")
def replayed(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Served]:
    """A proxy through which the shipped conversations were replayed, content kept."""
    import httpx

    from tests.dashboard.traffic import replay, shipped

    store = MemoryStore()
    limits = CompressorSettings(state_timeout_s=10.0, max_pins=8)
    root = tmp_path_factory.mktemp("root")
    (root / "a.py").write_text("def store(session):\n    return session.token\n")
    with Served(
        app_options={"store": store, "compressor": Compressor(store, limits, clock=Pausing())},
        store_content=True,
        dashboard_key=SecretStr(OWNER),
        mode="aggressive",
        search_roots=(root,),
        search_cache_dir=Path(tmp_path_factory.mktemp("index")),
    ) as served:

        async def play() -> None:
            async with httpx.AsyncClient(base_url=served.url, timeout=60, trust_env=False) as client:
                await replay(client, shipped())
                answer = await client.post("/v1/search", json={"query": "where is the session token"})
                assert answer.status_code in (200, 501), answer.text

        served.run(play())
        yield served
