from __future__ import annotations

import asyncio
import json
import threading
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from sluice.compressor import ANTHROPIC_MESSAGES, OPENAI_CHAT, OPENAI_RESPONSES, MemoryStore, StateError
from sluice.compressor import advance as advance_module
from sluice.compressor.middleware import History, compact
from sluice.compressor.middleware.history import Results
from tests.effort import examples
from tests.proxy.servers import reading_twice

JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.text(max_size=8),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=8), inner, max_size=3),
    max_leaves=8,
)
FIELDS = st.sampled_from(["role", "content", "type", "tool_calls", "call_id", "output", "tool_call_id"])
ROLES = st.sampled_from(["user", "assistant", "tool", "system"])
MESSAGES = st.lists(
    st.dictionaries(FIELDS, JSON, max_size=5).flatmap(lambda m: ROLES.map(lambda role: {"role": role, **m})), max_size=5
)


class LostStore(MemoryStore):
    async def get_many(self, keys: Any) -> Any:
        raise StateError("gone")


def shared_history() -> History:
    return History(timeout_s=60)


def test_from_threads_and_from_loops_that_come_and_go_the_same_is_sent() -> None:
    history = shared_history()
    messages = reading_twice()
    sent = history.shorten_sync(messages)
    assert sent[:4] == messages[:4]
    assert sent[4]["content"].endswith("40 lines as in message 3]")
    for _ in range(2):
        assert asyncio.run(history.shorten(messages)) == sent


def test_what_a_marker_stands_for_can_be_had_back() -> None:
    history = shared_history()
    messages = reading_twice()
    marker = history.shorten_sync(messages)[4]["content"]
    recall_id = marker.rpartition("[sluice ")[2].partition(":")[0]
    assert history.recall_sync(recall_id) == messages[4]["content"]
    assert asyncio.run(history.recall(recall_id)) == messages[4]["content"]


def test_a_store_that_several_share_holds_their_decisions() -> None:
    store = MemoryStore()
    messages = reading_twice()
    first = History(store, mode="safe", timeout_s=60).shorten_sync(messages)
    assert first != messages
    # Another process's decision stands, even where this one's mode would have it otherwise.
    again = [*messages, {"role": "user", "content": "go on"}]
    assert History(store, mode="balanced", timeout_s=60).shorten_sync(again)[:5] == first


def test_without_its_store_it_sends_all() -> None:
    messages = reading_twice()
    assert History(LostStore(), timeout_s=60).shorten_sync(messages) == messages


def test_a_decision_that_takes_too_long_costs_nothing(caplog: pytest.LogCaptureFixture) -> None:
    class HangingStore(MemoryStore):
        async def get_many(self, keys: Any) -> Any:
            await asyncio.sleep(60)

    messages = reading_twice()
    assert History(HangingStore(), timeout_s=0.05).shorten_sync(messages) == messages
    assert "no decision in 0.2 s" in caplog.text


def test_what_is_no_json_goes_out_as_it_is(caplog: pytest.LogCaptureFixture) -> None:
    messages = [{"role": "user", "content": object()}]
    assert shared_history().shorten_sync(messages) == messages
    assert "they go out as they are" in caplog.text


@examples(30)
@given(MESSAGES, st.sampled_from([OPENAI_CHAT, OPENAI_RESPONSES, ANTHROPIC_MESSAGES]))
def test_whatever_messages_hold_none_is_lost(messages: Any, dialect: Any) -> None:
    sent = HISTORY.shorten_sync(messages, dialect=dialect)
    assert len(sent) == len(messages)
    Results(messages, sent, dialect)


HISTORY = shared_history()


def test_a_bad_setting_is_named() -> None:
    with pytest.raises(ValueError, match="'acme'"):
        History(provider="acme")
    with pytest.raises(ValueError, match="wild"):
        History(mode="wild")


def test_results_under_one_id_are_told_apart() -> None:
    before: list[Any] = [{"role": "tool", "tool_call_id": "c", "content": "same"} for _ in range(2)]
    after = [before[0], {**before[1], "content": "shorter"}]
    results = Results(before, after, OPENAI_CHAT)
    assert results.any_shortened
    assert [results.take("c", "same"), results.take("c", "same")] == ["same", "shorter"]
    assert results.take("c", "same") == "same"
    assert results.take("other", "same") == "same"


def test_compact_shortens_old_results_and_keeps_the_newest() -> None:
    messages = [*reading_twice(), {"role": "assistant", "content": "done"}, {"role": "user", "content": "thanks"}]
    shortened = compact(messages, query="value_7")
    assert len(json.dumps(shortened)) < len(json.dumps(messages))
    assert shortened[-2:] == messages[-2:]
    text = "\n".join(f"value_{number} = compute({number})" for number in range(400))
    assert "value_317 = compute(317)" in compact(text, query="value_317", ratio=0.1)
    with pytest.raises(ValueError, match="2"):
        compact(text, ratio=2)


def test_a_message_that_compact_shortens_keeps_its_cache_control() -> None:
    use = {"type": "tool_use", "id": "a", "name": "bash", "input": {"command": "ls"}}
    listed = {"type": "tool_result", "tool_use_id": "a", "content": "\n".join(["the same line"] * 50)}
    marked = {**listed, "cache_control": {"type": "ephemeral"}}
    messages: list[Any] = [{"role": "assistant", "content": [use]}, {"role": "user", "content": [marked]}]
    (block,) = compact(messages, preserve_recent=0, dialect=ANTHROPIC_MESSAGES)[1]["content"]
    assert len(block["content"]) < len(listed["content"])
    assert block["cache_control"] == {"type": "ephemeral"}


def test_what_was_sent_once_is_sent_again_though_the_next_decision_takes_too_long(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    store, ends, decide = MemoryStore(), threading.Event(), advance_module.decide
    messages = reading_twice()
    before = History(store, mode="safe", timeout_s=60).shorten_sync(messages)
    assert before != messages
    # More than is decided on the loop itself.
    longer = [*messages, {"role": "assistant", "content": "x" * 40_000}, *messages[1:]]

    def slowly(*arguments: Any) -> Any:
        assert ends.wait(30)
        return decide(*arguments)

    with monkeypatch.context() as patch:
        patch.setattr(advance_module, "decide", slowly)
        sent = History(store, mode="safe", timeout_s=0.5).shorten_sync(longer)
        ends.set()
    assert sent == [*before, *longer[5:]]
