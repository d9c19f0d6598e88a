"""What a provider's prompt cache costs and how long it lasts: the prices that decisions are made with.

In units of one plain input token. Sources: the providers' price lists; self-hosted counts prefill work alone.
"""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Profile:
    """One provider's cache."""

    name: str
    read: float
    """Price of a token that is read from the cache."""
    write: float
    """Price of a token that is not in the cache and is written to it."""
    ttl_s: float
    """Seconds after its last use for which an entry lives."""


PROFILES = {
    profile.name: profile
    for profile in (
        Profile("anthropic", read=0.1, write=1.25, ttl_s=300.0),
        Profile("anthropic-1h", read=0.1, write=2.0, ttl_s=3_600.0),
        Profile("openai", read=0.1, write=1.0, ttl_s=300.0),
        Profile("gemini", read=0.1, write=1.0, ttl_s=300.0),
        Profile("deepseek", read=0.1, write=1.0, ttl_s=3_600.0),
        Profile("self-hosted", read=0.0, write=1.0, ttl_s=300.0),
    )
}
"""By name, as the setting `provider` takes them."""
