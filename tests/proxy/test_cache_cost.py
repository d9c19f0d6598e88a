from __future__ import annotations

import json
from collections.abc import Sequence
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from sluice.compressor import Compressed, Compressor, MemoryStore
from sluice.compressor.profiles import PROFILES, Profile
from sluice.proxy.cache_cost import cache_cost
from sluice.proxy.meter import load_prices
from sluice.proxy.meter.breakpoints import breakpoints_of
from sluice.proxy.wire import WireName
from sluice.proxy.wire.wires import CHAT, MESSAGES
from tests.effort import examples
from tests.proxy.servers import ScriptedUpstream, proxy, reading_twice
from tests.proxy.test_wires import as_messages

HOUR = {"type": "ephemeral", "ttl": "1h"}
MINUTES = {"type": "ephemeral"}
USER = {"role": "user", "content": "hi"}
DAY_S = 86_400.0


def cost(profile: str, model: str = "m", *, is_ttl_given: bool = False, **fields: Any) -> tuple[float, float, float]:
    body = CHAT.parse(json.dumps({"model": model, "messages": [USER], **fields}).encode())
    price = load_prices().find(model, is_local=profile == "self-hosted")
    found = cache_cost(PROFILES[profile], price, body, WireName.CHAT, is_ttl_given=is_ttl_given)
    return found.read, found.write, found.ttl_s


@pytest.mark.parametrize(
    ("profile", "model", "expected"),
    [
        ("anthropic", "claude-sonnet-4-20250514", (0.1, 1.25, 300.0)),
        ("anthropic", "claude-opus-5-5", (0.05, 1.25, 300.0)),
        ("anthropic", "claude-fable-5-1", (0.025, 1.25, 300.0)),
        ("anthropic-1h", "claude-opus-5-5", (0.05, 2.0, 3_600.0)),
        ("openai", "gpt-6.1-sol", (0.05, 1.25, DAY_S)),
        ("openai", "gpt-5.2", (0.1, 1.0, DAY_S)),
        ("openai", "gpt-4o", (0.5, 1.0, 300.0)),
        ("gemini", "gemini-2.5-pro", (0.252, 1.0, 300.0)),
        ("deepseek", "deepseek-v3.2", (0.1, 1.0, 3_600.0)),
        ("openai", "nobody-knows-it", (0.1, 1.0, 300.0)),
        # Whoever runs a model, its provider's list says nothing of what it costs there.
        ("self-hosted", "claude-opus-5-5", (0.0, 1.0, 300.0)),
    ],
)
def test_the_price_table_counts_where_it_names_the_model(
    profile: str, model: str, expected: tuple[float, float, float]
) -> None:
    assert cost(profile, model) == pytest.approx(expected)


def test_openais_retention_is_what_the_request_asks_for() -> None:
    assert cost("openai", "gpt-5.2", prompt_cache_retention="in_memory")[2] == 300.0
    assert cost("openai", "m", prompt_cache_retention="24h")[2] == DAY_S
    assert cost("openai", "gpt-5.2", is_ttl_given=True)[2] == PROFILES["openai"].ttl_s


def marked(*controls: Any) -> bytes:
    blocks = [{"type": "text", "text": 'x "1h" {"cache_control": 1}', "cache_control": c} for c in controls if c]
    body = {"model": "claude-opus-5-5", "max_tokens": 9, "messages": [{"role": "user", "content": blocks or "hi"}]}
    return json.dumps(body).encode()


@pytest.mark.parametrize(
    ("controls", "expected"),
    [
        ((HOUR,), (0.05, 2.0, 3_600.0)),
        ((MINUTES, HOUR), (0.05, 2.0, 3_600.0)),
        # The conversation itself is written at the last mark.
        ((HOUR, MINUTES), (0.05, 1.25, 300.0)),
        ((MINUTES,), (0.05, 1.25, 300.0)),
        ((None,), (0.05, 1.25, 300.0)),
    ],
)
def test_anthropics_marks_say_how_long_and_at_what_price(
    controls: Sequence[Any], expected: tuple[float, float, float]
) -> None:
    body, price = MESSAGES.parse(marked(*controls)), load_prices().find("claude-opus-5-5")
    found = cache_cost(PROFILES["anthropic"], price, body, WireName.MESSAGES, is_ttl_given=False)
    assert (found.read, found.write, found.ttl_s) == pytest.approx(expected)
    unpriced = cache_cost(PROFILES["anthropic"], None, body, WireName.MESSAGES, is_ttl_given=False)
    assert (unpriced.write, unpriced.ttl_s) == expected[1:]


