"""What a tool call shows and changes, from its name and arguments: the tools of the agents in the field.

Names are compared without case and underscores, so that `Read`, `read_file` and `readFile` are one. What a tool does
is told by its name first, then, for a shell, by its command (`shell.py`).
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any

import msgspec

from sluice.compressor.provenance.shell import read_command
from sluice.compressor.provenance.types import Kind, Provenance
from sluice.compressor.types import ToolCall

_KINDS: dict[str, Kind] = {
    **dict.fromkeys(
        ("read", "readfile", "view", "viewfile", "open", "openfile", "cat", "readmanyfiles", "getfile"), Kind.READ
    ),
    **dict.fromkeys(("goto", "scrollup", "scrolldown", "notebookread"), Kind.READ),
    **dict.fromkeys(
        ("grep", "rg", "search", "searchfiles", "grepsearch", "searchfilecontent", "codesearch"), Kind.SEARCH
    ),
    **dict.fromkeys(("searchdir", "searchfile", "codebasesearch", "lsp"), Kind.SEARCH),
    **dict.fromkeys(("glob", "ls", "list", "listdir", "listfiles", "listdirectory", "find", "findfile"), Kind.LISTING),
    **dict.fromkeys(("webfetch", "websearch", "fetch", "browse", "webreader"), Kind.WEB),
    **dict.fromkeys(
        ("edit", "write", "multiedit", "writefile", "writetofile", "replaceinfile", "replace", "applypatch", "create"),
        Kind.EDIT,
    ),
    **dict.fromkeys(
        ("notebookedit", "insert", "editfile", "createfile", "applydiff", "searchreplace", "patch"), Kind.EDIT
    ),
}
_SHELLS = frozenset(
    {
        *("bash", "shell", "exec", "execcommand", "executebash", "executecommand", "localshell", "runcommand"),
        *("runinterminal", "runshellcommand", "runterminalcmd", "shellcommand", "terminal"),
    }
)
_PATH_KEYS = (
    "file_path",
    "filePath",
    "path",
    "filename",
    "file_name",
    "target_file",
    "absolute_path",
    "notebook_path",
    "file",
)
_COMMAND_KEYS = ("command", "cmd", "script", "input", "code")
_FIRST_LINE_KEYS = ("offset", "start_line", "startLine", "line_start", "line_number", "start")
_LAST_LINE_KEYS = ("end_line", "endLine", "line_end", "end")
_EDITOR_VERBS = {
    "view": Kind.READ,
    "create": Kind.EDIT,
    "str_replace": Kind.EDIT,
    "insert": Kind.EDIT,
    "undo_edit": Kind.EDIT,
}
_PATCHED = re.compile(r"^\*\*\* (?:Update|Add|Delete) File: (.*\S)|^\+\+\+ (?:b/)?(\S+)", re.MULTILINE)
_EMBEDDED_COMMAND = re.compile(r"""\b(?:cmd|command)\s*:\s*("(?:[^"\\]|\\.)*"|'(?:[^'\\]|\\.)*'|`(?:[^`\\]|\\.)*`)""")


def read_call(call: ToolCall) -> Provenance:
    """What the result of a tool call is. Malformed arguments leave the kind by name."""
    arguments = decode_arguments(call)
    name = re.sub(r"[_\-\s]", "", call.name).lower()
    if name in _SHELLS:
        return _of_shell(call.name, arguments)
    if name in {"strreplaceeditor", "strreplacebasededittool", "editor"}:
        kind = _EDITOR_VERBS.get(str(arguments.get("command")), Kind.OTHER)
    else:
        kind = _KINDS.get(name, Kind.OTHER)
    path = _string(arguments, _PATH_KEYS)
    if kind is Kind.EDIT:
        paths = _patched_paths(arguments) or ((path,) if path else ())
        return Provenance(kind, call.name, path=paths[0] if len(paths) == 1 else None, edited_paths=paths)
    first_line, last_line = _line_range(arguments) if kind is Kind.READ else (None, None)
    return Provenance(kind, call.name, path=path, first_line=first_line, last_line=last_line)


def decode_arguments(call: ToolCall) -> Mapping[str, Any]:
    """The arguments as a mapping; text that is no JSON object stands under `input`, as in custom tools."""
    try:
        arguments = msgspec.json.decode(call.arguments or "{}")
    except (msgspec.DecodeError, ValueError, RecursionError):
        return {"input": call.arguments}
    return arguments if isinstance(arguments, dict) else {"input": arguments}


def strings(value: Any) -> list[str]:
    """Every string among a call's arguments, in order."""
    if isinstance(value, str):
        return [value]
    if isinstance(value, Mapping):
        return [text for inner in value.values() for text in strings(inner)]
    if isinstance(value, list):
        return [text for inner in value for text in strings(inner)]
    return []


def _of_shell(tool: str, arguments: Mapping[str, Any]) -> Provenance:
    command = next((arguments[key] for key in _COMMAND_KEYS if key in arguments), "")
    if isinstance(command, list):
        words = [str(word) for word in command]
        command = words[-1] if len(words) >= 3 and words[1].startswith("-") and "c" in words[1] else " ".join(words)
    command = str(command)
    # Codex' code mode runs scripts that call the shell: the commands are string literals in them.
    embedded = _EMBEDDED_COMMAND.findall(command) if "exec_command" in command else []
    if embedded:
        command = " ; ".join(_unquote(literal) for literal in embedded)
    patched = tuple(dict.fromkeys(one or other for one, other in _PATCHED.findall(command)))
    if "*** Begin Patch" in command and patched:
        return Provenance(
            Kind.EDIT, tool, path=patched[0] if len(patched) == 1 else None, command=command, edited_paths=patched
        )
    found = read_command(command)
    return Provenance(
        found.kind, tool, found.path, found.first_line, found.last_line, found.command, found.edited_paths
    )


def _unquote(literal: str) -> str:
    if literal.startswith('"'):
        try:
            return str(msgspec.json.decode(literal))
        except msgspec.DecodeError:
            pass
    return literal[1:-1].replace("\\n", "\n").replace('\\"', '"').replace("\\'", "'")


def _string(arguments: Mapping[str, Any], keys: tuple[str, ...]) -> str | None:
    return next((value for key in keys if isinstance(value := arguments.get(key), str) and value), None)


def _patched_paths(arguments: Mapping[str, Any]) -> tuple[str, ...]:
    texts = [value for value in arguments.values() if isinstance(value, str) and "*** " in value]
    return tuple(dict.fromkeys(one or other for text in texts for one, other in _PATCHED.findall(text)))


def _line_range(arguments: Mapping[str, Any]) -> tuple[int | None, int | None]:
    view_range = arguments.get("view_range")
    if isinstance(view_range, list) and len(view_range) == 2 and all(isinstance(end, int) for end in view_range):
        return view_range[0], view_range[1] if view_range[1] > 0 else None
    first = next((value for key in _FIRST_LINE_KEYS if isinstance(value := arguments.get(key), int)), 1)
    last = next((value for key in _LAST_LINE_KEYS if isinstance(value := arguments.get(key), int)), None)
    limit = arguments.get("limit")
    if last is None and isinstance(limit, int):
        last = first + limit - 1
    return max(first, 1), last
