"""On which turns the provider's cache has expired: a seeded draw, the same for every policy.

A pause is likelier where a person has to answer. Knows no price.
"""

from __future__ import annotations

import random
from collections.abc import Sequence

from sluice.eval.data import Trace, Turn

ANY_TURN_PROBABILITY = 0.04
PERSON_PROBABILITY = 0.5


def cold_turns(trace: Trace, turns: Sequence[Turn], *, seed: int) -> list[bool]:
    """For each turn, whether the cache is empty: 4 % of turns, and half of those that a person's message begins."""
    draw = random.Random(f"cold {seed} {trace.id}")  # noqa: S311 (a frame, no secret)
    cold = []
    for turn in turns:
        any_turn, person = draw.random() < ANY_TURN_PROBABILITY, draw.random() < PERSON_PROBABILITY
        cold.append(any_turn or (person and answers_a_person(trace, turn)))
    return cold


def answers_a_person(trace: Trace, turn: Turn) -> bool:
    """Whether the last message is a person's, after an assistant message without tool calls.

    Several messages of the person in a row count as one. Tool output in user messages is no person's.
    """
    said = [index for index in turn.history if not _is_persons(trace, index)]
    if not said or not _is_persons(trace, turn.history[-1]):
        return False
    before = trace.messages[said[-1]]
    return before.role == "assistant" and before.num_calls == 0


def _is_persons(trace: Trace, index: int) -> bool:
    return trace.messages[index].role == "user" and index not in trace.results
