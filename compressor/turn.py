"""One request of a conversation: replays what is frozen, plans a rewrite where one pays, decides what is new.

Plain functions of the turn, the conversation's state, the judge and the clock's reading; nothing here waits.
"""

from __future__ import annotations

import logging
from collections.abc import Mapping, Sequence
from copy import copy
from dataclasses import dataclass, field, replace
from hashlib import blake2b

import msgspec

from sluice.compressor import recovery
from sluice.compressor.conversation import Conversation
from sluice.compressor.decide import decide, extended, replayed, untouched
from sluice.compressor.dialects.base import Dialect
from sluice.compressor.economics import CHARS_PER_TOKEN, Billed, Load, Rewrite, num_tokens, plan_rewrite, turn_saving
from sluice.compressor.errors import MalformedMessageError
from sluice.compressor.frozen import epochs_of, latest, settle
from sluice.compressor.instructions import is_summary
from sluice.compressor.judge import Judge, Keep, Verdict
from sluice.compressor.ledger import RECORD_VERSION, Override, Reason, Rendition, TurnRecord
from sluice.compressor.lines import split
from sluice.compressor.pins import Pin, pinned_gaps
from sluice.compressor.profiles import Profile
from sluice.compressor.recovery import Gap
from sluice.compressor.replies import joined
from sluice.compressor.settings import POLICY_VERSION, CompressorSettings
from sluice.compressor.types import Message

logger = logging.getLogger(__name__)


@dataclass(slots=True)
class Turn:
    """The messages of one request, less the leading system messages, and what becomes of them."""

    raws: Sequence[Sequence[bytes]]
    """As the client sent them: one JSON text each, or several for a reply that came in pieces."""
    hashes: Sequence[bytes]
    """Chain hash of each."""
    identities: Sequence[bytes]
    """Identity of each."""
    num_chars: Sequence[int]
    """Of each, as sent."""
    dialect: Dialect
    records: list[Rendition | None]
    """What the ledger holds of each; None where it holds nothing."""
    at_s: float
    """The wall clock."""
    context: bytes
    """See `TurnRecord.context`."""
    parsed: Mapping[bytes, Message] = field(default_factory=dict)
    """By their text, those that had to be read to tell what they are."""
    moved: Sequence[int] = ()
    """Indexes of messages whose records were found behind one that the client changed. Those that still hold are
    written anew where they are now, the others are forgotten."""
    inherited: Mapping[int, Override] = field(init=False)
    """Epochs whose own messages were forgotten, and that go on to hold: the newest message takes them over."""
    refused: Mapping[int, Rendition] = field(default_factory=dict)
    """By index of a request's newest message: the epoch that began when the upstream refused that request, and the
    turn as it was then. Found for the last few messages alone: later turns carry it on."""
    known: Sequence[Rendition] = ()
    """What the first messages were forwarded as by a request that this one continues, with the same refusals; empty
    where that has to be found out."""
    pins: Sequence[Pin] = ()
    """Lines that a person wants kept."""
    addition: str = ""
    """What stands behind a summary that is new in this request; see `instructions.py`."""
    max_tokens: int | None = None
    """What the forwarded messages may hold at the most; None bounds nothing."""
    is_holdout: bool = False
    """Whether the conversation goes through untouched."""
    renditions: list[Rendition | None] = field(init=False)
    """What each is forwarded as; None where it is not decided yet."""
    new: list[int] = field(init=False)
    """Indexes of the messages that the ledger did not hold."""
    originals: dict[str, str] = field(default_factory=dict)
    bypass: str | None = None
    rewrite: Rewrite | None = None

    def __post_init__(self) -> None:
        self.inherited = {}
        if not self.moved:
            epochs = epochs_of(self.records, self.refused, start=len(self.known))
            self.renditions = latest(self.records, epochs, self.identities, self.known)
        else:
            self.renditions = settle(self.records, epochs_of(self.records, self.refused), self.identities)
            self._forget()
        self.new = [index for index in range(len(self.known), len(self.records)) if self.records[index] is None]

    def message(self, index: int) -> Message:
        """A message, read."""
        return joined([self.parsed.get(raw) or parse(raw, self.dialect) for raw in self.raws[index]])

    def forked(self) -> Turn:
        """A copy to be decided elsewhere, while this one may still be decided otherwise."""
        fork = copy(self)
        fork.renditions, fork.originals = list(self.renditions), {}
        return fork

    @property
    def num_old(self) -> int:
        """Messages before the first new one: all that the provider can have seen."""
        return self.new[0] if self.new else len(self.raws)

    def settled(self, index: int) -> Rendition | None:
        """A record that was found behind a changed message, less what its epoch no longer holds for."""
        record = self.records[index]
        inherited = self.inherited if index == len(self.raws) - 1 else {}
        if record is None or not (record.epoch or inherited):
            return record
        return msgspec.structs.replace(record, epoch=self._holding({**inherited, **(record.epoch or {})}) or None)

    @property
    def before(self) -> TurnRecord | None:
        """What the conversation's last request left behind; None on its first."""
        for index in reversed(range(len(self.records))):
            record = self.records[index]
            if record is not None and record.turn:
                return self.refused[index].turn if index in self.refused else record.turn
        return None

    @property
    def handed_on(self) -> Mapping[int, Override]:
        """Epochs that no record of the chain holds yet: the newest message's will."""
        indexes = reversed(range(len(self.records)))
        newest = next((i for i in indexes if (record := self.records[i]) is not None and record.turn), -1)
        refused = self.refused.get(newest)
        return {**(refused.epoch if refused is not None and refused.epoch else {}), **self.inherited}

    def in_force(self) -> list[Rendition | None]:
        """The renditions that are forwarded: each message's own, but for those that a later epoch rewrote."""
        renditions = latest(self.records, epochs_of(self.records, self.refused), self.identities)
        for index, override in self.inherited.items():
            renditions[index] = override.rendition
        return renditions

    def _forget(self) -> None:
        """Take out the records of moved messages that no longer hold; their epochs are inherited as far as they do."""
        forgotten = [index for index in self.moved if self.renditions[index] is None]
        inherited: dict[int, Override] = {}
        for index in forgotten:
            record = self.records[index]
            assert record is not None, "only what was found is moved"
            inherited.update(self._holding(record.epoch or {}))
            self.records[index] = None
        self.inherited = inherited
        self.moved = [index for index in self.moved if self.records[index] is not None]

    def _holding(self, epoch: Mapping[int, Override]) -> dict[int, Override]:
        return {at: override for at, override in epoch.items() if self.renditions[at] is override.rendition}


