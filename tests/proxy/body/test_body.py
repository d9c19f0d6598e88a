from __future__ import annotations

import asyncio
import json
import threading
from collections.abc import Callable, Iterator
from concurrent.futures import Future
from typing import Any

import httpx
import pytest
from hypothesis import given
from hypothesis import strategies as st

from sluice.proxy.body import Body
from sluice.proxy.errors import BodyTooLargeError, InvalidFieldError, InvalidJsonError, RequestError
from sluice.proxy.receive import read_body
from sluice.proxy.wire import wires
from tests.effort import examples
from tests.proxy.servers import ScriptedUpstream, proxy, serving

JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False, allow_infinity=False) | st.text(max_size=20),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(max_size=10), inner, max_size=4),
    max_leaves=12,
)
MESSAGES = st.lists(st.dictionaries(st.text(st.characters(), max_size=8), JSON, max_size=4), max_size=6)
CHAT = st.fixed_dictionaries(
    {"model": st.text(st.characters(), max_size=8), "messages": MESSAGES}, optional={"x": JSON}
)


def dumped(value: Any, indent: int | None, ascii_only: bool) -> bytes:
    return json.dumps(value, indent=indent, ensure_ascii=ascii_only).encode("utf-8", "replace")


@examples(100)
@given(CHAT, st.sampled_from([None, 0, 3]), st.booleans())
def test_messages_are_found_where_they_lie(chat: Any, indent: int | None, ascii_only: bool) -> None:
    raw = dumped(chat, indent, ascii_only)
    body = wires.CHAT.parse(raw)
    assert [json.loads(message) for message in body.messages] == json.loads(raw)["messages"]
    assert body.splice(body.messages) is raw


@examples(100)
@given(CHAT, st.sampled_from([None, 2]), st.booleans(), st.data())
def test_a_spliced_message_changes_nothing_else(chat: Any, indent: int | None, ascii_only: bool, data: Any) -> None:
    raw = dumped(chat, indent, ascii_only)
    body = wires.CHAT.parse(raw)
    messages = list(body.messages)
    changed = {i for i in range(len(messages)) if data.draw(st.booleans())}
    for index in changed:
        messages[index] = b'{"new":%d}' % index
    expected = json.loads(raw)
    for index in changed:
        expected["messages"][index] = {"new": index}
    spliced = body.splice(messages)
    assert json.loads(spliced) == expected
    assert list(wires.CHAT.parse(spliced).messages) == messages
    assert wires.CHAT.parse(spliced).splice(body.messages) == raw


@examples(100)
@given(st.binary(max_size=60) | JSON.map(json.dumps).map(str.encode))
def test_any_bytes_parse_or_are_refused(raw: bytes) -> None:
    try:
        body = wires.CHAT.parse(raw)
    except RequestError:
        return
    assert isinstance(body, Body)
    assert isinstance(json.loads(raw)["messages"], list)


@pytest.mark.parametrize(
    ("raw", "says"),
    [
        (b"", "line 1, column 1"),
        (b"{", "line 1, column 2"),
        (b'{"model": "m",\n "messages": [}', "line 2, column 15"),
        (b'{"model": "m", "messages": []} x', "character 31"),
        (b'{"model": "m", "messages": [], "x": NaN}', "NaN"),
        (b'{"model": "\xff", "messages": []}', "byte 11 is not UTF-8"),
        (b'{"model": "m", "messages": ' + b"[" * 100_000, "nested too deeply"),
    ],
)
def test_what_is_no_json_is_refused_with_its_place(raw: bytes, says: str) -> None:
    with pytest.raises(InvalidJsonError) as caught:
        wires.CHAT.parse(raw)
    assert says in str(caught.value)


@pytest.mark.parametrize(
    ("raw", "param", "says"),
    [
        (b"[]", None, "must be an object, not an array"),
        (b"3", None, "must be an object, not a number"),
        (b"{}", "model", "lacks 'model'"),
        (b'{"messages": []}', "model", "lacks 'model'"),
        (b'{"model": "m"}', "messages", "lacks 'messages'"),
        (b'{"model": null, "messages": []}', "model", "must be a string, not null"),
        (b'{"model": "m", "messages": {}}', "messages", "must be an array, not an object"),
        (b'{"model": "m", "messages": "x"}', "messages", "must be an array, not a string"),
        (b'{"model": "m", "messages": [{}, 7]}', "messages[1]", "must be an object, not a number"),
        (b'{"model": "m", "messages": [true, "\\ud800 lone"]}', "messages[0]", "must be an object, not a boolean"),
        (b'{"model": -1, "messages": ["\\ud800 lone"]}', "model", "must be a string, not a number"),
        (b'{"x": "\\ud800 lone"}', "model", "lacks 'model'"),
    ],
)
def test_what_is_no_chat_request_is_refused_with_its_field(raw: bytes, param: str | None, says: str) -> None:
    with pytest.raises(InvalidFieldError) as caught:
        wires.CHAT.parse(raw)
    assert says in str(caught.value)
    assert caught.value.param == param


