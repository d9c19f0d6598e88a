"""Writes the made-up conversations: `python -m sluice.eval.traces.generate`. The same input gives the same bytes.

The steps are the same for every agent; what differs is how an agent asks for a file and how its tools answer.
"""

from __future__ import annotations

import difflib
import json
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any, Protocol

from sluice.eval.traces import AGENTS, project, trace_file

Message = dict[str, Any]


@dataclass(frozen=True)
class Step:
    """One thing that the agent does, why, and what its tool answers."""

    kind: str
    """`read`, `search`, `run` or `edit`."""
    thought: str
    target: str
    """A path, a pattern or a command."""
    output: str
    """Plain, as the file system or the shell gives it; the agent's tool puts its frame around it."""
    change: tuple[str, str] = ("", "")
    first_line: int = 1


class Style(Protocol):
    """How one agent writes a step down."""

    system: str | None

    def step(self, number: int, step: Step) -> list[Message]:
        """The assistant's message and the tool's answer."""
        ...


def steps() -> Iterator[Step]:
    """The work, step by step, against files that the edits change."""
    files = dict(project.FILES)
    report = "tally/report.py"

    def read(path: str, thought: str, first: int = 1, last: int = 10_000) -> Step:
        lines = files[path].splitlines()[first - 1 : last]
        return Step("read", thought, path, "\n".join(lines), first_line=first)

    def edit(path: str, thought: str, change: tuple[str, str]) -> Step:
        assert files[path].count(change[0]) == 1
        files[path] = files[path].replace(*change)
        return Step("edit", thought, path, "", change)

    def run(thought: str, command: str, lines: list[str]) -> Step:
        return Step("run", thought, command, "\n".join(lines))

    yield read(report, "I start with the module that builds the report.")
    yield read("tally/dates.py", "`entries_in_month` relies on `month_range`, so I look at what it returns.")
    yield run("Before I change anything I run the tests.", "python -m pytest tests", project.FIRST_RUN)
    yield Step("search", "Who else uses `month_range`?", "month_range", "\n".join(_matches(files, "month_range")))
    yield edit(
        report,
        "`month_range` returns a last day that lies inside the month, but `entries_in_month` compares with `<`.",
        project.FIRST_EDIT,
    )
    yield run("That should repair `test_last_day_belongs_to_the_month`.", "python -m pytest tests", project.SECOND_RUN)
    yield read(report, "The order of `format_report` is wrong too. I read tally/report.py again as it is now.")
    yield read("tests/test_report.py", "What exactly does `test_largest_account_comes_first` expect?")
    yield edit(
        report, "`ranked` is sorted in rising order; the largest account has to come first.", project.SECOND_EDIT
    )
    yield read(report, "I check the edited function in its place.", 40, 52)
    yield run("Now all of them should pass.", "python -m pytest tests", project.THIRD_RUN)
    yield run("The diff, as asked.", "git diff", list(_diff(project.FILES, files)))


def conversation(agent: str) -> dict[str, Any]:
    """One agent's conversation, in the form of recorded ones."""
    style = STYLES[agent]
    messages: list[Message] = [{"role": "system", "content": style.system}] if style.system else []
    messages.append({"role": "user", "content": project.TASK})
    observations = []
    for number, step in enumerate(steps(), 1):
        messages += style.step(number, step)
        if messages[-1]["role"] == "user":
            observations.append(len(messages) - 1)
    messages.append(
        {
            "role": "assistant",
            "content": "The report left out the last day because `entries_in_month` compared with `<` although "
            "`month_range` returns a day inside the month. I also turned the order of `ranked` round, which "
            "`test_largest_account_comes_first` had shown. All 3 tests pass.",
        }
    )
    return {
        "id": f"made-up/{agent}",
        "source": "made-up",
        "agent": agent,
        "model": "none",
        "task": project.TASK,
        "messages": messages,
        "observation_indexes": observations,
    }


def written() -> dict[str, str]:
    """The content of each agent's file."""
    return {agent: json.dumps(conversation(agent), ensure_ascii=False) + "\n" for agent in AGENTS}


class ClaudeCode:
    """Reads with an arrow after the line number."""

    system: str | None = None

    def step(self, number: int, step: Step) -> list[Message]:
        """See `Style`."""
        path = f"{project.ROOT}/{step.target}"
        if step.kind == "read":
            size = step.output.count("\n") + 1
            whole = {"file_path": path}
            part = whole | {"offset": step.first_line, "limit": size}
            return _call(number, step, "Read", part if step.first_line > 1 else whole, _numbered(step, "{:6d}→{}"))
        if step.kind == "search":
            return _call(
                number, step, "Grep", {"pattern": step.target, "output_mode": "content", "-n": True}, step.output
            )
        if step.kind == "edit":
            arguments = {"file_path": path, "old_string": step.change[0], "new_string": step.change[1]}
            return _call(number, step, "Edit", arguments, f"The file {path} has been updated.")
        return _call(number, step, "Bash", {"command": step.target}, step.output)


