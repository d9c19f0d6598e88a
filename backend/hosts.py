"""Which hosts and origins a request may name: what keeps web pages out of a server on loopback. Knows no sockets.

The proxy imports this module: no torch.

A page whose name is made to resolve to 127.0.0.1 (DNS rebinding) still sends its own name as `Host`; a page that posts
across origins sends an `Origin` that is not ours.
"""

from __future__ import annotations

import ipaddress
from collections.abc import Collection
from functools import lru_cache
from urllib.parse import urlsplit


def authority(host: str, port: int) -> str:
    """Host and port as a URL has them: an IPv6 address in brackets."""
    return f"[{host}]:{port}" if ":" in host else f"{host}:{port}"


@lru_cache(maxsize=256)
def name_of(authority: str) -> str:
    """Host name of a `Host` header or an origin's authority, lower case, without port and brackets; "" for nonsense."""
    try:
        return urlsplit(f"//{authority}").hostname or ""
    except ValueError:
        return ""


@lru_cache(maxsize=256)
def is_loopback(name: str) -> bool:
    """Whether a host name or address is this machine's own, by its form."""
    if name == "localhost" or name.endswith(".localhost"):
        return True
    try:
        address = ipaddress.ip_address(name)
    except ValueError:
        return False
    mapped = getattr(address, "ipv4_mapped", None)
    return (mapped or address).is_loopback


def leads_out(origin: str) -> bool:
    """Whether an origin is another machine's, for which the environment may name a proxy; none leads back to this."""
    return not is_loopback(urlsplit(origin).hostname or "")


def may_name_host(host: str | None, bind_host: str, allowed: Collection[str]) -> bool:
    """Whether a request may name this host.

    Args:
        host: its `Host` header; None where it has none, which no browser does.
        bind_host: what the server listens on. Only on loopback is a name checked unless `allowed` says which there are.
        allowed: further names, without ports.
    """
    if host is None:
        return True
    name = name_of(host)
    if is_loopback(bind_host):
        return is_loopback(name) or name in allowed
    return not allowed or name in allowed or is_loopback(name)


def may_come_from(origin: str | None, host: str | None, allowed: Collection[str]) -> bool:
    """Whether a page of this origin may ask: one of the server's own, or one that is allowed.

    Args:
        origin: the request's `Origin`; None where it has none, as with every client but browsers.
        host: its `Host`.
        allowed: origins, or `*`.
    """
    if origin is None or "*" in allowed or origin in allowed:
        return True
    return host is not None and origin.lower() in (f"http://{host.lower()}", f"https://{host.lower()}")


def may_embed(site: str | None, mode: str | None, origin: str | None) -> bool:
    """Whether a browser may fetch this for what it shows: not for another site's page, which sends no `Origin` with it.

    Args:
        site: the request's `Sec-Fetch-Site` (W3C Fetch Metadata); None with every client but browsers.
        mode: its `Sec-Fetch-Mode`. Who follows a link, or types the address, navigates.
        origin: its `Origin`, which `may_come_from` goes by where there is one.
    """
    return origin is not None or mode == "navigate" or site not in ("cross-site", "same-site")
