"""Several rounds become one answer, streamed or whole; the exchange goes back into the next request's history."""

from __future__ import annotations

import json
from collections.abc import Sequence
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from sluice.compressor.dialects.base import Dialect
from sluice.proxy.answers import SourcedAnswer, Unshared
from sluice.proxy.search_tool.answer import answered
from sluice.proxy.search_tool.form import Form, Kept, keep
from sluice.proxy.search_tool.history import fingerprint, restored
from sluice.proxy.search_tool.rounds import Call, Round, summed
from sluice.proxy.search_tool.tool import FORMS
from sluice.proxy.translation.sse import EventParser
from sluice.proxy.upstreams import RoutedAnswer
from sluice.proxy.upstreams.answers import HeldAnswer
from sluice.proxy.wire import WireName
from sluice.proxy.wire.wires import WIRES
from tests.proxy.search_tool.answers import (
    TOOL,
    Json,
    Piece,
    events,
    given_back,
    parse_events,
    pieces_of,
    read,
    results,
    search,
    seen,
    usage_of,
    whole,
)

wires = pytest.mark.parametrize("wire", [WireName.MESSAGES, WireName.CHAT, WireName.RESPONSES])

_texts = st.text(st.characters(codec="utf-8", exclude_categories=("Cs", "Cc", "Z")), min_size=1, max_size=12)
_said = st.lists(st.tuples(st.sampled_from(("think", "text")), _texts), max_size=4)


@st.composite
def turns(draw: st.DrawFn) -> list[list[Piece]]:
    """Rounds that call our tool alone, and a last one that calls the client's, ours beside them, or nothing."""
    numbers = iter(range(100))

    def calls(make: Any, at_least: int) -> list[Piece]:
        return [make(f"call_{next(numbers)}") for _ in range(draw(st.integers(at_least, 2)))]

    rounds = [[*draw(_said), *calls(search, 1)] for _ in range(draw(st.integers(0, 4)))]
    others = calls(read, 0)
    ours = calls(search, 0) if others else []
    rounds.append([*draw(_said), *draw(st.permutations([*others, *ours]))])
    return rounds


def spliced_stream(wire: WireName, rounds: Sequence[Sequence[Piece]], cut: int) -> tuple[bytes, list[Round]]:
    """The client's stream, and the rounds; the upstream's bytes come in pieces of `cut`."""
    stream = FORMS[wire].stream()
    out, done = b"", []
    for number, pieces in enumerate(rounds):
        if number:
            stream.next_round()
        parser, data = EventParser(), events(wire, pieces, number)
        for start in range(0, len(data), cut):
            out += b"".join(stream.feed(event) for event in parser.feed(data[start : start + cut]))
        round_ = stream.round()
        assert round_ is not None
        done.append(round_)
    return out + stream.finish(), done


def expected(wire: WireName, rounds: Sequence[Sequence[Piece]]) -> list[Piece]:
    """What a client is to see: everything but calls of our tool, in its order."""
    shown = [[piece for piece in pieces if piece[0] != "call" or piece[2] != TOOL] for pieces in rounds]
    flat = [piece for pieces in shown for piece in pieces]
    if wire is not WireName.CHAT:
        return flat
    texts = ["".join(piece[1] for piece in pieces if piece[0] == "text") for pieces in shown]
    thoughts = "".join(piece[1] for piece in flat if piece[0] == "think")
    text = "\n\n".join(filter(None, texts))
    calls = [piece for piece in flat if piece[0] == "call"]
    return [*([("think", thoughts)] if thoughts else []), *([("text", text)] if text else []), *calls]


def told_usage(wire: WireName, num_rounds: int) -> Json:
    """The last round's prompt, which is what the model has before it, and the output of all."""
    usages = [usage_of(wire, number) for number in range(num_rounds)]
    name = "completion_tokens" if wire is WireName.CHAT else "output_tokens"
    told = {**usages[-1], name: sum(usage[name] for usage in usages)}
    if wire is not WireName.MESSAGES:
        told["total_tokens"] = told[name] + told["prompt_tokens" if wire is WireName.CHAT else "input_tokens"]
    return told


@wires
@given(rounds=turns(), cut=st.integers(1, 4000))
def test_a_client_sees_one_answer_without_our_tool(wire: WireName, rounds: list[list[Piece]], cut: int) -> None:
    stream, _ = spliced_stream(wire, rounds, cut)
    body = seen(wire, parse_events(stream))
    assert pieces_of(wire, body) == expected(wire, rounds)
    told = told_usage(wire, len(rounds))
    assert body["usage"] == told
    assert TOOL.encode() not in stream
    bodies = [whole(wire, pieces, number) for number, pieces in enumerate(rounds)]
    assert pieces_of(wire, FORMS[wire].spliced(bodies)) == expected(wire, rounds)
    assert FORMS[wire].spliced(bodies)["usage"] == told
    assert FORMS[wire].spliced(bodies)["id"] == bodies[0]["id"]


