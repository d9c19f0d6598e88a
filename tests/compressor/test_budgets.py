"""A bound on what is forwarded, asked for or told by an upstream's refusal."""

from __future__ import annotations

from sluice.compressor import (
    OPENAI_CHAT,
    Compressed,
    MemoryStore,
    Mode,
)
from tests.compressor.conversations import Json, encode, file_lines, long_read, read_file
from tests.compressor.epochs import Clock, check, make, send


async def test_a_budget_is_kept_by_dropping_the_least_valuable_lines() -> None:
    clock = Clock()
    compressor = make(MemoryStore(), clock)
    messages: list[Json] = [{"role": "user", "content": "go"}]
    raws: list[bytes] = []
    forwarded: list[bytes] = []
    epochs: list[str] = []
    for index in range(12):
        messages += long_read(f"f{index}.py", 60, f"t{index}")
        raws = [encode(message) for message in messages]
        done = await compressor.compress(
            raws, dialect=OPENAI_CHAT, mode=Mode.BALANCED, tenant=b"t", upstream="u", max_tokens=4_000
        )
        check(messages, done)
        assert done.num_chars_out / 4 + 4 * len(messages) <= 4_000
        assert done.epoch is not None or done.messages[: len(forwarded)] == forwarded
        epochs += [done.epoch] if done.epoch else []
        forwarded = done.messages
    assert sum(map(len, raws)) / 4 > 8_000
    assert set(epochs) == {"need"}
    assert len(epochs) < 8, "a rewrite makes room for more than one turn"


async def test_a_request_that_was_refused_as_too_long_is_rewritten_once_and_stays_so() -> None:
    store, clock = MemoryStore(), Clock()
    messages: list[Json] = [{"role": "user", "content": "go"}]
    for index in range(12):
        messages += long_read(f"f{index}.py", 60, f"t{index}")
        first = await send(make(store, clock), messages)

    async def shed(max_tokens: int) -> Compressed:
        return await send(make(store, clock), messages, max_tokens=max_tokens, is_refused=True)

    shorter = await shed(4_000)
    assert first.num_chars_out / 4 > 4_000
    assert shorter.num_chars_out / 4 + 4 * len(messages) <= 4_000
    assert (first.epoch, shorter.epoch) == (None, "need")
    check(messages, shorter)
    # The same request again, and the turns after it, in this process and in others, are forwarded in the new form.
    assert (await send(make(store, clock), messages)).messages == shorter.messages
    before, num_epochs = shorter.messages, 0
    for index in range(40):
        messages += long_read(f"g{index}.py", 3, f"u{index}")
        later = await send(make(store, clock), messages)
        num_epochs += later.epoch is not None
        assert later.epoch is not None or later.messages[: len(before)] == before
        before = later.messages
    assert num_epochs < 3


async def test_a_worker_does_not_go_on_from_before_a_refusal_that_another_one_met() -> None:
    store, clock = MemoryStore(), Clock()
    one, other = make(store, clock, exempt=1), make(store, clock, exempt=1)
    messages: list[Json] = [{"role": "user", "content": "go"}]
    for name in ("a", "b", "c"):
        messages += long_read(f"{name}.py", 60, name)
    messages += read_file("again", "a.py", file_lines(60, "a"))
    for stop in (1, 5):
        await send(one, messages[:stop])
    await send(other, messages[:7])
    refused = await other.compress(
        [encode(message) for message in messages[:7]],
        dialect=OPENAI_CHAT,
        mode=Mode.BALANCED,
        tenant=b"t",
        upstream="http://up",
        max_tokens=600,
        is_refused=True,
    )
    assert refused.epoch == "need"
    following = await send(one, messages)
    assert following.messages[:7] == refused.messages
    check(messages, following)


async def test_what_cannot_be_made_smaller_is_forwarded_as_before() -> None:
    compressor = make(MemoryStore(), Clock())
    messages: list[Json] = [{"role": "user", "content": "words of a person " * 500}]
    first = await send(compressor, messages)
    again = await compressor.compress(
        [encode(message) for message in messages],
        dialect=OPENAI_CHAT,
        mode=Mode.BALANCED,
        tenant=b"t",
        upstream="http://up",
        max_tokens=100,
        is_refused=True,
    )
    assert again.messages == first.messages
    assert again.epoch is None
