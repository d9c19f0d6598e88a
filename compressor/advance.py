"""Decides one request: replays what is frozen, has the history rewritten where that pays, decides what is new.

Plain functions of the turn, the conversation's state, the judge and the clock's reading; nothing here waits.
"""

from __future__ import annotations

import logging
from functools import partial

import msgspec

from sluice.compressor import recovery
from sluice.compressor.conversation import Conversation, Incoming
from sluice.compressor.cutoff import Cutoff
from sluice.compressor.decide import Decision, decide, extended, untouched
from sluice.compressor.economics import CHARS_PER_TOKEN, Billed, num_tokens, turn_saving
from sluice.compressor.instructions import is_summary
from sluice.compressor.judge import Judge
from sluice.compressor.ledger import RECORD_VERSION, Rendition, TurnRecord
from sluice.compressor.pins import pinned_gaps
from sluice.compressor.profiles import Profile
from sluice.compressor.recovery import Gap
from sluice.compressor.rewrite import is_cache_cold, plan, replay, rewrite
from sluice.compressor.settings import POLICY_VERSION, CompressorSettings
from sluice.compressor.turn import Turn

logger = logging.getLogger(__name__)


def leave_untouched(turn: Turn) -> None:
    """Decide that all that is not decided yet goes out as it came."""
    for index, rendition in enumerate(turn.renditions):
        if rendition is None:
            turn.renditions[index] = untouched(turn.message(index)).rendition


def leave_rest(turn: Turn, profile: Profile) -> None:
    """Decide that all that is not decided yet goes out as it came, and say so for later turns.

    For a conversation against which others are measured, and where a decision took too long.
    """
    leave_untouched(turn)
    if turn.records[-1] is None:
        _close(turn, profile)


def shed(
    turn: Turn, conversation: Conversation, judge: Judge, profile: Profile, settings: CompressorSettings
) -> Rendition | None:
    """The epoch that makes a request fit which the upstream refused; None where nothing more can be dropped.

    Args:
        turn: all of it decided, `max_tokens` set.
        conversation: see `advance`; it grows to the newest message.
        judge: which lines are worth their tokens.
        profile: what the provider's cache costs.
        settings: see `CompressorSettings`.
    """
    before = turn.before
    if before is None:
        return None
    replay(turn, conversation, len(turn.raws))
    turn.rewrite, verdicts = plan(turn, conversation, before, judge, profile, settings)
    if turn.rewrite is None:
        return None
    _, epoch = rewrite(turn, turn.rewrite.start, verdicts, judge, settings)
    after = msgspec.structs.replace(before, banked=before.banked - turn.rewrite.cost)
    return Rendition(RECORD_VERSION, POLICY_VERSION, turn=after, epoch=epoch) if epoch else None


def advance(
    turn: Turn,
    conversation: Conversation,
    judge: Judge,
    profile: Profile,
    settings: CompressorSettings,
    cutoff: Cutoff | None = None,
) -> Conversation | None:
    """Decide a turn's new messages, and whether the old ones are to be rewritten.

    Args:
        turn: filled in. What is decided stands in it at once, each decision as a whole.
        conversation: its state up to some message before the first new one; it grows.
        judge: which lines are worth their tokens.
        profile: what the provider's cache costs.
        settings: see `CompressorSettings`.
        cutoff: the moment after which the turn is forwarded as far as it is decided, and the rest untouched; None: it
            never comes.

    Returns:
        The state after the newest message, as that is forwarded: `conversation`, or another where the history was
        rewritten. None where something broke, so that it is not known.
    """
    cutoff = cutoff or Cutoff()
    try:
        return _advance(turn, conversation, judge, profile, settings, cutoff)
    # Whatever breaks in here must not cost the request: what is frozen is replayed, what is new goes out untouched.
    except Exception:
        logger.exception("compression failed; new messages go out untouched")
        cutoff.take(lambda: _fall_back(turn))
        return None


def _fall_back(turn: Turn) -> None:
    turn.bypass = "error"
    turn.rewrite = None
    turn.begun = {}
    turn.originals.clear()
    turn.renditions = turn.in_force()
    leave_untouched(turn)


def _advance(
    turn: Turn,
    conversation: Conversation,
    judge: Judge,
    profile: Profile,
    settings: CompressorSettings,
    cutoff: Cutoff,
) -> Conversation:
    conversation.pins = turn.pins
    replay(turn, conversation, turn.num_old)
    before = turn.before
    is_grown = turn.num_old + len(turn.new) == len(turn.raws)
    if before is not None and is_grown and not cutoff.has_come:
        conversation = _rewritten(turn, conversation, before, judge, profile, settings, cutoff)
    # What is given back, and read again on every turn to come, may cost no more than was saved before.
    turns_ahead = min(before.num_turns if before else 0, settings.max_turns_ahead)
    price_per_char = (profile.write + profile.read * turns_ahead) / CHARS_PER_TOKEN
    to_spend = (before.banked if before else 0.0) - max(0.0, turn.rewrite.cost if turn.rewrite else 0.0)
    for index in range(turn.num_old, len(turn.raws)):
        if turn.renditions[index] is not None:
            replay(turn, conversation, index + 1)
            continue
        incoming = conversation.receive(turn.message(index))
        decision = untouched(incoming.message)
        if not cutoff.has_come:
            decided, to_spend = _arrived(turn, index, incoming, conversation, judge, settings, to_spend, price_per_char)
            if cutoff.take(partial(_take, turn, index, decided)):
                decision = decided
        turn.renditions[index] = decision.rendition
        conversation.forward(incoming, decision.texts, decision.rendition)
    if turn.records[-1] is None:
        cutoff.take(lambda: _close(turn, profile))
    return conversation


