"""What is known of each provider and inference server: where its APIs stand, what they speak, how they are asked.

Data alone; every entry is tested against a stand-in that answers as the real one does.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from enum import StrEnum
from urllib.parse import urlsplit

from sluice.proxy.wire import WireName

CHAT, COMPLETIONS, RESPONSES, MESSAGES = WireName.CHAT, WireName.COMPLETIONS, WireName.RESPONSES, WireName.MESSAGES


class AuthForm(StrEnum):
    """The header that a credential travels in."""

    BEARER = "authorization"
    """`authorization: Bearer …`."""
    API_KEY = "x-api-key"
    """`x-api-key: …`, as Anthropic has it."""


@dataclass(frozen=True, slots=True)
class Preset:
    """One provider or inference server."""

    name: str
    wires: frozenset[WireName]
    """The formats that it speaks."""
    origin: str | None = None
    """Where it listens unless told otherwise; None: nowhere in particular."""
    base: str = "/v1"
    """What stands in the place of `/v1`."""
    bases: Mapping[WireName, str] = field(default_factory=dict)
    """The same for formats that stand elsewhere."""
    auth: Mapping[WireName, AuthForm] = field(default_factory=dict)
    """Headers of the formats whose credential is no bearer token."""
    profile: str = "self-hosted"
    """Whose cache prices count."""
    is_local: bool = True
    """Whether it is self-hosted."""
    health: str | None = None
    """What answers 200 once it can serve, behind the origin; None: any answer to a list of models will do."""
    id_prefix: str = ""
    """What its list of models puts before each name, and its other routes do not ask for."""

    def base_of(self, wire: WireName | None) -> str:
        """What stands in the place of `/v1` for a format; None is any other route."""
        return self.base if wire is None else self.bases.get(wire, self.base)

    def auth_of(self, wire: WireName | None) -> AuthForm:
        """How a credential is sent with a format."""
        return AuthForm.BEARER if wire is None else self.auth.get(wire, AuthForm.BEARER)


_ALL = frozenset(WireName)
_KEYED = {MESSAGES: AuthForm.API_KEY}

ANY = Preset("any", _ALL, profile="anthropic", is_local=False)
"""An upstream that nothing is known of: it is taken to speak whatever it is spoken to in."""
EMBEDDED = Preset("embedded", frozenset({CHAT, COMPLETIONS}), health="/healthz")
"""The bundled engine."""

PRESETS = {
    preset.name: preset
    for preset in (
        Preset(
            "openai",
            frozenset({CHAT, COMPLETIONS, RESPONSES}),
            "https://api.openai.com",
            profile="openai",
            is_local=False,
        ),
        # Its OpenAI surface has no prompt caching, so requests in OpenAI's formats are translated.
        Preset(
            "anthropic",
            frozenset({MESSAGES}),
            "https://api.anthropic.com",
            auth=_KEYED,
            profile="anthropic",
            is_local=False,
        ),
        Preset(
            "gemini",
            frozenset({CHAT}),
            "https://generativelanguage.googleapis.com",
            base="/v1beta/openai",
            profile="gemini",
            is_local=False,
            id_prefix="models/",
        ),
        Preset(
            "deepseek",
            frozenset({CHAT, COMPLETIONS, MESSAGES}),
            "https://api.deepseek.com",
            base="",
            bases={COMPLETIONS: "/beta", MESSAGES: "/anthropic/v1"},
            auth=_KEYED,
            profile="deepseek",
            is_local=False,
        ),
        Preset("vllm", _ALL, "http://127.0.0.1:8000", health="/health"),
        Preset("sglang", _ALL, "http://127.0.0.1:30000", health="/health"),
        Preset("tensorrt-llm", frozenset({CHAT, COMPLETIONS, RESPONSES}), "http://127.0.0.1:8000", health="/health"),
        Preset("llama.cpp", _ALL, "http://127.0.0.1:8080", health="/health"),
        Preset("ollama", _ALL, "http://127.0.0.1:11434", health="/"),
        Preset("lmdeploy", frozenset({CHAT, COMPLETIONS}), "http://127.0.0.1:23333", health="/health"),
        Preset("tgi", frozenset({CHAT, COMPLETIONS}), "http://127.0.0.1:8080", health="/health"),
        EMBEDDED,
        ANY,
    )
}
"""By name, as the setting `preset` takes them. What the servers speak is that of their releases of 2026; for older
ones, set `wires`."""

_KEY_FORMS = (
    ("sk-ant-", "anthropic"),
    ("sk-proj-", "openai"),
    ("sk-svcacct-", "openai"),
    ("AIza", "gemini"),
)


def provider_of_key(token: str) -> str | None:
    """Whose credential it is, as far as its form says so."""
    return next((provider for start, provider in _KEY_FORMS if token.startswith(start)), None)


def foreign_owner(token: str, preset: Preset) -> str | None:
    """Whose credential it plainly is where it is not this preset's; None where it may be sent there."""
    owner = provider_of_key(token)
    may_be_taken = preset.is_local or preset is ANY or owner == preset.name
    return None if may_be_taken else owner


def preset_of(origin: str) -> Preset:
    """Tell a hosted provider by its origin; `ANY` where it is none, or where a path says that it is something else."""
    for preset in PRESETS.values():
        if preset.origin is not None and not preset.is_local:
            base = preset.origin + preset.base
            if origin in (preset.origin, base):
                return preset
    return ANY


def profile_of(origin: str) -> str:
    """Whose cache prices count for an origin; for an unknown one the dearest writes, which make for fewest rewrites."""
    host = urlsplit(origin).hostname or ""
    for tail, profile in _HOSTS.items():
        if host == tail or host.endswith("." + tail):
            return profile
    return "anthropic"


_HOSTS = {
    "anthropic.com": "anthropic",
    "openai.com": "openai",
    "googleapis.com": "gemini",
    "deepseek.com": "deepseek",
}
