"""What is known of one request on its way through: for its headers, its log line and the meter. Decides nothing."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from dataclasses import dataclass, field
from functools import reduce

from sluice.proxy.answers import SourcedAnswer
from sluice.proxy.errors import UpstreamError
from sluice.proxy.headers import Header
from sluice.proxy.log import fields, where
from sluice.proxy.meter import UsageReader, reader_for
from sluice.proxy.meter.breakpoints import Breakpoints
from sluice.proxy.meter.usage import Usage, plus
from sluice.proxy.prepared import Prepared
from sluice.proxy.wire import WireName


@dataclass(slots=True)
class Exchange:
    """One request."""

    prepared: Prepared | None = None
    own_s: float = 0.0
    """Time that was ours."""
    counting: asyncio.Task[None] | None = None
    """Counts the tokens of what is prepared; None where nothing is counted."""
    tokens: tuple[int, int] | None = None
    """Tokens that came in and that were forwarded; None until they are counted."""
    breakpoints: Breakpoints | None = None
    """Where the request marks its prefix to be cached, where its wire has such marks."""
    answer: SourcedAnswer | None = None
    """The answer; None until its head is there."""
    readers: list[UsageReader] = field(default_factory=list)
    """Read the usage out of what the upstream answered; the rounds of a search are answers of their own."""
    status: int | None = None
    """The status that the client was sent; None until the answer's head is on its way, after which it stands."""

    def reader(self, wire: WireName, headers: Sequence[Header]) -> UsageReader:
        """A reader for an answer with these headers, whose usage counts from now on."""
        self.readers.append(reader_for(wire, headers))
        return self.readers[-1]

    @property
    def usage(self) -> Usage | None:
        """What the upstream said so far that it took; None where it said nothing."""
        found = [usage for reader in self.readers if (usage := reader.usage()) is not None]
        return reduce(plus, found) if found else None

    @property
    def epoch(self) -> str | None:
        """Why earlier messages were rewritten; None where they were not."""
        compressed = self.prepared and self.prepared.compressed
        return compressed.epoch if compressed else None

    def headers(self) -> list[Header]:
        """Headers that tell the client what became of its request."""
        if self.prepared is None:
            return []
        headers = [
            (b"x-sluice-mode", self.prepared.mode.encode()),
            (b"x-sluice-overhead-ms", b"%.2f" % (self.own_s * 1000)),
        ]
        if self.tokens is not None:
            headers.append((b"x-sluice-tokens-in", b"%d" % self.tokens[0]))
            headers.append((b"x-sluice-tokens-out", b"%d" % self.tokens[1]))
        if self.epoch is not None:
            headers.append((b"x-sluice-epoch", self.epoch.encode()))
        if self.prepared.bypass is not None:
            headers.append((b"x-sluice-bypass", self.prepared.bypass.encode()))
        return headers

    def line(
        self,
        wire: WireName,
        *,
        status: int,
        total_s: float,
        num_bytes: int,
        key_id: str | None,
        error: BaseException | None,
    ) -> str:
        """What the log says of it.

        Args:
            wire: its format.
            status: that the client was sent.
            total_s: from its beginning to its end, in seconds.
            num_bytes: of the answer's body.
            key_id: of its proxy key; None where it has none.
            error: what went wrong; None where nothing did.
        """
        prepared, answer = self.prepared, self.answer
        return fields(
            wire,
            status=status,
            mode=prepared and prepared.mode,
            epoch=self.epoch,
            bypass=prepared and prepared.bypass,
            tokens_in=self.tokens and self.tokens[0],
            tokens_out=self.tokens and self.tokens[1],
            upstream=answer and answer.upstream,
            retries=answer and (answer.num_retries or None),
            overhead_ms=self.own_s * 1000,
            total_ms=total_s * 1000,
            answer=answer and answer.source,
            answer_bytes=num_bytes,
            key=key_id,
            error=error and where(error),
            # What is said of upstreams is our own text and quotes no request; other errors may.
            reason=str(error) if isinstance(error, UpstreamError) else None,
        )
