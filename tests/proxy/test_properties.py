"""What holds of every request that leaves the proxy, whatever a conversation holds: in each dialect, in each mode."""

from __future__ import annotations

import asyncio
import json
import re
import threading
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import Future
from dataclasses import dataclass
from typing import Any

import httpx
import pytest
from hypothesis import HealthCheck, given, settings

from sluice.compressor import Dialect
from sluice.compressor.lines import split
from sluice.proxy.body import Body
from tests.compressor.conversations import call, result
from tests.compressor.in_dialects import prompt_of
from tests.effort import examples
from tests.proxy.bodies import SPOKEN, Spoken, requests, said, written
from tests.proxy.scripts import ReadingModel
from tests.proxy.servers import ScriptedUpstream, proxy, serving

MARKER = re.compile(r"\[sluice [0-9a-f]{4}: (\d+) lines [^\]\n]*\]")
GIVEN_BACK = re.compile(r"\[sluice [0-9a-f]{4}: \d+ lines of message \d+ again, \d+-\d+\]")


@dataclass
class Loopback:
    """A proxy, and the upstream behind it."""

    url: str
    upstream: ScriptedUpstream


@pytest.fixture(scope="module")
def loopback() -> Iterator[Loopback]:
    ready: Future[Loopback] = Future()
    stopping: list[Callable[[], object]] = []

    async def serve() -> None:
        stop = asyncio.get_running_loop().create_future()
        upstream = ScriptedUpstream()
        upstream.answer = ReadingModel(0)
        async with serving(upstream) as url, proxy(url) as client:
            stopping.append(lambda: stop.get_loop().call_soon_threadsafe(stop.set_result, None))
            ready.set_result(Loopback(str(client.base_url), upstream))
            await stop

    thread = threading.Thread(target=asyncio.run, args=(serve(),))
    thread.start()
    yield ready.result(30)
    stopping[0]()
    thread.join()


def skeleton(body: Body) -> list[bytes]:
    """What stands around the messages of a body, byte for byte."""
    assert body.spans is not None
    ends = [0, *(end for span in body.spans for end in span), len(body.raw)]
    return [body.raw[start:stop] for start, stop in zip(ends[::2], ends[1::2], strict=True)]


def without_results(raw: bytes, dialect: Dialect) -> Any:
    """A message less the texts of its tool results, `cache_control` and all else included."""
    message = dialect.parse(raw)
    emptied = dialect.render(raw, {i: "" for i, text in enumerate(message.texts) if text.is_result})
    return json.loads(dialect.carry(raw, emptied))


def calls_and_results(messages: Sequence[bytes], dialect: Dialect) -> list[tuple[str, str]]:
    found = []
    for raw in messages:
        message = dialect.parse(raw)
        found += [("call", call.id) for call in message.calls]
        found += [("result", text.call_id or "") for text in message.texts if text.is_result]
    return found


def assert_kept_lines_are_verbatim(before: str, after: str, shown: set[str]) -> None:
    """Lines stay as and where they are; a marker stands for each that is gone; what is given back was shown."""
    original, lines = split(before).texts, split(after).texts
    given_back = next((i for i, line in enumerate(lines) if GIVEN_BACK.fullmatch(line)), len(lines))
    index = 0
    for line in lines[:given_back]:
        if (marker := MARKER.fullmatch(line)) is not None:
            index += int(marker[1])
        else:
            assert line == original[index]
            index += 1
    assert index == len(original), "a line is gone without a marker"
    for line in lines[given_back:]:
        assert MARKER.fullmatch(line) or line in shown, line


def check_turn(spoken: Spoken, sent: Body, forwarded: Body) -> None:
    dialect = spoken.dialect
    assert skeleton(forwarded) == skeleton(sent), "all but messages is the client's, byte for byte"
    assert len(forwarded.messages) == len(sent.messages)
    assert calls_and_results(forwarded.messages, dialect) == calls_and_results(sent.messages, dialect)
    shown = {line for raw in sent.messages for text in dialect.parse(raw).texts for line in text.text.split("\n")}
    for before, after in zip(sent.messages, forwarded.messages, strict=True):
        if after == before:
            continue
        was, now = dialect.parse(before), dialect.parse(after)
        assert any(text.is_result for text in was.texts), "only tool output is touched"
        assert without_results(after, dialect) == without_results(before, dialect)
        assert json.loads(after).keys() == json.loads(before).keys()
        for old, new in zip(was.texts, now.texts, strict=True):
            if old.is_result:
                assert_kept_lines_are_verbatim(old.text, new.text, shown)
            else:
                assert new.text == old.text


