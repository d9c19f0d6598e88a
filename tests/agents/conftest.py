from __future__ import annotations

from collections.abc import AsyncIterator

import pytest_asyncio

from tests.proxy.servers import ScriptedUpstream, serving


@pytest_asyncio.fixture
async def upstream() -> AsyncIterator[ScriptedUpstream]:
    """An upstream that records what it gets and answers as it is told."""
    scripted = ScriptedUpstream()
    async with serving(scripted) as url:
        scripted.url = url
        yield scripted
