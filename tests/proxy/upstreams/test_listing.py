"""Listing the models of several upstreams: who is asked, and with whose credential."""

from __future__ import annotations

import json
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack
from typing import Any

import pytest
import pytest_asyncio

from sluice.proxy.headers import Header
from sluice.proxy.upstreams import Upstreams, UpstreamSettings
from tests.proxy.servers import Exchange, ScriptedUpstream, serving
from tests.proxy.upstreams.fleet import read

PROVIDERS = ("anthropic", "openai", "deepseek", "vllm")


class Providers:
    """A server on loopback for each provider, and what reached it."""

    def __init__(self) -> None:
        self.servers = {name: ScriptedUpstream() for name in PROVIDERS}
        self.stack = AsyncExitStack()

    async def listed(self, headers: list[Header], *tables: dict[str, Any]) -> list[str]:
        """Ask for the models of these upstreams, each named by its preset unless it says otherwise."""
        made = []
        for table in tables:
            at = self.servers[table.get("at", table.get("preset", ""))].url
            made.append(
                UpstreamSettings.model_validate(
                    {"name": table["preset"], "origin": at, **{key: table[key] for key in table if key != "at"}}
                )
            )
        upstreams = Upstreams(made)
        self.stack.push_async_callback(upstreams.aclose)
        body = json.loads(await read(await upstreams.models("/v1/models", headers)))
        return [entry["id"] for entry in body["data"]]

    def asked(self) -> set[str]:
        """Whom it was asked of."""
        return {name for name, server in self.servers.items() if server.exchanges}

    def told(self, secret: str) -> set[str]:
        """Whom it reached."""
        return {
            name
            for name, server in self.servers.items()
            if any(secret in repr((exchange.headers, exchange.query)) for exchange in server.exchanges)
        }


@pytest_asyncio.fixture
async def providers() -> AsyncIterator[Providers]:
    made = Providers()
    async with made.stack:
        for name, server in made.servers.items():

            async def answer(exchange: Exchange, name: str = name) -> None:
                await exchange.whole(json.dumps({"object": "list", "data": [{"id": f"{name}-1"}]}).encode())

            server.answer = answer
            server.url = await made.stack.enter_async_context(serving(server))
        yield made


def bearer(token: str) -> list[Header]:
    return [(b"authorization", f"Bearer {token}".encode()), (b"cookie", b"hush")]


def x_api_key(token: str) -> list[Header]:
    return [(b"x-api-key", token.encode()), (b"anthropic-version", b"2023-06-01"), (b"cookie", b"hush")]


CLAUDE = {"preset": "anthropic", "models": ["anthropic-*", "claude-named"]}
GPT = {"preset": "openai", "models": ["openai-*", "gpt-named"]}
DEEPSEEK = {"preset": "deepseek", "models": ["deepseek-*"]}
LOCAL = {"preset": "vllm", "models": ["vllm-1"]}


@pytest.mark.parametrize(
    ("headers", "tables", "owner"),
    [
        # the form of the key tells, whatever the order
        (bearer("sk-ant-hush"), (GPT, DEEPSEEK, CLAUDE), "anthropic"),
        (bearer("sk-proj-hush"), (CLAUDE, DEEPSEEK, GPT), "openai"),
        # the format tells
        (x_api_key("sk-hush"), (GPT, CLAUDE), "anthropic"),
        (bearer("sk-hush"), (CLAUDE, GPT), "openai"),
        ([(b"cookie", b"hush")], (CLAUDE, GPT), "openai"),
        # nothing tells: the default one alone
        (bearer("sk-hush"), (CLAUDE, DEEPSEEK | {"models": ["*"]}, GPT), "deepseek"),
        (bearer("sk-hush"), (GPT, DEEPSEEK, CLAUDE), "openai"),
        # nor is it the default one's
        (bearer("sk-hush"), (CLAUDE, DEEPSEEK, GPT), None),
        (bearer("AIza-hush"), (CLAUDE, GPT), None),
    ],
)
async def test_a_clients_credential_goes_to_one_upstream_at_most(
    providers: Providers, headers: list[Header], tables: tuple[dict[str, Any], ...], owner: str | None
) -> None:
    listed = await providers.listed(headers, *tables, LOCAL)
    assert providers.told("hush") == ({owner} if owner else set())
    assert providers.asked() == {"vllm"} | ({owner} if owner else set())
    assert "vllm-1" in listed
    assert owner is None or f"{owner}-1" in listed


@pytest.mark.parametrize(
    ("headers", "told"),
    [(bearer("sk-hush"), set()), (x_api_key("sk-hush"), {"anthropic"}), (bearer("sk-ant-hush"), {"anthropic"})],
)
async def test_where_the_default_one_takes_none_another_gets_only_what_is_plainly_its_own(
    providers: Providers, headers: list[Header], told: set[str]
) -> None:
    await providers.listed(headers, LOCAL, CLAUDE)
    assert providers.told("hush") == told


async def test_upstreams_at_one_origin_are_one(providers: Providers) -> None:
    other = {"preset": "openai", "name": "other", "models": ["other-named"]}
    listed = await providers.listed(bearer("sk-hush"), LOCAL, GPT, other)
    assert providers.told("hush") == {"openai"}
    assert listed == ["vllm-1", "openai-1", "gpt-named", "other-named"]


async def test_who_has_a_credential_of_its_own_is_asked_with_it(
    providers: Providers, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("GPT_KEY", "configured")
    own = {"credential": "env:GPT_KEY"}
    listed = await providers.listed(x_api_key("sk-ant-hush"), CLAUDE, GPT | own, DEEPSEEK | own)
    assert providers.told("hush") == {"anthropic"}
    assert providers.told("configured") == {"openai", "deepseek"}
    assert listed == ["anthropic-1", "claude-named", "openai-1", "gpt-named", "deepseek-1"]


async def test_who_is_not_asked_is_listed_by_what_is_configured(providers: Providers) -> None:
    assert await providers.listed(bearer("sk-hush"), GPT, CLAUDE) == ["openai-1", "gpt-named", "claude-named"]
    nobodys = await providers.listed(bearer("AIza-hush"), GPT, CLAUDE)
    assert nobodys == ["gpt-named", "claude-named"]
