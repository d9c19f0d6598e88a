from __future__ import annotations

import json

import pytest

from sluice.compressor import (
    ANTHROPIC_MESSAGES,
    OPENAI_CHAT,
    Compressed,
    Compressor,
    CompressorSettings,
    MemoryStore,
    Mode,
)
from sluice.compressor.instructions import addition, bucket, is_summary, word_id, words_of
from tests.compressor.conversations import Json, call, encode, result

SUMMARY = "This session is being continued from a previous conversation that ran out of context. The summary: …"


def user(text: str) -> Json:
    return {"role": "user", "content": text}


async def send(
    store: MemoryStore, messages: list[Json], *, session: bytes = b"s", tenant: bytes = b"t", max_chars: int = 1_000
) -> Compressed:
    compressor = Compressor(store, CompressorSettings(max_reattached_chars=max_chars))
    return await compressor.compress(
        [encode(message) for message in messages],
        dialect=OPENAI_CHAT,
        mode=Mode.SAFE,
        tenant=tenant,
        upstream="u",
        session=session,
    )


BEFORE = [
    user("<system-reminder>be brief</system-reminder>Port the parser to Rust."),
    call("1", "Bash", command="ls"),
    result("1", "a.py"),
    {"role": "assistant", "content": "Done."},
    user("Keep the public names as they are!"),
]
AFTER = [user(SUMMARY), call("2", "Bash", command="ls"), result("2", "a.rs")]


async def test_the_users_words_stand_behind_the_summary_and_stay_there() -> None:
    store = MemoryStore()
    await send(store, BEFORE)
    first = await send(store, AFTER[:1])
    text = json.loads(first.messages[0])["content"]
    assert text.startswith(SUMMARY)
    assert text.endswith("Port the parser to Rust.\nKeep the public names as they are!")
    later = await send(store, [*AFTER, user("And now the tests.")])
    assert later.messages[0] == first.messages[0]
    assert later.messages[1:] == [encode(message) for message in [*AFTER[1:], user("And now the tests.")]]


@pytest.mark.parametrize("other", [{"session": b""}, {"session": b"x"}, {"tenant": b"x"}, {"max_chars": 0}])
async def test_nothing_is_given_back_elsewhere_or_unasked(other: dict[str, object]) -> None:
    store = MemoryStore()
    await send(store, BEFORE)
    done = await send(store, AFTER, **other)  # type: ignore[arg-type]  # one of several parameters
    assert done.messages == [encode(message) for message in AFTER]


async def test_a_sub_agent_of_the_same_session_is_no_summary() -> None:
    store = MemoryStore()
    await send(store, BEFORE)
    task = [user("Find all callers of load().")]
    assert (await send(store, task)).messages == [encode(message) for message in task]


def test_the_task_comes_first_and_then_the_newest_words() -> None:
    words = ["task", "a" * 50, "b" * 50, "task", "new"]
    assert addition(words, 60).split("\n")[1:] == ["task", "b" * 50, "new"]
    assert addition([], 60) == ""
    assert addition(["too long"], 3) == ""


def test_what_the_user_says_beside_a_result_counts() -> None:
    stopped = {"type": "tool_result", "tool_use_id": "x", "content": "[Request interrupted by user for tool use]"}
    said = {"role": "user", "content": [stopped, {"type": "text", "text": "stop: leave the migrations alone"}]}
    assert list(words_of(ANTHROPIC_MESSAGES.parse(encode(said)))) == ["stop: leave the migrations alone"]
    assert list(words_of(OPENAI_CHAT.parse(encode(BEFORE[2])))) == []


def test_words_sort_in_the_order_in_which_they_were_said() -> None:
    now_s = 1.8e9
    ids = [word_id(b"s", now_s, index, f"word {index}") for index in range(200)]
    assert ids == sorted(ids)
    assert {len(one) for one in ids} == {32}
    # As ids were made before: what is kept under them goes first, and what is said later behind it.
    kept = f"{bucket(b's')}{int((now_s - 1) * 1000):011x}00a1b"
    assert kept < ids[0] < word_id(b"s", now_s + 1, 0, "later")


def test_what_agents_put_into_user_messages_was_not_said() -> None:
    said = user("<system-reminder>x</system-reminder>\n<environment_context>y</environment_context> please  ")
    assert list(words_of(OPENAI_CHAT.parse(encode(said)))) == ["please"]
    assert list(words_of(OPENAI_CHAT.parse(encode(user(SUMMARY))))) == []
    assert not is_summary(OPENAI_CHAT.parse(encode({"role": "assistant", "content": SUMMARY})))
