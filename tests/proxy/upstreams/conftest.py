from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable

import pytest
import pytest_asyncio
import uvloop

from tests.proxy.servers import ScriptedUpstream, serving
from tests.proxy.upstreams.fleet import Fleet

_ON_BOTH_LOOPS = {"test_connection.py", "test_http.py", "test_limits.py", "test_pool.py"}


def pytest_asyncio_loop_factories(
    config: pytest.Config, item: pytest.Item
) -> dict[str, Callable[[], asyncio.AbstractEventLoop]]:
    """Connections are tested on both event loops: their transports differ in when they call what."""
    plain = {"asyncio": asyncio.new_event_loop}
    return {**plain, "uvloop": uvloop.new_event_loop} if item.path.name in _ON_BOTH_LOOPS else plain


@pytest_asyncio.fixture
async def fleet(upstream: ScriptedUpstream) -> AsyncIterator[Fleet]:
    second = ScriptedUpstream()
    async with serving(second) as url:
        second.url = url
        made = Fleet(upstream, second)
        yield made
        await made.stack.aclose()