@wires
@given(rounds=turns())
def test_streamed_and_whole_rounds_are_the_same(wire: WireName, rounds: list[list[Piece]]) -> None:
    _, streamed = spliced_stream(wire, rounds, 997)
    for number, (pieces, round_) in enumerate(zip(rounds, streamed, strict=True)):
        read_whole = FORMS[wire].read(whole(wire, pieces, number))
        assert read_whole is not None
        assert [call.id for call in round_.calls] == [call.id for call in read_whole.calls]
        assert (round_.num_others, round_.awaits_results) == (read_whole.num_others, read_whole.awaits_results)
        ours = [piece for piece in pieces if piece[0] == "call" and piece[2] == TOOL]
        for one in (round_, read_whole):
            asked = [(call.id, json.loads(call.arguments)) for call in one.calls]
            assert asked == [(piece[1], json.loads(piece[3])) for piece in ours]


@wires
@given(pieces=_said)
def test_an_answer_that_does_not_search_goes_on_byte_for_byte(wire: WireName, pieces: list[Piece]) -> None:
    if wire is WireName.RESPONSES:
        pieces = [*pieces, read("call_1")]
    stream, _ = spliced_stream(wire, [pieces], 4000)
    assert parse_events(stream) == parse_events(events(wire, pieces))


def kept_of(form: Form, rounds: Sequence[Round]) -> Kept:
    answers = [[f"found by {call.id}" for call in round_.calls] for round_ in rounds if round_.calls]
    return keep(form, rounds[:-1], answers, rounds[-1])


def parse(dialect: Dialect | None, messages: Sequence[Json]) -> Any:
    assert dialect is not None
    return [dialect.parse(json.dumps(message).encode()) for message in messages]


def encoded(messages: Sequence[Json]) -> list[bytes]:
    return [json.dumps(message).encode() for message in messages]


@wires
@given(rounds=turns())
def test_the_next_request_holds_what_every_round_said_in_its_order(wire: WireName, rounds: list[list[Piece]]) -> None:
    form, dialect = FORMS[wire], WIRES[wire].dialect
    stream, done = spliced_stream(wire, rounds, 4000)
    body = seen(wire, parse_events(stream))
    clients = [piece for piece in rounds[-1] if piece[0] == "call" and piece[2] != TOOL]
    run = given_back(wire, body)
    after = results(wire, clients) if clients else [{"role": "user", "content": "go on"}]
    assert dialect is not None
    assert fingerprint(parse(dialect, run)) == fingerprint(parse(dialect, form.told(done)))
    messages = encoded([{"role": "user", "content": "hi"}, *run, *after])
    runs = [(1, 1 + len(run))]
    if not run:
        return  # nothing was said that could be found again
    forwarded = restored(messages, {runs[0]: kept_of(form, done)}, form)
    found = [json.loads(message) for message in forwarded]
    _check_calls_are_answered(wire, found)
    said = [piece for message in found[1:] for piece in _pieces_of_message(wire, message)]
    assert [piece for piece in said if piece[0] != "call"] == _without_calls(wire, rounds)
    assert sorted(piece[1] for piece in said if piece[0] == "call") == sorted(
        piece[1] for pieces in rounds for piece in pieces if piece[0] == "call"
    )
    # What was sent in the rounds is what stands in the history, byte for byte: the cache goes on.
    sent = [
        message
        for round_ in done[:-1]
        for message in form.answered(round_.parts, [(call, f"found by {call.id}") for call in round_.calls])
    ]
    assert forwarded[1 : 1 + len(sent)] == [_compact(message) for message in sent]
    assert restored(messages, {runs[0]: kept_of(form, done)}, form) == forwarded


def _compact(message: Json) -> bytes:
    return json.dumps(message, separators=(",", ":"), ensure_ascii=False).encode()


def _without_calls(wire: WireName, rounds: Sequence[Sequence[Piece]]) -> list[Piece]:
    if wire is not WireName.CHAT:
        return [piece for pieces in rounds for piece in pieces if piece[0] != "call"]
    found: list[Piece] = []
    for pieces in rounds:
        said = {kind: "".join(piece[1] for piece in pieces if piece[0] == kind) for kind in ("think", "text")}
        found += [(kind, text) for kind, text in said.items() if text]
    return found


def _pieces_of_message(wire: WireName, message: Json) -> list[Piece]:
    if wire is WireName.RESPONSES:
        is_said = message.get("type") in ("reasoning", "function_call") or message.get("role") == "assistant"
        return pieces_of(wire, {"output": [message]}) if is_said else []
    if message["role"] != "assistant":
        return []
    return pieces_of(wire, {"choices": [{"message": message}]} if wire is WireName.CHAT else message)


