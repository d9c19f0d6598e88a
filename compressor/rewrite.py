"""The history of a conversation, decided anew: whether that pays now, from which message on, and what then stands.

Plain functions of the turn, the conversation's state and the judge.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace

from sluice.compressor.conversation import Conversation
from sluice.compressor.decide import decide, replayed
from sluice.compressor.economics import Load, Rewrite, num_tokens, plan_rewrite
from sluice.compressor.judge import Judge, Keep, Verdict
from sluice.compressor.ledger import Override, Reason, Rendition, TurnRecord
from sluice.compressor.lines import split
from sluice.compressor.profiles import Profile
from sluice.compressor.recovery import Gap
from sluice.compressor.settings import CompressorSettings
from sluice.compressor.turn import Turn
from sluice.compressor.types import Message


def plan(
    turn: Turn,
    conversation: Conversation,
    before: TurnRecord,
    judge: Judge,
    profile: Profile,
    settings: CompressorSettings,
) -> tuple[Rewrite | None, Mapping[int, Verdict]]:
    """Whether to rewrite the history, and what of it is to stay."""
    # Judging every line of a long history takes time: first see whether it could pay if all of it were dead.
    old = judge.candidates(conversation)
    if not old:
        return None, {}
    sizes = _num_tokens_old(turn)
    num_to_shed = 0.0
    if turn.max_tokens is not None:
        num_all = sum(sizes) + sum(num_tokens(num_chars) for num_chars in turn.num_chars[turn.num_old :])
        if num_all > turn.max_tokens:
            # Down to below the bound, so that not every turn from here on has to be rewritten.
            num_to_shed = num_all - settings.budget_share * turn.max_tokens
    is_cold = is_cache_cold(turn, before, profile)

    def rewrite_of(dead: Mapping[int, float]) -> Rewrite | None:
        return plan_rewrite(
            [Load(size, min(size, dead.get(index, 0.0))) for index, size in enumerate(sizes)],
            profile,
            is_cold=is_cold,
            is_needed=num_to_shed > 0 and sum(dead.values()) >= min(num_to_shed, settings.min_shed_share * sum(sizes)),
            num_turns=before.num_turns,
            banked=before.banked,
            margin=settings.rewrite_margin,
            max_turns_ahead=settings.max_turns_ahead,
        )

    if rewrite_of({index: sizes[index] for index in old}) is None:
        return None, {}
    if not is_cold and not num_to_shed and not conversation.is_review_due(sum(sizes)):
        return None, {}
    verdicts = judge.at_epoch(conversation, old, num_to_shed)
    dead = {index: verdict.num_shed_tokens for index, verdict in verdicts.items()}
    return rewrite_of({index: tokens for index, tokens in dead.items() if tokens > 0}), verdicts


def rewrite(
    turn: Turn, start: int, verdicts: Mapping[int, Verdict], judge: Judge, settings: CompressorSettings
) -> tuple[Conversation, dict[int, Override]]:
    """Decide the old messages from `start` on anew, as if they came now; what is not judged stays."""
    conversation = judge.new_conversation(settings)
    conversation.pins = turn.pins
    replay(turn, conversation, start)
    epoch: dict[int, Override] = {}
    last_judged = max(verdicts, default=-1)
    for index in range(start, turn.num_old):
        frozen = turn.renditions[index]
        assert frozen is not None
        incoming = conversation.receive(turn.message(index))
        keep = dict(verdicts[index].keep) if index in verdicts else {}
        _drop_again(incoming.message, frozen, keep)
        # What was given back goes the way of the results around it.
        gaps = _given_back(conversation.gaps, frozen) if index > last_judged else []
        decision = decide(incoming, turn.raws[index][0], turn.dialect, conversation, keep, gaps, settings)
        if decision.rendition.body != frozen.body:
            turn.renditions[index] = decision.rendition
            epoch[index] = Override(turn.identities[index], decision.rendition)
            turn.originals.update(decision.originals)
        conversation.forward(incoming, decision.texts, decision.rendition)
    conversation.note_review(sum(_num_tokens_old(turn)))
    return conversation, epoch


def replay(turn: Turn, conversation: Conversation, stop: int) -> None:
    """Bring a conversation's state up to message `stop`, as it is forwarded."""
    for index in range(conversation.num_messages, stop):
        rendition = turn.renditions[index]
        assert rendition is not None, "only what is decided is replayed"
        incoming = conversation.receive(turn.message(index))
        conversation.forward(incoming, replayed(incoming.message, rendition, turn.dialect).texts, rendition)


def is_cache_cold(turn: Turn, before: TurnRecord, profile: Profile) -> bool:
    """Whether the provider's cache has expired since the turn before, or depends on what has changed since."""
    newest = turn.records[turn.num_old - 1]
    if newest is None or newest.turn is None:
        # A branch off an older turn: when its prefix was last used is not known, so that it counts as warm.
        return False
    return turn.at_s - before.at_s > profile.ttl_s or turn.context != before.context


def forwarded_chars(turn: Turn) -> Sequence[int]:
    """Characters of each message as it is forwarded; of one that is not decided yet, as it was sent."""
    num_chars = list(turn.num_chars)
    for index, rendition in enumerate(turn.renditions):
        if rendition is not None and rendition.num_chars_saved:
            num_chars[index] -= rendition.num_chars_saved
    return num_chars


def _num_tokens_old(turn: Turn) -> list[float]:
    """Tokens of each message that the provider has seen, as it is forwarded."""
    return [num_tokens(num_chars) for num_chars in forwarded_chars(turn)[: turn.num_old]]


def _drop_again(message: Message, frozen: Rendition, keep: dict[int, Keep]) -> None:
    """What was dropped once as not needed stays dropped."""
    for omitted in frozen.omitted:
        if omitted.reason is not Reason.NOT_NEEDED:
            continue
        index = omitted.text_index
        judged = keep.get(index) or Keep([True] * len(split(message.texts[index].text)))
        lines = list(judged.is_worth)
        lines[omitted.start : omitted.stop] = [False] * (omitted.stop - omitted.start)
        keep[index] = Keep(lines, judged.losses)


def _given_back(gaps: Sequence[Gap], frozen: Rendition) -> list[Gap]:
    """Those of the gaps that a frozen message gives back."""
    return [
        replace(gap, start=max(gap.start, start), stop=min(gap.stop, stop))
        for position, text_index, start, stop in frozen.restored
        for gap in gaps
        if (gap.position, gap.text_index) == (position, text_index) and start < gap.stop and gap.start < stop
    ]
