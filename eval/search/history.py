"""Questions with answers out of a repository's history and comments: what the rankers are trained on.

A commit's message asks; the lines that it changed answer, in the tree before it, or the files that it added. A doc
comment's first sentence asks; the definition below it answers, with the comment hidden. A type's name asks for its
file.
"""

from __future__ import annotations

import random
import re
import subprocess
from collections.abc import Iterator, Mapping, Sequence, Set
from dataclasses import dataclass, field
from pathlib import Path

from sluice.compressor.syntax import Language, language_of, outline
from sluice.eval.search.comments import MAX_QUERY_CHARS, comment_questions
from sluice.eval.search.data import Query, Target
from sluice.search.index.rules import (
    SKIPPED_DIRECTORIES,
    is_documentation,
    is_example,
    is_test,
    skip_by_content,
    skip_by_name,
)
from sluice.search.index.segment import Segment, build_segment
from sluice.search.index.view import View, single_layer_view

_CHORE = re.compile(
    r"(?i)\b(bump|release|changelog|typo|merge|version|dependabot|deps?|lint|format(ting)?|readme|docs?|ci|copyright|"
    r"rubocop|prettier|clippy|whitespace|revert|upgrade|spelling|translat\w+|tests?|testing|specs?|examples?|benchmarks?|"
    r"minor|cleanup|clean up|wip|comments?)\b"
)
_PREFIX = re.compile(r"^(\w+(\([^)]*\))?!?:|\[[^\]]*\]|\(#?\d+\)|#\d+:?)\s*")
_TRAILER = re.compile(
    r"(?im)^(signed-off-by|co-authored-by|reviewed-by|fixes|closes|refs?|see|change-id)\b.*$|https?://\S+"
)
_HUNK = re.compile(r"^@@ -(\d+)(?:,(\d+))? \+\d+(?:,\d+)? @@")


@dataclass(frozen=True, slots=True)
class Asked:
    """A question and the tree to put it to."""

    query: Query
    view: View
    blobs: dict[str, str]
    """Path → object id of each file of the tree."""
    hidden: Mapping[str, Set[int]] = field(default_factory=dict)
    """Path → lines (from 1) that hold the text which asks: the view has no terms of them, and no text may be read."""