def _check_calls_are_answered(wire: WireName, messages: Sequence[Json]) -> None:
    """Providers refuse a call whose result does not follow at once."""
    open_calls: set[str] = set()
    for message in messages:
        if wire is WireName.MESSAGES:
            blocks = message["content"] if isinstance(message["content"], list) else []
            if message["role"] == "assistant":
                assert not open_calls
                assert blocks, "no empty message"
                open_calls = {block["id"] for block in blocks if block["type"] == "tool_use"}
            else:
                answered = [block["tool_use_id"] for block in blocks if block["type"] == "tool_result"]
                assert set(answered) == open_calls
                assert len(answered) == len(open_calls)
                open_calls = set()
        elif wire is WireName.CHAT:
            if message["role"] == "tool":
                open_calls.remove(message["tool_call_id"])
                continue
            assert not open_calls
            open_calls = {call["id"] for call in message.get("tool_calls") or []}
        elif message.get("type") == "function_call":
            open_calls.add(message["call_id"])
        elif message.get("type") == "function_call_output":
            open_calls.remove(message["call_id"])
    assert not open_calls


def test_a_client_that_leaves_out_thoughts_and_marks_its_cache_is_understood() -> None:
    form = FORMS[WireName.MESSAGES]
    rounds = [
        [("think", "where?"), ("text", "Let me look."), search("call_0")],
        [("think", "there"), ("text", "Now I read it."), read("call_1")],
    ]
    _, done = spliced_stream(WireName.MESSAGES, rounds, 100)
    content = [
        {"type": "text", "text": "Let me look."},
        {"type": "text", "text": "Now I read it."},
        {
            "type": "tool_use",
            "id": "call_1",
            "name": "Read",
            "input": {"file_path": "a.py"},
            "cache_control": {"type": "ephemeral"},
        },
    ]
    dialect = WIRES[WireName.MESSAGES].dialect
    run = [{"role": "assistant", "content": content}]
    assert fingerprint(parse(dialect, run)) == fingerprint(parse(dialect, form.told(done)))
    messages = encoded([{"role": "user", "content": "hi"}, *run, *results(WireName.MESSAGES, [read("call_1")])])
    forwarded = [json.loads(message) for message in restored(messages, {(1, 2): kept_of(form, done)}, form)]
    assert [message["role"] for message in forwarded] == ["user", "assistant", "user", "assistant", "user"]
    assert [block["type"] for block in forwarded[1]["content"]] == ["thinking", "text", "tool_use"]
    assert forwarded[3]["content"] == content[1:]


def chat_chunks(*deltas: Json, reason: str) -> bytes:
    head = {"id": "1", "created": 1, "model": "m", "object": "chat.completion.chunk"}
    chunks = [{**head, "choices": [{"index": 0, "delta": delta, "finish_reason": None}]} for delta in deltas]
    chunks.append({**head, "choices": [{"index": 0, "delta": {}, "finish_reason": reason}]})
    return b"".join(b"data: " + json.dumps(chunk).encode() + b"\n\n" for chunk in chunks)


@pytest.mark.parametrize("beside", [{}, {"content": None}])
@pytest.mark.parametrize("last", [[{"role": "assistant", "content": "hi"}], [{"content": "h"}, {"content": "i"}], []])
def test_the_role_that_came_with_a_hidden_call_is_said_once_with_what_is_shown_first(
    beside: Json, last: list[Json]
) -> None:
    call = {"index": 0, "id": "c", "type": "function", "function": {"name": TOOL, "arguments": "{}"}}
    stream = FORMS[WireName.CHAT].stream()
    first = chat_chunks({"role": "assistant", "tool_calls": [call], **beside}, reason="tool_calls")
    out = b"".join(map(stream.feed, EventParser().feed(first)))
    stream.next_round()
    out += b"".join(map(stream.feed, EventParser().feed(chat_chunks(*last, reason="stop")))) + stream.finish()
    deltas = [choice["delta"] for chunk in parse_events(out) for choice in chunk["choices"]]
    assert [delta.get("role") for delta in deltas] == ["assistant", *[None] * (len(deltas) - 1)]
    assert "".join(delta.get("content") or "" for delta in deltas) == ("hi" if last else "")


@pytest.mark.parametrize("pieces", [["code_se", "arch"], ["code", "_", "search"], ["", "code_search"]])
def test_a_name_that_comes_in_pieces_is_awaited(pieces: list[str]) -> None:
    """Some servers name a call after its id."""
    begun = {"index": 0, "id": "c", "type": "function", "function": {"name": pieces[0], "arguments": ""}}
    deltas: list[Json] = [{"tool_calls": [begun]}]
    deltas += [{"tool_calls": [{"index": 0, "function": {"name": piece}}]} for piece in pieces[1:]]
    deltas.append({"tool_calls": [{"index": 0, "function": {"arguments": '{"query": "x"}'}}]})
    stream, parser = FORMS[WireName.CHAT].stream(), EventParser()
    data = chat_chunks(*deltas, reason="tool_calls")
    assert b"".join(stream.feed(event) for event in parser.feed(data)) == b""
    round_ = stream.round()
    assert round_ is not None
    assert round_.is_ours_alone


