"""Retries, fallbacks, breakers and credentials, with real servers on loopback."""

from __future__ import annotations

import asyncio
import json
import socket
from collections.abc import AsyncIterator, Sequence
from contextlib import AsyncExitStack

import pytest
import pytest_asyncio
from prometheus_client import CollectorRegistry

from sluice.proxy.errors import (
    ForeignCredentialError,
    InvalidFieldError,
    UpstreamDisconnectedError,
    UpstreamReadTimeoutError,
    UpstreamUnreachableError,
)
from sluice.proxy.headers import Header
from sluice.proxy.upstreams import (
    Answer,
    HttpLimits,
    Policy,
    RoutedAnswer,
    UpstreamMetrics,
    Upstreams,
    UpstreamSettings,
)
from sluice.proxy.wire import Outgoing, WireName
from tests.proxy.servers import Answer as Play
from tests.proxy.servers import Exchange, ScriptedUpstream, completion, serving

BODY = json.dumps({"model": "m", "messages": [{"role": "user", "content": "hi"}]}).encode()
CLIENTS: list[Header] = [(b"authorization", b"Bearer clients-own"), (b"cookie", b"a=1")]


def unused_port() -> int:
    with socket.create_server(("127.0.0.1", 0)) as listener:
        port: int = listener.getsockname()[1]
        return port


def request(headers: Sequence[Header] = (), wire: WireName | None = WireName.CHAT, **more: object) -> Outgoing:
    body = json.dumps({**json.loads(BODY), **more}).encode() if more else BODY
    path = "/v1/messages" if wire is WireName.MESSAGES else "/v1/chat/completions"
    return Outgoing("POST", path, headers, body, wire, "m")


def settings(name: str, url: str, **more: object) -> UpstreamSettings:
    return UpstreamSettings.model_validate({"name": name, "origin": url, "credential": "client", **more})


class Fleet:
    """Two upstreams, the first with the second as its fallback, and what is counted of them."""

    def __init__(self, first: ScriptedUpstream, second: ScriptedUpstream) -> None:
        self.first, self.second = first, second
        self.registry = CollectorRegistry()
        self.stack = AsyncExitStack()

    def make(self, *upstreams: UpstreamSettings, **policy: float) -> Upstreams:
        made = Upstreams(
            upstreams
            or (
                settings("a", self.first.url, fallback=("b",)),
                settings("b", self.second.url, models=(), credential="none"),
            ),
            limits=HttpLimits(read_timeout_s=0.5),
            policy=Policy(**policy),  # type: ignore[arg-type]
            metrics=UpstreamMetrics(self.registry),
            draw=lambda: 0.0,
        )
        self.stack.push_async_callback(made.aclose)
        return made

    def count(self, name: str, **labels: str) -> float:
        return self.registry.get_sample_value(name, labels) or 0.0


@pytest_asyncio.fixture
async def fleet(upstream: ScriptedUpstream) -> AsyncIterator[Fleet]:
    second = ScriptedUpstream()
    async with serving(second) as url:
        second.url = url
        made = Fleet(upstream, second)
        yield made
        await made.stack.aclose()


def refusing(status: int, times: int, *headers: Header, body: bytes = b'{"error": {}}') -> Play:
    """Refuse so often, then answer."""
    left = times

    async def answer(exchange: Exchange) -> None:
        nonlocal left
        if left:
            left -= 1
            await exchange.whole(body, status, *headers)
        else:
            await exchange.whole(json.dumps(completion()).encode())

    return answer


async def read(answer: Answer) -> bytes:
    parts = []
    try:
        while part := await answer.read():
            parts.append(part)
    finally:
        answer.close()
    return b"".join(parts)


async def ask(upstreams: Upstreams, outgoing: Outgoing | None = None) -> RoutedAnswer:
    return await upstreams.send(upstreams.resolve("m"), outgoing or request(CLIENTS))


