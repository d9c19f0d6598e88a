"""When a conversation's calls read and changed which files. Knows paths and positions, no content."""

from __future__ import annotations

from sluice.compressor.provenance import Kind, Provenance, same_path


class FileHistory:
    """Reads and edits by file; two spellings can name one file (`same_path`)."""

    def __init__(self) -> None:
        self._edits: dict[str, list[tuple[str, int]]] = {}
        self._reads: dict[str, list[tuple[str, int]]] = {}

    def add(self, provenance: Provenance, position: int) -> None:
        """Take in a call of the message at this position."""
        for path in provenance.edited_paths:
            self._edits.setdefault(name_of(path), []).append((path, position))
        if provenance.kind is Kind.READ and provenance.path is not None:
            self._reads.setdefault(name_of(provenance.path), []).append((provenance.path, position))

    def edits(self, path: str) -> list[int]:
        """Positions of the calls that change this file, in order."""
        return [at for edited, at in self._edits.get(name_of(path), ()) if same_path(edited, path)]

    def reads(self, path: str) -> list[int]:
        """Positions of the calls that read this file, in order."""
        return [at for read, at in self._reads.get(name_of(path), ()) if same_path(read, path)]


def name_of(path: str) -> str:
    """A path's last part."""
    return path.rstrip("/").rsplit("/", 1)[-1]
