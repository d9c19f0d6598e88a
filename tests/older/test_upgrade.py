"""What older versions left: read, gone on with, and forwarded again byte for byte.

Each file of `make.py` holds what stood in Redis, and is named after the commit that wrote it. In 32cb47f each item of
the Responses wire was a message of its own, where now a reply is one: such conversations begin anew, once.
"""

from __future__ import annotations

import base64
import gzip
import json
from pathlib import Path
from typing import Any

import pytest

from sluice.proxy.connect.journal import Journal
from sluice.proxy.connect.write import undo
from sluice.proxy.upstreams.settings import UpstreamSettings
from tests.proxy.servers import Exchange, Json, ScriptedUpstream, proxy, serving
from tests.redis_server import RedisServer

HERE = Path(__file__).parent
ORIGIN = "http://upstream.example"
CHAT, MESSAGES, RESPONSES = "/v1/chat/completions", "/v1/messages", "/v1/responses"
MESSAGES_AT = {CHAT: "messages", MESSAGES: "messages", RESPONSES: "input"}


async def answer(exchange: Exchange) -> None:
    body: Json = {"choices": [], "output": [], "usage": {}}
    if exchange.path == MESSAGES:
        body = {"type": "message", "content": [], "usage": {"input_tokens": 900, "output_tokens": 5}}
    await exchange.whole(json.dumps(body).encode())


def left_by(version: str, server: RedisServer) -> dict[str, Any]:
    """Put into Redis what a version left there; what else is known of it."""
    left: dict[str, Any] = json.loads(gzip.decompress((HERE / f"{version}.json.gz").read_bytes()))
    for name, (command, *parts) in left["redis"].items():
        words = [command.encode(), base64.b64decode(name), *map(base64.b64decode, parts)]
        assert not server.send(*words).startswith(b"-")
    return left


@pytest.mark.redis
@pytest.mark.parametrize(
    ("version", "paths"), [("85eca075", (CHAT, MESSAGES, RESPONSES)), ("32cb47f", (CHAT, MESSAGES))]
)
async def test_conversations_go_on_byte_for_byte(
    version: str, paths: tuple[str, ...], redis_url: str, shared_redis: RedisServer
) -> None:
    left = left_by(version, shared_redis)
    upstream = ScriptedUpstream()
    upstream.answer = answer
    headers = {"x-sluice-key": left["key"], "authorization": "Bearer sk-of-the-upstream"}
    async with serving(upstream) as url:
        behind = UpstreamSettings(name="u", origin=ORIGIN, replicas=(url,))
        settings = {"upstreams": (behind,), "redis_url": redis_url, "require_keys": True, "cache_ttl_s": 1e9}
        async with proxy(None, store_content=True, **settings) as client:
            for path in paths:
                for body in (left["sent"][path], left["next"][path]):
                    sent = await client.post(
                        path, content=body, headers={**headers, "content-type": "application/json"}
                    )
                    assert (sent.status_code, sent.headers.get("x-sluice-bypass")) == (200, None)
            metrics = (await client.get("/metrics", headers=headers)).text
            listed = (await client.get("/v1/stats/conversations", headers=headers)).json()["conversations"]
            shown = (await client.get("/dashboard/api/conversations", headers=headers)).json()["conversations"]
            kept = [
                (await client.get(f"/dashboard/api/conversations/{one['id']}/request", headers=headers)).json()
                for one in shown
            ]
    for path in paths:
        again, following = (exchange.body for exchange in upstream.exchanges if exchange.path == path)
        assert again.decode() == left["forwarded"][path]
        assert "[sluice " in again.decode()
        before, after = (json.loads(body)[MESSAGES_AT[path]] for body in (again, following))
        assert after[: len(before)] == before
    assert "sluice_records_unreadable_total 0.0" in metrics
    assert sorted(one["sums"]["turns"] for one in listed) == sorted([5.0] * (3 - len(paths)) + [7.0] * len(paths))
    assert {one["title"] for one in shown} >= {"Repair the totals.", "Repair the sums."}
    assert sum("messages" in one for one in kept) >= len(paths)


@pytest.mark.redis
async def test_the_dashboard_shows_what_an_older_version_kept(redis_url: str, shared_redis: RedisServer) -> None:
    left = left_by("85eca075", shared_redis)
    headers = {"x-sluice-key": left["key"]}
    async with proxy("http://127.0.0.1:9", redis_url=redis_url, require_keys=True, store_content=True) as client:
        shown = (await client.get("/dashboard/api/conversations", headers=headers)).json()["conversations"]
        requests = [
            (await client.get(f"/dashboard/api/conversations/{one['id']}/request", headers=headers)).json()
            for one in shown
        ]
    assert {one["title"] for one in shown} == {"Repair the totals.", "Repair the sums.", "Repair the products."}
    assert [len(one["messages"]) for one in requests] == [9, 9, 9]


def test_settings_of_agents_that_an_older_version_changed_are_put_back(tmp_path: Path) -> None:
    """32cb47f noted a whole table; later versions note each of its keys."""
    settings = tmp_path / "config.toml"
    table = {"name": "Sluice", "base_url": "http://127.0.0.1:8790/v1", "env_key": "OPENAI_API_KEY"}
    settings.write_text(
        'model = "gpt-5"\nmodel_provider = "sluice"\n\n[model_providers.sluice]\n'
        + "\n".join(f'{key} = "{value}"' for key, value in table.items())
    )
    changes = [(["model_provider"], "sluice"), (["model_providers", "sluice"], table)]
    rest = {"file": str(settings), "form": "toml", "was_there": False, "before": None, "made_file": False}
    rows = [{"keys": keys, "value": value, **rest} for keys, value in changes]
    (tmp_path / "codex.json").write_text(json.dumps(rows))
    assert all(one.is_restored for one in undo("codex", Journal(tmp_path)))
    assert settings.read_text().strip() == 'model = "gpt-5"'


async def test_a_file_of_keys_of_an_older_version_lets_in(tmp_path: Path) -> None:
    text = "sk-sluice-e11ee02b9f4d-FN7XphL7gCkDiYFmzBboEpTqqU3OUtnV-Y99vn52i0k"
    digest = "95759891700a853d29869fd61bb66218:387ffd67df1f87d0c33c4cc2feea2e639b5ab127fb6927efcc77d1ea4a768233"
    file = tmp_path / "keys.json"
    file.write_text(json.dumps([{"id": "e11ee02b9f4d", "name": "ann", "hash": digest, "tokens_per_day": 5}]))
    async with proxy("http://127.0.0.1:9", keys_file=file) as client:
        assert (await client.get("/v1/stats", headers={"x-sluice-key": text})).status_code == 200
        assert (await client.get("/v1/stats", headers={"x-sluice-key": text[:-1] + "x"})).status_code == 401