class History:
    """A local repository, read through git without a checkout.

    Args:
        directory: the git directory, or a work tree.
    """

    def __init__(self, directory: Path) -> None:
        self.name = directory.parent.name if directory.name in ("repo", ".git") else directory.name
        self._directory = directory / ".git" if (directory / ".git").exists() else directory
        self._segments: dict[tuple[str, str], Segment | None] = {}

    def commits(self, count: int, seed: int = 0, newest: int = 800) -> Iterator[Asked]:
        """Commit messages, spread over the newest commits, each with the tree before it."""
        log = self._git("log", "--no-merges", f"-{newest}", "--format=%H%x1f%P%x1f%B%x1e").split("\x1e")
        usable = [entry for raw in log if (entry := _usable(raw)) is not None]
        random.Random(seed).shuffle(usable)  # noqa: S311 -- a seeded draw, no secret
        given = 0
        for commit, parent, text in usable:
            if given >= count:
                return
            targets = self._changed_lines(parent, commit)
            if targets is not None:
                given += 1
                query = Query(f"{self.name}-{commit[:10]}", self.name, commit, "", "change", text, targets)
                yield Asked(query, self.tree(parent), dict(self._files(parent)))

    def comments(self, count: int, seed: int = 0) -> Iterator[Asked]:
        """Doc comments and type names of the newest tree, all put to one view that does not hold those comments."""
        draw = random.Random(seed)  # noqa: S311 -- a seeded draw, no secret
        found: list[tuple[str, str, Target, tuple[int, int] | None, str]] = []
        contents = dict(self._files("HEAD"))
        blobs = self.read(list(contents.values()))
        for path, blob in contents.items():
            language = language_of(path)
            data = blobs.get(blob)
            if data is None or language is None or language.name == "markdown" or _is_aside(path):
                continue
            parsed = outline(data, language, statements=False)
            if parsed is not None:
                lines = data.decode("utf-8", "replace").split("\n")
                found.extend((path, blob, *entry) for entry in comment_questions(path, lines, parsed.definitions))
        draw.shuffle(found)
        per_kind = {"file": count // 3, "doc": count // 3, "name": count // 3}
        chosen = []
        for entry in found:
            kind = "name" if entry[3] is None else ("file" if entry[2].start is None else "doc")
            if per_kind[kind] > 0:
                per_kind[kind] -= 1
                chosen.append((kind, *entry))
        hidden: dict[str, set[int]] = {}
        for _, path, _, _, lines_hidden, _ in chosen:
            if lines_hidden is not None:
                hidden.setdefault(path, set()).update(range(lines_hidden[0], lines_hidden[1] + 1))
        view = self.tree("HEAD", hidden)
        for number, (kind, _, _, target, _, text) in enumerate(chosen):
            query = Query(f"{self.name}-{kind}-{number}", self.name, "HEAD", "", "topic", text, (target,))
            yield Asked(query, view, contents, hidden)

    def additions(self, count: int, seed: int = 0, newest: int = 6000) -> Iterator[Asked]:
        """Messages of commits that added one or two source files; those files, as they are now, answer."""
        contents = dict(self._files("HEAD"))
        log = self._git(
            "log", "--no-merges", f"-{newest}", "--diff-filter=A", "--name-only", "--format=%x1e%H%x1f%P%x1f%B%x1d"
        )
        found: list[tuple[str, tuple[Target, ...]]] = []
        for raw in log.split("\x1e"):
            message, _, names = raw.partition("\x1d")
            added = [path for path in names.split("\n") if language_of(path) is not None and not _is_aside(path)]
            if 1 <= len(added) <= 2 and all(path in contents for path in added) and (entry := _usable(message)):
                text = re.sub(r"(?i)^(add(s|ed|ing)?|implement(s|ed)?|introduce[sd]?|creat(e|ed))\s+", "", entry[2])
                found.append((text[: MAX_QUERY_CHARS // 2], tuple(Target(path) for path in added)))
        random.Random(seed).shuffle(found)  # noqa: S311 -- a seeded draw, no secret
        view = self.tree("HEAD") if found else None
        for number, (text, targets) in enumerate(found[:count]):
            assert view is not None
            query = Query(f"{self.name}-added-{number}", self.name, "HEAD", "", "topic", text, targets)
            yield Asked(query, view, contents)

    def tree(self, revision: str, hidden: dict[str, set[int]] | None = None) -> View:
        """An index of a revision; `hidden` lines give no terms."""
        files = self._files(revision)
        missing = [blob for path, blob in files if (blob, _language_name(path)) not in self._segments]
        blobs = self.read(missing)
        view_files: list[tuple[str, Segment]] = []
        for path, blob in files:
            language = language_of(path)
            key = (blob, _language_name(path))
            if key not in self._segments:
                data = blobs.get(blob)
                usable = data is not None and skip_by_content(data) is None
                self._segments[key] = build_segment(data, language) if usable and data is not None else None
            segment = self._segments[key]
            if hidden is not None and path in hidden and segment is not None:
                segment = build_segment(self.read([blob])[blob], language, frozenset(hidden[path]))
            if segment is not None:
                view_files.append((path, segment))
        return single_layer_view(view_files)

    def _files(self, revision: str) -> list[tuple[str, str]]:
        listed: list[tuple[str, str]] = []
        for row in self._git("ls-tree", "-r", "-z", "-l", revision).split("\0"):
            if not row:
                continue
            meta, path = row.split("\t", 1)
            mode, kind, blob, size = meta.split()
            wanted = kind == "blob" and mode != "120000" and size.isdigit() and 0 < int(size) < 1_000_000
            vendored = any(part in SKIPPED_DIRECTORIES for part in path.split("/")[:-1])
            if wanted and not vendored and skip_by_name(path) is None:
                listed.append((path, blob))
        return listed

    def read(self, blobs: Sequence[str]) -> dict[str, bytes]:
        """Contents by object id; what the repository lacks is left out."""
        if not blobs:
            return {}
        wanted = list(dict.fromkeys(blobs))
        done = subprocess.run(  # noqa: S603 -- no shell; object ids and revisions are arguments
            ["git", f"--git-dir={self._directory}", "cat-file", "--batch"],  # noqa: S607 -- git is on the PATH
            input="\n".join(wanted).encode() + b"\n",
            capture_output=True,
            check=True,
        ).stdout
        contents: dict[str, bytes] = {}
        at = 0
        for blob in wanted:
            end = done.index(b"\n", at)
            header = done[at:end].split()
            if len(header) != 3:
                at = end + 1
                continue
            size = int(header[2])
            contents[blob] = done[end + 1 : end + 1 + size]
            at = end + 1 + size + 1
        return contents

    def _changed_lines(self, parent: str, commit: str) -> tuple[Target, ...] | None:
        """Lines before the commit that it replaced, or after which it inserted; None if it is no good as a question."""
        diff = self._git("diff", "-U0", "--no-renames", "--no-color", parent, commit)
        targets: list[Target] = []
        path = ""
        for line in diff.split("\n"):
            if line.startswith("--- "):
                path = line[6:] if line.startswith("--- a/") else ""
            elif (match := _HUNK.match(line)) is not None and path and language_of(path) is not None:
                if _is_aside(path) or skip_by_name(path) is not None:
                    continue
                start, count = int(match[1]), int(match[2] or 1)
                targets.append(Target(path, max(start, 1), max(start, 1) + max(count, 1) - 1))
        num_lines = sum(t.end - t.start + 1 for t in targets if t.start is not None and t.end is not None)
        num_files = len({target.path for target in targets})
        return tuple(targets) if 1 <= num_files <= 3 and len(targets) <= 10 and num_lines <= 60 else None

    def _git(self, *arguments: str) -> str:
        done = subprocess.run(  # noqa: S603 -- no shell; object ids and revisions are arguments
            ["git", f"--git-dir={self._directory}", *arguments],  # noqa: S607 -- git is on the PATH
            capture_output=True,
            check=False,
        )
        if done.returncode != 0:
            raise ValueError(f"{self._directory}: {done.stderr.decode('utf-8', 'replace').strip()}")
        return done.stdout.decode("utf-8", "replace")


def _usable(raw: str) -> tuple[str, str, str] | None:
    commit, _, rest = raw.strip().partition("\x1f")
    parent, _, message = rest.partition("\x1f")
    subject, _, body = message.strip().partition("\n")
    if not parent or " " in parent or _CHORE.search(subject) is not None:
        return None
    subject = re.sub(r"\s*\(#\d+\)\s*$", "", subject)
    while (shorter := _PREFIX.sub("", subject)) != subject:
        subject = shorter
    body = " ".join(_TRAILER.sub("", body).split())
    if len(subject) < 15 or len(subject.split()) < 3:
        return None
    text = subject if len(body) < 20 else f"{subject}. {body}"
    return commit, parent, text[:MAX_QUERY_CHARS]


def _language_name(path: str) -> str:
    language: Language | None = language_of(path)
    return "" if language is None else language.name


def _is_aside(path: str) -> bool:
    return is_test(path) or is_example(path) or is_documentation(path)
