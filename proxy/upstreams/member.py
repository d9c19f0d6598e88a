"""One of a proxy's upstreams at run time: its settings, its connections, its breaker."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

from sluice.compressor.profiles import PROFILES, Profile
from sluice.proxy.breaker import Breaker
from sluice.proxy.upstreams.http import HttpUpstream
from sluice.proxy.upstreams.limits import HttpLimits
from sluice.proxy.upstreams.replicas import ReplicaUpstream, Upstream
from sluice.proxy.upstreams.retries import Policy
from sluice.proxy.upstreams.settings import UpstreamSettings
from sluice.proxy.upstreams.types import Target

if TYPE_CHECKING:
    from sluice.backend.router.placements import Placements


@dataclass(frozen=True, slots=True)
class Member:
    """An upstream."""

    settings: UpstreamSettings
    target: Target
    http: Upstream
    breaker: Breaker
    max_retries: int


def make_member(
    settings: UpstreamSettings,
    limits: HttpLimits,
    policy: Policy,
    cache_ttl_s: float | None,
    placements: Placements | None,
) -> Member:
    """Make an upstream; nothing is connected yet.

    Args:
        settings: what is configured.
        limits: how long each step may take, where the settings do not say.
        policy: how failures are dealt with.
        cache_ttl_s: life of its prompt cache, in seconds; None takes what is known of it.
        placements: where conversations were sent, shared with other proxies; None: there are none.
    """
    preset = settings.known
    profile: Profile = PROFILES[settings.profile_name]
    if cache_ttl_s is not None:
        profile = replace(profile, ttl_s=cache_ttl_s)
    own = {name: value for name in HttpLimits.__slots__ if (value := getattr(settings, name)) is not None}
    return Member(
        settings,
        Target(
            settings.name,
            settings.address,
            profile,
            settings.wires if settings.wires is not None else preset.wires,
            settings.is_local if settings.is_local is not None else preset.is_local,
            settings.rename,
        ),
        _connect(settings, replace(limits, **own), placements),
        Breaker(max_failures=policy.breaker_failures, retry_s=policy.breaker_retry_s),
        policy.max_retries if settings.max_retries is None else settings.max_retries,
    )


def _connect(settings: UpstreamSettings, limits: HttpLimits, placements: Placements | None) -> Upstream:
    if not settings.replicas:
        return HttpUpstream(settings.address, limits)
    base = settings.known.base
    return ReplicaUpstream(
        settings.address,
        [replica.removesuffix(base) for replica in settings.replicas],
        limits,
        kv_events=settings.kv_events,
        health_path=settings.known.health or "/health",
        placements=placements,
    )
