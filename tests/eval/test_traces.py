from __future__ import annotations

import pytest

from sluice.eval.data import read_traces
from sluice.eval.traces import AGENTS, trace_file
from sluice.eval.traces.generate import written

MAX_DEMO_CHARS = 3 * 6_000
"""The bundled model reads 8,192 tokens; three characters a token is a cautious count for code."""


@pytest.mark.parametrize("agent", AGENTS)
def test_the_files_are_what_the_generator_writes(agent: str) -> None:
    assert trace_file(agent).read_text(encoding="utf-8") == written()[agent]


@pytest.mark.parametrize("agent", AGENTS)
def test_each_is_a_whole_conversation_that_fits_the_bundled_model(agent: str) -> None:
    (trace,) = read_traces(trace_file(agent))
    assert trace.agent == agent
    assert len(trace.turns()) == 13
    assert len(trace.results) == 12
    assert sum(len(message.raw) for message in trace.messages) < MAX_DEMO_CHARS
