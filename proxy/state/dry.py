"""A view of a store that is read and never written: for saying what would be decided."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from sluice.compressor import StateStore


class DryStore:
    """See `StateStore`; what is put is forgotten."""

    def __init__(self, store: StateStore) -> None:
        self._store = store

    async def get_many(self, keys: Sequence[bytes]) -> list[bytes | None]:
        """See `StateStore`."""
        return await self._store.get_many(keys)

    async def put_new(self, records: Mapping[bytes, bytes]) -> dict[bytes, bytes]:
        """See `StateStore`; nothing is kept."""
        return dict(records)

    async def put_originals(self, tenant: bytes, originals: Mapping[str, str]) -> None:
        """See `StateStore`; nothing is kept."""

    async def find_originals(self, tenant: bytes, prefix: str) -> dict[str, str]:
        """See `StateStore`."""
        return await self._store.find_originals(tenant, prefix)

    async def secret(self) -> bytes:
        """See `StateStore`."""
        return await self._store.secret()

    async def ping(self) -> None:
        """See `StateStore`."""
        await self._store.ping()

    async def aclose(self) -> None:
        """See `StateStore`; the store goes on."""
