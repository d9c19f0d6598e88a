"""Prometheus' text form, written and read. Knows no figure by its name."""

from __future__ import annotations

import math
import re
from collections.abc import Iterable, Mapping

from sluice.backend.histogram import Distribution

_SAMPLE = re.compile(r"^([A-Za-z_:][\w:]*)(?:\{(.*)\})?\s+(\S+)")
_LABEL = re.compile(r'(\w+)="((?:[^"\\]|\\.)*)"')

Labels = Mapping[str, str]
Samples = Mapping[str, list[tuple[dict[str, str], float]]]
"""Labels and value of each sample, by name."""


def family(name: str, kind: str, samples: Iterable[tuple[Labels, float | Distribution]]) -> list[str]:
    """Lines of one figure, a `counter`, `gauge` or `histogram` (of seconds); none where there is no sample of it."""
    lines = [line for labels, value in samples for line in _lines(name, labels, value)]
    return [f"# TYPE {name} {kind}", *lines] if lines else []


def parse(text: str) -> Samples:
    """Read the text form; lines that are none are skipped."""
    found: dict[str, list[tuple[dict[str, str], float]]] = {}
    for line in text.splitlines():
        if line.startswith("#") or (match := _SAMPLE.match(line)) is None:
            continue
        try:
            value = float(match[3])
        except ValueError:
            continue
        found.setdefault(match[1], []).append((dict(_LABEL.findall(match[2] or "")), value))
    return found


def parse_histogram(samples: Samples, name: str) -> Distribution | None:
    """A histogram of seconds, all its samples added up; None where there is none of this name."""
    if f"{name}_count" not in samples:
        return None
    buckets: dict[float, float] = {}
    for labels, value in samples.get(f"{name}_bucket", []):
        try:
            bound = float(labels["le"])
        except (LookupError, ValueError):
            continue
        buckets[bound] = buckets.get(bound, 0.0) + value
    count, sum_s = (sum(value for _, value in samples.get(f"{name}_{part}", [])) for part in ("count", "sum"))
    return Distribution(count, sum_s, tuple(sorted(buckets.items())))


def _lines(name: str, labels: Labels, value: float | Distribution) -> list[str]:
    if not isinstance(value, Distribution):
        return [f"{name}{_rendered(labels)} {_number(value)}"]
    return [
        *(f"{name}_bucket{_rendered({**labels, 'le': _float(le)})} {_number(num)}" for le, num in value.buckets),
        f"{name}_sum{_rendered(labels)} {_number(value.sum_s)}",
        f"{name}_count{_rendered(labels)} {_number(value.count)}",
    ]


def _rendered(labels: Labels) -> str:
    if not labels:
        return ""
    return "{" + ",".join(f'{key}="{_escaped(value)}"' for key, value in labels.items()) + "}"


def _number(value: float) -> str:
    return str(int(value)) if math.isfinite(value) and value == int(value) else _float(value)


def _float(value: float) -> str:
    return "+Inf" if value == math.inf else repr(float(value))


def _escaped(label: str) -> str:
    return label.replace("\\", "\\\\").replace('"', '\\"').replace("\n", "\\n")
