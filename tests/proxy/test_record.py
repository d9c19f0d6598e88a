"""`--record`: what is written, for whose eyes, and that nothing of it can cost a request."""

from __future__ import annotations

import asyncio
import gzip
import json
import os
import stat
from pathlib import Path

import pytest

from sluice.eval.readers import read_conversations
from sluice.proxy.app import create_app
from sluice.proxy.errors import ConfigError
from sluice.proxy.record import append_whole, usage_of
from sluice.proxy.settings import Settings
from tests.full_disk import files_end_at
from tests.proxy.servers import ScriptedUpstream, completion, proxy, reading_twice

ASKED = [{"role": "user", "content": "hi"}]
ANSWERED = [*ASKED, {"role": "assistant", "content": "hello"}, {"role": "user", "content": "more"}]


async def test_a_request_is_written_as_the_client_sent_it(upstream: ScriptedUpstream, tmp_path: Path) -> None:
    async with proxy(upstream.url, record=tmp_path / "log") as client:
        body = {"model": "gpt-4o", "messages": reading_twice()}
        await client.post("/v1/chat/completions", json=body, headers={"authorization": "Bearer sk-secret"})
        await client.get("/v1/models")
    (name,) = os.listdir(tmp_path / "log")
    file = tmp_path / "log" / name
    (line,) = file.read_text().splitlines()
    written = json.loads(line)
    assert written["request"] == body
    assert (written["format"], written["wire"], written["status"]) == ("sluice-record-1", "chat", 200)
    assert written["usage"] == completion()["usage"]
    assert "sk-secret" not in line
    assert stat.S_IMODE(file.stat().st_mode) == 0o600
    assert stat.S_IMODE(file.parent.stat().st_mode) == 0o700


async def test_what_is_written_can_be_replayed(upstream: ScriptedUpstream, tmp_path: Path) -> None:
    async with proxy(upstream.url, record=tmp_path) as client:
        for messages in (ASKED, ANSWERED):
            await client.post("/v1/chat/completions", json={"model": "gpt-4o", "messages": messages})
    (found,) = read_conversations(tmp_path)
    assert json.loads(found.data)["messages"] == ANSWERED


async def test_a_packed_body_is_written_unpacked(upstream: ScriptedUpstream, tmp_path: Path) -> None:
    async with proxy(upstream.url, record=tmp_path) as client:
        body = gzip.compress(json.dumps({"model": "gpt-4o", "messages": ASKED}).encode())
        await client.post("/v1/chat/completions", content=body, headers={"content-encoding": "gzip"})
    (found,) = read_conversations(tmp_path)
    assert json.loads(found.data)["messages"] == ASKED


async def test_nothing_is_written_unless_asked_for(
    upstream: ScriptedUpstream, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    async with proxy(upstream.url) as client:
        await client.post("/v1/chat/completions", json={"model": "gpt-4o", "messages": ASKED})
    assert os.listdir(tmp_path) == []


async def test_a_fault_costs_a_line_and_no_request(upstream: ScriptedUpstream, tmp_path: Path) -> None:
    async with proxy(upstream.url, record=tmp_path / "log") as client:
        (tmp_path / "log").rmdir()
        answer = await client.post("/v1/chat/completions", json={"model": "gpt-4o", "messages": ASKED})
    assert answer.status_code == 200


async def test_a_folder_that_cannot_be_made_stops_the_start(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(ConfigError, match="bad value for record"):
        create_app(Settings(upstream="http://127.0.0.1:1", record=tmp_path / "file" / "log"))


@pytest.mark.parametrize(
    ("answer", "usage"),
    [
        (b'{"usage": {"prompt_tokens": 3}}', {"prompt_tokens": 3}),
        (b'data: {"choices": []}\n\ndata: {"usage": {"prompt_tokens": 3}}\n\ndata: [DONE]\n\n', {"prompt_tokens": 3}),
        (
            b'event: message_start\ndata: {"message": {"usage": {"input_tokens": 9, "output_tokens": 1}}}\n\n'
            b'event: message_delta\ndata: {"usage": {"output_tokens": 7}}\n\n',
            {"input_tokens": 9, "output_tokens": 7},
        ),
        (b'data: {"response": {"usage": {"input_tokens": 4}}}\n\n', {"input_tokens": 4}),
        (b'data: {"usage": null}\n\ndata: {"usage"', None),
        (b"", None),
    ],
)
def test_usage_is_read_from_whole_answers_and_from_events(answer: bytes, usage: dict[str, int] | None) -> None:
    assert usage_of(answer) == usage


def test_a_line_for_which_there_is_no_room_leaves_nothing_of_itself(tmp_path: Path) -> None:
    file = tmp_path / "record.jsonl"
    append_whole(file, b"1" * 100_000 + b"\n")
    with files_end_at(150_000):
        with pytest.raises(OSError, match="File too large"):
            append_whole(file, b"2" * 100_000 + b"\n")
        append_whole(file, b"3\n")
    assert file.read_bytes() == b"1" * 100_000 + b"\n3\n"


async def test_that_there_is_no_room_is_said_once_and_that_there_is_again(
    upstream: ScriptedUpstream, tmp_path: Path, caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    tried: list[bytes] = []

    def append(path: Path, line: bytes) -> None:
        try:
            append_whole(path, line)
        finally:
            tried.append(line)

    monkeypatch.setattr("sluice.proxy.record.append_whole", append)
    async with proxy(upstream.url, record=tmp_path / "log") as client:
        (tmp_path / "log").rename(tmp_path / "away")
        for _ in range(3):
            await client.post("/v1/chat/completions", json={"model": "gpt-4o", "messages": ASKED})
        async with asyncio.timeout(10):
            while len(tried) < 3:  # noqa: ASYNC110 - written once the client has its answer
                await asyncio.sleep(0.01)
        (tmp_path / "away").rename(tmp_path / "log")
        await client.post("/v1/chat/completions", json={"model": "gpt-4o", "messages": ASKED})
    said = [record.getMessage() for record in caplog.records if "record_" in record.getMessage()]
    assert [line.split(" ")[0] for line in said] == ["record_failed", "record_goes_on"]
    assert "requests are served and not written down" in said[0]
    assert "num_not_written=3" in said[1]
    [file] = (tmp_path / "log").iterdir()
    assert len(file.read_text().splitlines()) == 1
