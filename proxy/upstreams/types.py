"""Shapes and interfaces of upstreams: what a model is served by, and what comes back. Knows no HTTP library."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Protocol

from sluice.compressor.profiles import Profile
from sluice.proxy.headers import Header
from sluice.proxy.wire import WireName


@dataclass(frozen=True, slots=True)
class Target:
    """The upstream that serves a model."""

    name: str
    """Its name in the settings; `default` where there is but one."""
    origin: str
    """Scheme, host and port, and whatever path stands before the API's own. The ledger's name for the upstream."""
    profile: Profile
    """What its prompt cache costs."""
    wires: frozenset[WireName]
    """The formats that it speaks; others are translated."""
    is_local: bool
    """Whether it is self-hosted, so that its prefix cache is ours to care for."""
    rename: Mapping[str, str] = field(default_factory=dict)
    """What it calls a model, by the name that clients use."""

    def name_of(self, model: str) -> str:
        """What it calls a model."""
        return self.rename.get(model, model)


class Answer(Protocol):
    """An upstream's answer, its body not yet read. Close it in any case."""

    status: int
    """HTTP status."""
    headers: Sequence[Header]
    """All headers, as sent."""

    async def read(self) -> bytes:
        """Return the next bytes as soon as there are any; none at the end.

        Raises:
            UpstreamError: the answer broke off, or stalled.
        """
        ...

    def close(self) -> None:
        """Release the connection; an answer that is not read to its end is thereby cancelled."""
        ...


class Translator(Protocol):
    """Says one wire format's requests and answers in another's."""

    def can(self, source: WireName, target: WireName) -> bool:
        """Whether requests in `source` can be put as `target`."""
        ...

    def path(self, target: WireName) -> str:
        """Where requests in a format go, from `/v1` on."""
        ...

    def headers(self, target: WireName, headers: Sequence[Header]) -> list[Header]:
        """Headers of a translated request; the credential is left as it is."""
        ...

    def request(self, source: WireName, target: WireName, body: bytes) -> bytes:
        """Translate a request's body.

        Raises:
            RequestError: it asks for what `target` cannot say.
        """
        ...

    def cleaned(self, wire: WireName, body: bytes, provider: str) -> bytes:
        """A request that needs no translation, less what translated answers left in it and its upstream refuses.

        Args:
            wire: the format of the body.
            body: of the request.
            provider: name of the upstream's preset.
        """
        ...

    def answer(self, source: WireName, target: WireName, answer: Answer, *, stream: bool, request: bytes) -> Answer:
        """Wrap an answer that comes in `target`, errors included, so that it reads as `source`.

        Args:
            source: what the client speaks.
            target: what the upstream speaks.
            answer: the upstream's, its body not yet read.
            stream: whether the client asked for events.
            request: the client's body.
        """
        ...
