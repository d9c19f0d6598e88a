"""Definitions and statements of whole files and of fragments, over all languages of the table."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from sluice.compressor.syntax import LANGUAGES, language_of, outline
from sluice.compressor.syntax.outline import MAX_LINE_BYTES
from tests.effort import examples

pytest.importorskip("tree_sitter_language_pack")

# Path, source, expected (kind, name, start, end) of some definitions.
SAMPLES: list[tuple[str, str, list[tuple[str, str, int, int]]]] = [
    ("a.py", "class A:\n    @x\n    def f(self):\n        return 1\n", [("class", "A", 1, 4), ("method", "f", 2, 4)]),
    ("a.js", "class A {\n  f() {}\n}\nexport const g = () => 1;\n", [("class", "A", 1, 3), ("function", "g", 4, 4)]),
    ("a.ts", "export interface I {\n  x: number\n}\nenum E { A }\n", [("interface", "I", 1, 3), ("enum", "E", 4, 4)]),
    ("a.tsx", "export function F() {\n  return <p/>;\n}\n", [("function", "F", 1, 3)]),
    (
        "a.go",
        "package a\n\ntype T struct {\n\tx int\n}\n\nfunc (t *T) F() {\n}\n",
        [("type", "T", 3, 5), ("method", "F", 7, 8)],
    ),
    (
        "a.rs",
        "pub struct S;\n\nimpl S {\n    fn f() {}\n}\n",
        [("struct", "S", 1, 1), ("impl", "S", 3, 5), ("method", "f", 4, 4)],
    ),
    ("A.java", "class A {\n  void f() {\n  }\n}\n", [("class", "A", 1, 4), ("method", "f", 2, 3)]),
    (
        "a.c",
        "struct s { int x; };\nint *f(int a)\n{\n  return 0;\n}\n",
        [("struct", "s", 1, 1), ("function", "f", 2, 5)],
    ),
    (
        "a.cpp",
        "namespace n {\nclass C {\n};\nvoid C::f() {\n}\n}\n",
        [("class", "C", 2, 3), ("function", "C::f", 4, 5)],
    ),
    (
        "a.cs",
        "class A {\n  public int X { get; }\n  void F() {}\n}\n",
        [("property", "X", 2, 2), ("method", "F", 3, 3)],
    ),
    ("a.rb", "module M\n  class A\n    def f\n    end\n  end\nend\n", [("module", "M", 1, 6), ("method", "f", 3, 4)]),
    ("a.php", "<?php\nclass A {\n  function f() {}\n}\n", [("class", "A", 2, 4), ("method", "f", 3, 3)]),
    (
        "a.ex",
        "defmodule A.B do\n  def f(x) when x > 1 do\n    x\n  end\nend\n",
        [("module", "A.B", 1, 5), ("function", "f", 2, 4)],
    ),
    ("a.kt", "class A {\n  fun f(): Int {\n    return 1\n  }\n}\n", [("class", "A", 1, 5), ("method", "f", 2, 4)]),
    ("a.swift", "struct S {\n  func f() {\n  }\n}\n", [("class", "S", 1, 4), ("method", "f", 2, 3)]),
    ("a.scala", "object O {\n  def f = 1\n}\n", [("object", "O", 1, 3), ("method", "f", 2, 2)]),
    (
        "a.lua",
        "local M = {}\nfunction M.f()\nend\nM.g = function()\nend\n",
        [("function", "M.f", 2, 3), ("function", "M.g", 4, 5)],
    ),
    ("a.sh", "f() {\n  echo\n}\n", [("function", "f", 1, 3)]),
    ("a.hs", "data X = Y\nf :: Int\nf = 1\n", [("type", "X", 1, 1), ("function", "f", 3, 3)]),
    ("a.ml", "module M = struct\n  let f x = x\nend\n", [("module", "M", 1, 3), ("function", "f", 2, 2)]),
    ("a.dart", "class A {\n  int f() {\n    return 1;\n  }\n}\n", [("class", "A", 1, 5), ("method", "f", 2, 4)]),
    ("a.r", "f <- function(x) {\n  x\n}\n", [("function", "f", 1, 3)]),
    ("a.jl", "function f(x)\n  x\nend\ng(x) = 1\n", [("function", "f", 1, 3), ("function", "g", 4, 4)]),
    ("a.pl", "sub f {\n  1;\n}\n", [("function", "f", 1, 3)]),
    (
        "a.zig",
        "const A = struct {\n    x: i32,\n};\npub fn main() void {\n}\n",
        [("struct", "A", 1, 3), ("function", "main", 4, 5)],
    ),
    ("a.erl", "f(X) ->\n  X.\n", [("function", "f", 1, 2)]),
    ("a.clj", "(ns a)\n(defn f [x]\n  x)\n", [("namespace", "a", 1, 1), ("function", "f", 2, 3)]),
    ("a.sol", "contract A {\n  function f() public {\n  }\n}\n", [("class", "A", 1, 4), ("method", "f", 2, 3)]),
    ("a.proto", "message A {\n  int32 x = 1;\n}\n", [("message", "A", 1, 3)]),
    ("a.sql", "CREATE TABLE a (\n  x int\n);\n", [("table", "a", 1, 3)]),
    ("a.md", "# A\ntext\n\n## B\nmore\n", [("section", "A", 1, 5), ("section", "B", 4, 5)]),
]


@pytest.mark.parametrize("language", LANGUAGES, ids=lambda language: language.name)
def test_the_table_names_kinds_that_the_grammar_has(language):
    from tree_sitter_language_pack import get_language

    grammar = get_language(language.name)
    for kind in (*language.kinds, *language.conditional):
        assert grammar.id_for_node_kind(kind, True) is not None, f"{language.name} has no node {kind!r}"


@pytest.mark.parametrize(("path", "source", "expected"), SAMPLES, ids=[path for path, _, _ in SAMPLES])
def test_finds_definitions_in_each_language(path, source, expected):
    language = language_of(path)
    assert language is not None
    found = outline(source.encode(), language)
    assert found is not None
    places = {(d.kind, d.name, d.start, d.end) for d in found.definitions}
    assert set(expected) <= places


def test_nesting_signature_and_comments_above():
    source = "class A:\n    # why\n    # so\n    def f(\n        self,\n    ):\n        return 1\n"
    found = outline(source.encode(), language_of("a.py"))
    outer, inner = found.definitions
    assert (outer.parent, inner.parent) == (-1, 0)
    assert (inner.lead, inner.start, inner.signature_end, inner.end) == (2, 4, 6, 7)


def test_statements_nest_and_cover_whole_lines():
    source = "def f(x):\n    if x:\n        a = 1\n        b = 2\n    return x\n"
    found = outline(source.encode(), language_of("a.py"))
    ranges = {(s.start, s.end) for s in found.statements}
    assert {(1, 5), (2, 4), (3, 3), (4, 4), (5, 5)} <= ranges
    depth = {(s.start, s.end): s.depth for s in found.statements}
    assert depth[1, 5] < depth[2, 4] < depth[3, 3]


def test_a_fragment_is_read_without_its_common_indentation():
    fragment = "        def g(self):\n            return 2\n\n        def h(self):\n            return 3\n"
    found = outline(fragment.encode(), language_of("a.py"))
    assert [(d.name, d.start, d.end) for d in found.definitions] == [("g", 1, 2), ("h", 4, 5)]


def test_a_fragment_that_begins_in_the_middle_still_gives_what_it_holds():
    fragment = "\treturn x\n}\n\nfunc G() int {\n\treturn 1\n}\n"
    found = outline(fragment.encode(), language_of("a.go"))
    assert ("G", 4, 6) in {(d.name, d.start, d.end) for d in found.definitions}


def test_what_is_not_worth_parsing_is_refused():
    python = language_of("a.py")
    assert outline(b"x = '" + b"a" * (MAX_LINE_BYTES + 1) + b"'\n", python) is None
    assert outline(b"x = 1\n" * 300_000, python) is None


@pytest.mark.parametrize(
    ("path", "first_line", "name"),
    [
        ("tool", b"#!/usr/bin/env python3\n", "python"),
        ("tool", b"#!/bin/sh -e\n", "bash"),
        ("Rakefile", b"", "ruby"),
        ("a.unknown", b"#!/bin/sh\n", None),
        ("README", b"hello", None),
        (".py", b"", None),
    ],
)
def test_language_by_name_or_first_line(path, first_line, name):
    found = language_of(path, first_line)
    assert (None if found is None else found.name) == name


@examples(60)
@given(st.sampled_from(["a.py", "a.go", "a.rs", "a.js", "a.ex", "a.md"]), st.binary(max_size=400))
def test_any_bytes_give_an_outline_within_their_lines(path, data):
    found = outline(data, language_of(path))
    assert found is not None
    num_lines = data.count(b"\n") + 1
    for definition in found.definitions:
        assert 1 <= definition.lead <= definition.start <= definition.signature_end <= definition.end <= num_lines
        assert definition.parent < found.definitions.index(definition) or definition.parent == -1
    for statement in found.statements:
        assert 1 <= statement.start <= statement.end <= num_lines
