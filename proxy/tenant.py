"""Whose state a request may see: a keyed hash of its proxy key, else of its credential. Keeps neither."""

from __future__ import annotations

import hashlib
import hmac
from collections.abc import Iterable

from sluice.proxy.headers import CREDENTIALS, Header

PROXY_KEY = b"x-sluice-key"


def tenant_of(headers: Iterable[Header], secret: bytes) -> bytes:
    """Hash what a request authenticates with to a 16-byte tenant.

    A proxy key outlives the rotation of a credential, so it comes first. Requests with neither share one tenant.
    """
    found = dict(headers)
    for name in (PROXY_KEY, *CREDENTIALS):
        if name in found:
            # Named, so that a proxy key never meets a credential of the same bytes.
            return hmac.digest(secret, name + b"\0" + found[name], hashlib.sha256)[:16]
    return hmac.digest(secret, b"anonymous", hashlib.sha256)[:16]
