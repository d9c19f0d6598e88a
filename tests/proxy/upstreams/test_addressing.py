"""What is sent to which upstream: path, format, model and credential, with real servers on loopback."""

from __future__ import annotations

import json
from collections.abc import Sequence

import pytest
from prometheus_client import CollectorRegistry

from sluice.proxy.errors import (
    ForeignCredentialError,
    InvalidFieldError,
)
from sluice.proxy.headers import Header
from sluice.proxy.translation import Translation
from sluice.proxy.upstreams import (
    Answer,
    Upstreams,
)
from sluice.proxy.wire import Outgoing, WireName
from tests.proxy.upstreams.fleet import BODY, CLIENTS, Fleet, ask, read, refusing, request, settings


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


@pytest.mark.parametrize("path", ["/v1/models", "/v1/files", "/v1/messages/batches/batch_1"])
async def test_anthropics_other_routes_get_its_key_as_it_takes_keys(
    fleet: Fleet, path: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("A_KEY", "configured")
    upstreams = fleet.make(settings("a", fleet.first.url, preset="anthropic", credential="env:A_KEY"))
    await read(await ask(upstreams, Outgoing("GET", path, CLIENTS)))
    assert fleet.first.last.path == path
    assert fleet.first.last.header("x-api-key") == b"configured"
    assert fleet.first.last.header("authorization") is None
    assert fleet.first.last.header("anthropic-version") is not None


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


@pytest.mark.parametrize(
    ("wire", "wires", "name", "expected"),
    [
        (WireName.MESSAGES, ["chat"], "gpt-5-mini", {"max_completion_tokens": 512}),
        (WireName.CHAT, ["messages"], "claude-3-haiku-20240307", {"max_tokens": 4096}),
    ],
)
async def test_a_request_is_translated_for_the_model_that_the_upstream_has(
    fleet: Fleet, wire: WireName, wires: list[str], name: str, expected: dict[str, int]
) -> None:
    asked = settings("a", fleet.first.url, wires=wires, rename={"m": name})
    upstreams = Upstreams([asked], translator=Translation())
    fleet.stack.push_async_callback(upstreams.aclose)
    limits = {"max_tokens": 512} if wire is WireName.MESSAGES else {}
    (await ask(upstreams, request(CLIENTS, wire, **limits))).close()
    sent = fleet.first.last.json
    assert sent["model"] == name
    assert {key: value for key, value in sent.items() if key.startswith("max_")} == expected


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
