"""Measures fidelity: the same target behind several contexts, token by token, and what each context costs it."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from sluice.eval.bootstrap import Ratio, ratio
from sluice.eval.fidelity.cases import Case, num_tokens
from sluice.eval.fidelity.scorers import TextScorer
from sluice.eval.message import Message, read_message
from sluice.eval.runner import Progress

FULL = "untouched"


@dataclass(frozen=True, slots=True)
class Fidelity:
    """What one policy's contexts do to the agent's real messages."""

    policy: str
    size: float
    """Tokens of its contexts, as a share of the full ones."""
    loss: Ratio | None
    """Mean negative log-likelihood of a token, in nats."""
    change: Ratio | None
    """Of the same token, less that under the full context; above 0 the message is less expected."""
    change_with_facts: Ratio | None
    """The same, over turns whose message needed something that a tool had shown."""
    share_worse: float
    """Turns on which the message is less expected than under the full context."""


async def measure(
    cases: Sequence[Case],
    contexts: Mapping[str, Sequence[Sequence[bytes]]],
    scorer: TextScorer,
    *,
    max_target_tokens: int,
    seed: int,
    progress: Progress,
) -> list[Fidelity]:
    """Score every case's target behind each policy's context; `untouched` has to be among them.

    Raises:
        ScorerError: the model does not give log-probabilities.
    """
    losses: dict[str, list[list[float]]] = {policy: [] for policy in contexts}
    for number, case in enumerate(cases):
        target = f"{body(case.target)}<|im_end|>\n"
        for policy, requests in contexts.items():
            context = f"{''.join(map(written, map(read_message, requests[number])))}<|im_start|>assistant\n"
            found = await scorer.score(context, target, max_target_tokens=max_target_tokens)
            losses[policy].append([-value for value in found])
        progress("score", number + 1)
    full_size = num_tokens(contexts[FULL])
    return [
        _fidelity(policy, cases, losses[policy], losses[FULL], num_tokens(contexts[policy]) / full_size, seed=seed)
        for policy in contexts
    ]


def _fidelity(
    policy: str,
    cases: Sequence[Case],
    losses: Sequence[Sequence[float]],
    full: Sequence[Sequence[float]],
    size: float,
    *,
    seed: int,
) -> Fidelity:
    pairs = [list(zip(ours, theirs, strict=True)) for ours, theirs in zip(losses, full, strict=True)]
    changes = [sum(ours - theirs for ours, theirs in pair) for pair in pairs]

    def over(values: Sequence[float], chosen: Sequence[bool]) -> Ratio | None:
        """Per token, by conversation: turns of one conversation are no independent draws."""
        sums: dict[str, list[float]] = {}
        for case, value, pair, is_chosen in zip(cases, values, pairs, chosen, strict=True):
            if is_chosen:
                both = sums.setdefault(case.trace, [0.0, 0.0])
                both[0] += value
                both[1] += len(pair)
        if not sums:
            return None
        return ratio([each[0] for each in sums.values()], [each[1] for each in sums.values()], seed=seed)

    everything = [True] * len(cases)
    return Fidelity(
        policy=policy,
        size=size,
        loss=over([sum(each) for each in losses], everything),
        change=over(changes, everything),
        change_with_facts=over(changes, [case.num_facts > 0 for case in cases]),
        share_worse=sum(change > 0 for change in changes) / len(changes),
    )


def written(message: Message) -> str:
    """A message as the model reads it: in the frame of ChatML, with its calls as text."""
    return f"<|im_start|>{message.role}\n{body(message)}<|im_end|>\n"


def body(message: Message) -> str:
    """A message's text, and its calls as `name(arguments)`, one a line."""
    calls = json.loads(message.raw).get("tool_calls") or []
    lines = [f"{each['function']['name']}({each['function'].get('arguments', '')})" for each in calls]
    return "\n".join(filter(None, (message.content, *lines)))
