"""What a shell command shows and changes, from its words alone: `sed -n 10,80p f`, `rg x | head`, `cd a && pytest`.

Not a shell: quoting, pipes, lists, `cd`, redirections and here-documents are read; loops and expansions are not, and
what cannot be told is `Kind.RUN`.
"""

from __future__ import annotations

import posixpath
import re
import shlex
from bisect import bisect_left
from collections.abc import Sequence
from dataclasses import replace

from sluice.compressor.provenance.types import Kind, Provenance

_HERE_DOCUMENT = re.compile(r"<<-?\s*(['\"]?)(\w+)\1")
_BLANK_LINES = re.compile(r"\s*$", re.MULTILINE)
_WRAPPERS = frozenset(
    {"sudo", "time", "timeout", "env", "command", "nice", "nohup", "rtk", "xargs", "stdbuf", "builtin"}
)
_SHELLS = frozenset({"bash", "sh", "zsh", "dash"})
_LISTERS = frozenset({"ls", "find", "fd", "fdfind", "tree", "du", "glob"})
_SEARCHERS = frozenset({"grep", "egrep", "fgrep", "rg", "ag", "ack"})
_READERS = frozenset({"cat", "head", "tail", "nl", "sed", "bat", "less", "more", "awk"})
_SWE_AGENT = {
    **dict.fromkeys(("open", "goto", "scroll_up", "scroll_down"), Kind.READ),
    **dict.fromkeys(("edit", "create", "insert"), Kind.EDIT),
    **dict.fromkeys(("search_dir", "search_file"), Kind.SEARCH),
    "find_file": Kind.LISTING,
}
"""Commands that SWE-agent adds to its shell."""
_FROM_THE_FIRST_LINE = frozenset({"cat", "head", "less", "more", "nl", "tee"})
"""Filters whose output begins with the first line of their input."""
_SED_RANGE = re.compile(r"^(\d+)(?:,(\d+|\$))?p;?$")
_EDITORS = frozenset({"rm", "mv", "cp", "touch", "patch", "apply_patch"})


def read_command(command: str) -> Provenance:
    """What the output of a shell command is.

    Args:
        command: as given to the shell, possibly several lines.
    """
    edited: list[str] = []
    shown: Provenance | None = None
    directory = ""
    for pipeline_head, targets, is_cut in _simple_commands(_less_here_documents(command)):
        edited += [_join(directory, target) for target in targets]
        argv = _unwrap(pipeline_head)
        if not argv:
            continue
        if argv[0] == "cd":
            directory = _join(directory, argv[1]) if len(argv) > 1 else ""
            continue
        if argv[0] in _SHELLS and len(argv) >= 3 and argv[-2].startswith("-") and "c" in argv[-2]:
            inner = read_command(argv[-1])
            edited += inner.edited_paths
            shown = shown or inner
            continue
        changed = _changed_paths(argv)
        edited += [_join(directory, path) for path in changed]
        if argv[0] in {"echo", "printf", "true", "export", "set", "source", "."} or changed or targets:
            continue
        found = _shown_by(argv, directory)
        if is_cut:
            found = replace(found, first_line=None, last_line=None)
        # Of several commands the first that shows something names the result; mixed kinds are a run's output.
        if shown is None:
            shown = found
        elif found.kind is not shown.kind or found.path != shown.path:
            shown = Provenance(found.kind if found.kind is shown.kind else Kind.RUN)
    if shown is None:
        shown = Provenance(Kind.EDIT if edited else Kind.RUN, path=edited[0] if len(edited) == 1 else None)
    return Provenance(
        kind=shown.kind,
        path=shown.path,
        first_line=shown.first_line,
        last_line=shown.last_line,
        command=command,
        edited_paths=tuple(dict.fromkeys(edited)),
    )


