"""The settings of one upstream of several: a `[[upstreams]]` table. Reads the credential that it names."""

from __future__ import annotations

import os
from collections.abc import Sequence
from pathlib import Path
from typing import Annotated, Self
from urllib.parse import urlsplit

from pydantic import AfterValidator, BaseModel, ConfigDict, Field, PrivateAttr, SecretStr, field_validator
from pydantic import model_validator as validator

from sluice.compressor.profiles import PROFILES
from sluice.proxy.upstreams.presets import ANY, PRESETS, Preset, profile_of
from sluice.proxy.wire import WireName


def check_origin(url: str) -> str:
    """Check an upstream's URL and cut a trailing `/v1`: the routes bring it themselves.

    Raises:
        ValueError: it is no origin.
    """
    parts = urlsplit(url)
    if parts.scheme not in ("http", "https") or not parts.hostname:
        raise ValueError("must be an http:// or https:// URL with a host")
    if parts.username is not None or parts.password is not None:
        raise ValueError("must hold no credential")
    if parts.query or parts.fragment:
        raise ValueError("must have no query and no fragment")
    try:
        _ = parts.port
    except ValueError:  # whose text quotes it: behind a user's name it would be a password
        raise ValueError("must have a number up to 65535 for its port") from None
    return url.rstrip("/").removesuffix("/v1").rstrip("/")


DEFAULT_UPSTREAM = "default"
"""Name of the upstream that the settings `upstream` and `backend` make."""
Origin = Annotated[str, AfterValidator(check_origin)]
Seconds = Annotated[float, Field(gt=0)]


