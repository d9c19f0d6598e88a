"""The agents that can be pointed at the proxy: which of their settings say where requests go.

Plain tables and functions: for a proxy's address they give the changes to make and what else is to be said. Where a
setting is documented stands beside it.
"""

from __future__ import annotations

import os
import sys
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from sluice.proxy.connect.documents import Change, Form
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


@dataclass(frozen=True, slots=True)
class Agent:
    """A coding agent."""

    name: str
    """As `sluice connect` takes it."""
    title: str
    wire: WireName
    """What it speaks, as it is set up here."""
    setup: Callable[[Place, str, str | None], Setup]
    """For where settings are, the proxy's origin, and the model if one is named."""


def _claude_code(place: Place, origin: str, model: str | None) -> Setup:
    # https://code.claude.com/docs/en/settings: what stands under `env` is set in every session.
    file = Path(place.environment.get("CLAUDE_CONFIG_DIR") or place.home / ".claude") / "settings.json"
    changes = [Change(file, Form.JSON, ("env", "ANTHROPIC_BASE_URL"), origin)]
    if model:
        changes.append(Change(file, Form.JSON, ("env", "ANTHROPIC_MODEL"), model))
    return Setup(tuple(changes))


def _codex(place: Place, origin: str, model: str | None) -> Setup:
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
    changes += [Change(file, Form.TOML, ("model_providers", "sluice", key), value) for key, value in provider.items()]
    return Setup(tuple(changes), ("Codex takes the upstream's key from OPENAI_API_KEY.",))


def _opencode(place: Place, origin: str, model: str | None) -> Setup:
    # https://opencode.ai/docs/providers: every provider's `baseURL` can be set; its models and keys stay as they are.
    config = place.environment.get("OPENCODE_CONFIG")
    base = Path(place.environment.get("XDG_CONFIG_HOME") or place.home / ".config") / "opencode"
    file = Path(config) if config else base / "opencode.json"
    if model is None:
        return Setup(
            tuple(
                Change(file, Form.JSON, ("provider", name, "options", "baseURL"), f"{origin}/v1")
                for name in ("anthropic", "openai")
            ),
            ("A provider other than anthropic and openai: name a model, as in --model gpt-4o.",),
        )
    ours = ("provider", "sluice")
    return Setup(
        (
            Change(file, Form.JSON, (*ours, "npm"), "@ai-sdk/openai-compatible"),
            Change(file, Form.JSON, (*ours, "name"), "Sluice"),
            Change(file, Form.JSON, (*ours, "options", "baseURL"), f"{origin}/v1"),
            Change(file, Form.JSON, (*ours, "models", model, "name"), model),
            Change(file, Form.JSON, ("model",), f"sluice/{model}"),
        ),
        ("Give the upstream's key once: opencode auth login, then Other, then sluice.",),
    )


def _aider(place: Place, origin: str, model: str | None) -> Setup:
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
        ),
    )


def _cline(_place: Place, origin: str, model: str | None) -> Setup:
    # https://docs.cline.bot/provider-config/openai-compatible: the editor keeps these, in no file to be edited.
    return Setup(
        steps=(
            "In the editor: Cline's settings (the gear), API Provider: OpenAI Compatible,",
            f"  Base URL: {origin}/v1",
            f"  Model ID: {model or 'as the upstream names it'}",
            "  API Key: the upstream's.",
            f"With Anthropic as the provider instead: Use custom base URL, {origin}",
            "On the command line: cline auth, then the same.",
        )
    )


def _openhands(place: Place, origin: str, model: str | None) -> Setup:
    # https://docs.openhands.dev/openhands/usage/environment-variables; read with --override-with-envs alone.
    named = f"openai/{model or 'NAME'}"
    file = place.home / ".openhands" / "agent_settings.json"
    steps = (
        f"In a shell: LLM_BASE_URL={origin}/v1 LLM_MODEL={named} openhands --override-with-envs",
        f"In containers and the web interface: LLM_BASE_URL={origin}/v1 (from a container, this machine's address).",
    )
    if not file.is_file():  # the program writes it itself, with much besides
        return Setup(steps=steps)
    changes = [Change(file, Form.JSON, ("llm", "base_url"), f"{origin}/v1")]
    if model:
        changes.append(Change(file, Form.JSON, ("llm", "model"), named))
    return Setup(tuple(changes), steps)


def _mini_swe_agent(place: Place, origin: str, model: str | None) -> Setup:
    # https://mini-swe-agent.com/latest/advanced/global_configuration: a dotenv file, read by litellm's names.
    folder = place.environment.get("MSWEA_GLOBAL_CONFIG_DIR") or place.config_dir("mini-swe-agent")
    file = Path(folder) / ".env"
    changes = [
        Change(file, Form.DOTENV, ("OPENAI_API_BASE",), f"{origin}/v1"),
        Change(file, Form.DOTENV, ("ANTHROPIC_API_BASE",), origin),
    ]
    if model:
        changes.append(Change(file, Form.DOTENV, ("MSWEA_MODEL_NAME",), f"openai/{model}"))
    return Setup(tuple(changes))


AGENTS = {
    agent.name: agent
    for agent in (
        Agent("claude-code", "Claude Code", WireName.MESSAGES, _claude_code),
        Agent("codex", "Codex", WireName.RESPONSES, _codex),
        Agent("opencode", "opencode", WireName.CHAT, _opencode),
        Agent("aider", "Aider", WireName.CHAT, _aider),
        Agent("cline", "Cline", WireName.CHAT, _cline),
        Agent("openhands", "OpenHands", WireName.CHAT, _openhands),
        Agent("mini-swe-agent", "mini-swe-agent", WireName.CHAT, _mini_swe_agent),
    )
}
"""By name."""
