"""Where the ledger's records and the originals live: the interface, and a store in this process.

A store knows bytes and keys; what they mean is the ledger's business (`ledger.py`). Stores that need a client
library live with the proxy (`sluice.proxy.state`); all pass one contract suite (`tests/state_contract.py`).
"""

from __future__ import annotations

import secrets
import time
from collections import OrderedDict
from collections.abc import Callable, Mapping, Sequence
from typing import Protocol

RECALL_PREFIX_CHARS = 4
"""Originals are found by any prefix of their id that is at least this long: what a marker shows."""


class StateStore(Protocol):
    """Records written once, and originals for recall. Every method may raise `StateError`; a miss is no error."""

    async def get_many(self, keys: Sequence[bytes]) -> list[bytes | None]:
        """Look all keys up in one round trip and slide their expiry; None where there is no record."""
        ...

    async def put_new(self, records: Mapping[bytes, bytes]) -> dict[bytes, bytes]:
        """Write each record unless its key is taken (`SET NX`), in one round trip.

        Returns:
            For every key the record that stands: ours, or that of whoever came first.
        """
        ...

    async def put_originals(self, tenant: bytes, originals: Mapping[str, str]) -> None:
        """Keep original texts for recall, by id (32 hex digits), out of reach of other tenants."""
        ...

    async def find_originals(self, tenant: bytes, prefix: str) -> dict[str, str]:
        """Originals of this tenant whose id begins with `prefix` (≥ 4 lower-case hex digits), by full id."""
        ...

    async def secret(self) -> bytes:
        """32 random bytes, the same for every process on this store: the key under which tenants are hashed."""
        ...

    async def ping(self) -> None:
        """Return once the store answers.

        Raises:
            StateError: it does not.
        """
        ...

    async def aclose(self) -> None:
        """Release connections. The store is not used afterwards."""
        ...


class MemoryStore:
    """A store in this process: least-recently-used entries go first, and all go with the process.

    Args:
        ttl_s: seconds after which an entry that nobody asked for is gone.
        max_bytes: bound on the keys, records and originals held together.
        clock: seconds, monotonic.
    """

    def __init__(
        self, *, ttl_s: float = 86_400.0, max_bytes: int = 256 * 2**20, clock: Callable[[], float] = time.monotonic
    ) -> None:
        self._ttl_s = ttl_s
        self._max_bytes = max_bytes
        self._clock = clock
        self._num_bytes = 0
        self._entries: OrderedDict[bytes, tuple[float, bytes]] = OrderedDict()
        self._ids_by_prefix: dict[bytes, set[str]] = {}
        self._secret = secrets.token_bytes(32)

    async def get_many(self, keys: Sequence[bytes]) -> list[bytes | None]:
        """See `StateStore`."""
        return [self._get(b"r:" + key) for key in keys]

    async def put_new(self, records: Mapping[bytes, bytes]) -> dict[bytes, bytes]:
        """See `StateStore`."""
        standing: dict[bytes, bytes] = {}
        for key, record in records.items():
            held = self._get(b"r:" + key)
            if held is None:
                self._put(b"r:" + key, record)
                held = record
            standing[key] = held
        return standing

    async def put_originals(self, tenant: bytes, originals: Mapping[str, str]) -> None:
        """See `StateStore`."""
        for recall_id, text in originals.items():
            self._ids_by_prefix.setdefault(_bucket(tenant, recall_id), set()).add(recall_id)
            self._put(_original_key(tenant, recall_id), text.encode("utf-8", "surrogatepass"))

    async def find_originals(self, tenant: bytes, prefix: str) -> dict[str, str]:
        """See `StateStore`."""
        found: dict[str, str] = {}
        for recall_id in sorted(self._ids_by_prefix.get(_bucket(tenant, prefix), ())):
            if recall_id.startswith(prefix) and (data := self._get(_original_key(tenant, recall_id))) is not None:
                found[recall_id] = data.decode("utf-8", "surrogatepass")
        return found

    async def secret(self) -> bytes:
        """See `StateStore`."""
        return self._secret

    async def ping(self) -> None:
        """See `StateStore`."""

    async def aclose(self) -> None:
        """See `StateStore`."""

    def _get(self, key: bytes) -> bytes | None:
        entry = self._entries.get(key)
        if entry is None:
            return None
        expires_at, data = entry
        now = self._clock()
        if now >= expires_at:
            self._remove(key)
            return None
        self._entries[key] = (now + self._ttl_s, data)
        self._entries.move_to_end(key)
        return data

    def _put(self, key: bytes, data: bytes) -> None:
        if key in self._entries:
            self._num_bytes -= len(key) + len(self._entries[key][1])
        self._entries[key] = (self._clock() + self._ttl_s, data)
        self._entries.move_to_end(key)
        self._num_bytes += len(key) + len(data)
        while self._num_bytes > self._max_bytes and len(self._entries) > 1:
            self._remove(next(iter(self._entries)))

    def _remove(self, key: bytes) -> None:
        _, data = self._entries.pop(key)
        self._num_bytes -= len(key) + len(data)
        if key.startswith(b"o:"):
            tenant, recall_id = key[2:].rsplit(b":", 1)
            bucket = _bucket(tenant, recall_id.decode())
            ids = self._ids_by_prefix[bucket]
            ids.discard(recall_id.decode())
            if not ids:
                del self._ids_by_prefix[bucket]


def _original_key(tenant: bytes, recall_id: str) -> bytes:
    return b"o:" + tenant + b":" + recall_id.encode()


def _bucket(tenant: bytes, recall_id: str) -> bytes:
    return tenant + b":" + recall_id[:RECALL_PREFIX_CHARS].encode()
