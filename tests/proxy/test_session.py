from __future__ import annotations

import json

import pytest

from sluice.proxy.session import session_of
from sluice.proxy.wire.wires import CHAT
from tests.proxy.servers import ScriptedUpstream, proxy

SUMMARY = "This session is being continued from a previous conversation that ran out of context. The summary: …"


@pytest.mark.parametrize(
    ("headers", "fields", "session"),
    [
        ([], {}, b""),
        ([(b"x-sluice-session", b"one")], {"prompt_cache_key": "two"}, b"one"),
        ([(b"session_id", b"codex")], {}, b"codex"),
        ([], {"prompt_cache_key": "two"}, b"two"),
        ([], {"metadata": {"user_id": "user_1_session_2"}}, b"user_1_session_2"),
        ([], {"metadata": {"user_id": 3}, "prompt_cache_key": 4}, b""),
        ([], {"metadata": None}, b""),
    ],
)
def test_who_names_a_session_how(headers: list[tuple[bytes, bytes]], fields: dict[str, object], session: bytes) -> None:
    body = CHAT.parse(json.dumps({"model": "m", "messages": [], **fields}).encode())
    assert session_of(headers, body) == session


async def test_the_users_words_follow_a_summary_where_that_is_asked_for(upstream: ScriptedUpstream) -> None:
    headers = {"x-sluice-session": "one"}

    async def say(client: object, text: str) -> str:
        body = {"model": "m", "messages": [{"role": "user", "content": text}]}
        await client.post("/v1/chat/completions", json=body, headers=headers)  # type: ignore[attr-defined]  # httpx's
        return str(upstream.last.json["messages"][0]["content"])

    async with proxy(upstream.url, max_reattached_chars=1_000) as client:
        await say(client, "Keep the names.")
        assert (await say(client, SUMMARY)).endswith("Keep the names.")
    async with proxy(upstream.url) as client:
        await say(client, "Keep the names.")
        assert await say(client, SUMMARY) == SUMMARY
    assert upstream.last.header("x-sluice-session") is None
