from __future__ import annotations

import gzip
import json
from typing import Any

import pytest
from anthropic import AsyncAnthropic
from hypothesis import given
from hypothesis import strategies as st
from openai import AsyncOpenAI

from sluice.compressor import Mode
from sluice.compressor.profiles import PROFILES
from sluice.proxy.batches import compress_message_batch, compress_upload, model_of_batch
from sluice.proxy.forms import batch_file
from tests.effort import examples
from tests.proxy.servers import Exchange, ScriptedUpstream, proxy, reading_twice
from tests.proxy.test_wires import as_messages

CHAT = {"model": "m", "messages": reading_twice(), "seed": 1}


def line(number: int, body: Any = CHAT, url: str = "/v1/chat/completions") -> str:
    return json.dumps({"custom_id": f"r{number}", "method": "POST", "url": url, "body": body})


def form(file: bytes, purpose: bytes = b"batch", boundary: bytes = b"xx--yy") -> tuple[bytes, str]:
    body = (
        b'--%b\r\nContent-Disposition: form-data; name="purpose"\r\n\r\n%b\r\n' % (boundary, purpose)
        + b'--%b\r\nContent-Disposition: form-data; name="file"; filename="in.jsonl"\r\n' % boundary
        + b"Content-Type: application/jsonl\r\n\r\n%b\r\n--%b--\r\n" % (file, boundary)
    )
    return body, f"multipart/form-data; boundary={boundary.decode()}"


async def upload(file: bytes, *, mode: Mode = Mode.SAFE, purpose: bytes = b"batch") -> tuple[bytes, bytes]:
    body, content_type = form(file, purpose)
    sent = await compress_upload(body, content_type, mode, PROFILES["openai"])
    head = body.index(file)
    assert sent[:head] == body[:head]
    assert sent.endswith(body[head + len(file) :])
    return file, sent[head : len(sent) - (len(body) - head - len(file))]


async def test_each_line_is_compressed_for_itself() -> None:
    before, after = await upload("\n".join([line(1), line(2), line(1)]).encode() + b"\n")
    lines = [json.loads(text) for text in after.decode().splitlines()]
    assert [entry["custom_id"] for entry in lines] == ["r1", "r2", "r1"]
    for entry in lines:
        messages = entry["body"]["messages"]
        assert messages[:4] == CHAT["messages"][:4]
        assert "as in message 3" in messages[4]["content"]
        assert entry["body"]["seed"] == 1
    assert len(after) < 0.7 * len(before)


@pytest.mark.parametrize(
    "odd",
    [
        b"",
        b"no json\n{}\n[]\n",
        line(1, url="/v1/embeddings").encode(),
        line(1, body="text").encode(),
        line(1, body={"model": "m"}).encode(),
        b'{"url": "/v1/chat/completions", "url": "/v1/chat/completions", "body": {}}',
        b"\xff\xfe\r\n\r\n",
    ],
)
async def test_odd_lines_go_up_as_they_came(odd: bytes) -> None:
    body, content_type = form(odd)
    assert await compress_upload(body, content_type, Mode.SAFE, PROFILES["openai"]) == body


async def test_odd_lines_cost_the_others_nothing() -> None:
    _, after = await upload(b"no json\r\n\r\n  " + line(1).encode() + b"  \r\n{}")
    assert after.startswith(b"no json\r\n\r\n  {")
    assert after.endswith(b"  \r\n{}")
    assert b"as in message 3" in after


async def test_other_uploads_and_mode_off_are_left_alone() -> None:
    for mode, purpose in ((Mode.OFF, b"batch"), (Mode.SAFE, b"fine-tune")):
        before, after = await upload(line(1).encode(), mode=mode, purpose=purpose)
        assert after == before
    assert batch_file(b"x", "application/json") is None
    assert batch_file(b"no form", "multipart/form-data; boundary=x") is None


@examples(50)
@given(st.binary(max_size=200), st.sampled_from([b"a", b"--", b"\r\n--xx--y"]))
def test_the_file_is_found_whatever_it_holds(file: bytes, tail: bytes) -> None:
    body, content_type = form(file + tail)
    span = batch_file(body, content_type)
    assert span is not None
    assert body[slice(*span)] == file + tail


async def test_the_real_client_uploads_a_batch(upstream: ScriptedUpstream) -> None:
    async def answer(exchange: Exchange) -> None:
        meta = {
            "id": "file-1",
            "object": "file",
            "bytes": 1,
            "created_at": 1,
            "filename": "in",
            "purpose": "batch",
            "status": "processed",
        }
        await exchange.whole(json.dumps(meta).encode())

    upstream.answer = answer
    async with (
        proxy(upstream.url) as client,
        AsyncOpenAI(base_url=f"{client.base_url}/v1", api_key="k", max_retries=0) as openai,
    ):
        got = await openai.files.create(file=("in.jsonl", line(1).encode()), purpose="batch")
    assert got.id == "file-1"
    assert b"as in message 3" in upstream.last.body
    assert upstream.last.header("content-length") == b"%d" % len(upstream.last.body)


