"""The agents that can be pointed at the proxy: which of their settings say where requests go.

Plain tables and functions: for a proxy's address they give the changes to make and what else is to be said. Where a
setting is documented stands beside it.
"""

from __future__ import annotations

import os
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

from sluice.proxy.connect.documents import Change, Form, UnreadableSettingsError, find, parse
from sluice.proxy.wire import WireName


@dataclass(frozen=True, slots=True)
class Place:
    """Where an agent's settings are looked for."""

    home: Path
    environment: dict[str, str]
    platform: str = sys.platform

    @staticmethod
    def of_user() -> Place:
        """The user's own."""
        return Place(Path.home(), dict(os.environ))

    def config_dir(self, name: str) -> Path:
        """The folder in which a program keeps its settings, as the platform has it."""
        if self.platform == "darwin":
            return self.home / "Library" / "Application Support" / name
        return Path(self.environment.get("XDG_CONFIG_HOME") or self.home / ".config") / name


@dataclass(frozen=True, slots=True)
class Setup:
    """What points an agent at the proxy."""

    changes: tuple[Change, ...] = ()
    """Of its settings files; none where its settings are no files."""
    steps: tuple[str, ...] = ()
    """What a person does instead, or besides."""


class MakeSetup(Protocol):
    """Says what points an agent at the proxy."""

    def __call__(self, place: Place, origin: str, model: str | None, key: str | None = None, /) -> Setup:
        """For where settings are, the proxy's origin, the model if one is named, and the proxy key if there is one."""
        ...


@dataclass(frozen=True, slots=True)
class Agent:
    """A coding agent."""

    name: str
    """As `sluice connect` takes it."""
    title: str
    wire: WireName
    """What it speaks, as it is set up here."""
    setup: MakeSetup
    takes_headers: bool = False
    """Whether it sends headers of one's own, and so a proxy key beside the upstream's; others have room for one key."""


_KEY_HEADER = "x-sluice-key"


def _one_key(name: str, key: str | None) -> tuple[str, ...]:
    """What to do with a proxy key where there is room for one key."""
    if key is None:
        return ()
    return (f"The proxy key goes where the upstream's stood, {name}; the proxy then needs that one: credential = …",)


def _claude_code(place: Place, origin: str, model: str | None, key: str | None = None) -> Setup:
    # https://code.claude.com/docs/en/settings: what stands under `env` is set in every session.
    file = Path(place.environment.get("CLAUDE_CONFIG_DIR") or place.home / ".claude") / "settings.json"
    changes = [Change(file, Form.JSON, ("env", "ANTHROPIC_BASE_URL"), origin)]
    if model:
        changes.append(Change(file, Form.JSON, ("env", "ANTHROPIC_MODEL"), model))
    if key:
        # https://code.claude.com/docs/en/env-vars: one header a line.
        names = ("env", "ANTHROPIC_CUSTOM_HEADERS")
        others = [line for line in _standing(file, Form.JSON, names).split("\n") if not _is_key_line(line)]
        changes.append(Change(file, Form.JSON, names, "\n".join([*others, f"{_KEY_HEADER}: {key}"])))
    return Setup(tuple(changes))


def _codex(place: Place, origin: str, model: str | None, key: str | None = None) -> Setup:
    # https://developers.openai.com/codex/config-reference: the ids openai, ollama and lmstudio are taken.
    file = Path(place.environment.get("CODEX_HOME") or place.home / ".codex") / "config.toml"
    provider = {
        "name": "Sluice",
        "base_url": f"{origin}/v1",
        "env_key": "OPENAI_API_KEY",
        "wire_api": WireName.RESPONSES.value,
    }
    changes = [Change(file, Form.TOML, ("model",), model)] if model else []
    changes.append(Change(file, Form.TOML, ("model_provider",), "sluice"))
    changes += [
        Change(file, Form.TOML, ("model_providers", "sluice", field), value) for field, value in provider.items()
    ]
    if key:
        changes.append(Change(file, Form.TOML, ("model_providers", "sluice", "http_headers", _KEY_HEADER), key))
    return Setup(tuple(changes), ("Codex takes the upstream's key from OPENAI_API_KEY.",))


def _options(origin: str, key: str | None) -> list[tuple[tuple[str, ...], str]]:
    """An opencode provider's options."""
    header = [(("headers", _KEY_HEADER), key)] if key else []
    return [(("baseURL",), f"{origin}/v1"), *header]


