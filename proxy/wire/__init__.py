"""What agents and upstreams speak: one thin adapter per wire format, HTTP side. Imports no route and no upstream."""

from sluice.proxy.wire.types import Outgoing, WireName

__all__ = ["Outgoing", "WireName"]