# --- Anthropic's ------------------------------------------------------------------------------------------------------

MESSAGES = as_messages(reading_twice(), system="be brief", metadata={"user_id": "u"})


def entry(number: int, params: Any = MESSAGES) -> dict[str, Any]:
    return {"custom_id": f"r{number}", "params": params}


async def test_each_request_of_a_message_batch_is_compressed_for_itself() -> None:
    batch = {"requests": [entry(1), entry(2), entry(1)], "later": [1]}
    sent = json.loads(await compress_message_batch(json.dumps(batch).encode(), Mode.SAFE, PROFILES["anthropic"]))
    assert sent["later"] == [1]
    assert [one["custom_id"] for one in sent["requests"]] == ["r1", "r2", "r1"]
    for one in sent["requests"]:
        params = one["params"]
        assert {key: value for key, value in params.items() if key != "messages"} == {
            key: value for key, value in MESSAGES.items() if key != "messages"
        }
        assert params["messages"][:4] == MESSAGES["messages"][:4]
        assert "as in message 3" in params["messages"][4]["content"][0]["content"]


@pytest.mark.parametrize(
    "odd",
    [
        b"",
        b"no json",
        b"{}",
        b'{"requests": "text"}',
        b'{"requests": [7]}',
        b'{"requests": []}',
        json.dumps({"requests": [entry(1, "text"), entry(2, {"model": "m"}), {}]}).encode(),
        b'{"requests": [{"params": {}, "params": {}}]}',
        b'{"requests": [], "requests": []}',
    ],
)
async def test_odd_message_batches_go_up_as_they_came(odd: bytes) -> None:
    assert await compress_message_batch(odd, Mode.SAFE, PROFILES["anthropic"]) == odd
    assert model_of_batch(odd) in ("", "m")


async def test_odd_requests_cost_the_others_nothing() -> None:
    whole = b'{"requests":[%b, {"params": "x"} ,%b ]}' % ((json.dumps(entry(1)).encode(),) * 2)
    sent = await compress_message_batch(whole, Mode.SAFE, PROFILES["anthropic"])
    assert sent.count(b"as in message 3") == 2
    assert b', {"params": "x"} ,' in sent
    assert await compress_message_batch(whole, Mode.OFF, PROFILES["anthropic"]) == whole


@pytest.mark.parametrize("is_packed", [False, True])
async def test_a_message_batch_goes_where_its_model_is_served_and_its_results_come_back(
    upstream: ScriptedUpstream, is_packed: bool
) -> None:
    results = b'{"custom_id": "r1", "result": {"type": "succeeded"}}\n'

    async def answer(exchange: Exchange) -> None:
        await exchange.whole(results if exchange.method == "GET" else b'{"id": "msgbatch_1"}')

    upstream.answer = answer
    tables = (
        {"name": "other", "origin": "http://127.0.0.1:9", "wires": ["chat"]},
        {"name": "claude", "preset": "anthropic", "origin": upstream.url, "models": ["m"]},
    )
    body = json.dumps({"requests": [entry(1)]}).encode()
    headers = {"content-type": "application/json", "anthropic-beta": "b", "x-api-key": "k", "x-sluice-mode": "safe"}
    if is_packed:
        body, headers["content-encoding"] = gzip.compress(body), "gzip"
    async with proxy(None, upstreams=tables) as client:
        made = await client.post("/v1/messages/batches", content=body, headers=headers)
        assert (made.json(), made.headers["x-sluice-upstream"]) == ({"id": "msgbatch_1"}, "claude")
        sent = upstream.last
        assert "as in message 3" in sent.json["requests"][0]["params"]["messages"][4]["content"][0]["content"]
        assert (sent.header("anthropic-beta"), sent.header("content-encoding")) == (b"b", None)
        got = await client.get("/v1/messages/batches/msgbatch_1/results", headers={"x-api-key": "k"})
    assert (got.content, got.headers["x-sluice-upstream"]) == (results, "claude")


async def test_the_real_client_makes_a_message_batch(upstream: ScriptedUpstream) -> None:
    async def answer(exchange: Exchange) -> None:
        counts = {"processing": 1, "succeeded": 0, "errored": 0, "canceled": 0, "expired": 0}
        meta = {"id": "msgbatch_1", "type": "message_batch", "processing_status": "in_progress"}
        times = {"created_at": "2026-11-26T00:00:00Z", "expires_at": "2026-11-27T00:00:00Z"}
        await exchange.whole(json.dumps({**meta, **times, "request_counts": counts}).encode())

    upstream.answer = answer
    async with (
        proxy(upstream.url, mode="safe") as client,
        AsyncAnthropic(base_url=str(client.base_url), api_key="k", max_retries=0) as anthropic,
    ):
        got = await anthropic.messages.batches.create(requests=[entry(1)])  # type: ignore[list-item]  # a dict is one
    assert got.id == "msgbatch_1"
    assert b"as in message 3" in upstream.last.body
