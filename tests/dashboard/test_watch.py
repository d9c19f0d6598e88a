"""What the dashboard keeps is kept behind the requests' backs, and costs none of them."""

from __future__ import annotations

import httpx
import pytest

from sluice.compressor import StateError
from sluice.proxy.dashboard.kept import Summary
from sluice.proxy.dashboard.reader import rewrites_of
from sluice.proxy.dashboard.store import MemoryWatchStore, Searched
from sluice.proxy.dashboard.watch import Watch
from sluice.proxy.meter.store import TurnRow
from tests.dashboard.conftest import OWNER, Served
from tests.proxy.servers import reading_twice


class Lost(MemoryWatchStore):
    """A store that does not answer."""

    async def keep(self, summary: Summary, packed: bytes) -> None:
        raise StateError("lost")

    async def add_search(self, searched: Searched) -> None:
        raise StateError("lost")


def make(store: MemoryWatchStore | None = None, *, keeps_content: bool = True) -> Watch:
    bounds = {"max_conversations": 5, "max_bytes": 10_000, "ttl_s": 1e9}
    return Watch(store or MemoryWatchStore(**bounds), keeps_content=keeps_content)  # type: ignore[arg-type]


@pytest.mark.parametrize("keeps_content", [True, False])
async def test_what_was_searched_for_is_content(keeps_content: bool) -> None:
    watch = make(keeps_content=keeps_content)
    watch.searched(Searched(1.0, "root", "fast", 3, 900, 12.5, "x" * 1000))
    await watch.flush()
    [found] = await watch.store.searches()
    assert found.num_results == 3
    assert found.query == ("x" * 500 if keeps_content else None)
    await watch.aclose()


async def test_a_lost_store_loses_what_was_noted_and_nothing_else(caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level("DEBUG", "sluice")
    watch = make(Lost(max_conversations=5, max_bytes=10_000, ttl_s=1e9))
    watch.searched(Searched(1.0, "root", "fast", 3, 900, 12.5))
    await watch.flush()
    watch.searched(Searched(2.0, "root", "fast", 3, 900, 12.5))
    await watch.aclose()
    assert caplog.text.count("watch_store_lost") == 2, "each is lost where it was noted, and what follows is tried"


async def test_what_cannot_be_written_costs_nothing_else() -> None:
    class Picky(MemoryWatchStore):
        async def add_search(self, searched: Searched) -> None:
            if searched.root == "bad":
                raise UnicodeEncodeError("utf-8", "", 0, 1, "surrogates not allowed")
            await super().add_search(searched)

    watch = make(Picky(max_conversations=5, max_bytes=10_000, ttl_s=1e9))
    for root in ("first", "bad", "last"):
        watch.searched(Searched(1.0, root, "fast", 3, 900, 12.5, "cut \ud83d"))
    await watch.flush()
    assert [(one.root, one.query) for one in await watch.store.searches()] == [
        ("last", "cut \ufffd"),
        ("first", "cut \ufffd"),
    ]
    await watch.aclose()


def test_a_request_that_is_too_large_to_keep_is_served() -> None:
    with Served(store_content=True, content_max_bytes=2**20, dashboard_key=OWNER) as served:
        noise = "".join(f"{number * 2654435761 % 2**32:08x}" for number in range(400_000))
        body = {"model": "m", "messages": [{"role": "user", "content": noise}]}
        headers = {"authorization": "Bearer u"}
        with httpx.Client(base_url=served.url, trust_env=False, timeout=30) as client:
            for messages in (reading_twice(), body["messages"]):
                asked = {"model": "m", "messages": messages}
                assert client.post("/v1/chat/completions", json=asked, headers=headers).status_code == 200
            found = client.get("/dashboard/api/conversations", headers={"x-sluice-key": OWNER}).json()
        assert found["total"] == 2
        assert sum(one["title"] is not None for one in found["conversations"]) == 1


def row(at_s: float, tokens_out: int, epoch: str | None = None) -> TurnRow:
    return TurnRow(at_s, 200, 300, tokens_out, 25, 10, 5, 3, 0.5, 0.75, 1.5, epoch)


def test_a_rewrite_says_how_long_the_conversation_was_idle_and_what_it_shed() -> None:
    found = rewrites_of("c", [row(0.0, 100), row(600.0, 40, "cold"), row(605.0, 50)])
    assert [(one.reason, one.idle_s, one.tokens_before, one.tokens_after) for one in found] == [
        ("cold", 600.0, 100, 40)
    ]
    [first] = rewrites_of("c", [row(5.0, 40, "need")])
    assert (first.idle_s, first.tokens_before) == (None, 0)