class Codex:
    """Reads with shell commands; every answer begins with how the command ended."""

    system: str | None = "You are a coding agent that shares a workspace with its user."

    def step(self, number: int, step: Step) -> list[Message]:
        """See `Style`."""
        if step.kind == "edit":
            patch = ["*** Begin Patch", f"*** Update File: {step.target}", "@@"]
            patch += [f"-{step.change[0]}", f"+{step.change[1]}", "*** End Patch"]
            output = f"Exit code: 0\nOutput:\nUpdated {step.target}"
            return _call(number, step, "apply_patch", {"input": "\n".join(patch)}, output)
        command = step.target
        if step.kind == "read":
            command = f"sed -n '{step.first_line},{step.first_line + step.output.count(chr(10))}p' {step.target}"
        elif step.kind == "search":
            command = f"rg -n {step.target} ."
        output = f"Wall time: 0.0{number} seconds\nProcess exited with code 0\nOutput:\n{step.output}"
        return _call(number, step, "exec_command", {"cmd": command, "workdir": project.ROOT}, output)


class OpenCode:
    """Reads with five digits and a bar before the line."""

    system: str | None = "You are a coding agent that runs in a terminal."

    def step(self, number: int, step: Step) -> list[Message]:
        """See `Style`."""
        path = f"{project.ROOT}/{step.target}"
        if step.kind == "read":
            output = f"<file>\n{_numbered(step, '{:05d}| {}')}\n</file>"
            return _call(number, step, "read", {"filePath": path, "offset": step.first_line - 1}, output)
        if step.kind == "search":
            return _call(number, step, "grep", {"pattern": step.target, "path": project.ROOT}, step.output)
        if step.kind == "edit":
            arguments = {"filePath": path, "oldString": step.change[0], "newString": step.change[1]}
            return _call(number, step, "edit", arguments, "Edit applied.")
        return _call(number, step, "bash", {"command": step.target}, step.output)


class MiniSweAgent:
    """Has no tools: commands stand in its text, and their output comes as the user's message."""

    system: str | None = "You are a coding agent. Answer with a THOUGHT and exactly one bash command."

    def step(self, number: int, step: Step) -> list[Message]:
        """See `Style`."""
        command, output = step.target, step.output
        if step.kind == "read":
            command, output = f"cat -n {step.target}", _numbered(step, "{:6d}\t{}")
            if step.first_line > 1:
                last = step.first_line + step.output.count("\n")
                command += f" | sed -n '{step.first_line},{last}p'"
        elif step.kind == "search":
            command = f"grep -rn {step.target} ."
        elif step.kind == "edit":
            before, after = (text.strip().replace("/", r"\/").replace("[", r"\[") for text in step.change)
            command = f"sed -i 's/{before}/{after}/' {step.target}"
        return [
            {"role": "assistant", "content": f"THOUGHT: {step.thought}\n\n```bash\n{command}\n```"},
            {"role": "user", "content": f"<returncode>0</returncode>\n<output>\n{output}\n</output>"},
        ]


STYLES: dict[str, Style] = {
    "claude-code": ClaudeCode(),
    "codex-cli": Codex(),
    "opencode": OpenCode(),
    "mini-swe-agent": MiniSweAgent(),
}


def _call(number: int, step: Step, name: str, arguments: dict[str, Any], output: str) -> list[Message]:
    call_id = f"call_{number:04d}"
    function = {"name": name, "arguments": json.dumps(arguments, ensure_ascii=False)}
    call = {"id": call_id, "type": "function", "function": function}
    return [
        {"role": "assistant", "content": step.thought, "tool_calls": [call]},
        {"role": "tool", "tool_call_id": call_id, "content": output},
    ]


def _numbered(step: Step, form: str) -> str:
    return "\n".join(form.format(number, line) for number, line in enumerate(step.output.split("\n"), step.first_line))


def _matches(files: dict[str, str], pattern: str) -> Iterator[str]:
    for path, text in sorted(files.items()):
        for number, line in enumerate(text.splitlines(), 1):
            if pattern in line:
                yield f"./{path}:{number}:{line}"


def _diff(before: dict[str, str], after: dict[str, str]) -> Iterator[str]:
    for path in sorted(before):
        if before[path] != after[path]:
            yield f"diff --git a/{path} b/{path}"
            lines = before[path].splitlines(), after[path].splitlines()
            yield from difflib.unified_diff(*lines, f"a/{path}", f"b/{path}", lineterm="")


if __name__ == "__main__":
    for agent, text in written().items():
        trace_file(agent).write_text(text, encoding="utf-8")
