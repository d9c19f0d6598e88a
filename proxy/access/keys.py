"""Proxy keys: making one, telling one, and what it may use. Only a keyed hash is kept; the key is shown once.

A key is `sk-sluice-ID-SECRET`. The id finds the record; the secret has 256 random bits, so that a fast hash, keyed
with a salt of the record's own, is as safe as a slow one.
"""

from __future__ import annotations

import hashlib
import hmac
import re
import secrets
from collections.abc import Sequence

from pydantic import BaseModel, ConfigDict, Field

from sluice.proxy.headers import CREDENTIALS, Header

HEADER = b"x-sluice-key"
START = "sk-sluice-"
_FORM = re.compile(r"sk-sluice-([0-9a-f]{12})-([A-Za-z0-9_-]{43})")


class ProxyKey(BaseModel):
    """What is kept of one key."""

    model_config = ConfigDict(frozen=True, extra="forbid", use_attribute_docstrings=True)

    id: str = Field(pattern=r"^[0-9a-f]{12}$")
    """Finds it; stands in logs, statistics and traces, and is no secret."""
    name: str = Field(min_length=1, max_length=100)
    """Whose it is, for people."""
    hash: str = Field(pattern=r"^[0-9a-f]{32}:[0-9a-f]{64}$")
    """Salt, and BLAKE2b of the secret keyed with it."""
    requests_per_minute: float | None = Field(default=None, gt=0)
    """How many requests may come in a minute; as many may come at once after a minute of silence."""
    max_concurrent: int | None = Field(default=None, ge=1)
    """How many requests may be served at once, by each worker."""
    tokens_per_day: int | None = Field(default=None, ge=0)
    """Tokens of a day (UTC), in and out."""
    tokens_per_month: int | None = Field(default=None, ge=0)
    """Tokens of a calendar month (UTC), in and out."""
    dollars_per_day: float | None = Field(default=None, ge=0)
    """Money of a day (UTC)."""
    dollars_per_month: float | None = Field(default=None, ge=0)
    """Money of a calendar month (UTC)."""

    @property
    def has_budgets(self) -> bool:
        """Whether what its requests use is bounded."""
        budgets = (self.tokens_per_day, self.tokens_per_month, self.dollars_per_day, self.dollars_per_month)
        return any(budget is not None for budget in budgets)


def make_key(name: str, **limits: float | None) -> tuple[ProxyKey, str]:
    """Make a key.

    Args:
        name: whose it is.
        limits: fields of `ProxyKey`.

    Returns:
        What is to be kept, and the key itself, which is not.
    """
    key_id, secret, salt = secrets.token_hex(6), secrets.token_urlsafe(32), secrets.token_bytes(16)
    record = {"id": key_id, "name": name, "hash": f"{salt.hex()}:{_digest(salt, secret)}", **limits}
    return ProxyKey.model_validate(record), f"{START}{key_id}-{secret}"


def parse_key(text: str) -> tuple[str, str] | None:
    """Take a key apart into id and secret; None where it has not the form of one."""
    match = _FORM.fullmatch(text)
    return (match[1], match[2]) if match is not None else None


def is_genuine(key: ProxyKey, secret: str) -> bool:
    """Whether this is the secret of this key; takes as long for any other."""
    salt, _, digest = key.hash.partition(":")
    return hmac.compare_digest(_digest(bytes.fromhex(salt), secret), digest)


def take_key(headers: Sequence[Header]) -> tuple[str | None, list[Header]]:
    """Find the proxy key of a request.

    Agents that can be given only one key send it where a provider's would stand. There it is known by its form and is
    moved to the header of its own, which goes to no upstream.

    Returns:
        The key as it was sent, None where there is none; and the headers, the key in `x-sluice-key` alone.
    """
    found: str | None = None
    kept: list[Header] = []
    for name, value in headers:
        if name == HEADER:
            found = found or value.decode("latin-1").strip()
            continue
        if name in CREDENTIALS:
            token = value.decode("latin-1").strip()
            if name == b"authorization" and token[:7].lower() == "bearer ":
                token = token[7:].strip()
            if token.startswith(START):
                found = found or token
                continue
        kept.append((name, value))
    if found is not None:
        kept.append((HEADER, found.encode("latin-1")))
    return found, kept


def _digest(salt: bytes, secret: str) -> str:
    return hashlib.blake2b(secret.encode(), key=salt, digest_size=32).hexdigest()
