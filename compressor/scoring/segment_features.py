"""Features of a whole segment: what it is, how old, and what the agent did with its file since.

Plain functions of `Evidence`. Knows no numpy, no line and no model.
"""

from __future__ import annotations

import math

from sluice.compressor.evidence import Evidence, SegmentEvidence
from sluice.compressor.provenance import Kind

SEGMENT_FEATURES = (
    "kind",
    "file_type",
    "is_range",
    "is_shell",
    "has_read_tool",
    "num_lines",
    "num_chars",
    "age",
    "num_user_messages_since",
    "is_turn_of_user",
    "num_edits_before",
    "num_edits_since",
    "age_of_edit",
    "num_reads_before",
    "num_reads_since",
    "age_of_touch",
    "age_of_user_message",
    "age_of_naming",
    "num_runs_before",
    "num_runs_since",
    "num_results",
    "num_user_messages",
    "num_file_edits",
    "share_of_edits",
    "edits_since",
)
"""Names of the numbers that `segment_features` gives."""

_KINDS = {kind: number for number, kind in enumerate(Kind)}
_CODE_ENDINGS = frozenset(
    [
        "py",
        "js",
        "jsx",
        "ts",
        "tsx",
        "go",
        "rs",
        "java",
        "kt",
        "c",
        "h",
        "cc",
        "cpp",
        "hpp",
        "cs",
        "rb",
        "php",
        "swift",
        "scala",
        "sh",
        "bash",
        "lua",
        "svelte",
        "vue",
        "sql",
        "zig",
        "ex",
        "exs",
    ]
)
_DATA_ENDINGS = frozenset(["json", "yaml", "yml", "toml", "ini", "cfg", "lock", "xml", "csv", "env"])
_PROSE_ENDINGS = frozenset(["md", "mdx", "rst", "txt", "html", "css", "scss"])
MAX_AGE = 200
"""Ages above this are alike."""


def segment_features(evidence: Evidence, segment: SegmentEvidence) -> tuple[float, ...]:
    """The numbers of one segment, now."""
    born, provenance = segment.position, segment.provenance
    path = provenance.path
    edits = evidence.files.edits(path) if path is not None else []
    reads = evidence.files.reads(path) if path is not None else []
    runs = evidence.runs(provenance.command) if provenance.command is not None else []
    edits_since = sum(at > born for at in evidence.edit_positions)
    recent = max(evidence.num_messages - 16, 0)
    return (
        _KINDS[provenance.kind],
        _file_type(path),
        provenance.first_line is not None and (provenance.first_line > 1 or provenance.last_line is not None),
        provenance.command is not None,
        evidence.has_read_tool,
        math.log1p(len(segment.lines)),
        math.log1p(segment.num_chars),
        math.log1p(evidence.num_results - segment.num_results_before - 1),
        min(sum(at > born for at in evidence.user_positions), 5),
        bool(evidence.user_positions) and evidence.user_positions[-1] == evidence.num_messages,
        min(sum(at < born for at in edits), 10),
        min(sum(at > born for at in edits), 10),
        _age(evidence, edits[-1] if edits else 0),
        min(sum(at < born - 1 for at in reads), 10),
        min(sum(at > born for at in reads), 10),
        _age(evidence, max([0, *edits[-1:], *reads[-1:]])),
        _age(evidence, evidence.user_positions[-1] if evidence.user_positions else 0),
        _age(evidence, evidence.last_named(path) if path is not None else 0),
        min(sum(at < born for at in runs), 10),
        min(sum(at > born for at in runs), 10),
        math.log1p(evidence.num_results),
        min(len(evidence.user_positions), 20),
        math.log1p(len(evidence.edit_positions)),
        sum(at > recent for at in evidence.edit_positions),
        math.log1p(edits_since),
    )


def _age(evidence: Evidence, position: int) -> float:
    """Tool results since a message, as a logarithm; large if there was none."""
    if position == 0:
        return math.log1p(2 * MAX_AGE)
    return math.log1p(min(evidence.num_results - evidence.num_results_at[position], MAX_AGE))


def _file_type(path: str | None) -> int:
    if path is None:
        return 0
    name = path.rsplit("/", 1)[-1].lower()
    if "test" in name or "spec" in name:
        return 2
    ending = name.rsplit(".", 1)[-1]
    return 1 if ending in _CODE_ENDINGS else 3 if ending in _DATA_ENDINGS else 4 if ending in _PROSE_ENDINGS else 5
