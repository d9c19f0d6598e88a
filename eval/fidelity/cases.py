"""The turns on which fidelity is measured: those that fit the model's window, and whose context a policy changed.

Where nothing was dropped the likelihoods are the same, and there is nothing to measure.
"""

from __future__ import annotations

import random
from collections import defaultdict
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

from sluice.eval.data import Turn, parse_trace
from sluice.eval.message import Message, read_message
from sluice.eval.policies.arrival import RandomLines
from sluice.eval.policies.base import Hindsight, Policy, Request
from sluice.eval.replay import Options, Script, client_messages
from sluice.eval.runner import Progress, Selection

MAX_PER_CONVERSATION = 4
NUM_HALVINGS = 12


@dataclass(frozen=True, slots=True)
class Case:
    """One turn."""

    trace: str
    """Id of its conversation."""
    script: Script
    turn: Turn
    place: int
    """Which of the script's turns it is."""
    full: Sequence[bytes]
    forwarded: Sequence[bytes]
    num_facts: int
    """Words and lines of tool output that the agent's message needed."""

    @property
    def target(self) -> Message:
        """The agent's real message."""
        return self.script.trace.messages[self.turn.answer]


@dataclass(frozen=True, slots=True)
class Found:
    """What a policy did to the turns that fit."""

    cases: list[Case]
    num_fitting: int
    num_changed: int


async def find_cases(
    selection: Selection, policy: Policy, options: Options, *, num_cases: int, max_tokens: int, progress: Progress
) -> Found:
    """Play the conversations to a policy and draw turns, seeded, at most four of a conversation.

    Args:
        selection: which conversations.
        policy: what is judged.
        options: how they are played.
        num_cases: turns to draw.
        max_tokens: of the full context, as the evaluation counts them.
        progress: see `Progress`.
    """
    draw = random.Random(f"fidelity {options.seed}")  # noqa: S311 (a frame, no secret)
    drawn: list[Case] = []
    num_fitting = num_changed = 0
    for number, line in enumerate(selection.lines(), 1):
        script = Script.of(parse_trace(line), options)
        conversation = policy.open(Hindsight(script.trace, script.facts, options.seed))
        changed = []
        # A compaction makes turns fit again: those between are played, for what they leave behind, and not counted.
        fitting = [place for place, turn in enumerate(script.turns) if _num_tokens(script, turn) <= max_tokens]
        stop = fitting[-1] + 1 if fitting else 0
        for place, (turn, facts) in enumerate(zip(script.turns[:stop], script.facts[:stop], strict=True)):
            sent = client_messages(script.trace, turn, options.cache)
            forwarded = await conversation.forward(Request(turn.history, sent, 0.0))
            if place in fitting and list(forwarded.messages) != sent:
                num_facts = len(facts.words) + len(facts.lines)
                changed.append(Case(script.trace.id, script, turn, place, sent, list(forwarded.messages), num_facts))
        num_fitting += len(fitting)
        num_changed += len(changed)
        drawn += draw.sample(changed, min(MAX_PER_CONVERSATION, len(changed)))
        progress("find turns", number)
    return Found(draw.sample(drawn, min(num_cases, len(drawn))), num_fitting, num_changed)


async def replayed(policy: Policy, cases: Sequence[Case], options: Options) -> list[Sequence[bytes]]:
    """What another policy forwards on the same turns."""
    by_script: dict[int, list[int]] = defaultdict(list)
    for position, case in enumerate(cases):
        by_script[id(case.script)].append(position)
    found: list[Sequence[bytes]] = [()] * len(cases)
    for positions in by_script.values():
        script = cases[positions[0]].script
        conversation = policy.open(Hindsight(script.trace, script.facts, options.seed))
        wanted = {cases[position].place: position for position in positions}
        for place, turn in enumerate(script.turns[: max(wanted) + 1]):
            sent = client_messages(script.trace, turn, options.cache)
            forwarded = await conversation.forward(Request(turn.history, sent, 0.0))
            if place in wanted:
                found[wanted[place]] = list(forwarded.messages)
    return found


async def random_at_equal_size(cases: Sequence[Case], options: Options) -> tuple[float, list[Sequence[bytes]]]:
    """Random deletion of lines that forwards as many tokens on these turns: its probability, and what it forwards."""
    wanted = num_tokens(case.forwarded for case in cases)
    low, high = 0.0, 1.0
    for _ in range(NUM_HALVINGS):
        middle = (low + high) / 2
        forwarded = await replayed(RandomLines(middle, "random-equal"), cases, options)
        low, high = (middle, high) if num_tokens(forwarded) > wanted else (low, middle)
    return high, await replayed(RandomLines(high, "random-equal"), cases, options)


def _num_tokens(script: Script, turn: Turn) -> float:
    """Of a turn's full context."""
    return sum(script.trace.messages[index].num_tokens for index in turn.history)


def num_tokens(requests: Iterable[Sequence[bytes]]) -> float:
    """Tokens of some requests, as the evaluation counts them."""
    return sum(read_message(raw).num_tokens for request in requests for raw in request)
