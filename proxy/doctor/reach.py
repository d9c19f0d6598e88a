"""What answers: the port, a proxy that runs there already, the state store, the scorer, the upstreams.

The only part that waits, with `scoring.examine_server`.
"""

from __future__ import annotations

import asyncio
import errno
import socket
import time
from collections.abc import AsyncIterator
from typing import Any

import httpx

from sluice.backend.hosts import authority
from sluice.compressor import StateError
from sluice.proxy.doctor.finding import Finding, bad, good, note
from sluice.proxy.doctor.scoring import examine_server
from sluice.proxy.settings import Settings
from sluice.proxy.upstreams.settings import UpstreamSettings

TIMEOUT_S = 5.0


async def examine_reach(settings: Settings) -> AsyncIterator[Finding]:
    """Try everything that the settings name."""
    yield await examine_port(settings.host, settings.port)
    if settings.redis_url is not None:
        for finding in await examine_redis(settings):
            yield finding
    asked = [examine_server(settings, TIMEOUT_S), *(examine_upstream(one) for one in settings.all_upstreams)]
    for answered in await asyncio.gather(*asked):
        if answered is not None:
            yield answered


async def examine_port(host: str, port: int) -> Finding:
    """See whether the proxy could listen, or runs already."""
    place = authority(host, port)
    try:
        family = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE)[0][0]
        with socket.create_server((host, port), family=family):
            return good("port", f"{place} is free")
    except OSError as error:
        if error.errno != errno.EADDRINUSE:
            return bad("port", f"cannot listen on {place}: {error.strerror or error}", "set another host or port")
    try:
        async with httpx.AsyncClient(timeout=TIMEOUT_S, trust_env=False) as client:
            answer = await client.get(f"http://{place}/readyz")
            body: dict[str, Any] = answer.json()
            if "upstreams" in body:
                reasons = {"store": body["store"], **body["upstreams"]}
                wrong = ", ".join(f"{name}: {says}" for name, says in reasons.items() if says != "ok")
                text = f"a proxy runs at {place} and is {body['status']}"
                return good("port", text) if not wrong else bad("port", f"{text}: {wrong}", "see below, or its log")
    except (httpx.HTTPError, ValueError, TypeError):
        pass
    return bad("port", f"another program listens on {place}", "set another port, or end that program")


async def examine_redis(settings: Settings) -> list[Finding]:
    """Ask Redis whether it is there, how fast, and whether it forgets on its own or refuses to write."""
    from redis.asyncio import Redis
    from redis.exceptions import RedisError

    from sluice.proxy.state import make_store

    store = make_store(settings)
    try:
        started_s = time.perf_counter()
        await store.ping()
        took_ms = (time.perf_counter() - started_s) * 1000
    except StateError as error:
        return [bad("redis", f"does not answer: {error}", "start it, or mend redis_url; without it nothing is shared")]
    finally:
        await store.aclose()
    found = [good("redis", f"answers within {took_ms:.1f} ms")]
    assert settings.redis_url is not None
    client = Redis.from_url(settings.redis_url.get_secret_value(), socket_timeout=TIMEOUT_S, decode_responses=True)
    try:
        memory: dict[str, Any] = await client.info("memory")
    except RedisError:
        return found  # it may not be allowed to us
    finally:
        await client.aclose()
    policy, most = str(memory.get("maxmemory_policy", "")), int(memory.get("maxmemory", 0))
    if most and policy == "noeviction":
        found.append(
            bad(
                "redis memory",
                f"maxmemory is {most / 2**20:.0f} MiB with noeviction: once full, it refuses to keep decisions",
                "CONFIG SET maxmemory-policy volatile-lru",
            )
        )
    elif not most:
        found.append(note("redis memory", "no maxmemory: it grows until the system's ends", "CONFIG SET maxmemory 1gb"))
    return found


async def examine_upstream(upstream: UpstreamSettings) -> Finding:
    """Ask an upstream for its health, or for its models: that a credential is wanted is an answer."""
    subject = f"upstream {upstream.name}"
    known = upstream.known
    origin = upstream.address
    path = known.health if known.health is not None else known.base + "/models"
    try:
        async with httpx.AsyncClient(timeout=TIMEOUT_S, trust_env=False) as client:
            started_s = time.perf_counter()
            answer = await client.get(origin + path)
    except httpx.TimeoutException:
        return bad(subject, f"{origin} gives no answer within {TIMEOUT_S:g} s", "check its address and the network")
    except (httpx.HTTPError, httpx.InvalidURL) as error:
        says = str(error) or type(error).__name__
        return bad(subject, f"{origin} cannot be reached: {says}", "check its address and the network")
    took_ms = (time.perf_counter() - started_s) * 1000
    if answer.status_code >= 500:
        return bad(subject, f"{origin} answers {answer.status_code} on {path}", "see its log")
    return good(subject, f"{origin} answers within {took_ms:.0f} ms ({known.name})")