class UpstreamSettings(BaseModel):
    """One upstream."""

    model_config = ConfigDict(frozen=True, extra="forbid", use_attribute_docstrings=True)

    name: str = Field(pattern=r"^[A-Za-z0-9][A-Za-z0-9._-]*$")
    """What it is called in `fallback`, in headers, in metrics and in logs."""
    preset: str | None = None
    """What it is: openai, anthropic, gemini, deepseek, vllm, sglang, tensorrt-llm, llama.cpp, ollama, lmdeploy, tgi,
    embedded; None: nothing is known of it."""
    origin: Origin | None = None
    """Where it is; None takes what the preset knows."""
    replicas: tuple[Origin, ...] = ()
    """Origins of several servers that serve the same models: a conversation goes where its prefix is cached. `origin`
    is then but the name that decisions are kept under; None takes the first replica's."""
    kv_events: tuple[str, ...] = ()
    """Where the replicas publish their KV events (`tcp://host:port`), in the same order; empty: what was sent where is
    remembered instead."""
    models: tuple[str, ...] = ("*",)
    """Models that it serves: names, or patterns such as `gpt-*`. A name counts before a pattern, an earlier upstream
    before a later one. None at all: it is a fallback of others alone."""
    wires: frozenset[WireName] | None = None
    """Formats that it speaks (chat, completions, responses, messages); None takes what the preset knows."""
    credential: str | None = None
    """`env:NAME` or `file:PATH`: sent in place of the client's. `client`: the client's own. `none`: nothing. None is
    `client` for hosted providers, else `none`."""
    rename: dict[str, str] = Field(default_factory=dict)
    """What it calls a model, by the name that clients use."""
    fallback: tuple[str, ...] = ()
    """Upstreams that are asked in turn when it does not answer, or is overloaded."""
    profile: str | None = None
    """Whose cache prices count; None takes what the preset knows."""
    is_local: bool | None = None
    """Whether it is self-hosted; None takes what the preset knows."""
    max_retries: int | None = Field(default=None, ge=0)
    """How often a request is sent to it again; None takes the setting `max_retries`."""
    connect_timeout_s: Seconds | None = None
    """Longest wait for a new connection, in seconds; None takes the setting of that name, as do the following."""
    read_timeout_s: Seconds | None = None
    """Longest silence while an answer is awaited or read, in seconds."""
    write_timeout_s: Seconds | None = None
    """Longest time in which none of a request body is taken, in seconds."""
    pool_timeout_s: Seconds | None = None
    """Longest wait for a connection to come free, in seconds."""
    max_connections: int | None = Field(default=None, ge=1)
    """Connections at once."""

    _secret: SecretStr | None = PrivateAttr(default=None)

    @property
    def known(self) -> Preset:
        """What is known of it."""
        return PRESETS[self.preset] if self.preset is not None else ANY

    @property
    def address(self) -> str:
        """Where it is: `origin`, else its first replica, else what the preset knows; less what stands for `/v1`."""
        named = self.origin or (self.replicas[0] if self.replicas else self.known.origin) or ""
        return named.removesuffix(self.known.base)

    @property
    def profile_name(self) -> str:
        """Whose cache prices count."""
        if self.profile is not None:
            return self.profile
        return self.known.profile if self.known is not ANY else profile_of(self.origin or "")

    @property
    def secret(self) -> SecretStr | None:
        """The credential that `credential` names, read once; None where it names none."""
        return self._secret

    @property
    def takes_clients_credential(self) -> bool:
        """Whether the client's own credential may be sent to it."""
        if self.credential is None:
            return not self.known.is_local and self.known is not ANY
        return self.credential == "client"

    @field_validator("preset")
    @classmethod
    def _known_preset(cls, name: str | None) -> str | None:
        if name is not None and name not in PRESETS:
            raise ValueError(f"must be one of {', '.join(PRESETS)}")
        return name

    @field_validator("profile")
    @classmethod
    def _known_profile(cls, name: str | None) -> str | None:
        if name is not None and name not in PROFILES:
            raise ValueError(f"must be one of {', '.join(PROFILES)}")
        return name

    @field_validator("credential")
    @classmethod
    def _credential_form(cls, text: str | None) -> str | None:
        if text is not None and text not in ("client", "none") and not text.startswith(("env:", "file:")):
            raise ValueError("must be client, none, env:NAME or file:PATH, never the credential itself")
        return text

    @validator(mode="after")
    def _resolve(self) -> Self:
        if self.kv_events and len(self.kv_events) != len(self.replicas):
            raise ValueError(
                f"upstream {self.name!r} has {len(self.replicas)} replicas and {len(self.kv_events)} kv_events"
            )
        if self.origin is None and self.known.origin is None and not self.replicas:
            raise ValueError(f"upstream {self.name!r} needs an origin, or a preset that has one")
        kind, _, where = (self.credential or "").partition(":")
        if kind == "env":
            if not (text := os.environ.get(where, "").strip()):
                raise ValueError(f"the credential of upstream {self.name!r} is not in the environment: {where}")
            self._secret = SecretStr(text)
        elif kind == "file":
            try:
                text = Path(where).read_text("utf-8").strip()
            except (OSError, UnicodeDecodeError) as error:
                raise ValueError(f"cannot read the credential of upstream {self.name!r}: {error}") from None
            if not text:
                raise ValueError(f"the credential of upstream {self.name!r} is empty: {where}")
            self._secret = SecretStr(text)
        return self


def check_upstreams(upstreams: Sequence[UpstreamSettings]) -> None:
    """Check that upstreams fit together.

    Raises:
        ValueError: a name stands twice, or a fallback cannot be one.
    """
    by_name: dict[str, UpstreamSettings] = {}
    for upstream in upstreams:
        if upstream.name in by_name or upstream.name == DEFAULT_UPSTREAM:
            raise ValueError(f"the name {upstream.name!r} is taken")
        by_name[upstream.name] = upstream
    for upstream in upstreams:
        for name in upstream.fallback:
            other = by_name.get(name)
            if other is None or other is upstream:
                raise ValueError(f"upstream {upstream.name!r} has the fallback {name!r}, which is no other upstream")
            if other.takes_clients_credential and other.address != upstream.address:
                raise ValueError(
                    f"upstream {name!r} needs a credential of its own to be a fallback of {upstream.name!r}: "
                    "the client's is not sent there"
                )
