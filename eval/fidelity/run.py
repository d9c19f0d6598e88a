"""Measures fidelity: the same target behind several contexts, token by token, and what each context costs it."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from sluice.backend.surrogates import whole
from sluice.eval.bootstrap import Ratio, ratio
from sluice.eval.errors import ScorerError
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


@dataclass(frozen=True, slots=True)
class Measured:
    """What was found, and on which turns: those that do not fit the model's window are left out."""

    rows: list[Fidelity]
    """One for each policy."""
    cases: list[Case]


async def measure(
    cases: Sequence[Case],
    contexts: Mapping[str, Sequence[Sequence[bytes]]],
    scorer: TextScorer,
    *,
    max_target_tokens: int,
    seed: int,
    progress: Progress,
) -> Measured:
    """Score every case's target behind each policy's context; `untouched` has to be among them.

    Raises:
        ScorerError: the model does not give log-probabilities, gives other numbers of them behind different contexts,
            or no case fits its window.
    """
    losses: dict[str, list[list[float]]] = {policy: [] for policy in contexts}
    measured: list[int] = []
    for number, case in enumerate(cases):
        of_case = {policy: requests[number] for policy, requests in contexts.items()}
        if (found := await _losses(case, of_case, scorer, max_target_tokens)) is not None:
            measured.append(number)
            for policy in contexts:
                losses[policy].append(found[policy])
        progress("score", number + 1)
    if not measured:
        raise ScorerError(f"none of {len(cases)} turns fits the model's window: ask for fewer tokens of a full context")
    kept = [cases[number] for number in measured]
    sizes = {policy: num_tokens(requests[number] for number in measured) for policy, requests in contexts.items()}
    rows = [
        _fidelity(policy, kept, losses[policy], losses[FULL], sizes[policy] / sizes[FULL], seed=seed)
        for policy in contexts
    ]
    return Measured(rows, kept)


async def _losses(
    case: Case, contexts: Mapping[str, Sequence[bytes]], scorer: TextScorer, max_target_tokens: int
) -> dict[str, list[float]] | None:
    """What each token of the target costs behind each policy's context; None where one does not fit the window.

    Raises:
        ScorerError: see `measure`.
    """
    target = whole(f"{body(case.target)}<|im_end|>\n")
    losses: dict[str, list[float]] = {}
    for policy, messages in contexts.items():
        context = whole(f"{''.join(map(written, map(read_message, messages)))}<|im_start|>assistant\n")
        found = await scorer.score(context, target, max_target_tokens=max_target_tokens)
        if found is None:
            return None
        losses[policy] = [-value for value in found]
    sizes = {policy: len(found) for policy, found in losses.items()}
    if len(set(sizes.values())) > 1:
        raise ScorerError(f"one message has other numbers of tokens behind different contexts: {sizes}")
    return losses


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