@pytest.mark.parametrize("status", [429, 502, 503, 529])
async def test_a_refusal_is_followed_by_a_retry_that_says_so(fleet: Fleet, status: int) -> None:
    fleet.first.answer = refusing(status, 1)
    answer = await ask(fleet.make())
    assert (answer.status, json.loads(await read(answer))) == (200, completion())
    assert answer.sluice_headers == [(b"x-sluice-upstream", b"a"), (b"x-sluice-retries", b"1")]
    assert [exchange.body for exchange in fleet.first.exchanges] == [BODY, BODY]
    assert fleet.count("sluice_upstream_retries_total", upstream="a", reason=str(status)) == 1


@pytest.mark.parametrize("status", [400, 401, 403, 404, 408, 500, 504])
async def test_what_may_have_been_worked_on_or_is_the_clients_fault_is_passed_on(fleet: Fleet, status: int) -> None:
    fleet.first.answer = refusing(status, 1, body=b'{"error": {"message": "so"}}')
    answer = await ask(fleet.make())
    assert (answer.status, await read(answer)) == (status, b'{"error": {"message": "so"}}')
    assert answer.sluice_headers == [(b"x-sluice-upstream", b"a")]
    assert len(fleet.first.exchanges) == 1
    assert not fleet.second.exchanges


async def test_three_refusals_are_followed_by_the_fallback_with_the_same_bytes(fleet: Fleet) -> None:
    fleet.first.answer = refusing(503, 99)
    answer = await ask(fleet.make())
    assert answer.status == 200
    await read(answer)
    assert (answer.upstream, answer.num_retries) == ("b", 3)
    assert [len(fleet.first.exchanges), len(fleet.second.exchanges)] == [3, 1]
    assert fleet.second.last.body == BODY
    assert fleet.count("sluice_upstream_fallbacks_total", upstream="a", fallback="b") == 1


async def test_where_nobody_serves_the_first_refusal_is_passed_on_whole(fleet: Fleet) -> None:
    fleet.first.answer = refusing(429, 99, (b"retry-after", b"60"), body=b'{"error": {"message": "first"}}')
    fleet.second.answer = refusing(503, 99, body=b"second")
    answer = await ask(fleet.make())
    assert (answer.status, await read(answer)) == (429, b'{"error": {"message": "first"}}')
    assert (b"retry-after", b"60") in answer.headers
    assert answer.upstream == "a"
    assert len(fleet.first.exchanges) == 1, "a minute is more than is worth waiting"
    assert len(fleet.second.exchanges) == 3


async def test_a_refusal_beats_no_answer(fleet: Fleet) -> None:
    fleet.second.answer = refusing(503, 99, body=b"second")
    dead = settings("a", f"http://127.0.0.1:{unused_port()}", fallback=("b",))
    answer = await ask(fleet.make(dead, settings("b", fleet.second.url, models=(), credential="none")))
    assert (answer.status, await read(answer), answer.upstream) == (503, b"second", "b")


async def test_a_quota_that_is_used_up_is_not_asked_again(fleet: Fleet) -> None:
    fleet.first.answer = refusing(429, 99, body=b'{"error": {"code": "insufficient_quota"}}')
    answer = await ask(fleet.make())
    assert (answer.upstream, answer.num_retries, len(fleet.first.exchanges)) == ("b", 1, 1)
    await read(answer)


async def test_an_upstream_that_refuses_connections_is_tried_again_and_then_named(fleet: Fleet) -> None:
    port = unused_port()
    upstreams = fleet.make(settings("a", f"http://127.0.0.1:{port}"))
    with pytest.raises(UpstreamUnreachableError, match=str(port)):
        await ask(upstreams)
    assert fleet.count("sluice_upstream_retries_total", upstream="a", reason="upstream_unreachable") == 2


