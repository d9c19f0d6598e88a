"""All settings of the proxy: one frozen object, built once at start (`load_settings.py`) and handed down in slices."""

from __future__ import annotations

import os
from dataclasses import replace
from pathlib import Path
from typing import Annotated, Any, Literal
from urllib.parse import urlsplit

from pydantic import AliasChoices, Field, SecretStr, field_validator
from pydantic_settings import (
    BaseSettings,
    NoDecode,
    PydanticBaseSettingsSource,
    SettingsConfigDict,
)

from sluice.compressor.profiles import PROFILES, Profile
from sluice.compressor.types import Mode
from sluice.proxy.access.keys import ProxyKey
from sluice.proxy.upstreams.limits import HttpLimits
from sluice.proxy.upstreams.presets import EMBEDDED, PRESETS, preset_of, profile_of
from sluice.proxy.upstreams.retries import Policy
from sluice.proxy.upstreams.settings import DEFAULT_UPSTREAM, Origin, UpstreamSettings, check_upstreams

VLLM_PREFIX = "vllm+"
"""Before the URL of a vLLM that serves a line scorer's base."""


class Settings(BaseSettings):
    """Settings of one proxy. Build it with `load_settings.py`."""

    model_config = SettingsConfigDict(
        env_prefix="SLUICE_",
        frozen=True,
        extra="forbid",
        validate_default=False,
        use_attribute_docstrings=True,
        allow_inf_nan=False,
    )

    host: str = "127.0.0.1"
    """Address to listen on."""
    port: int = Field(default=8790, ge=0, le=65535)
    """TCP port to listen on; 0 takes a free one."""
    upstream: Origin | None = None
    """Where requests go: an origin such as `https://api.openai.com`, a trailing `/v1` is cut. None: see `backend`."""
    backend: Literal["embedded", "vllm", "none"] = "none"
    """`embedded` starts the bundled engine, `vllm` a vLLM, and makes it the upstream; `none` starts nothing."""
    model: str | None = None
    """Weights that the backend serves; None takes its default."""
    vllm: dict[str, Any] = {}
    """The table `[vllm]`: how vLLM is run (docs/deploy.md); checked when it is started."""
    backend_args: tuple[str, ...] = ()
    """Passed on to `vllm serve` as they are; on the command line they stand behind `--`."""
    mode: Mode = Mode.BALANCED
    """How much may be dropped where the request does not say (`x-sluice-mode`)."""
    provider: str = "auto"
    """Whose cache prices and cache life decisions are made with; `auto` tells it by the upstream's host."""
    cache_ttl_s: float | None = Field(default=None, gt=0)
    """Seconds after which the provider's cache forgets a prefix; None takes what is known of the provider."""
    max_reattached_chars: int = Field(default=0, ge=0)
    """Characters of the user's own words that are put behind an agent's summary of its history, where the request names
    its session (`x-sluice-session`, or as Claude Code and Codex do); 0 puts none. What the user says is then kept in
    the state store."""
    scorer: str = "features"
    """What scores lines beside their features: `features` (nothing), `neural` (a network in this process; needs the
    extra `scorer`), the URL of a `sluice scorer serve`, or `vllm+` and the URL of a vLLM that serves what
    `sluice scorer export` wrote (both need the extra `scorer-client`). Where a network does not answer in time,
    features score."""
    scorer_model: Path | None = None
    """Folder of a trained network; None takes the one that comes along."""
    scorer_device: Literal["auto", "cpu", "cuda"] = "auto"
    """Where `neural` computes; `auto` takes a GPU where there is one."""
    scorer_deadline_ms: float = Field(default=30.0, gt=0)
    """What a network may add to a request, in milliseconds."""
    redis_url: SecretStr | None = None
    """Where state is kept, `redis://`, `rediss://` or `unix://`; None keeps it in this process."""
    redis_timeout_s: float = Field(default=1.0, gt=0)
    """Longest wait for Redis in one step, connecting included, in seconds. A request whose conversation this process
    does not know goes on untouched after it, and the provider reads its prefix anew: that costs more than waiting."""
    ttl_s: float = Field(default=172_800.0, ge=1)
    """Seconds after which state that nobody asked for is gone. Keep it above twice the provider's cache life, which is
    up to a day."""
    state_max_bytes: int = Field(default=256 * 2**20, ge=2**20)
    """Bound on the state that this process holds, in bytes; the least recently used goes first."""
    conversation_max_bytes: int = Field(default=384 * 2**20, ge=0)
    """Bound, by estimate, on what each process holds of conversations under way, so that a turn costs its new messages
    alone: one of 100,000 tokens takes some 7 MB. What was let go is read anew, which takes time and changes nothing; 0
    holds nothing."""
    compress_timeout_s: float = Field(default=5.0, gt=0)
    """Longest wait for what is decided about new messages, in seconds; after it what is left of them goes out as the
    client sent it, behind the earlier messages as they went out before."""
    tokens_wait_s: float = Field(default=0.1, ge=0)
    """Longest wait for token counts once the upstream has answered, in seconds. Past it their headers are left out."""
    max_body_bytes: int = Field(default=64 * 2**20, ge=1)
    """Largest request body accepted, in bytes."""
    connect_timeout_s: float = Field(default=10.0, gt=0)
    """Longest wait for a new connection to the upstream (name, TCP and TLS), in seconds."""
    read_timeout_s: float = Field(default=600.0, gt=0)
    """Longest silence of the upstream while its answer is awaited or read, in seconds."""
    write_timeout_s: float = Field(default=60.0, gt=0)
    """Longest time in which the upstream takes none of the request body, in seconds."""
    pool_timeout_s: float = Field(default=10.0, gt=0)
    """Longest wait for one of `max_connections` to come free, in seconds."""
    max_connections: int = Field(default=4096, ge=1)
    """Connections to the upstream at once."""
    store_content: bool = False
    """Whether the dashboard may show content: the last request of recent conversations is then kept, beside what was
    forwarded, in this process or in Redis. It is shown to whoever has the key that the conversation ran under."""
    content_max_conversations: int = Field(default=200, ge=1)
    """Conversations whose last request is kept for it."""
    content_max_bytes: int = Field(default=64 * 2**20, ge=2**20)
    """Bound on these requests together, packed, in bytes."""
    dashboard_key: SecretStr | None = Field(default=None, min_length=12)
    """Key of the proxy's owner, 12 characters or more: it opens the dashboard and all content there. None: where
    content is kept and no proxy keys are set up, one is made at the start and printed."""
    record: Path | None = None
    """Folder into which requests are written, content and all, for `sluice eval`; None writes nothing."""
    max_retries: int = Field(default=2, ge=0)
    """How often a request is sent to the same upstream again where it certainly was not worked on: no connection, or
    an answer of 429, 502, 503 or 529."""
    retry_max_wait_s: float = Field(default=8.0, ge=0)
    """Longest wait before that, in seconds. Where the upstream asks for more, the client is told."""
    breaker_failures: int = Field(default=5, ge=1)
    """Failures in a row after which an upstream is passed over while a fallback can be asked."""
    breaker_retry_s: float = Field(default=10.0, gt=0)
    """Seconds until one request tries it again."""
    upstreams: tuple[UpstreamSettings, ...] = ()
    """Several upstreams by model, as `[[upstreams]]` tables; `upstream` or `backend` serves what they do not."""
    allow_public: bool = False
    """Whether to listen where other machines can connect though no key is asked for."""
    allowed_hosts: tuple[str, ...] = ()
    """Names that requests may call this proxy by, besides its own on loopback; without ports. On other addresses than
    loopback `Host` is checked only where some are named here: name them, above all with `allow_public`."""
    allowed_origins: tuple[str, ...] = ()
    """Origins whose web pages may use the proxy (CORS), such as `http://localhost:3000`; `*` is any."""
    keys: tuple[ProxyKey, ...] = ()
    """Proxy keys, as `[[keys]]` tables; `sluice keys` makes them for a file or for Redis."""
    keys_file: Path | None = None
    """File that proxy keys are kept in."""
    require_keys: bool = False
    """Ask for a key though none is named here: they are kept in Redis."""
    max_concurrent_requests: int = Field(default=4096, ge=1)
    """Requests that are served at once, by each worker; more get 429."""
    workers: int = Field(default=1, ge=1)
    """Processes that serve. More than one need `redis_url`: each would decide for itself what a conversation's
    messages are forwarded as, and prefixes would change from turn to turn."""
    drain_s: float = Field(default=10.0, ge=0)
    """Seconds that answers in progress get when the proxy is told to end; told twice, it ends at once."""
    holdout: float = Field(default=0.0, ge=0, le=1)
    """Share of new conversations that go through untouched, so that what the others save is a measured difference."""
    prices_file: Path | None = None
    """Prices of your own, in the form of the shipped `prices.toml`; asked before it."""
    otlp_endpoint: str | None = Field(
        default=None,
        validation_alias=AliasChoices("otlp_endpoint", "SLUICE_OTLP_ENDPOINT", "OTEL_EXPORTER_OTLP_ENDPOINT"),
    )
    """Where traces and metrics are sent over OTLP (HTTP), such as `http://localhost:4318`; None sends none. Needs the
    extra `otel`."""
    answer_cache_ttl_s: float = Field(default=0.0, ge=0)
    """Seconds for which an answer to a repeatable request (temperature 0, or a seed) is given again to the same
    request; 0 switches the prompt cache off."""
    answer_cache_max_bytes: int = Field(default=64 * 2**20, ge=2**20)
    """Bound on the answers that this process holds, in bytes; in Redis its own `maxmemory` counts."""
    answer_max_bytes: int = Field(default=2**20, ge=1024)
    """Longest answer that is kept, in bytes."""
    cache_breakpoints: bool = False
    """Whether requests on Anthropic's wire that set no `cache_control` get one at the end of their newest message, from
    the second turn on. It makes a conversation cheaper and costs a quarter more of what no later turn reads."""
    log_level: Literal["debug", "info", "warning", "error"] = "info"
    """Least severity that is logged; `info` is one line a request."""

    search_roots: Annotated[tuple[Path, ...], NoDecode] = ()
    """Repositories that `/v1/search` and `/mcp` may search, and nothing else; in the environment with `:` (on Windows
    `;`) between them. None by default: both routes answer 404."""
    search_cache_dir: Path = Path("~/.cache/sluice/search")
    """Where the search index is kept between starts."""
    search_dense_model: str = ""
    """Embedding model that search weighs files and chunks with as well, such as `all-MiniLM-L6-v2` or `static:DIR`; its
    vectors are made in the background. Empty: none, which needs nothing beyond the extra `search`."""
    search_tool: Literal["off", "fast", "deep"] = "off"
    """Whether conversations get a tool `code_search` that the proxy answers itself, and in which mode. Takes exactly
    one of `search_roots`; `deep` takes `search_deep_model`. Conversations that began without go on without."""
    search_deep_model: str | None = None
    """Model that looks around in `mode: deep`; None: that mode is refused."""
    search_deep_url: Origin | None = None
    """Origin of the OpenAI-compatible server that has it; None takes `upstream`."""
    search_deep_key: SecretStr | None = None
    """Sent there as a bearer token; None sends none. A caller's own credential is never used for it."""

    @property
    def profile(self) -> Profile:
        """What the upstream's prompt cache costs, and how long it lasts."""
        name = self.provider
        if name == "auto":
            name = "self-hosted" if self.backend != "none" else profile_of(self.upstream or "")
        profile = PROFILES[name]
        return profile if self.cache_ttl_s is None else replace(profile, ttl_s=self.cache_ttl_s)

    @property
    def wants_keys(self) -> bool:
        """Whether requests need a proxy key."""
        return self.require_keys or bool(self.keys) or self.keys_file is not None

    @property
    def all_upstreams(self) -> tuple[UpstreamSettings, ...]:
        """Every upstream, in the order in which their patterns count; the one of `upstream` comes last."""
        if self.upstream is None:
            return self.upstreams
        backends = {"embedded": EMBEDDED, "vllm": PRESETS["vllm"]}
        preset = backends.get(self.backend) or preset_of(self.upstream)
        is_local = self.backend != "none" or self.provider == "self-hosted"
        default = UpstreamSettings(
            name=DEFAULT_UPSTREAM,
            preset=preset.name,
            origin=self.upstream,
            credential="client",
            profile=self.profile.name,
            is_local=is_local,
        )
        return (*self.upstreams, default)

    @property
    def http_limits(self) -> HttpLimits:
        """How long the steps of an exchange with an upstream may take."""
        return HttpLimits(**{name: getattr(self, name) for name in HttpLimits.__slots__})

    @property
    def retry_policy(self) -> Policy:
        """How an upstream's failures are dealt with."""
        return Policy(self.max_retries, self.retry_max_wait_s, self.breaker_failures, self.breaker_retry_s)

    @field_validator("allowed_hosts")
    @classmethod
    def _hosts_in_lower_case(cls, hosts: tuple[str, ...]) -> tuple[str, ...]:
        return tuple(host.lower() for host in hosts)  # as they are read from requests

    @field_validator("search_roots", mode="before")
    @classmethod
    def _split_roots(cls, value: object) -> object:
        return value.split(os.pathsep) if isinstance(value, str) else value

    @field_validator("search_roots")
    @classmethod
    def _roots_are_directories(cls, roots: tuple[Path, ...]) -> tuple[Path, ...]:
        for root in roots:
            if not root.is_dir():
                raise ValueError(f"{str(root)!r} is no directory")
        return roots

    @field_validator("scorer")
    @classmethod
    def _known_scorer(cls, scorer: str) -> str:
        if scorer in ("features", "neural"):
            return scorer
        url = urlsplit(scorer.removeprefix(VLLM_PREFIX))
        if url.scheme not in ("http", "https") or not url.hostname or url.path.strip("/") or url.query:
            raise ValueError(
                "must be features, neural, or an origin such as http://127.0.0.1:8792 (of a vLLM: vllm+http://…)"
            )
        return scorer.rstrip("/")

    @field_validator("scorer_model")
    @classmethod
    def _model_is_a_directory(cls, folder: Path | None) -> Path | None:
        if folder is not None and not folder.is_dir():
            raise ValueError(f"{str(folder)!r} is no directory")
        return folder

    @field_validator("upstreams")
    @classmethod
    def _upstreams_fit(cls, upstreams: tuple[UpstreamSettings, ...]) -> tuple[UpstreamSettings, ...]:
        check_upstreams(upstreams)
        return upstreams

    @field_validator("provider")
    @classmethod
    def _known_provider(cls, name: str) -> str:
        if name != "auto" and name not in PROFILES:
            raise ValueError(f"must be auto or one of {', '.join(PROFILES)}")
        return name

    @field_validator("redis_url")
    @classmethod
    def _redis_scheme(cls, url: SecretStr | None) -> SecretStr | None:
        if url is not None:
            _check_redis_url(url.get_secret_value())
        return url

    @classmethod
    def settings_customise_sources(
        cls,
        settings_cls: type[BaseSettings],
        init_settings: PydanticBaseSettingsSource,
        env_settings: PydanticBaseSettingsSource,
        dotenv_settings: PydanticBaseSettingsSource,
        file_secret_settings: PydanticBaseSettingsSource,
    ) -> tuple[PydanticBaseSettingsSource, ...]:
        """Order of the sources, strongest first: flags, environment. The file is put below them in `load_settings`."""
        return init_settings, env_settings


def _check_redis_url(url: str) -> None:
    """Check a URL by having the client read it; it connects to nothing, and passes over a database that is no number.

    Raises:
        ValueError: it cannot be used. The message quotes nothing: a password that is not encoded may stand anywhere.
    """
    scheme = urlsplit(url).scheme
    if scheme not in ("redis", "rediss", "unix"):
        raise ValueError("must be a redis://, rediss:// or unix:// URL")
    from redis.asyncio import ConnectionPool

    path = urlsplit(url).path.strip("/")
    try:
        ConnectionPool.from_url(url).make_connection()  # type: ignore[no-untyped-call]  # it has no types
        is_read = scheme == "unix" or not path or path.isdecimal()
    except (ValueError, TypeError):
        is_read = False
    if not is_read:
        raise ValueError(
            "cannot be read: write redis://:PASSWORD@HOST:PORT/NUMBER, other characters than letters and digits in the "
            "password percent-encoded"
        )
