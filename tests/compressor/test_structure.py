from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from sluice.compressor.lines import split
from sluice.compressor.provenance import Kind, Provenance
from sluice.compressor.structure import Structure, structure_of
from tests.effort import examples

CODE = """\
import os


class Store:
    \"\"\"Holds things.\"\"\"

    limit = 3

    def load(
        self,
        path: str,
    ) -> bytes:
        data = open(
            path,
            "rb",
        ).read()
        if not data:
            raise ValueError(path)
        return data

    def save(self, path: str) -> None:
        os.remove(path)


def other() -> int:
    return 1
"""
READ = Provenance(Kind.READ, path="src/store.py")


def kept_lines(wanted: str, code: str = CODE, provenance: Provenance = READ) -> list[str]:
    """The lines that are kept when only those with `wanted` in them were chosen."""
    lines = split(code)
    kept = structure_of(lines, provenance).complete([wanted in text for text in lines.texts])
    return [text for text, stays in zip(lines.texts, kept, strict=True) if stays]


def test_a_kept_line_brings_the_headers_around_it() -> None:
    assert kept_lines("os.remove") == [
        "class Store:",
        "    def save(self, path: str) -> None:",
        "        os.remove(path)",
    ]


def test_a_short_statement_is_kept_whole_and_a_long_signature_with_it() -> None:
    assert kept_lines('"rb"') == [
        "class Store:",
        "    def load(",
        "        self,",
        "        path: str,",
        "    ) -> bytes:",
        "        data = open(",
        "            path,",
        '            "rb",',
        "        ).read()",
    ]


def test_what_is_not_chosen_brings_nothing() -> None:
    assert kept_lines("nothing of this") == []
    assert kept_lines("import os") == ["import os"]


def test_gutters_and_fragments_are_read() -> None:
    fragment = "\n".join(f"{number:6}→{line}" for number, line in enumerate(CODE.split("\n")[19:23], 20))
    assert [line.split("→")[1] for line in kept_lines("os.remove", fragment)] == [
        "    def save(self, path: str) -> None:",
        "        os.remove(path)",
    ]


def test_what_is_no_code_is_left_as_it_is() -> None:
    for provenance in (
        Provenance(Kind.RUN, path="src/store.py"),
        Provenance(Kind.READ, path="notes.unknown"),
        Provenance(Kind.READ),
    ):
        assert kept_lines("os.remove", provenance=provenance) == ["        os.remove(path)"]


@examples(100)
@given(
    st.lists(st.sampled_from(CODE.split("\n")), max_size=40),
    st.randoms(use_true_random=False),
    st.sampled_from(["a.py", "a.ts", "a.go", "a.rs", "a.json", "a.md"]),
)
def test_completing_only_adds_lines_and_nothing_to_nothing(texts: list[str], random: object, path: str) -> None:
    lines = split("\n".join(texts))
    structure = structure_of(lines, Provenance(Kind.READ, path=path))
    keep = [random.random() < 0.3 for _ in lines.texts]  # type: ignore[attr-defined]  # a random.Random by hypothesis
    kept = structure.complete(keep)
    assert len(kept) == len(keep)
    assert all(after or not before for before, after in zip(keep, kept, strict=True))
    assert any(keep) or not any(kept)


def test_an_empty_structure_changes_nothing() -> None:
    assert Structure((), ()).complete([True, False]) == [True, False]


def test_what_stands_before_the_code_is_not_read_as_code() -> None:
    head = "Wall time: 0.0312 seconds\nProcess exited with code 0\nOutput:\n"
    behind = Provenance(Kind.READ, path="src/store.py", num_head_lines=3)
    for wanted in ("os.remove", '"rb"', "return 1"):
        assert kept_lines(wanted, head + CODE, behind) == kept_lines(wanted)
