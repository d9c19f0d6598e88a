"""What a wire is to the proxy: where its requests' messages lie, what its provider's cache depends on, how it says no.

One object per wire, all data: the endpoint is the same for all. What a message says is its dialect's business.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field

from sluice.compressor import Dialect
from sluice.proxy.body import Body, Shape, parse_body
from sluice.proxy.wire.types import WireName

_RESERVES = ("max_completion_tokens", "max_output_tokens", "max_tokens")
_MAX_DIGITS = 12
"""Of a number of tokens; what is longer is no such number."""


@dataclass(frozen=True, slots=True)
class Wire:
    """One wire format, seen from HTTP."""

    name: WireName
    path: str
    """Its route."""
    shape: Shape
    """The outer form of its requests."""
    dialect: Dialect | None
    """Reads its messages; None where there is nothing to compress."""
    context_fields: tuple[str, ...]
    """Fields beside the model and the messages that the provider's cache depends on."""
    render_error: Callable[[Exception], tuple[int, bytes]]
    """An exception as status and body."""
    render_event: Callable[[Exception], bytes]
    """An exception as the event that ends a stream which broke off."""
    stable: Mapping[str, Callable[[bytes], bytes]] = field(default_factory=dict)
    """For fields that change with every request though they say the same: what makes them stable."""
    edits_history: Callable[[Body], bool] = lambda body: False
    """Whether a request has the upstream drop or add messages out of our sight, so that none may refer to another."""

    def parse(self, raw: bytes) -> Body:
        """Decode a request's body.

        Raises:
            RequestError: it is not of this wire's outer form.
        """
        return parse_body(raw, self.shape)

    def context(self, body: Body) -> bytes:
        """What the provider's cache depends on beside the messages: the model, and the fields that come before them."""
        fields = {name: body.field(name) for name in self.context_fields}
        fields |= self.stabilised(body)
        return b"\0".join([body.model.encode(errors="surrogatepass"), *fields.values()])

    def stabilised(self, body: Body) -> dict[str, bytes]:
        """Those of a body's fields that would spoil the prefix cache of a server that reads them, as they should be."""
        stable = {name: make(body.field(name)) for name, make in self.stable.items() if name in body.fields}
        return {name: value for name, value in stable.items() if value != body.field(name)}

    def num_reserved(self, body: Body) -> int:
        """Tokens that a request reserves for its answer."""
        for name in _RESERVES:
            if (value := body.field(name)).isdigit() and len(value) <= _MAX_DIGITS:
                return int(value)
        return 0