async def test_an_upstream_that_hangs_up_in_mid_work_is_not_asked_again(fleet: Fleet) -> None:
    asked = 0

    async def rude(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        nonlocal asked
        asked += 1
        await reader.readuntil(b"\r\n\r\n")
        writer.close()

    server = await asyncio.start_server(rude, "127.0.0.1", 0)
    url = f"http://127.0.0.1:{server.sockets[0].getsockname()[1]}"
    upstreams = fleet.make(settings("a", url, fallback=("b",)), settings("b", fleet.second.url, credential="none"))
    with pytest.raises(UpstreamDisconnectedError):
        await ask(upstreams)
    server.close()
    assert asked == 1
    assert not fleet.second.exchanges


async def test_a_kept_connection_that_was_closed_meanwhile_costs_no_request(fleet: Fleet) -> None:
    asked = 0

    async def once(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        nonlocal asked
        await reader.readexactly(len(BODY) + len(await reader.readuntil(b"\r\n\r\n")) * 0)
        asked += 1
        writer.write(b"HTTP/1.1 200 OK\r\ncontent-length: 2\r\n\r\n{}")
        await writer.drain()
        await reader.readuntil(b"\r\n\r\n")  # the next request, to which it hangs up
        writer.close()

    server = await asyncio.start_server(once, "127.0.0.1", 0)
    upstreams = fleet.make(settings("a", f"http://127.0.0.1:{server.sockets[0].getsockname()[1]}"))
    for num_retries in (0, 1):
        answer = await ask(upstreams)
        assert (await read(answer), answer.num_retries) == (b"{}", num_retries)
    server.close()
    assert asked == 2


async def test_an_upstream_that_is_silent_is_not_asked_again(fleet: Fleet) -> None:
    async def silent(exchange: Exchange) -> None:
        await asyncio.Event().wait()

    fleet.first.answer = silent
    with pytest.raises(UpstreamReadTimeoutError):
        await ask(fleet.make())
    assert (len(fleet.first.exchanges), len(fleet.second.exchanges)) == (1, 0)


async def test_a_breaker_opens_passes_over_probes_and_closes(fleet: Fleet) -> None:
    fleet.first.answer = refusing(503, 99)
    upstreams = fleet.make(breaker_failures=3, breaker_retry_s=0.2)
    await read(await ask(upstreams))
    assert len(fleet.first.exchanges) == 3
    assert fleet.count("sluice_upstream_open", upstream="a") == 1
    answer = await ask(upstreams)
    await read(answer)
    assert (answer.upstream, answer.num_retries, len(fleet.first.exchanges)) == ("b", 0, 3)
    fleet.first.answer = ScriptedUpstream().answer
    async with asyncio.timeout(10):
        while answer.upstream != "a":  # until the breaker lets one through
            answer = await ask(upstreams)
            await read(answer)
    assert fleet.count("sluice_upstream_open", upstream="a") == 0


async def test_an_upstream_that_is_passed_over_is_tried_where_there_is_no_other(fleet: Fleet) -> None:
    fleet.first.answer = refusing(503, 3)
    upstreams = fleet.make(settings("a", fleet.first.url), breaker_failures=3, breaker_retry_s=60.0)
    assert await read(await ask(upstreams)) == b'{"error": {}}'
    assert fleet.count("sluice_upstream_open", upstream="a") == 1
    answer = await ask(upstreams)
    assert answer.status == 200
    await read(answer)
    assert fleet.count("sluice_upstream_open", upstream="a") == 0


async def test_too_many_requests_of_one_client_do_not_open_it(fleet: Fleet) -> None:
    fleet.first.answer = refusing(429, 99, (b"x-should-retry", b"false"))
    upstreams = fleet.make(settings("a", fleet.first.url), breaker_failures=2)
    for _ in range(4):
        await read(await ask(upstreams))
    assert fleet.count("sluice_upstream_open", upstream="a") == 0


async def test_a_clients_credential_never_reaches_another_origin(fleet: Fleet, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("B_KEY", "configured")
    fleet.first.answer = refusing(503, 99)
    private = [*CLIENTS, (b"x-api-key", b"also"), (b"openai-organization", b"org"), (b"accept", b"*/*")]
    for credential, sent in (("none", None), ("env:B_KEY", b"Bearer configured")):
        upstreams = fleet.make(
            settings("a", fleet.first.url, fallback=("b",)),
            settings("b", fleet.second.url, models=(), credential=credential),
        )
        fleet.registry = CollectorRegistry()
        outgoing = Outgoing("POST", "/v1/chat/completions?key=hush&x=1", private, BODY, WireName.CHAT, "m")
        await read(await ask(upstreams, outgoing))
        assert fleet.second.last.header("authorization") == sent
        assert fleet.second.last.query == b"x=1"
        for name in ("x-api-key", "cookie", "openai-organization"):
            assert fleet.second.last.header(name) is None
        assert fleet.first.last.header("authorization") == b"Bearer clients-own"
        assert b"clients-own" not in repr(fleet.second.last.headers).encode()


async def test_a_fallback_without_a_credential_of_its_own_is_skipped(fleet: Fleet) -> None:
    fleet.first.answer = refusing(503, 99)
    upstreams = fleet.make(settings("a", fleet.first.url, fallback=("b",)), settings("b", fleet.second.url))
    answer = await ask(upstreams)
    assert (answer.status, answer.upstream) == (503, "a")
    await read(answer)
    assert not fleet.second.exchanges


async def test_a_configured_credential_takes_the_place_of_the_clients(
    fleet: Fleet, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("A_KEY", "configured")
    await read(await ask(fleet.make(settings("a", fleet.first.url, credential="env:A_KEY"))))
    assert fleet.first.last.header("authorization") == b"Bearer configured"
    assert fleet.first.last.header("cookie") is None


async def test_another_providers_key_is_not_sent(fleet: Fleet) -> None:
    upstreams = fleet.make(settings("a", fleet.first.url, preset="openai"))
    with pytest.raises(ForeignCredentialError, match="anthropic") as caught:
        await ask(upstreams, request([(b"authorization", b"Bearer sk-ant-api03-hush")]))
    assert "hush" not in str(caught.value)
    assert not fleet.first.exchanges


async def test_a_model_is_called_what_the_upstream_calls_it(fleet: Fleet) -> None:
    fleet.first.answer = refusing(503, 99)
    upstreams = fleet.make(
        settings("a", fleet.first.url, fallback=("b",), rename={"m": "org/m"}),
        settings("b", fleet.second.url, models=(), credential="none", rename={"m": "other"}),
    )
    await read(await ask(upstreams))
    assert (fleet.first.last.json["model"], fleet.second.last.json["model"]) == ("org/m", "other")
    assert fleet.first.last.json["messages"] == json.loads(BODY)["messages"]


class Shouting:
    """A translator that can put Anthropic's format as chat, and shouts."""

    def cleaned(self, wire: WireName, body: bytes, provider: str) -> bytes:
        return body

    def can(self, source: WireName, target: WireName) -> bool:
        return (source, target) == (WireName.MESSAGES, WireName.CHAT)

    def path(self, target: WireName) -> str:
        return {WireName.CHAT: "/v1/chat/completions", WireName.MESSAGES: "/v1/messages"}[target]

    def headers(self, target: WireName, headers: Sequence[Header]) -> list[Header]:
        return [header for header in headers if not header[0].startswith(b"anthropic-")]

    def request(self, source: WireName, target: WireName, body: bytes) -> bytes:
        if b"untranslatable" in body:
            raise InvalidFieldError("only its own provider has this")
        return body.replace(b"hi", b"HI")

    def answer(self, source: WireName, target: WireName, answer: Answer, *, stream: bool, request: bytes) -> Answer:
        assert b"hi" in request
        answer.headers = [*answer.headers, (b"x-translated", target.encode())]
        return answer


async def test_a_format_that_an_upstream_lacks_is_translated_with_its_credential(fleet: Fleet) -> None:
    upstreams = Upstreams([settings("a", fleet.first.url, wires=["chat"])], translator=Shouting())
    fleet.stack.push_async_callback(upstreams.aclose)
    outgoing = request([(b"x-api-key", b"sk-x"), (b"anthropic-beta", b"x")], WireName.MESSAGES)
    answer = await upstreams.send(upstreams.resolve("m"), outgoing)
    assert (b"x-translated", b"chat") in answer.headers
    await read(answer)
    assert fleet.first.last.path == "/v1/chat/completions"
    assert fleet.first.last.body == BODY.replace(b"hi", b"HI")
    assert fleet.first.last.header("authorization") == b"Bearer sk-x"
    assert fleet.first.last.header("x-api-key") is None
    assert fleet.first.last.header("anthropic-beta") is None


async def test_what_cannot_be_translated_is_refused_by_the_primary_and_skips_a_fallback(fleet: Fleet) -> None:
    chat_only = settings("b", fleet.second.url, models=(), wires=["chat"], credential="none")
    outgoing = request(CLIENTS, WireName.MESSAGES, tools="untranslatable")
    alone = Upstreams([settings("a", fleet.first.url, wires=["chat"])], translator=Shouting())
    fleet.stack.push_async_callback(alone.aclose)
    with pytest.raises(InvalidFieldError):
        await alone.send(alone.resolve("m"), outgoing)
    assert not fleet.first.exchanges
    fleet.first.answer = refusing(503, 99)
    chain = Upstreams([settings("a", fleet.first.url, fallback=("b",)), chat_only], translator=Shouting())
    fleet.stack.push_async_callback(chain.aclose)
    answer = await chain.send(chain.resolve("m"), outgoing)
    assert (answer.status, answer.upstream) == (503, "a")
    await read(answer)
    assert not fleet.second.exchanges


async def test_of_a_formats_routes_the_main_one_alone_is_translated(fleet: Fleet) -> None:
    fleet.first.answer = refusing(503, 99)
    upstreams = Upstreams(
        [
            settings("a", fleet.first.url, wires=["messages"], fallback=("b",)),
            settings("b", fleet.second.url, models=(), wires=["chat"], credential="none"),
        ],
        translator=Shouting(),
    )
    fleet.stack.push_async_callback(upstreams.aclose)
    counting = Outgoing("POST", "/v1/messages/count_tokens?beta=true", CLIENTS, BODY, WireName.MESSAGES, "m")
    answer = await upstreams.send(upstreams.resolve("m"), counting)
    assert answer.status == 503
    await read(answer)
    assert not fleet.second.exchanges


async def test_a_format_that_nobody_can_translate_goes_as_it_came_but_to_no_fallback(fleet: Fleet) -> None:
    fleet.first.answer = refusing(503, 99)
    upstreams = fleet.make(
        settings("a", fleet.first.url, wires=["chat"], fallback=("b",)),
        settings("b", fleet.second.url, wires=["chat"], credential="none"),
    )
    answer = await ask(upstreams, request(CLIENTS, WireName.MESSAGES))
    assert answer.status == 503
    await read(answer)
    assert fleet.first.last.path == "/v1/messages"
    assert not fleet.second.exchanges


async def test_a_hang_up_while_waiting_to_retry_ends_it(fleet: Fleet) -> None:
    fleet.first.answer = refusing(503, 99, (b"retry-after", b"5"))
    task = asyncio.create_task(ask(fleet.make(settings("a", fleet.first.url))))
    await fleet.first.arrived.wait()
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
    assert len(fleet.first.exchanges) == 1


async def test_one_list_is_made_of_those_who_answer(fleet: Fleet) -> None:
    upstreams = fleet.make(
        settings("a", fleet.first.url, models=("gpt-*",)),
        settings("dead", f"http://127.0.0.1:{unused_port()}", models=("d",)),
        settings("b", fleet.second.url, models=("local",), credential="none"),
    )
    listed = json.loads(await read(await upstreams.models("/v1/models", CLIENTS)))
    assert [entry["id"] for entry in listed["data"]] == ["gpt-4o", "local"]
    assert fleet.first.last.header("authorization") == b"Bearer clients-own"
    assert fleet.second.last.header("authorization") is None


async def test_health_is_told_apart(fleet: Fleet) -> None:
    upstreams = fleet.make(settings("a", fleet.first.url), settings("dead", f"http://127.0.0.1:{unused_port()}"))
    await upstreams.ping("a")
    with pytest.raises(UpstreamUnreachableError):
        await upstreams.ping("dead")
