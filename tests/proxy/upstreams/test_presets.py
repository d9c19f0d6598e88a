"""Every preset against a stand-in that speaks as the real server does."""

from __future__ import annotations

import json

import pytest

from sluice.proxy.errors import UpstreamError
from sluice.proxy.upstreams import PRESETS, Upstreams, UpstreamSettings, is_context_overflow
from sluice.proxy.wire import Outgoing, WireName
from tests.proxy.servers import ScriptedUpstream
from tests.proxy.upstreams.fleet import read
from tests.proxy.upstreams.standins import ANSWERS, STAND_INS, V1

NAMES = sorted(STAND_INS)


def upstreams_at(upstream: ScriptedUpstream, name: str, monkeypatch: pytest.MonkeyPatch) -> Upstreams:
    monkeypatch.setenv("SOME_KEY", "sk-configured")
    upstream.answer = STAND_INS[name]
    return Upstreams([UpstreamSettings(name="u", preset=name, origin=upstream.url, credential="env:SOME_KEY")])


def outgoing(wire: str, **fields: object) -> Outgoing:
    body = json.dumps({"model": "m", "messages": [], **fields}).encode()
    headers = [(b"content-type", b"application/json"), (b"authorization", b"Bearer dummy")]
    return Outgoing("POST", V1[wire], headers, body, WireName(wire), "m")


def test_every_preset_has_a_stand_in() -> None:
    assert set(STAND_INS) == set(PRESETS) - {"any"}


@pytest.mark.parametrize("name", NAMES)
async def test_it_is_reached_where_it_listens_in_every_format_it_speaks(
    upstream: ScriptedUpstream, name: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    stand_in = STAND_INS[name]
    upstreams = upstreams_at(upstream, name, monkeypatch)
    assert PRESETS[name].wires == {WireName(wire) for wire in stand_in.paths}
    for wire in stand_in.paths:
        answer = await upstreams.send(upstreams.resolve("m"), outgoing(wire))
        assert (answer.status, json.loads(await read(answer))) == (200, ANSWERS[wire])
        is_keyed = wire == "messages" and name in ("anthropic", "deepseek")
        assert upstream.last.header("x-api-key") == (b"sk-configured" if is_keyed else None)
        assert upstream.last.header("authorization") == (None if is_keyed else b"Bearer sk-configured")
        assert (upstream.last.header("anthropic-version") is not None) == (wire == "messages")
    await upstreams.aclose()


@pytest.mark.parametrize("name", NAMES)
async def test_its_health_is_asked_for_as_it_wants(
    upstream: ScriptedUpstream, name: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    upstreams = upstreams_at(upstream, name, monkeypatch)
    await upstreams.ping("u")
    assert upstream.last.header("authorization") is None
    if STAND_INS[name].health is not None:

        async def loading(exchange: object) -> None:
            await exchange.whole(b'{"error":{"code":503,"message":"Loading model"}}', 503)  # type: ignore[attr-defined]

        upstream.answer = loading
        with pytest.raises(UpstreamError, match="503"):
            await upstreams.ping("u")
    await upstreams.aclose()


@pytest.mark.parametrize("name", NAMES)
async def test_its_models_stand_in_a_merged_list(
    upstream: ScriptedUpstream, name: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("SOME_KEY", "sk-configured")
    upstream.answer = STAND_INS[name]
    first = UpstreamSettings(name="u", preset=name, origin=upstream.url, models=("m*",), credential="env:SOME_KEY")
    other = UpstreamSettings(name="other", origin=upstream.url, models=("own",))
    upstreams = Upstreams([first, other])
    answer = await upstreams.models("/v1/models", [])
    listed = json.loads(await read(answer))
    assert [entry["id"] for entry in listed["data"]] == ["m", "own"]
    asked = [exchange for exchange in upstream.exchanges if exchange.path == STAND_INS[name].list_path]
    header = STAND_INS[name].token_header
    expected = b"sk-configured" if header == "x-api-key" else b"Bearer sk-configured"
    assert expected in [exchange.header(header) for exchange in asked]
    await upstreams.aclose()


@pytest.mark.parametrize("name", NAMES)
async def test_its_refusal_of_what_is_too_long_is_recognised(
    upstream: ScriptedUpstream, name: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    upstreams = upstreams_at(upstream, name, monkeypatch)
    wire = next(iter(STAND_INS[name].paths))
    answer = await upstreams.send(upstreams.resolve("m"), outgoing(wire, too_long=True))
    assert is_context_overflow(answer.status, await read(answer)) == STAND_INS[name].limit
    await upstreams.aclose()
