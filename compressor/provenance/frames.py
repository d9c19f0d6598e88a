"""Text-only agents: user messages that are tool output, told by the frame their agent puts around it.

A user message is taken for tool output only where it follows an assistant message and its whole text fits a known
frame; all other user text is untouchable. The command is read from the assistant's text.
"""

from __future__ import annotations

import re

import msgspec

from sluice.compressor.tags import passages
from sluice.compressor.types import ToolCall

_FRAMES = (
    # mini-swe-agent 1 and 2
    re.compile(r"\A\s*<returncode>-?\d+</returncode>\s*<(output|output_head)>.*\Z", re.DOTALL),
    re.compile(r"\A\s*<(?:warning|exception)>.*?</(?:warning|exception)>\s*<(?:output|output_head)>.*\Z", re.DOTALL),
    # SWE-agent with function calls in text
    re.compile(r"\AOBSERVATION:\n.*\Z", re.DOTALL),
    # SWE-agent's shell
    re.compile(r"\A.*\n\(Open file: [^\n]*\)\n\(Current directory: [^\n]*\)\n(?:bash-)?\$ ?\s*\Z", re.DOTALL),
    # OpenHands in text mode
    re.compile(r"\AEXECUTION RESULT of \[[^\]\n]+\]:\n.*\Z", re.DOTALL),
    # Cline and Roo Code in text mode
    re.compile(r"\A\[[a-z_]+(?: for '[^\n]*')?\] Result:\n.*\Z", re.DOTALL),
)
_FENCED = re.compile(r"```(?:bash|sh|shell|mswea_bash_command)?\n(.*?)```", re.DOTALL)
_FUNCTION = re.compile(r"<function=(\w+)>")
_PARAMETER = re.compile(r"<parameter=(\w+)>")
_TAGGED_TOOL = re.compile(
    r"<(read_file|search_files|list_files|execute_command|write_to_file|replace_in_file|apply_diff)>"
)
_TAGGED_PARAMETER = re.compile(r"<(path|command|regex)>")


def is_observation(text: str) -> bool:
    """Whether a user message that follows an assistant message is tool output."""
    return any(frame.match(text) for frame in _FRAMES)


def written_call(text: str) -> ToolCall | None:
    """The last tool call that an assistant message makes in its text, a fenced command as a call of `bash`."""
    calls: list[tuple[int, str, dict[str, str]]] = []
    for function, parameter, end, parameter_end in (
        (_FUNCTION, _PARAMETER, "</function>", "</parameter>"),
        (_TAGGED_TOOL, _TAGGED_PARAMETER, "</{}>", "</{}>"),
    ):
        for call in passages(text, function, end):
            found = passages(call.text, parameter, parameter_end)
            arguments = {argument.name: argument.text.strip("\n") for argument in found}
            calls.append((call.start, call.name, arguments))
    if not calls:
        calls = [(match.start(), "bash", {"command": match[1].strip()}) for match in _FENCED.finditer(text)]
    if not calls:
        return None
    _, name, arguments = max(calls, key=lambda call: call[0])
    return ToolCall(id="", name=name, arguments=msgspec.json.encode(arguments).decode())
