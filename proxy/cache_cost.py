"""What the provider's cache costs for one request: by its model, its marks and its wishes, else by the upstream.

Prices are those of the table (`meter/prices.toml`) where that names the model, as its upstream calls it. Plain
functions.
"""

from __future__ import annotations

from dataclasses import replace

from sluice.compressor.profiles import Profile
from sluice.proxy.body import Body
from sluice.proxy.meter.breakpoints import breakpoints_of
from sluice.proxy.meter.prices import Price

_HOUR_S = 3_600.0
_HOURLY_WRITE = 2.0
"""Anthropic: what is written for an hour costs twice the input, where no price says otherwise."""
_RETENTIONS = {b'"in_memory"': 300.0, b'"24h"': 86_400.0}
"""OpenAI's `prompt_cache_retention`: in memory alone, entries go after five to ten minutes without use."""


def cache_cost(profile: Profile, price: Price | None, body: Body, *, is_ttl_given: bool) -> Profile:
    """What the cache costs for a request.

    Args:
        profile: of the upstream.
        price: of the model there; None where it has none.
        body: the request.
        is_ttl_given: whether the settings say how long entries live; then neither table nor request does.
    """
    if profile.name == "self-hosted" and price is None:
        return profile
    read, write, ttl_s = profile.read, profile.write, profile.ttl_s
    is_hourly = write >= _HOURLY_WRITE or _writes_for_an_hour(body)
    if price is not None:
        read = read if price.relative_read is None else price.relative_read
        write = price.relative_write_1h if is_hourly else price.cache_write
        ttl_s = ttl_s if price.cache_ttl_s is None else price.cache_ttl_s
    elif is_hourly:
        write = max(write, _HOURLY_WRITE)
    ttl_s = _RETENTIONS.get(body.field("prompt_cache_retention"), max(ttl_s, _HOUR_S) if is_hourly else ttl_s)
    return replace(profile, read=read, write=write, ttl_s=profile.ttl_s if is_ttl_given else ttl_s)


def _writes_for_an_hour(body: Body) -> bool:
    """Whether what the request's last mark has written lives for an hour (Anthropic's `ttl`)."""
    # Marks are looked for only where one may say so: that reads the whole body.
    if not body.holds(b'"1h"') or not body.holds(b'"cache_control"'):
        return False
    found = breakpoints_of(body.raw)
    return found is not None and bool(found.ends) and found.ttl_s >= _HOUR_S