def _rewritten(
    turn: Turn,
    conversation: Conversation,
    before: TurnRecord,
    judge: Judge,
    profile: Profile,
    settings: CompressorSettings,
    cutoff: Cutoff,
) -> Conversation:
    """The state up to the first new message once the history was rewritten, where that pays."""
    planned, verdicts = plan(turn, conversation, before, judge, profile, settings)
    if planned is None:
        return conversation
    fork = turn.forked()
    after, epoch = rewrite(fork, planned.start, verdicts, judge, settings)
    if not epoch:  # all reads as before: nothing is paid for, and nothing is to be announced
        return after

    def begin() -> None:
        turn.rewrite, turn.begun = planned, epoch
        turn.renditions, turn.originals = fork.renditions, fork.originals

    return after if cutoff.take(begin) else conversation


def _arrived(
    turn: Turn,
    index: int,
    incoming: Incoming,
    conversation: Conversation,
    judge: Judge,
    settings: CompressorSettings,
    to_spend: float,
    price_per_char: float,
) -> tuple[Decision, float]:
    """What becomes of a message that has just been received, and what is left to spend."""
    # What is shortened or extended came in one piece: replies go out as they came.
    raw = turn.raws[index][0]
    if turn.addition and is_summary(incoming.message):
        addition, turn.addition = turn.addition, ""
        return extended(incoming.message, raw, turn.dialect, addition), to_spend
    keep = judge.at_arrival(conversation, incoming)
    gaps: list[Gap] = []
    if incoming.segments and conversation.gaps:
        gaps = recovery.touched(conversation.gaps, conversation.touch(incoming))
    if turn.pins and incoming.segments:
        # What a person asks for is given back whatever it costs, and leaves the less for what nobody asked for.
        pinned = pinned_gaps(conversation.gaps, turn.pins)
        gaps, to_spend = recovery.affordable(recovery.without(gaps, pinned), to_spend, price_per_char)
        to_spend -= len(recovery.render(pinned)) * price_per_char
        gaps = [*pinned, *gaps]
    else:
        gaps, to_spend = recovery.affordable(gaps, to_spend, price_per_char)
    return decide(incoming, raw, turn.dialect, conversation, keep, gaps, settings), to_spend


def _take(turn: Turn, index: int, decision: Decision) -> None:
    turn.renditions[index] = decision.rendition
    turn.originals.update(decision.originals)


def _close(turn: Turn, profile: Profile) -> None:
    """Write onto the newest message what the next turn has to know."""
    before = turn.before
    is_cold = before is None or is_cache_cold(turn, before, profile)
    num_read = 0 if is_cold else turn.num_old
    num_still_read = min(num_read, turn.rewrite.start) if turn.rewrite else num_read
    num_chars = sum(turn.num_chars)
    sent = _billed(turn, num_read, sum(turn.num_chars[:num_read]), num_chars)
    num_chars_read = sum(turn.num_chars[:num_still_read]) - _num_chars_saved(turn, num_still_read)
    num_chars -= _num_chars_saved(turn, len(turn.raws))
    saving = turn_saving(sent, _billed(turn, num_still_read, num_chars_read, num_chars), profile)
    newest = turn.renditions[-1]
    assert newest is not None
    record = TurnRecord(
        at_s=turn.at_s,
        num_turns=(before.num_turns if before else 0) + 1,
        banked=(before.banked if before else 0.0) + saving,
        context=turn.context,
        is_holdout=turn.is_holdout,
    )
    epoch = {**turn.handed_on, **turn.begun}
    turn.renditions[-1] = msgspec.structs.replace(newest, turn=record, epoch=epoch or None)


def _billed(turn: Turn, num_read: int, num_chars_read: int, num_chars: int) -> Billed:
    """Tokens of a request of which the first `num_read` messages are read from the cache."""
    num_written = len(turn.raws) - num_read
    return Billed(num_tokens(num_chars_read, num_read), num_tokens(num_chars - num_chars_read, num_written))


def _num_chars_saved(turn: Turn, stop: int) -> int:
    """Characters by which the first `stop` messages are shorter as they are forwarded."""
    total, start = 0, 0
    if len(turn.known) <= stop and turn.renditions[: len(turn.known)] == turn.known:
        total, start = turn.num_chars_saved_known, len(turn.known)
    return total + sum(one.num_chars_saved for one in turn.renditions[start:stop] if one is not None)