def parse(raw: bytes, dialect: Dialect) -> Message:
    """Read a message; one that is not of its dialect's form is opaque, and goes out as it came."""
    try:
        return dialect.parse(raw)
    except MalformedMessageError:
        return Message("user", (), (), identity=blake2b(raw, digest_size=16).digest(), num_chars=len(raw))


def leave_untouched(turn: Turn) -> None:
    """Decide that all that is not decided yet goes out as it came."""
    for index, rendition in enumerate(turn.renditions):
        if rendition is None:
            turn.renditions[index] = untouched(turn.message(index)).rendition


def hold_out(turn: Turn, profile: Profile) -> None:
    """Decide that a conversation against which others are measured goes out as it came, and say so for later turns."""
    before = turn.before
    leave_untouched(turn)
    if turn.records[-1] is None:
        _close(turn, before, {}, profile)


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
    _replay(turn, conversation, len(turn.raws))
    turn.rewrite, verdicts = _plan_rewrite(turn, conversation, before, judge, profile, settings)
    if turn.rewrite is None:
        return None
    _, epoch = _rewrite(turn, turn.rewrite.start, verdicts, judge, settings)
    after = msgspec.structs.replace(before, banked=before.banked - turn.rewrite.cost)
    return Rendition(RECORD_VERSION, POLICY_VERSION, turn=after, epoch=epoch) if epoch else None


def advance(
    turn: Turn, conversation: Conversation, judge: Judge, profile: Profile, settings: CompressorSettings
) -> Conversation:
    """Decide a turn's new messages, and whether the old ones are to be rewritten.

    Args:
        turn: filled in.
        conversation: its state up to some message before the first new one; it grows.
        judge: which lines are worth their tokens.
        profile: what the provider's cache costs.
        settings: see `CompressorSettings`.

    Returns:
        The state after the newest message: `conversation`, or another where the history was rewritten.
    """
    try:
        return _advance(turn, conversation, judge, profile, settings)
    # Whatever breaks in here must not cost the request: what is frozen is replayed, what is new goes out untouched.
    except Exception:
        logger.exception("compression failed; new messages go out untouched")
        turn.bypass = "error"
        turn.rewrite = None
        turn.originals.clear()
        turn.renditions = turn.in_force()
        leave_untouched(turn)
        return conversation


