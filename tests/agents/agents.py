"""The real agents: how each is installed, told where to send its requests, and started without a terminal."""

from __future__ import annotations

import asyncio
import json
import os
import shlex
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from sluice.proxy.connect.agents import AGENTS, Place
from sluice.proxy.connect.journal import Journal
from sluice.proxy.connect.write import write
from sluice.proxy.wire import WireName
from tests.agents.script import TASK, Action, Step

Json = dict[str, Any]
HOME = Path(os.environ.get("SLUICE_AGENTS_DIR") or Path(__file__).resolve().parents[2] / ".agents").absolute()
_NPM = HOME / "node_modules" / ".bin"
_LIMIT_S = 240


@dataclass
class Ended:
    """What became of an agent."""

    code: int | None
    output: str
    errors: str


@dataclass(frozen=True)
class Agent:
    """A real agent."""

    name: str
    binary: Path
    wire: WireName
    """What it speaks."""
    call: Callable[[Step], tuple[str, Json]]
    """How its tools do a step."""
    command: Callable[[Path, Path, str], tuple[list[str], dict[str, str]]]
    """Arguments and environment, for a repository, a home and the proxy's URL; writes its settings."""
    last_call: tuple[str, Json] | None = None
    """The call by which it ends, where its final text does not."""


async def run(agent: Agent, repository: Path, home: Path, url: str) -> Ended:
    """Run an agent to its end, with a home of its own and nothing of ours in its environment."""
    arguments, environment = agent.command(repository, home, url)
    plain = {"PATH": os.environ["PATH"], "HOME": str(home), "TERM": "dumb", "NO_COLOR": "1", "LANG": "C.UTF-8"}
    process = await asyncio.create_subprocess_exec(
        str(agent.binary),
        *arguments,
        cwd=repository,
        env={**plain, **environment},
        stdin=asyncio.subprocess.DEVNULL,
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.PIPE,
        start_new_session=True,
    )
    try:
        async with asyncio.timeout(_LIMIT_S):
            output, errors = await process.communicate()
    finally:
        if process.returncode is None:
            os.killpg(process.pid, 9)
            await process.wait()
    return Ended(process.returncode, output.decode(errors="replace"), errors.decode(errors="replace"))


def _shell(step: Step) -> str:
    """A step as a shell command."""
    if step.action in (Action.READ, Action.SHOW):
        return f"cat {step.what}"
    if step.action is Action.SEARCH:
        return f"grep -rn {shlex.quote(step.what)} app"
    if step.action is Action.EDIT:
        script = f"s/{step.old.strip()}$/{step.new.strip()}/".replace("*", r"\*", 1)
        return f"sed -i {shlex.quote(script)} {step.what}"
    return step.what


def _claude_call(repository: Path | None = None) -> Callable[[Step], tuple[str, Json]]:
    def call(step: Step) -> tuple[str, Json]:
        path = str((repository or Path()) / step.what)
        if step.action is Action.READ:
            return "Read", {"file_path": path}
        if step.action is Action.SEARCH:
            return "Grep", {"pattern": step.what, "output_mode": "content", "-n": True}
        if step.action is Action.EDIT:
            return "Edit", {"file_path": path, "old_string": step.old + "\n", "new_string": step.new + "\n"}
        return "Bash", {"command": _shell(step), "description": "A step"}

    return call


def _connect(name: str, home: Path, url: str, model: str | None = None) -> None:
    """Point an agent at the proxy as `sluice connect --write` does."""
    write(name, AGENTS[name].setup(Place(home, {}), url, model).changes, Journal(home / "journal"))


def _claude(repository: Path, home: Path, url: str) -> tuple[list[str], dict[str, str]]:
    _connect("claude-code", home, url)
    environment = {
        "ANTHROPIC_API_KEY": "sk-test",
        "CLAUDE_CODE_DISABLE_NONESSENTIAL_TRAFFIC": "1",
        "DISABLE_AUTOUPDATER": "1",
    }
    return ["-p", TASK, "--allowedTools", "Read,Bash,Edit,Grep"], environment


def _codex_call(step: Step) -> tuple[str, Json]:
    return "exec_command", {"cmd": _shell(step)}


def _codex(repository: Path, home: Path, url: str) -> tuple[list[str], dict[str, str]]:
    settings = home / ".codex" / "config.toml"
    settings.parent.mkdir(exist_ok=True)
    settings.write_text('approval_policy = "never"\nsandbox_mode = "danger-full-access"\n')
    _connect("codex", home, url, "gpt-5.2-codex")
    return ["exec", "--skip-git-repo-check", TASK], {"OPENAI_API_KEY": "sk-test"}


def _opencode_call(step: Step) -> tuple[str, Json]:
    if step.action is Action.READ:
        return "read", {"filePath": step.what}
    if step.action is Action.SEARCH:
        return "grep", {"pattern": step.what}
    if step.action is Action.EDIT:
        return "edit", {"filePath": step.what, "oldString": step.old + "\n", "newString": step.new + "\n"}
    return "bash", {"command": _shell(step), "description": "A step"}


def _opencode(repository: Path, home: Path, url: str) -> tuple[list[str], dict[str, str]]:
    settings = {
        "$schema": "https://opencode.ai/config.json",
        "small_model": "sluice/gpt-4o",
        "autoupdate": False,
        "share": "disabled",
        "permission": {"*": "allow"},
        "provider": {
            "sluice": {
                "options": {"apiKey": "sk-test"},
                "models": {"gpt-4o": {"limit": {"context": 128000, "output": 8192}}},
            }
        },
    }
    file = home / ".config" / "opencode" / "opencode.json"
    file.parent.mkdir(parents=True)
    file.write_text(json.dumps(settings))
    _connect("opencode", home, url, "gpt-4o")
    return ["run", TASK], {"OPENCODE_DISABLE_MODELS_FETCH": "1"}


def _mini_call(step: Step) -> tuple[str, Json]:
    return "bash", {"command": _shell(step)}


def _mini(repository: Path, home: Path, url: str) -> tuple[list[str], dict[str, str]]:
    _connect("mini-swe-agent", home, url)
    environment = {
        "OPENAI_API_KEY": "sk-test",
        "MSWEA_CONFIGURED": "true",
        "MSWEA_COST_TRACKING": "ignore_errors",
        "LITELLM_LOCAL_MODEL_COST_MAP": "True",
    }
    arguments = ["-m", "openai/gpt-4o", "-t", TASK, "-y", "--exit-immediately", "-o", str(home / "trajectory.json")]
    return arguments, environment


def claude_code(repository: Path) -> Agent:
    """Claude Code; its tools want absolute paths."""
    return Agent("claude-code", _NPM / "claude", WireName.MESSAGES, _claude_call(repository), _claude)


CODEX = Agent("codex", _NPM / "codex", WireName.RESPONSES, _codex_call, _codex)
OPENCODE = Agent("opencode", _NPM / "opencode", WireName.CHAT, _opencode_call, _opencode)
_SUBMIT = {"command": "echo COMPLETE_TASK_AND_SUBMIT_FINAL_OUTPUT && echo ALL DONE: alpha is mended."}
MINI = Agent("mini-swe-agent", HOME / "mini" / "bin" / "mini", WireName.CHAT, _mini_call, _mini, ("bash", _SUBMIT))