def _opencode(place: Place, origin: str, model: str | None, key: str | None = None) -> Setup:
    # https://opencode.ai/docs/providers: every provider's `baseURL` can be set; its models and keys stay as they are.
    config = place.environment.get("OPENCODE_CONFIG")
    base = Path(place.environment.get("XDG_CONFIG_HOME") or place.home / ".config") / "opencode"
    file = Path(config) if config else base / "opencode.json"
    if model is None:
        return Setup(
            tuple(
                Change(file, Form.JSON, ("provider", name, "options", *option), value)
                for name in ("anthropic", "openai")
                for option, value in _options(origin, key)
            ),
            ("A provider other than anthropic and openai: name a model, as in --model gpt-4o.",),
        )
    ours = ("provider", "sluice")
    return Setup(
        (
            Change(file, Form.JSON, (*ours, "npm"), "@ai-sdk/openai-compatible"),
            Change(file, Form.JSON, (*ours, "name"), "Sluice"),
            *(Change(file, Form.JSON, (*ours, "options", *option), value) for option, value in _options(origin, key)),
            Change(file, Form.JSON, (*ours, "models", model, "name"), model),
            Change(file, Form.JSON, ("model",), f"sluice/{model}"),
        ),
        ("Give the upstream's key once: opencode auth login, then Other, then sluice.",),
    )


def _aider(place: Place, origin: str, model: str | None, key: str | None = None) -> Setup:
    # https://aider.chat/docs/config/aider_conf.html
    file = place.home / ".aider.conf.yml"
    changes = [Change(file, Form.YAML, ("openai-api-base",), f"{origin}/v1")]
    if model:
        changes.append(Change(file, Form.YAML, ("model",), f"openai/{model}"))
    return Setup(
        tuple(changes),
        (
            "Models are named openai/NAME, so that they go there. A .aider.conf.yml in a repository wins over this.",
            f"For anthropic/NAME, set ANTHROPIC_API_BASE={origin} in the environment.",
            *_one_key("OPENAI_API_KEY", key),
        ),
    )


def _cline(_place: Place, origin: str, model: str | None, key: str | None = None) -> Setup:
    # https://docs.cline.bot/provider-config/openai-compatible: the editor keeps these, in no file to be edited.
    return Setup(
        steps=(
            "In the editor: Cline's settings (the gear), API Provider: OpenAI Compatible,",
            f"  Base URL: {origin}/v1",
            f"  Model ID: {model or 'as the upstream names it'}",
            "  API Key: the upstream's.",
            f"With Anthropic as the provider instead: Use custom base URL, {origin}",
            "On the command line: cline auth, then the same.",
            *_one_key("API Key", key),
        )
    )


def _openhands(place: Place, origin: str, model: str | None, key: str | None = None) -> Setup:
    # https://docs.openhands.dev/openhands/usage/environment-variables; read with --override-with-envs alone.
    named = f"openai/{model or 'NAME'}"
    file = place.home / ".openhands" / "agent_settings.json"
    steps = (
        f"In a shell: LLM_BASE_URL={origin}/v1 LLM_MODEL={named} openhands --override-with-envs",
        f"In containers and the web interface: LLM_BASE_URL={origin}/v1 (from a container, this machine's address).",
        *_one_key("LLM_API_KEY", key),
    )
    if not file.is_file():  # the program writes it itself, with much besides
        return Setup(steps=steps)
    changes = [Change(file, Form.JSON, ("llm", "base_url"), f"{origin}/v1")]
    if model:
        changes.append(Change(file, Form.JSON, ("llm", "model"), named))
    return Setup(tuple(changes), steps)


def _mini_swe_agent(place: Place, origin: str, model: str | None, key: str | None = None) -> Setup:
    # https://mini-swe-agent.com/latest/advanced/global_configuration: a dotenv file, read by litellm's names.
    folder = place.environment.get("MSWEA_GLOBAL_CONFIG_DIR") or place.config_dir("mini-swe-agent")
    file = Path(folder) / ".env"
    changes = [
        Change(file, Form.DOTENV, ("OPENAI_API_BASE",), f"{origin}/v1"),
        Change(file, Form.DOTENV, ("ANTHROPIC_API_BASE",), origin),
    ]
    if model:
        changes.append(Change(file, Form.DOTENV, ("MSWEA_MODEL_NAME",), f"openai/{model}"))
    return Setup(tuple(changes), _one_key("OPENAI_API_KEY", key))


def _standing(file: Path, form: Form, keys: tuple[str, ...]) -> str:
    """The text of a setting that others may have set; empty where there is none."""
    try:
        value = find(parse(file.read_text("utf-8"), form), keys)
    except (OSError, UnicodeDecodeError, UnreadableSettingsError):  # whoever writes it says so
        return ""
    return value if isinstance(value, str) else ""


def _is_key_line(line: str) -> bool:
    """Whether a line gives the proxy key, or nothing."""
    return line.partition(":")[0].strip().lower() in ("", _KEY_HEADER)


AGENTS = {
    agent.name: agent
    for agent in (
        Agent("claude-code", "Claude Code", WireName.MESSAGES, _claude_code, takes_headers=True),
        Agent("codex", "Codex", WireName.RESPONSES, _codex, takes_headers=True),
        Agent("opencode", "opencode", WireName.CHAT, _opencode, takes_headers=True),
        Agent("aider", "Aider", WireName.CHAT, _aider),
        Agent("cline", "Cline", WireName.CHAT, _cline),
        Agent("openhands", "OpenHands", WireName.CHAT, _openhands),
        Agent("mini-swe-agent", "mini-swe-agent", WireName.CHAT, _mini_swe_agent),
    )
}
"""By name."""
