"""Plays one recorded conversation to one or several policies and scores what they forward.

Here stands what the client does: which requests it makes, where it marks the cache, when it pauses. Knows no
processes and no display.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass

from sluice.eval.cold import cold_turns
from sluice.eval.cost import PRICES, Cache, meter
from sluice.eval.data import Trace, Turn
from sluice.eval.facts import TurnFacts, needed_facts
from sluice.eval.message import encode
from sluice.eval.metrics import Reader, Score, Scorer
from sluice.eval.policies import Hindsight, Policy, Request

PAUSE_MARGIN_S = 1.0


@dataclass(frozen=True, slots=True)
class Options:
    """How conversations are replayed."""

    max_turns: int | None = 80
    """Turns of each conversation, counted in its assistant messages; None: all."""
    prices: str = "anthropic"
    """A key of `PRICES`."""
    cache: Cache = Cache.PREFIX
    is_cold: bool = False
    """Whether the provider's cache expires on some turns."""
    seed: int = 0


@dataclass(frozen=True, slots=True)
class Script:
    """One conversation, ready to be played: computed once, whatever the policies."""

    trace: Trace
    turns: Sequence[Turn]
    facts: Sequence[TurnFacts]
    cold: Sequence[bool]

    @classmethod
    def of(cls, trace: Trace, options: Options) -> Script:
        """Find the turns of a conversation, the facts needed at them and the pauses before them."""
        turns = trace.turns(options.max_turns)
        cold = cold_turns(trace, turns, seed=options.seed) if options.is_cold else [False] * len(turns)
        return cls(trace, turns, needed_facts(trace, turns), cold)


async def play(script: Script, policy: Policy, options: Options, reader: Reader | None = None) -> Score:
    """Play a conversation to one policy, turn by turn.

    Args:
        script: the conversation.
        policy: what judges it.
        options: how.
        reader: of this conversation's messages; share it between policies.
    """
    conversation = policy.open(Hindsight(script.trace, script.facts, options.seed))
    scorer = Scorer(script.trace, reader or Reader(script.trace), meter(options.cache))
    pause_s = PRICES[options.prices].ttl_s + PAUSE_MARGIN_S
    for turn, facts, is_cold in zip(script.turns, script.facts, script.cold, strict=True):
        sent = client_messages(script.trace, turn, options.cache)
        forwarded = await conversation.forward(Request(turn.history, sent, pause_s if is_cold else 0.0))
        scorer.turn(
            turn,
            facts,
            sent=sent,
            forwarded=forwarded.messages,
            is_cold=is_cold,
        )
        if forwarded.overhead_ms is not None:
            scorer.score.overhead_ms.append(forwarded.overhead_ms)
        if forwarded.round_trip_ms is not None:
            scorer.score.round_trip_ms.append(forwarded.round_trip_ms)
        scorer.score.num_further_requests += forwarded.num_further_requests
        if forwarded.bypass is not None:
            scorer.score.bypasses.append(forwarded.bypass)
    return scorer.score


def client_messages(trace: Trace, turn: Turn, cache: Cache) -> list[bytes]:
    """The messages of a request, as the client sends them.

    Under Anthropic's cache it marks what agents mark: the last leading system message and the newest message.
    """
    sent = [trace.messages[index].raw for index in turn.history]
    if cache is Cache.ANTHROPIC:
        roles = [trace.messages[index].role for index in turn.history]
        num_system = next((n for n, role in enumerate(roles) if role not in ("system", "developer")), len(roles))
        for position in {len(sent) - 1, *([num_system - 1] if num_system else [])}:
            sent[position] = encode({**json.loads(sent[position]), "cache_control": {"type": "ephemeral"}})
    return sent
