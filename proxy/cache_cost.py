"""What the provider's cache costs for one request: by its model, its marks and its wishes, else by the upstream.

Prices are those of the table (`meter/prices.toml`) where that names the model, as its upstream calls it. Plain
functions.
"""

from __future__ import annotations

import re
from dataclasses import replace

from sluice.compressor.profiles import Profile
from sluice.proxy.body import Body
from sluice.proxy.meter.prices import Price
from sluice.proxy.wire import WireName

_HOUR_S = 3_600.0
_HOURLY_WRITE = 2.0
"""Anthropic: what is written for an hour costs twice the input, where no price says otherwise."""
_MARK = b'"cache_control"'
_CONTROL = re.compile(rb'"cache_control"\s*:\s*\{[^{}]*\}')
_HOUR = re.compile(rb'"ttl"\s*:\s*"1h"')
_READING_ORDER_REVERSED = ("messages", "system", "tools")
_RETENTIONS = {b'"in_memory"': 300.0, b'"24h"': 86_400.0}
"""OpenAI's `prompt_cache_retention`: in memory alone, entries go after five to ten minutes without use."""


def cache_cost(profile: Profile, price: Price | None, body: Body, wire: WireName, *, is_ttl_given: bool) -> Profile:
    """What the cache costs for a request.

    Args:
        profile: of the upstream.
        price: of the model there; None where it has none.
        body: the request.
        wire: its format.
        is_ttl_given: whether the settings say how long entries live; then neither table nor request does.
    """
    if profile.name == "self-hosted" and price is None:
        return profile
    read, write, ttl_s = profile.read, profile.write, profile.ttl_s
    is_hourly = write >= _HOURLY_WRITE or (wire is WireName.MESSAGES and _writes_for_an_hour(body))
    if price is not None:
        read = read if price.relative_read is None else price.relative_read
        write = price.relative_write_1h if is_hourly else price.cache_write
        ttl_s = ttl_s if price.cache_ttl_s is None else price.cache_ttl_s
    elif is_hourly:
        write = max(write, _HOURLY_WRITE)
    ttl_s = _RETENTIONS.get(body.field("prompt_cache_retention"), max(ttl_s, _HOUR_S) if is_hourly else ttl_s)
    return replace(profile, read=read, write=write, ttl_s=profile.ttl_s if is_ttl_given else ttl_s)


def _writes_for_an_hour(body: Body) -> bool:
    """Whether what the request's last mark has written lives for an hour (Anthropic's `ttl`).

    The last mark is near the end, as a rule: it is looked for from there, and nothing is decoded. In a text its name
    would stand escaped.
    """
    if _HOUR.search(body.field("cache_control")):  # on the request itself: the last block is marked
        return True
    for name in _READING_ORDER_REVERSED:
        start, end = body.fields.get(name, (0, 0))
        if (at := body.raw.rfind(_MARK, start, end)) >= 0:
            control = _CONTROL.match(body.raw, at, end)
            return control is not None and _HOUR.search(control[0]) is not None
    return False
