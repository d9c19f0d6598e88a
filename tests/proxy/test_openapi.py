"""The HTTP surface against its own description: whatever is sent, the answer is one that the description names."""

from __future__ import annotations

import asyncio
import json
import threading
from collections.abc import Callable, Iterator
from concurrent.futures import Future

import pytest
import schemathesis
from hypothesis import HealthCheck, settings
from schemathesis.checks import not_a_server_error
from schemathesis.specs.openapi.checks import response_schema_conformance, status_code_conformance

from sluice.proxy.openapi import describe_routes
from tests.effort import examples
from tests.proxy.servers import ScriptedUpstream, proxy, serving

schema = schemathesis.openapi.from_dict(json.loads(json.dumps(describe_routes())))


@pytest.fixture(scope="module")
def url() -> Iterator[str]:
    """A proxy before an upstream that answers all, in a thread of its own."""
    ready: Future[str] = Future()
    stopping: list[Callable[[], object]] = []

    async def serve() -> None:
        stop = asyncio.get_running_loop().create_future()
        async with serving(ScriptedUpstream()) as upstream, proxy(upstream) as client:
            stopping.append(lambda: stop.get_loop().call_soon_threadsafe(stop.set_result, None))
            ready.set_result(str(client.base_url))
            await stop

    thread = threading.Thread(target=asyncio.run, args=(serve(),))
    thread.start()
    yield ready.result(30)
    stopping[0]()
    thread.join()


@schema.parametrize()
@settings(examples(15), suppress_health_check=list(HealthCheck))
def test_every_answer_is_one_that_is_described(case: schemathesis.Case, url: str) -> None:
    case.call_and_validate(
        base_url=url, checks=[not_a_server_error, status_code_conformance, response_schema_conformance], timeout=30
    )
