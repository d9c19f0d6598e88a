"""Makes the pictures of docs/dashboard.md from the shipped conversations: `python -m tests.dashboard.screenshots DIR`.

Knows where to look, not what is right: that is tested in `test_browser.py`.
"""

from __future__ import annotations

import sys
import tempfile
import time
from pathlib import Path
from typing import Any

import httpx
from pydantic import SecretStr

from tests.dashboard.conftest import OWNER, Served, start_browser
from tests.dashboard.traffic import Tape, replay, shipped, spread

OPEN_FIRST = "document.querySelector('details[data-dropped] > summary').click()"
TO_FIRST = "document.querySelector('details[open]').scrollIntoView({block: 'start'}); scrollBy(0, -70)"


def main(folder: Path) -> None:
    """Write the pictures into a folder, as PNG."""
    folder.mkdir(parents=True, exist_ok=True)
    with (
        Served(store_content=True, dashboard_key=SecretStr(OWNER), mode="aggressive") as served,
        Served(holdout=1.0) as held_out,
        tempfile.TemporaryDirectory() as profile,
    ):
        tapes = [served.run(_play(served)), held_out.run(_play(held_out))]
        treated, untouched = (tape.conversations for tape in tapes)
        meter = served.app.state.services.meter
        served.run(spread(meter, treated, untouched, 4_000, arrived=tapes[0].arrived))
        newest = served.run(_longest(served))
        driver = start_browser(Path(profile))
        try:
            for name, path, size, scheme, script in (
                ("overview", "", (1440, 900), "light", ""),
                ("overview-dark", "", (1440, 900), "dark", ""),
                ("conversation", f"/conversations/{newest}", (1440, 900), "dark", ""),
                ("request", f"/conversations/{newest}", (1440, 900), "light", OPEN_FIRST),
                ("phone", "/conversations", (390, 844), "light", ""),
            ):
                _shoot(
                    driver, f"{served.url}/dashboard{path}#key={OWNER}", folder / f"{name}.png", size, scheme, script
                )
        finally:
            driver.quit()


async def _play(served: Served) -> Tape:
    tape = Tape(served.app.state.services.meter)
    async with httpx.AsyncClient(base_url=served.url, timeout=60, trust_env=False) as client:
        await replay(client, shipped())
    return tape


async def _longest(served: Served) -> str:
    await served.app.state.services.watch.flush()
    summaries = await served.app.state.services.watch.store.summaries()
    kept = [(len((await served.app.state.services.watch.store.request(one.conversation))[1]), one) for one in summaries]
    return str(max(kept, key=lambda pair: pair[0])[1].conversation)


def _shoot(driver: Any, url: str, file: Path, size: tuple[int, int], scheme: str, script: str) -> None:
    metrics = {"width": size[0], "height": size[1], "deviceScaleFactor": 1, "mobile": size[0] < 600}
    driver.execute_cdp_cmd("Emulation.setDeviceMetricsOverride", metrics)
    media = {"features": [{"name": "prefers-color-scheme", "value": scheme}]}
    driver.execute_cdp_cmd("Emulation.setEmulatedMedia", media)
    driver.get("about:blank")
    driver.get(url)
    time.sleep(4.0)
    if script:
        driver.execute_script(script)
        time.sleep(0.5)
        driver.execute_script(TO_FIRST)
        time.sleep(0.5)
    driver.save_screenshot(str(file))


if __name__ == "__main__":
    main(Path(sys.argv[1]))