@pytest.mark.parametrize(
    "raw",
    [
        b'{"model": "m", "messages": [{"a": 1}], "messages": [{"a": 2}]}',
        b'{"model": "m", "messages": [{"a": 1}], "messages": [{"a": 1}]}',
        b'{"model": "m", "messages": [{"a": 1}], "mess\\u0061ges": [{"a": 2}]}',
        b'{"x": 1, "model": "m", "messages": [{"a": "\\ud800 lone"}], "x": 1}',
    ],
)
def test_a_key_that_stands_twice_is_never_spliced(raw: bytes) -> None:
    assert wires.CHAT.parse(raw).spans is None


def test_a_decoy_of_the_messages_is_left_alone() -> None:
    raw = b'{"copy": [{"a": 1}], "s": "\\"messages\\":[{\\"a\\": 1}]", "model": "m", "messages": [{"a": 1}]}'
    assert wires.CHAT.parse(raw).splice([b"{}"]) == raw[: raw.rindex(b'{"a": 1}')] + b"{}]}"


@pytest.mark.parametrize(("raw", "stream"), [(b"true", True), (b"false", False), (b'"true"', False), (b"1", False)])
def test_stream_is_true_or_not(raw: bytes, stream: bool) -> None:
    assert wires.CHAT.parse(b'{"model": "m", "messages": [], "stream": %s}' % raw).stream is stream


async def test_a_body_is_counted_whatever_its_length_header_says() -> None:
    parts = [b"x" * 40, b"x" * 40, b"x" * 21]

    async def receive() -> Any:
        return {"type": "http.request", "body": parts.pop(0), "more_body": bool(parts)}

    with pytest.raises(BodyTooLargeError, match="limit of 100 bytes"):
        await read_body(receive, "5", 100)


async def test_too_large_a_body_is_413(upstream: ScriptedUpstream) -> None:
    body = json.dumps({"model": "m", "messages": [{"role": "user", "content": "x" * 5000}]}).encode()

    async def chunks() -> Any:
        for start in range(0, len(body), 1000):
            yield body[start : start + 1000]

    async with proxy(upstream.url, max_body_bytes=2000) as client:
        for content in (body, chunks()):
            answer = await client.post("/v1/chat/completions", content=content)
            assert answer.status_code == 413
            assert answer.json()["error"]["code"] == "body_too_large"
            assert "2,000 bytes" in answer.json()["error"]["message"]
            assert int(answer.headers["retry-after"]) >= 60
        assert not upstream.exchanges
        fits = json.dumps({"model": "m", "messages": []}).encode()
        assert (await client.post("/v1/chat/completions", content=fits)).status_code == 200


ODD_MESSAGE = st.fixed_dictionaries(
    {},
    optional={
        "role": st.sampled_from(["user", "tool", "assistant", "system", "nobody"]) | JSON,
        "content": st.text(st.characters(), max_size=200)
        | JSON
        | st.lists(st.fixed_dictionaries({"type": st.just("text"), "text": JSON})),
        "tool_calls": JSON | st.lists(st.fixed_dictionaries({"id": JSON, "function": JSON}), max_size=2),
        "tool_call_id": JSON,
    },
)
ODD_CHAT = st.fixed_dictionaries({"model": st.text(max_size=5), "messages": st.lists(ODD_MESSAGE, max_size=8)})


@pytest.fixture(scope="module")
def running() -> Iterator[tuple[httpx.Client, ScriptedUpstream]]:
    """A proxy and its upstream in a thread of their own, for tests that send many requests."""
    ready: Future[str] = Future()
    upstream = ScriptedUpstream()

    async def serve() -> None:
        stop = asyncio.get_running_loop().create_future()
        async with serving(upstream) as url, proxy(url) as client:
            ready.set_result(str(client.base_url))
            stopping.append(lambda: stop.get_loop().call_soon_threadsafe(stop.set_result, None))
            await stop

    stopping: list[Callable[[], object]] = []
    thread = threading.Thread(target=asyncio.run, args=(serve(),))
    thread.start()
    with httpx.Client(base_url=ready.result(30), trust_env=False, timeout=30) as client:
        yield client, upstream
    stopping[0]()
    thread.join()


@given(st.binary(max_size=40) | (JSON | CHAT | ODD_CHAT).map(json.dumps).map(str.encode))
@examples(200)
def test_no_body_whatever_crashes_the_proxy(running: tuple[httpx.Client, ScriptedUpstream], body: bytes) -> None:
    client, upstream = running
    num_before = len(upstream.exchanges)
    answer = client.post("/v1/chat/completions", content=body)
    if answer.status_code == 200:
        assert len(upstream.exchanges) == num_before + 1
        sent = json.loads(upstream.last.body)
        assert len(sent["messages"]) == len(json.loads(body)["messages"])
        assert answer.headers.get("x-sluice-bypass") != "error"
    else:
        assert answer.status_code == 400
        assert answer.json()["error"]["message"]