def test_thoughts_in_a_list_go_back_to_their_round_and_to_no_other() -> None:
    """OpenRouter gives them so, and wants them back; of a stream the client has those of all rounds."""

    def detail(said: str) -> Json:
        return {"type": "reasoning.encrypted", "data": said}

    form = FORMS[WireName.CHAT]
    bodies = [whole(WireName.CHAT, [search("call_0")]), whole(WireName.CHAT, [read("call_1")], 1)]
    for number, body in enumerate(bodies):
        body["choices"][0]["message"]["reasoning_details"] = [detail(f"d{number}")]
    done = [form.read(body) for body in bodies]
    kept = kept_of(form, [one for one in done if one is not None])
    shown = form.spliced(bodies)["choices"][0]["message"]
    for details in ([detail("d0"), detail("d1")], [detail("d1")]):
        said = [{**shown, "reasoning_details": details}, *results(WireName.CHAT, [read("call_1")])]
        first, _, second, _ = (json.loads(one) for one in form.restored(encoded(said), None, kept))
        assert (first["reasoning_details"], second["reasoning_details"]) == ([detail("d0")], [detail("d1")])


_junk: st.SearchStrategy[Any] = st.recursive(
    st.none() | st.booleans() | st.integers(-1, 3) | st.sampled_from(["", "text", "tool_use", TOOL, "function_call"]),
    lambda inner: (
        st.lists(inner, max_size=2)
        | st.dictionaries(
            st.sampled_from(["type", "index", "delta", "id", "name", "function", "usage"]), inner, max_size=3
        )
    ),
    max_leaves=5,
)


@st.composite
def spoilt(draw: st.DrawFn, value: Any) -> Any:
    """The value with something in it replaced by junk."""
    if isinstance(value, dict) and value and draw(st.integers(0, 3)):
        key = draw(st.sampled_from(sorted(value)))
        return {**value, key: draw(spoilt(value[key]))}
    if isinstance(value, list) and value and draw(st.integers(0, 3)):
        at = draw(st.integers(0, len(value) - 1))
        return [*value[:at], draw(spoilt(value[at])), *value[at + 1 :]]
    return draw(_junk)


@wires
@given(data=st.data())
async def test_an_upstream_that_talks_nonsense_breaks_nothing(wire: WireName, data: st.DataObject) -> None:
    pieces = [("think", "hm"), ("text", "Let me look."), search("call_0"), read("call_1")]
    parsed = parse_events(events(wire, pieces))
    for _ in range(data.draw(st.integers(1, 3))):
        at = data.draw(st.integers(0, len(parsed) - 1))
        parsed[at] = data.draw(spoilt(parsed[at]))
    sent = b"".join(b"data: " + json.dumps(event).encode() + b"\n\n" for event in parsed)
    answer = Unshared(RoutedAnswer(HeldAnswer(200, [(b"content-type", b"text/event-stream")], sent), "u", 0))
    out = b""
    wrapped = await answered(answer, Script(wire))
    while part := await wrapped.read():
        out += part
    wrapped.close()
    body = data.draw(spoilt(whole(wire, pieces)))
    held = HeldAnswer(200, [(b"content-type", b"application/json")], json.dumps(body).encode())
    wrapped = await answered(Unshared(RoutedAnswer(held, "u", 0)), Script(wire))
    assert await wrapped.read()


class Script:
    """A turn whose searches find something, and whose upstream has nothing more to say."""

    def __init__(self, wire: WireName) -> None:
        self.form = FORMS[wire]

    async def search(self, call: Call) -> str:
        return "found"

    async def ask_on(self, messages: Sequence[Json]) -> SourcedAnswer:
        return Unshared(RoutedAnswer(HeldAnswer(400, [], b""), "u", 0))

    async def keep(self, kept: Kept, told: Sequence[Json]) -> None:
        pass


@given(st.recursive(st.integers(0, 9), lambda inner: st.dictionaries(st.sampled_from("abc"), inner, max_size=3)))
def test_usage_is_added_at_every_depth(usage: Any) -> None:
    one = usage if isinstance(usage, dict) else {"n": usage}
    assert summed({}, one) == one
    assert _total(summed(one, one)) == 2 * _total(one)


def _total(value: Any) -> int:
    return sum(map(_total, value.values())) if isinstance(value, dict) else value