def _less_here_documents(command: str) -> str:
    """A command less its here-documents, with a space for each `<<EOF`; what stands behind that on its line stays.

    One that does not end stays, too. Looks for no end twice, so that a long program full of `<<` that was cut off costs
    its length and not the square of it.
    """
    if "<<" not in command:
        return command
    lines: dict[str, list[tuple[int, int]]] = {}
    start = 0
    for line in command.split("\n"):
        lines.setdefault(line.strip(), []).append((start, start + len(line)))
        start += len(line) + 1
    parts: list[str] = []
    done = 0
    # Where the line ends that opened the last ones, and where the last of these does.
    line_end = documents_end = 0
    for opened in _HERE_DOCUMENT.finditer(command):
        if line_end <= opened.start() < documents_end:
            continue
        if opened.start() >= documents_end:
            parts.append(command[done:line_end])
            done = documents_end
            newline = command.find("\n", opened.end())
            line_end = documents_end = newline if newline >= 0 else len(command)
        ends = lines.get(opened[2], [])
        at = bisect_left(ends, (documents_end, 0))
        if at == len(ends):
            continue
        parts += (command[done : opened.start()], " ")
        done = opened.end()
        blank = _BLANK_LINES.match(command, ends[at][1])
        assert blank is not None, "a line ends there"
        documents_end = blank.end()
    return "".join([*parts, command[done:line_end], command[documents_end:]])


def _simple_commands(command: str) -> list[tuple[list[str], list[str], bool]]:
    """The first command of each pipeline that is no mere filter, and what the pipeline does with its output.

    That is the files that it writes, and whether a filter behind it may take away its first lines.
    """
    lexer = shlex.shlex(command.replace("\\\n", " ").replace("\n", " ; "), posix=True, punctuation_chars=";|&<>()")
    lexer.whitespace_split = True
    lexer.commenters = ""
    try:
        tokens = list(lexer)
    except ValueError:  # unbalanced quotes: not a command that can be read
        return []
    commands: list[tuple[list[str], list[str], bool]] = []
    stages: list[list[str]] = [[]]
    targets: list[str] = []
    index = 0
    while index <= len(tokens):
        token = tokens[index] if index < len(tokens) else ";"
        if token == "||" or (token and set(token) <= set(";&()")):  # noqa: S105 (a shell word)
            stage, filters = _main_stage(stages)
            if stage or targets:
                commands.append((stage, targets, not all(map(_begins_with_the_first_line, filters))))
            stages, targets = [[]], []
        elif token in {"|", "|&"}:
            stages.append([])
        elif set(token) <= set("<>&") and token:
            target = tokens[index + 1] if index + 1 < len(tokens) else ""
            if ">" in token and not token.endswith("&") and target not in {"/dev/null", "&1", "&2"}:
                targets.append(target)
            # `2>&1` arrives as the words `2` and `>&` and `1`: the descriptor before is no argument.
            if stages[-1] and stages[-1][-1].isdigit() and ">" in token:
                stages[-1].pop()
            index += 1
        else:
            stages[-1].append(token)
        index += 1
    return commands


def _main_stage(stages: Sequence[list[str]]) -> tuple[list[str], Sequence[list[str]]]:
    """The stage whose output the pipeline shows: the first, or a `grep` or `sed` that reads what `cat` or `nl` gave.

    With the stages behind it.

    Where `cat` gives a here-document, the `tee` that writes it.
    """
    first = stages[0]
    head = _unwrap(first)[:1]
    if head == ["cat"] and len(_unwrap(first)) == 1:
        return next((stage for stage in stages[1:] if _unwrap(stage)[:1] == ["tee"]), first), stages[1:]
    if head and head[0] in {"cat", "nl"} and len(stages) > 1:
        second = _unwrap(stages[1])
        if second[:1] and second[0] in _SEARCHERS:
            return [*second, *[word for word in _unwrap(first)[1:] if not word.startswith("-")]], stages[2:]
        if second[:1] == ["sed"] and len(second) >= 3:
            return [*second, *[word for word in _unwrap(first)[1:] if not word.startswith("-")]], stages[2:]
    return first, stages[1:]


def _begins_with_the_first_line(stage: list[str]) -> bool:
    return bool(stage) and next(iter(_unwrap(stage)), "") in _FROM_THE_FIRST_LINE


