""".gitignore rules, held against git itself."""

from __future__ import annotations

import subprocess
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from sluice.search.index.ignore import is_ignored, parse_ignore_file
from tests.effort import examples


def ignored(text: str, path: str, *, is_directory: bool = False) -> bool:
    return is_ignored(path, [parse_ignore_file(text, "")], is_directory=is_directory)


@pytest.mark.parametrize(
    ("text", "path", "expected"),
    [
        ("*.log", "a/b.log", True),
        ("/a.txt", "b/a.txt", False),
        ("/a.txt", "a.txt", True),
        ("a/b", "x/a/b", False),
        ("**/b", "x/y/b", True),
        ("a/**/z", "a/z", True),
        ("a/**/z", "a/b/c/z", True),
        ("a/**", "a/b", True),
        ("a/**", "a", False),
        ("*.log\n!keep.log", "keep.log", False),
        ("[ab].c", "a.c", True),
        ("[!ab].c", "a.c", False),
        ("a?c", "a/c", False),
        ("# a", "# a", False),
        ("\\#a", "#a", True),
        ("a ", "a", True),
        ("build/", "build", False),
        ("[", "[", True),
    ],
)
def test_patterns(text, path, expected):
    assert ignored(text, path) is expected


def test_no_pattern_can_be_made_slow():
    path = "/".join(["a" * 250] * 12)
    for text in ("*a" * 200 + "b", "/".join(["**", "*a*a*a"] * 3) + "/b", "?*" * 200, "**/" * 100 + "b", "[a" * 200):
        assert ignored(text[:500], path) in (True, False)  # what counts is that it comes to an answer


def test_a_trailing_slash_means_directories():
    assert ignored("build/", "x/build", is_directory=True)


def test_the_deepest_file_decides():
    outer = parse_ignore_file("*.gen", "")
    inner = parse_ignore_file("!a.gen", "sub/")
    assert not is_ignored("sub/a.gen", [outer, inner], is_directory=False)
    assert is_ignored("sub/b.gen", [outer, inner], is_directory=False)


names = st.sampled_from(["a", "b", "a.c", "ab", "b.log"])
patterns = st.lists(
    st.sampled_from(["*", "a", "/a", "a*", "*.c", "!a.c", "!b", "a/b", "b/", "**/a", "a/**", "?", "[ab]", "!ab", "/*"]),
    min_size=1,
    max_size=4,
)


@examples(40)
@given(lines=patterns, parts=st.lists(names, min_size=1, max_size=3))
def test_agrees_with_git(tmp_path_factory, lines, parts):
    root: Path = tmp_path_factory.mktemp("repo")
    subprocess.run(["git", "init", "-q", str(root)], check=True)
    (root / ".gitignore").write_text("\n".join(lines) + "\n", encoding="utf-8")
    path = "/".join(parts)
    (root / path).parent.mkdir(parents=True, exist_ok=True)
    (root / path).write_text("x", encoding="utf-8")
    answer = subprocess.run(["git", "-C", str(root), "check-ignore", "-q", path], check=False).returncode == 0
    file = parse_ignore_file("\n".join(lines), "")
    ours = any(
        is_ignored("/".join(parts[:depth]), [file], is_directory=depth < len(parts))
        for depth in range(1, len(parts) + 1)
    )
    assert ours is answer
