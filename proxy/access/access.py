"""Whether a request is served: host and origin, key, rate, budgets, how many at once. Knows no ASGI.

Where Redis is lost, limits are open (a request is worth more than a count) and unknown keys are shut (a stranger is
not): keys that were seen before go on working.
"""

from __future__ import annotations

import hmac
from collections import Counter
from collections.abc import Collection, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

from pydantic import SecretStr

from sluice.backend.hosts import may_come_from, may_embed, may_name_host
from sluice.proxy.access.keyring import FileKeys, GivenKeys, KeySource, find_key
from sluice.proxy.access.keys import ProxyKey, is_genuine, parse_key
from sluice.proxy.access.limits import Limits, MemoryLimits
from sluice.proxy.errors import (
    ForbiddenHostError,
    ForbiddenOriginError,
    MissingKeyError,
    TooManyRequestsError,
    UnknownKeyError,
)

if TYPE_CHECKING:
    from sluice.proxy.settings import Settings
    from sluice.proxy.state.client import RedisClient

_ALL = ""
"""Stands for all keys together among those that are counted."""
_BUSY_RETRY_S = 1.0


@dataclass(frozen=True, slots=True)
class Bounds:
    """What is checked of every request."""

    bind_host: str = "127.0.0.1"
    """What the proxy listens on."""
    allowed_hosts: Collection[str] = ()
    allowed_origins: Collection[str] = ()
    max_concurrent: int = 4096
    """Requests that are served at once."""
    owners_key: SecretStr | None = None
    """Of the proxy's owner, where there is one."""


class Access:
    """Decides who is served.

    Args:
        bounds: what is checked of every request.
        sources: where keys are kept; None: no key is wanted.
        limits: counts what keys use.
        client: closed with this.
    """

    def __init__(
        self,
        bounds: Bounds,
        sources: Sequence[KeySource] | None = None,
        limits: Limits | None = None,
        client: RedisClient | None = None,
    ) -> None:
        self._bounds = bounds
        self._sources = sources
        self._limits = limits or MemoryLimits()
        self._client = client
        self._running: Counter[str] = Counter()

    @classmethod
    def of(cls, settings: Settings) -> Access:
        """Make what the settings ask for."""
        bounds = Bounds(
            settings.host,
            settings.allowed_hosts,
            settings.allowed_origins,
            settings.max_concurrent_requests,
            settings.dashboard_key,
        )
        if not settings.wants_keys:
            return cls(bounds)
        client: RedisClient | None = None
        sources: list[KeySource] = [GivenKeys(settings.keys)]
        limits: Limits = MemoryLimits()
        if settings.keys_file is not None:
            sources.append(FileKeys(settings.keys_file))
        if settings.redis_url is not None:
            from sluice.proxy.access.redis import RedisKeys, RedisLimits
            from sluice.proxy.state.client import RedisClient

            client = RedisClient(settings.redis_url.get_secret_value(), timeout_s=settings.redis_timeout_s)
            sources.append(RedisKeys(client))
            limits = RedisLimits(client)
        return cls(bounds, sources, limits, client)

    def check_place(
        self, host: str | None, origin: str | None, site: str | None = None, mode: str | None = None
    ) -> None:
        """Check where a request says that it goes and comes from: its headers of these names (see `hosts.py`).

        Raises:
            ForbiddenHostError: it names another host.
            ForbiddenOriginError: it comes from a page that may not ask.
        """
        bounds = self._bounds
        if not may_name_host(host, bounds.bind_host, bounds.allowed_hosts):
            raise ForbiddenHostError(host or "")
        if not may_come_from(origin, host, bounds.allowed_origins):
            raise ForbiddenOriginError(origin or "")
        if not may_embed(site, mode, origin):
            raise ForbiddenOriginError(site or "")

    def is_owners(self, text: str | None) -> bool:
        """Whether this is the key of the proxy's owner."""
        key = self._bounds.owners_key
        if not text or key is None:
            return False
        return hmac.compare_digest(text.encode(), key.get_secret_value().encode())

    async def identify(self, text: str | None) -> ProxyKey | None:
        """Tell whose key this is; None where no key is wanted.

        Raises:
            MissingKeyError: there is none.
            UnknownKeyError: it is not known.
            KeysUnavailableError: that cannot be told.
        """
        if self._sources is None:
            return None
        if not text:
            raise MissingKeyError
        parts = parse_key(text)
        if parts is None:
            raise UnknownKeyError
        key = await find_key(self._sources, parts[0])
        if key is None or not is_genuine(key, parts[1]):
            raise UnknownKeyError
        return key

    async def enter(self, key: ProxyKey | None) -> None:
        """Let a request in; `leave` has to follow.

        Raises:
            LimitError: there is no room for it now.
        """
        if self._running[_ALL] >= self._bounds.max_concurrent:
            message = f"{self._bounds.max_concurrent} requests are being served (setting max_concurrent_requests)"
            raise TooManyRequestsError(message, _BUSY_RETRY_S)
        if key is not None:
            if key.max_concurrent is not None and self._running[key.id] >= key.max_concurrent:
                message = f"key {key.name!r} may have {key.max_concurrent} requests served at once"
                raise TooManyRequestsError(message, _BUSY_RETRY_S)
            # Counted before the wait, so that what comes meanwhile finds it counted.
            self._running[key.id] += 1
        self._running[_ALL] += 1
        if key is not None:
            try:
                await self._limits.admit(key)
            except BaseException:
                self.leave(key)
                raise

    def leave(self, key: ProxyKey | None) -> None:
        """Note that a request that was let in has been served."""
        for name in (_ALL,) if key is None else (_ALL, key.id):
            self._running[name] -= 1
            if not self._running[name]:
                del self._running[name]

    async def spend(self, key: ProxyKey, *, tokens: int, dollars: float) -> None:
        """Note what a request of a key has used of its budgets. Never raises for a store that is lost."""
        await self._limits.spend(key, tokens=tokens, dollars=dollars)

    async def aclose(self) -> None:
        """Close connections."""
        if self._client is not None:
            await self._client.aclose()