def _unwrap(argv: list[str]) -> list[str]:
    """Less assignments, and programs that run another with their options."""
    while argv:
        if re.fullmatch(r"[A-Za-z_]\w*=.*", argv[0], re.DOTALL):
            argv = argv[1:]
        elif posixpath.basename(argv[0]) in _WRAPPERS:
            argv = argv[1:]
            while argv and (argv[0].startswith("-") or re.fullmatch(r"\d+[smh]?", argv[0])):
                argv = argv[1:]
        else:
            return [posixpath.basename(argv[0]), *argv[1:]]
    return argv


def _changed_paths(argv: list[str]) -> list[str]:
    program, arguments = argv[0], argv[1:]
    plain = [word for word in arguments if not word.startswith("-")]
    if program in {"sed", "perl"} and any(re.fullmatch(r"-\w*i.*|--in-place.*", word) for word in arguments):
        return plain[1:]
    if program == "tee":
        return plain
    if program == "git" and plain[:1] and plain[0] in {"checkout", "restore", "mv", "rm", "stash", "apply"}:
        return plain[1:]
    if program in _EDITORS:
        return plain
    return []


def _shown_by(argv: list[str], directory: str) -> Provenance:
    program, arguments = argv[0], argv[1:]
    plain = [word for word in arguments if not word.startswith("-")]
    if program in _SWE_AGENT:
        path = _only_file(plain[:1], directory) if program == "open" else None
        return Provenance(_SWE_AGENT[program], path=path)
    if program == "git":
        return _shown_by_git(plain)
    if program in _SEARCHERS:
        if "--files" in arguments:
            return Provenance(Kind.LISTING)
        return Provenance(Kind.SEARCH, path=_only_file(plain[1:], directory))
    if program in _LISTERS:
        return Provenance(Kind.LISTING)
    if program == "jq":
        return Provenance(Kind.JSON)
    if program in {"curl", "wget"}:
        return Provenance(Kind.WEB)
    if program in {"diff", "delta"}:
        return Provenance(Kind.DIFF)
    if program in {"journalctl", "dmesg"}:
        return Provenance(Kind.LOG)
    if program == "sed":
        return _shown_by_sed(plain, directory)
    if program in _READERS:
        return _shown_by_reader(program, arguments, plain, directory)
    return Provenance(Kind.RUN)


def _shown_by_git(plain: list[str]) -> Provenance:
    verb = plain[0] if plain else ""
    if verb in {"diff", "show"}:
        return Provenance(Kind.DIFF)
    if verb in {"log", "reflog", "shortlog", "blame"}:
        return Provenance(Kind.LOG)
    if verb == "grep":
        return Provenance(Kind.SEARCH)
    if verb in {"ls-files", "ls-tree", "status", "branch", "tag"}:
        return Provenance(Kind.LISTING)
    return Provenance(Kind.RUN)


def _shown_by_sed(plain: list[str], directory: str) -> Provenance:
    wanted = _SED_RANGE.match(plain[0]) if plain else None
    path = _only_file(plain[1:], directory)
    if wanted is None or path is None:
        return Provenance(Kind.RUN)
    first = int(wanted[1])
    last = None if wanted[2] == "$" else int(wanted[2] or first)
    return Provenance(Kind.READ, path=path, first_line=first, last_line=last)


def _shown_by_reader(program: str, arguments: list[str], plain: list[str], directory: str) -> Provenance:
    if program in {"head", "tail"}:
        plain = [word for word in plain if not re.fullmatch(r"\+?\d+", word)]
    if program == "awk":
        plain = plain[1:]
    path = _only_file(plain, directory)
    if path is None:
        return Provenance(Kind.READ if plain else Kind.RUN)
    if program == "tail":
        start = next((int(match[1]) for word in arguments if (match := re.search(r"\+(\d+)$", word))), None)
        return Provenance(Kind.LOG if path.endswith(".log") else Kind.READ, path=path, first_line=start)
    if program == "awk":
        return Provenance(Kind.READ, path=path)
    return Provenance(Kind.READ, path=path, first_line=1)


def _only_file(words: Sequence[str], directory: str) -> str | None:
    """The one file that the words name; None where they name several, none, or a pattern."""
    if len(words) != 1 or any(char in words[0] for char in "*?$`{"):
        return None
    return _join(directory, words[0])


def _join(directory: str, path: str) -> str:
    return posixpath.normpath(posixpath.join(directory, path)) if path else directory
