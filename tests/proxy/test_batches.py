from __future__ import annotations

import json
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from openai import AsyncOpenAI

from sluice.compressor import Mode
from sluice.compressor.profiles import PROFILES
from sluice.proxy.batches import batch_file, compress_upload
from tests.effort import examples
from tests.proxy.servers import Exchange, ScriptedUpstream, proxy, reading_twice

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
