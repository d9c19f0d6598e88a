"""What the search tool has to know of a wire format: calls in an answer, and an exchange in a history.

One sibling per wire: `messages.py`, `chat.py`, `responses.py`. All of it is plain: no sockets, no store.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Protocol

import msgspec

from sluice.proxy.body import Body
from sluice.proxy.search_tool.rounds import Call, Round
from sluice.proxy.translation.deltas import Fault
from sluice.proxy.translation.json_codec import Json, encode
from sluice.proxy.translation.sse import Event

KEPT_VERSION = 1


class Kept(msgspec.Struct, array_like=True, frozen=True):
    """An exchange that the client did not see: what its next requests lack, and where that belongs."""

    version: int
    hidden: tuple[bytes, ...] = ()
    """Messages (JSON) that stand before what the client saw of the last round: answers and results, in their order."""
    shown: tuple[bytes, ...] = ()
    """What the client saw of the hidden rounds; in its form's own terms."""
    calls: tuple[bytes, ...] = ()
    """Calls of our tool (JSON) that the last round made beside the client's."""
    results: tuple[bytes, ...] = ()
    """What answers those."""


class Stream(Protocol):
    """Makes one stream of events out of several rounds."""

    def feed(self, event: Event) -> bytes:
        """Take a round's next event; what can go to the client now. Calls of our tool and the round's end do not."""
        ...

    def round(self) -> Round | None:
        """The round, once all its events are in; None where it broke off."""
        ...

    def next_round(self) -> None:
        """Another round follows: its events go on where this one's stopped."""
        ...

    def finish(self) -> bytes:
        """The events that end the stream: the last round's, with its prompt and all rounds' output as usage."""
        ...

    def fail(self, fault: Fault) -> bytes:
        """The event that ends the stream in place of a round that the upstream refused."""
        ...


class Form(Protocol):
    """One wire format."""

    list_field: str
    """Where a request has its messages."""

    def tool(self, name: str, description: str, parameters: Json) -> Json:
        """How a request offers a tool."""
        ...

    def fits(self, body: Body) -> bool:
        """Whether a request leaves its history to its client, and wants one answer."""
        ...

    def stream(self) -> Stream:
        """For answers that come as events."""
        ...

    def read(self, body: Json) -> Round | None:
        """Read an answer that came whole; None where it is none."""
        ...

    def spliced(self, bodies: Sequence[Json]) -> Json:
        """One answer out of those of several rounds: the first's head, what the client may see, `usage_of` all."""
        ...

    def told(self, rounds: Sequence[Round]) -> list[Json]:
        """What the client saw of the rounds, as its next request will give it back."""
        ...

    def answered(self, parts: Sequence[Json], results: Sequence[tuple[Call, str]]) -> list[Json]:
        """Messages that go on from a round: what the model said, and what its calls came to."""
        ...

    def shown(self, hidden: Sequence[Round]) -> list[bytes]:
        """What the client saw of rounds that called our tool alone; see `Kept.shown`."""
        ...

    def our_calls(self, last: Round) -> list[Json]:
        """The calls of our tool in a round, as it made them."""
        ...

    def results(self, results: Sequence[tuple[Call, str]]) -> list[Json]:
        """What answers calls of our tool; see `Kept.results`."""
        ...

    def restored(self, run: Sequence[bytes], after: bytes | None, kept: Kept) -> list[bytes]:
        """What is forwarded in the place of the messages that an exchange came to for the client.

        Args:
            run: what the client took for the assistant's turn, one message or several.
            after: the message behind them; None where there is none.
            kept: the exchange.

        Returns:
            The messages that stand for `run` and `after`.
        """
        ...


def keep(form: Form, hidden: Sequence[Round], answers: Sequence[Sequence[str]], last: Round) -> Kept:
    """An exchange as the ledger keeps it.

    Args:
        form: of its wire.
        hidden: rounds that called our tool alone.
        answers: what the calls of each came to; where there is one more than rounds hidden, it is for the calls
            that `last` made beside the client's.
        last: the round that the client's turn ended with.
    """
    messages = [
        message
        for one, texts in zip(hidden, answers, strict=False)
        for message in form.answered(one.parts, list(zip(one.calls, texts, strict=True)))
    ]
    beside = answers[len(hidden)] if len(answers) > len(hidden) else ()
    return Kept(
        KEPT_VERSION,
        hidden=tuple(map(encode, messages)),
        shown=tuple(form.shown(hidden)),
        calls=tuple(map(encode, form.our_calls(last))) if beside else (),
        results=tuple(map(encode, form.results(list(zip(last.calls, beside, strict=True))))) if beside else (),
    )