def _advance(
    turn: Turn, conversation: Conversation, judge: Judge, profile: Profile, settings: CompressorSettings
) -> Conversation:
    conversation.pins = turn.pins
    _replay(turn, conversation, turn.num_old)
    before = turn.before
    is_newest = turn.records[-1] is None
    is_grown = turn.num_old + len(turn.new) == len(turn.raws)
    epoch: dict[int, Override] = {}
    if before is not None and is_grown:
        turn.rewrite, verdicts = _plan_rewrite(turn, conversation, before, judge, profile, settings)
        if turn.rewrite is not None:
            conversation, epoch = _rewrite(turn, turn.rewrite.start, verdicts, judge, settings)
    # What is given back, and read again on every turn to come, may cost no more than was saved before.
    turns_ahead = min(before.num_turns if before else 0, settings.max_turns_ahead)
    price_per_char = (profile.write + profile.read * turns_ahead) / CHARS_PER_TOKEN
    to_spend = (before.banked if before else 0.0) - max(0.0, turn.rewrite.cost if turn.rewrite else 0.0)
    for index in range(turn.num_old, len(turn.raws)):
        rendition = turn.renditions[index]
        if rendition is not None:
            _replay(turn, conversation, index + 1)
            continue
        incoming = conversation.receive(turn.message(index))
        # What is shortened or extended came in one piece: replies go out as they came.
        raw = turn.raws[index][0]
        if turn.addition and is_summary(incoming.message):
            decision = extended(incoming.message, raw, turn.dialect, turn.addition)
            turn.addition = ""
            turn.renditions[index] = decision.rendition
            conversation.forward(incoming, decision.texts, decision.rendition)
            continue
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
        decision = decide(incoming, raw, turn.dialect, conversation, keep, gaps, settings)
        turn.renditions[index] = decision.rendition
        turn.originals.update(decision.originals)
        conversation.forward(incoming, decision.texts, decision.rendition)
    if is_newest:
        _close(turn, before, epoch, profile)
    return conversation


def _replay(turn: Turn, conversation: Conversation, stop: int) -> None:
    """Bring a conversation's state up to message `stop`, as it is forwarded."""
    for index in range(conversation.num_messages, stop):
        rendition = turn.renditions[index]
        assert rendition is not None, "only what is decided is replayed"
        incoming = conversation.receive(turn.message(index))
        conversation.forward(incoming, replayed(incoming.message, rendition, turn.dialect).texts, rendition)


def _is_cold(turn: Turn, before: TurnRecord, profile: Profile) -> bool:
    newest = turn.records[turn.num_old - 1]
    if newest is None or newest.turn is None:
        # A branch off an older turn: when its prefix was last used is not known, so that it counts as warm.
        return False
    return turn.at_s - before.at_s > profile.ttl_s or turn.context != before.context


def _plan_rewrite(
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
    sizes = [num_tokens(num_chars) for num_chars in _forwarded_chars(turn)[: turn.num_old]]
    num_to_shed = 0.0
    if turn.max_tokens is not None:
        num_all = sum(sizes) + sum(num_tokens(num_chars) for num_chars in turn.num_chars[turn.num_old :])
        if num_all > turn.max_tokens:
            # Down to below the bound, so that not every turn from here on has to be rewritten.
            num_to_shed = num_all - settings.budget_share * turn.max_tokens
    is_cold = _is_cold(turn, before, profile)

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
    dead = {index: sizes[index] - verdict.num_kept_tokens for index, verdict in verdicts.items()}
    return rewrite_of({index: tokens for index, tokens in dead.items() if tokens > 0}), verdicts


def _rewrite(
    turn: Turn, start: int, verdicts: Mapping[int, Verdict], judge: Judge, settings: CompressorSettings
) -> tuple[Conversation, dict[int, Override]]:
    """Decide the old messages from `start` on anew, as if they came now; what is not judged stays."""
    conversation = judge.new_conversation(settings)
    conversation.pins = turn.pins
    _replay(turn, conversation, start)
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
    return conversation, epoch


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


def _forwarded_chars(turn: Turn) -> Sequence[int]:
    """Characters of each message as it is forwarded; of one that is not decided yet, as it was sent."""
    num_chars = list(turn.num_chars)
    for index, rendition in enumerate(turn.renditions):
        if rendition is not None and rendition.num_chars_saved:
            num_chars[index] -= rendition.num_chars_saved
    return num_chars


def _billed(num_chars: Sequence[int], num_read: int) -> Billed:
    """Tokens of a request of which the first `num_read` messages are read from the cache."""
    num_written = len(num_chars) - num_read
    return Billed(num_tokens(sum(num_chars[:num_read]), num_read), num_tokens(sum(num_chars[num_read:]), num_written))


def _close(turn: Turn, before: TurnRecord | None, epoch: dict[int, Override], profile: Profile) -> None:
    """Write onto the newest message what the next turn has to know."""
    is_cold = before is None or _is_cold(turn, before, profile)
    num_read = 0 if is_cold else turn.num_old
    num_still_read = min(num_read, turn.rewrite.start) if turn.rewrite else num_read
    saving = turn_saving(
        _billed(turn.num_chars, num_read),
        _billed(_forwarded_chars(turn), num_still_read),
        profile,
    )
    newest = turn.renditions[-1]
    assert newest is not None
    record = TurnRecord(
        at_s=turn.at_s,
        num_turns=(before.num_turns if before else 0) + 1,
        banked=(before.banked if before else 0.0) + saving,
        context=turn.context,
        is_holdout=turn.is_holdout,
    )
    turn.renditions[-1] = msgspec.structs.replace(newest, turn=record, epoch={**turn.handed_on, **epoch} or None)