@examples(60)
@given(
    st.lists(st.sampled_from([None, HOUR, MINUTES]), max_size=4),
    st.sampled_from([None, HOUR, MINUTES]),
    st.sampled_from([None, HOUR, MINUTES]),
    st.sampled_from([None, HOUR]),
    st.sampled_from([None, (",", ":")]),
)
def test_the_last_mark_is_found_as_the_meter_finds_it(
    controls: list[Any], system: Any, tool: Any, automatic: Any, separators: Any
) -> None:
    def marked_with(block: dict[str, Any], control: Any) -> dict[str, Any]:
        return {**block, **({"cache_control": control} if control else {})}

    texts = [marked_with({"type": "text", "text": '"cache_control": {"ttl": "1h"}'}, one) for one in controls]
    body = {
        "model": "m",
        "messages": [{"role": "user", "content": [text]} for text in texts],
        "tools": [marked_with({"name": "Read"}, tool)],
        "system": [marked_with({"type": "text", "text": "x"}, system)],
    }
    raw = json.dumps({**body, **({"cache_control": automatic} if automatic else {})}, separators=separators).encode()
    marks = breakpoints_of(raw)
    assert marks is not None
    parsed = MESSAGES.parse(raw)
    found = cache_cost(PROFILES["anthropic"], None, parsed, WireName.MESSAGES, is_ttl_given=False)
    assert found.ttl_s == (marks.ttl_s if marks.ends else 300.0)


class Noting(Compressor):
    """Notes what its callers say the cache costs."""

    profile: Profile | None = None

    async def compress(self, messages: Sequence[bytes], **options: Any) -> Compressed:
        self.profile = options["profile"]
        return await super().compress(messages, **options)


async def test_decisions_are_made_with_it(upstream: ScriptedUpstream) -> None:
    noting = Noting(MemoryStore())
    body = as_messages(reading_twice())
    body["model"] = "claude-opus-5-5"
    body["messages"][-1]["content"][-1]["cache_control"] = HOUR
    async with proxy(upstream.url, app_options={"compressor": noting}, provider="anthropic") as client:
        await client.post("/v1/messages", json=body)
    assert noting.profile is not None
    assert (noting.profile.read, noting.profile.write, noting.profile.ttl_s) == pytest.approx((0.05, 2.0, 3_600.0))


async def test_what_a_renamed_model_costs_is_told_by_the_name_that_its_upstream_has(upstream: ScriptedUpstream) -> None:
    noting = Noting(MemoryStore())
    tables = (
        {"name": "up", "preset": "openai", "origin": upstream.url, "models": ["quick"], "rename": {"quick": "gpt-4o"}},
        {"name": "ours", "preset": "vllm", "origin": upstream.url, "models": ["gpt-5.2"]},
    )
    async with proxy(None, app_options={"compressor": noting}, upstreams=tables) as client:
        reads, costs = [], []
        for model in ("quick", "gpt-5.2"):
            answer = await client.post("/v1/chat/completions", json={"model": model, "messages": [USER]})
            assert answer.status_code == 200
            assert noting.profile is not None
            reads.append(noting.profile.read)
        totals = (await client.get("/v1/stats")).json()
        costs = {group["name"]: group["sums"] for group in totals["by_model"]}
    assert reads == [0.5, 0.0]
    assert costs["quick"]["cost"] == pytest.approx((3 * 2.5 + 10.0) / 1e6)
    assert (costs["gpt-5.2"]["cost"], costs["gpt-5.2"]["num_unpriced"]) == (0.0, 1)