@pytest.mark.parametrize("mode", ["off", "safe", "balanced", "aggressive"])
@pytest.mark.parametrize("name", SPOKEN)
def test_every_request_of_a_conversation(name: str, mode: str, loopback: Loopback) -> None:
    spoken = SPOKEN[name]
    num_turns = num_epochs = 0

    @settings(examples(10), suppress_health_check=[HealthCheck.too_slow, HealthCheck.data_too_large])
    @given(bodies=requests(spoken))
    def check(bodies: list[bytes]) -> None:
        nonlocal num_turns, num_epochs
        before: list[bytes] = []
        for raw in bodies:
            answer = client.post(spoken.wire.path, content=raw, headers={"x-sluice-mode": mode})
            assert answer.status_code == 200
            assert "x-sluice-bypass" not in answer.headers
            forwarded_raw = loopback.upstream.last.body
            if mode == "off":
                assert forwarded_raw == raw
                continue
            forwarded = spoken.wire.parse(forwarded_raw)
            check_turn(spoken, spoken.wire.parse(raw), forwarded)
            now = prompt_of(forwarded.messages, spoken.dialect)
            num_turns += 1
            if "x-sluice-epoch" in answer.headers:
                num_epochs += 1
            else:
                assert now[: len(before)] == before, "what was forwarded once is forwarded again"
            before = now

    with httpx.Client(base_url=loopback.url, timeout=60, trust_env=False) as client:
        check()
    assert num_epochs <= num_turns / 10, "the prefix is checked but for few turns"


# --- the checks themselves --------------------------------------------------------------------------------------------

TEXT = "\n".join(f"    value_{number} = compute({number}, scale={number * 7})" for number in range(40))
CHANGED = TEXT.replace("value_20 =", "value_20 +=")


def conversation() -> list[Any]:
    """A file that is read, and read again after one of its lines was changed."""
    chat: list[Any] = [{"role": "user", "content": "fix it"}]
    for number, text in enumerate((TEXT, CHANGED)):
        chat += [call(f"c{number}", "Read", file_path="a.py"), result(f"c{number}", text)]
    return chat


def lose_a_line(body: bytes) -> bytes:
    return body.replace(b"    value_18 = compute(18, scale=126)\\n", b"", 1)


def change_a_line(body: bytes) -> bytes:
    return body.replace(b"value_20 +=", b"value_20 -=")


def swap_lines(body: bytes) -> bytes:
    head, tail = body.rsplit(b"value_20 +=", 1)
    return head + b"value_21 +=" + tail.replace(b"value_21 =", b"value_20 =", 1)


def touch_what_surrounds(body: bytes) -> bytes:
    return body.replace(b'"tools": ', b'"tools":', 1)


def touch_what_a_person_said(body: bytes) -> bytes:
    return body.replace(b"fix it", b"fix  it")


def part_a_pair(body: bytes) -> bytes:
    return body.replace(b'"c1"', b'"c9"', 1)


@pytest.mark.parametrize("name", SPOKEN)
@pytest.mark.parametrize(
    "spoil", [lose_a_line, change_a_line, swap_lines, touch_what_surrounds, touch_what_a_person_said, part_a_pair]
)
def test_what_is_checked_can_fail(name: str, spoil: Callable[[bytes], bytes], loopback: Loopback) -> None:
    spoken = SPOKEN[name]
    raw = written(spoken, said(spoken, conversation()))
    with httpx.Client(base_url=loopback.url, timeout=60, trust_env=False) as client:
        assert client.post(spoken.wire.path, content=raw, headers={"x-sluice-mode": "safe"}).status_code == 200
    forwarded = loopback.upstream.last.body
    assert forwarded.count(b"lines as in message") == 2
    check_turn(spoken, spoken.wire.parse(raw), spoken.wire.parse(forwarded))
    assert spoil(forwarded) != forwarded
    with pytest.raises(AssertionError):
        check_turn(spoken, spoken.wire.parse(raw), spoken.wire.parse(spoil(forwarded)))
