"""Request bodies: decoded once, as far as the proxy needs it, and put together again. Knows JSON's outer form alone."""

from sluice.proxy.body.body import Body
from sluice.proxy.body.known_bodies import KnownBodies
from sluice.proxy.body.parse import parse_body
from sluice.proxy.body.shape import Shape

__all__ = ["Body", "KnownBodies", "Shape", "parse_body"]
