"""Conversations for property tests."""

from __future__ import annotations

from hypothesis import strategies as st

from sluice.eval.data import Trace
from tests.eval.builders import Message, assistant, tool, trace_of, user

NAMES = ["load_rows", "src/app.py", "parseConfig", "4711", "total_of(rows)", "month_range", "plain", "→ arrow"]
_LINES = st.lists(st.sampled_from(NAMES), min_size=0, max_size=4).map(" and then ".join)
_TEXTS = st.lists(_LINES, min_size=0, max_size=14).map("\n".join)


@st.composite
def traces(draw: st.DrawFn) -> Trace:
    """A conversation in which the agent keeps using what its tools have shown."""
    messages: list[Message] = [user(draw(_TEXTS))]
    observations = []
    for number in range(draw(st.integers(1, 6))):
        is_text_only = draw(st.booleans())
        text = draw(_TEXTS)
        messages.append(assistant(text) if is_text_only else assistant(text, {"text": draw(_TEXTS)}))
        for _ in range(draw(st.integers(0, 2))):
            messages.append(user(draw(_TEXTS)) if is_text_only else tool(draw(_TEXTS)))
            observations.append(len(messages) - 1)
        if number == 3 and draw(st.booleans()):
            messages.append(user(draw(_TEXTS), compaction_summary=True))
    messages.append(assistant(draw(_TEXTS)))
    return trace_of(*messages, observation_indexes=observations, id=f"t{draw(st.integers(0, 99))}")
