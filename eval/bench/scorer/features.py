"""Tokens per second of a scorer, result by result as they arrive in recorded conversations."""

from __future__ import annotations

import time
from collections.abc import Iterable
from dataclasses import dataclass

from sluice.compressor.conversation import Conversation
from sluice.compressor.dialects import OPENAI_CHAT
from sluice.compressor.economics import num_tokens
from sluice.compressor.evidence import SegmentEvidence
from sluice.compressor.scoring import Moment, Scorer
from sluice.eval.data import Trace


@dataclass(frozen=True, slots=True)
class Scored:
    """What was scored, and how long that took."""

    num_results: int
    num_lines: int
    num_tokens: float
    """By estimate."""
    seconds: float


def measure(scorer: Scorer, traces: Iterable[Trace], max_tokens: float) -> Scored:
    """Score the results of conversations as they arrive; reading them is not counted.

    Args:
        scorer: ready.
        traces: in the form of the evaluation.
        max_tokens: enough.
    """
    num_results, num_lines, tokens, seconds = 0, 0, 0.0, 0.0
    for trace in traces:
        conversation = Conversation(3, with_evidence=True)
        evidence = conversation.evidence
        assert evidence is not None
        for message in trace.messages:
            incoming = conversation.receive(OPENAI_CHAT.parse(message.raw))
            position = conversation.num_messages
            found = [evidence.segment_at(position, segment.index) for segment in incoming.segments]
            segments: list[SegmentEvidence] = [segment for segment in found if segment is not None]
            if not segments:
                continue
            started_s = time.perf_counter()
            scorer.score(evidence, segments, Moment.ARRIVAL)
            seconds += time.perf_counter() - started_s
            num_results += len(segments)
            num_lines += sum(len(segment.lines) for segment in segments)
            tokens += sum(num_tokens(segment.num_chars) for segment in segments)
        if tokens >= max_tokens:
            break
    return Scored(num_results, num_lines, tokens, seconds)
