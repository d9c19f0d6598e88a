"""Messages in, smaller messages out: replays what the ledger holds, decides what is new, freezes it.

The only module of the compressor that waits for anything. Fails open, in order: known decisions are replayed and new
messages go out untouched; only where no decision is known do the client's bytes go out as they came.
"""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from hashlib import blake2b

from sluice.compressor import instructions, ledger, pins, replies
from sluice.compressor.conversation import Conversation
from sluice.compressor.dialects.base import Dialect
from sluice.compressor.errors import AmbiguousRecallError, StateError, TooManyPinsError, UnknownRecallError
from sluice.compressor.judge import Judge, KeepAll
from sluice.compressor.ledger import Rendition
from sluice.compressor.line_judge import LineJudge
from sluice.compressor.lru import LRU
from sluice.compressor.pins import Pin
from sluice.compressor.profiles import PROFILES, Profile
from sluice.compressor.scoring import ModelFileError, Scorer, load_default
from sluice.compressor.settings import CompressorSettings
from sluice.compressor.state import RECALL_PREFIX_CHARS, StateStore
from sluice.compressor.turn import Turn, advance, hold_out, leave_untouched, parse, shed
from sluice.compressor.types import Compressed, Mode, Role

logger = logging.getLogger(__name__)

_MAX_NEW_MESSAGES = 32
"""More messages than arrive in one turn: among the last so many stands the newest one of the turn before."""


@dataclass(frozen=True, slots=True)
class _Digest:
    """What every later turn needs of a message that was read once."""

    identity: bytes
    role: Role
    num_chars: int
    pieces: tuple[bytes, ...]


class Compressor:
    """Compresses the messages of requests; one instance serves all conversations of a process.

    Args:
        store: where renditions and originals live.
        settings: see `CompressorSettings`.
        profile: what the provider's cache costs.
        clock: the wall clock, in seconds: by it the provider's cache expires.
        judges: in place of the modes' own.
        scorer: by what they go, in place of the shipped one.
    """

    def __init__(
        self,
        store: StateStore,
        settings: CompressorSettings | None = None,
        *,
        profile: Profile = PROFILES["anthropic"],
        clock: Callable[[], float] = time.time,
        judges: Mapping[Mode, Judge] | None = None,
        scorer: Scorer | None = None,
    ) -> None:
        self._store = store
        self._settings = settings or CompressorSettings()
        self._profile = profile
        self._clock = clock
        self._digests: LRU[bytes, _Digest] = LRU(self._settings.max_digests)
        self._renditions: LRU[bytes, tuple[bytes, Rendition]] = LRU(self._settings.max_renditions)
        self._conversations: LRU[tuple[Judge, bytes], Conversation] = LRU(self._settings.max_conversations)
        self._scorer = scorer
        self._judges: dict[Mode, Judge] = {Mode.SAFE: KeepAll(), **(judges or {})}

    async def compress(
        self,
        messages: Sequence[bytes],
        *,
        dialect: Dialect,
        mode: Mode,
        tenant: bytes,
        upstream: str,
        context: bytes = b"",
        max_tokens: int | None = None,
        profile: Profile | None = None,
        holdout: float = 0.0,
        is_refused: bool = False,
        session: bytes = b"",
    ) -> Compressed:
        """Make a request's messages smaller. What was forwarded once is forwarded again, until a rewrite pays.

        Never raises for what the messages hold or for a store that is lost.

        Args:
            messages: JSON of each message, as the client sent it.
            dialect: of these messages.
            mode: `off` gives the messages back as they are.
            tenant: who sends them; nothing is shared between tenants.
            upstream: where they go; nothing is shared between upstreams.
            max_tokens: what the forwarded messages may hold at the most, by estimate; None bounds nothing. Mode `safe`
                drops nothing for it.
            context: what else the provider's cache depends on (model, tools): where it changes, the cache is cold.
            profile: what this upstream's cache costs; None takes the compressor's own.
            holdout: share of new conversations, from 0 to 1, that go through untouched to the end, so that what the
                others save can be measured against them.
            is_refused: the upstream refused this very request as too long, in the form that an earlier call gave it:
                the history is rewritten to fit `max_tokens`, whatever that costs.
            session: names what the agent takes for one piece of work, across the summaries by which it replaces its
                history; empty where that is not known. See `CompressorSettings.max_reattached_chars`.
        """
        profile = profile or self._profile
        digests = [self._digest(raw, dialect) for raw in messages]
        num_chars = [digest.num_chars for digest in digests]
        as_sent = Compressed(list(messages), mode, num_chars_in=sum(num_chars), num_chars_out=sum(num_chars))
        if mode is Mode.OFF:
            return as_sent
        # Leading system messages may change with every request (a date, a branch …), and so are no part of the chain.
        num_leading = next((i for i, digest in enumerate(digests) if digest.role != "system"), len(digests))
        said = digests[num_leading:]
        runs = replies.runs([digest.role for digest in said])
        identities = [_identity(said[run]) for run in runs]
        hashes = ledger.chain(ledger.chain_start(tenant, upstream), identities)
        recent = range(max(0, len(hashes) - _MAX_NEW_MESSAGES), len(hashes))
        first_pin = [pins.slot(hashes[0], 0)] if self._settings.max_pins and hashes else []
        found, lost = await self._look_up([*hashes, *(ledger.refusal(hashes[index]) for index in recent), *first_pin])
        is_pinned = bool(first_pin) and found.pop() is not None
        refusals = zip(recent, found[len(hashes) :], strict=True)
        found = found[: len(hashes)]
        # Where the model has said nothing yet there is nothing to be known: what goes out now is what is frozen.
        is_begun = any(digest.role == "assistant" for digest in said)
        if lost and is_begun and not any(found):
            return replace(as_sent, bypass="state")
        records = [self._rendition(key, record) for key, record in zip(hashes, found, strict=True)]
        unknown = [index for index, record in enumerate(records) if record is None]
        if (
            not lost
            and unknown
            and unknown[0] > 0
            and any(said[runs[i].start].role == "assistant" for i in unknown[1:])
        ):
            # A turn's first new message is the reply to the turn before. An unknown reply behind another unknown
            # message, where the beginning is known, says that the client changed an earlier one.
            records = await self._find_again(records, hashes, identities)
        turn = Turn(
            raws=[messages[num_leading + run.start : num_leading + run.stop] for run in runs],
            hashes=hashes,
            identities=identities,
            num_chars=[sum(digest.num_chars for digest in said[run]) for run in runs],
            dialect=dialect,
            records=records,
            refused={
                index: rendition
                for index, record in refusals
                if record and (rendition := ledger.decode(record)) is not None
            },
            moved=[index for index, record in enumerate(records) if record is not None and index in unknown],
            at_s=self._clock(),
            context=ledger.context_digest(context, (digest.identity for digest in digests[:num_leading])),
            max_tokens=max_tokens,
            bypass="state" if lost else None,
        )
        before = turn.before
        turn.is_holdout = before.is_holdout if before else bool(hashes) and ledger.is_held_out(hashes[0], holdout)
        if session and self._settings.max_reattached_chars and not lost:
            await self._reattach(turn, session, tenant)
        if is_pinned and not lost and not turn.is_holdout:
            turn.pins = await self.pins(hashes[0])
        if turn.new:
            judge = self._judge(mode)
            turn = await self._decide(turn, judge, profile)
            await self._freeze(turn, judge, tenant)
        elif is_refused and max_tokens is not None and not turn.is_holdout and hashes:
            await self._shed(turn, self._judge(mode), tenant, profile)
        return _forwarded(turn, as_sent)

    def chain(
        self, messages: Sequence[bytes], *, dialect: Dialect, tenant: bytes, upstream: str
    ) -> tuple[list[Role], list[bytes]]:
        """Who wrote each message, and the chain hash of each behind the leading system messages. See `compress`."""
        digests = [self._digest(raw, dialect) for raw in messages]
        roles = [digest.role for digest in digests]
        num_leading = next((index for index, role in enumerate(roles) if role != "system"), len(roles))
        identities = (digest.identity for digest in digests[num_leading:])
        return roles, ledger.chain(ledger.chain_start(tenant, upstream), identities)

    async def recall(self, tenant: bytes, recall_id: str) -> str:
        """The original text under a recall id, or under the first digits of one, as a marker shows them.

        Raises:
            UnknownRecallError: nothing is kept under it for this tenant.
            AmbiguousRecallError: several originals begin with these digits.
            StateError: the store did not answer.
        """
        wanted = recall_id.lower()
        if len(wanted) < RECALL_PREFIX_CHARS or any(char not in "0123456789abcdef" for char in wanted):
            raise UnknownRecallError(recall_id)
        found = await self._store.find_originals(tenant, wanted)
        if not found:
            raise UnknownRecallError(recall_id)
        if len(found) > 1:
            raise AmbiguousRecallError(recall_id, sorted(found))
        return next(iter(found.values()))

    async def pin(self, conversation: bytes, pin: Pin) -> None:
        """Have lines kept from now on, and given back with the next tool result where they were dropped.

        Args:
            conversation: chain hash of its first message: `Compressed.conversation`, as bytes.
            pin: the lines; a pin that is there already stays one.

        Raises:
            TooManyPinsError: the conversation may have no more.
            StateError: the store did not answer.
        """
        record = pins.encode(pin)
        for number in range(self._settings.max_pins):
            key = pins.slot(conversation, number)
            if (await self._store.put_new({key: record}))[key] == record:
                return
        raise TooManyPinsError(self._settings.max_pins)

    async def pins(self, conversation: bytes) -> list[Pin]:
        """The pins of a conversation, in the order in which they were set; none where the store does not answer."""
        slots, _ = await self._look_up([pins.slot(conversation, number) for number in range(self._settings.max_pins)])
        found = (pins.decode(record) for record in slots if record is not None)
        return [pin for pin in found if pin is not None]

    def load(self, mode: Mode) -> None:
        """Load what a mode needs, so that its first request does not wait for it. Takes a fraction of a second."""
        if mode is not Mode.OFF:
            self._judge(mode)

    def _judge(self, mode: Mode) -> Judge:
        """The judge of a mode; its model is loaded when it is first asked for."""
        judge = self._judges.get(mode)
        if judge is None:
            prices = self._settings.balanced if mode is Mode.BALANCED else self._settings.aggressive
            try:
                judge = LineJudge(self._scorer or load_default(), prices, self._settings)
            except (ImportError, ModelFileError) as error:
                logger.error("no scorer, so that mode %s drops no more than safe does: %s", mode, error)
                judge = KeepAll()
            self._judges[mode] = judge
        return judge

    def _digest(self, raw: bytes, dialect: Dialect) -> _Digest:
        key = blake2b(raw, digest_size=16, person=dialect.name.encode()[:16]).digest()
        digest = self._digests.get(key)
        if digest is None:
            message = parse(raw, dialect)
            pieces = message.pieces or (message.identity,)
            digest = _Digest(message.identity, message.role, message.num_chars, pieces)
            self._digests.put(key, digest)
        return digest

    def _rendition(self, key: bytes, record: bytes | None) -> Rendition | None:
        """What a record holds; read once in a process."""
        if record is None:
            return None
        known = self._renditions.get(key)
        if known is not None and known[0] == record:
            return known[1]
        rendition = ledger.decode(record)
        if rendition is not None:
            self._renditions.put(key, (record, rendition))
        return rendition

    async def _look_up(self, hashes: list[bytes]) -> tuple[list[bytes | None], bool]:
        """The ledger's records, and whether the store failed to say."""
        try:
            async with asyncio.timeout(self._settings.state_timeout_s):
                return await self._store.get_many(hashes), False
        except StateError as error:
            logger.warning("state store lost on look-up: %s", error)
            return [error.known.get(key) for key in hashes], True
        except TimeoutError:
            logger.warning("state store gave no answer in %.1f s", self._settings.state_timeout_s)
            return [None] * len(hashes), True

    async def _find_again(
        self, records: list[Rendition | None], hashes: Sequence[bytes], identities: Sequence[bytes]
    ) -> list[Rendition | None]:
        """The records, and those of messages that stand where they stood, behind one that the client changed."""
        missing = [index for index, record in enumerate(records) if record is None]
        keys, _ = await self._look_up([ledger.place(hashes[0], index, identities[index]) for index in missing])
        wanted = {index: key for index, key in zip(missing, keys, strict=True) if key is not None}
        found, _ = await self._look_up(list(wanted.values()))
        records = list(records)
        for index, record in zip(wanted, found, strict=True):
            records[index] = ledger.decode(record) if record else None
        return records

    async def _decide(self, turn: Turn, judge: Judge, profile: Profile) -> Turn:
        """Decide what the ledger does not hold; the turn, decided."""
        if turn.bypass:
            leave_untouched(turn)
            return turn
        if turn.is_holdout:
            hold_out(turn, profile)
            return turn
        # The state is taken out while it grows: a request beside this one on the same conversation builds its own.
        conversation = judge.new_conversation(self._settings)
        for index in range(turn.num_old, 0, -1):
            if (held := self._conversations.pop((judge, turn.hashes[index - 1]))) is not None:
                conversation = held
                break
            record = turn.records[index - 1]
            if record is not None and record.epoch:
                break  # what was held before an epoch shows what is no longer forwarded
        turn_judge = judge.for_turn()
        num_bytes = sum(len(raw) for raws in turn.raws[conversation.num_messages :] for raw in raws)
        if num_bytes > self._settings.max_inline_bytes or not isinstance(judge, KeepAll):
            # A thread cannot be called back: it works on a copy, so that what it does too late is nobody's.
            fork = turn.forked()
            try:
                async with asyncio.timeout(self._settings.decide_timeout_s):
                    conversation = await asyncio.to_thread(
                        advance, fork, conversation, turn_judge, profile, self._settings
                    )
            except TimeoutError:
                turn.bypass = "timeout"
                leave_untouched(turn)
                return turn
            turn = fork
        else:
            conversation = advance(turn, conversation, turn_judge, profile, self._settings)
        if turn.bypass is None:
            self._conversations.put((judge, turn.hashes[-1]), conversation)
        return turn

    async def _reattach(self, turn: Turn, session: bytes, tenant: bytes) -> None:
        """Keep what the user says, and have it stand behind a summary that begins a new history."""
        new = [turn.message(index) for index in turn.new]
        said = [text for message in new for text in instructions.words_of(message)]
        try:
            async with asyncio.timeout(self._settings.state_timeout_s):
                if 0 in turn.new and any(map(instructions.is_summary, new)):
                    kept = await self._store.find_originals(tenant, instructions.bucket(session))
                    turn.addition = instructions.addition(kept.values(), self._settings.max_reattached_chars)
                if said:
                    await self._store.put_originals(
                        tenant, {instructions.word_id(session, turn.at_s, i, text): text for i, text in enumerate(said)}
                    )
        except (StateError, TimeoutError) as error:
            logger.warning("state store lost on the user's words: %s", error or "no answer")

    async def _shed(self, turn: Turn, judge: Judge, tenant: bytes, profile: Profile) -> None:
        """Rewrite the history of a request that the upstream refused, and freeze that beside the request's records."""
        conversation = judge.new_conversation(self._settings)
        try:
            epoch = await asyncio.to_thread(shed, turn, conversation, judge.for_turn(), profile, self._settings)
        except Exception:  # the upstream's refusal is then the answer
            logger.exception("a request that the upstream refused could not be made smaller")
            epoch = None
        if epoch is None:
            turn.renditions = turn.in_force()
            return
        self._conversations.pop((judge, turn.hashes[-1]))
        key = ledger.refusal(turn.hashes[-1])
        try:
            async with asyncio.timeout(self._settings.state_timeout_s):
                epoch = ledger.decode((await self._store.put_new({key: ledger.encode(epoch)}))[key]) or epoch
                await self._store.put_originals(tenant, turn.originals)
        except (StateError, TimeoutError) as error:
            logger.warning("state store lost on write: %s", error or "no answer")
        turn.refused = {**turn.refused, len(turn.hashes) - 1: epoch}
        turn.renditions = turn.in_force()

    async def _freeze(self, turn: Turn, judge: Judge, tenant: bytes) -> None:
        """Write what was decided; where another worker was first, what it wrote stands."""
        for index in turn.new:
            turn.records[index] = turn.renditions[index]
        for index in turn.moved:
            turn.records[index] = turn.settled(index)
        records = {
            turn.hashes[index]: ledger.encode(record)
            for index in (*turn.new, *turn.moved)
            if (record := turn.records[index]) is not None
        }
        places = {ledger.place(turn.hashes[0], index, turn.identities[index]): turn.hashes[index] for index in turn.new}
        try:
            async with asyncio.timeout(self._settings.state_timeout_s):
                standing = await self._store.put_new({**records, **places})
                if turn.originals:
                    await self._store.put_originals(tenant, turn.originals)
        except (StateError, TimeoutError) as error:
            # Not written: the next turn decides the same again, since decisions depend on the prefix alone.
            logger.warning("state store lost on write: %s", error or "no answer")
            return
        lost_race = [index for index in turn.new if standing[turn.hashes[index]] != records[turn.hashes[index]]]
        for index in lost_race:
            turn.records[index] = ledger.decode(standing[turn.hashes[index]]) or turn.records[index]
        if lost_race:
            turn.renditions = turn.in_force()
            self._conversations.pop((judge, turn.hashes[-1]))


def _identity(digests: Sequence[_Digest]) -> bytes:
    """Of a message that came as so many."""
    if len(digests) == 1:
        return digests[0].identity
    return replies.identity(piece for digest in digests for piece in digest.pieces)


def _forwarded(turn: Turn, as_sent: Compressed) -> Compressed:
    renditions = [rendition for rendition in turn.renditions if rendition is not None]
    assert len(renditions) == len(turn.raws), "every message is decided by now"
    num_leading = len(as_sent.messages) - sum(map(len, turn.raws))
    messages = as_sent.messages[:num_leading]
    for raws, rendition in zip(turn.raws, renditions, strict=True):
        messages += raws if rendition.body is None else [turn.dialect.carry(raws[0], rendition.body)]
    return replace(
        as_sent,
        messages=messages,
        conversation=turn.hashes[0].hex() if turn.hashes else "",
        is_holdout=turn.is_holdout,
        bypass=turn.bypass,
        epoch=turn.rewrite.reason if turn.rewrite else None,
        num_new=sum(len(turn.raws[index]) for index in turn.new),
        num_markers=sum(rendition.num_markers for rendition in renditions),
        num_lines_omitted=sum(rendition.num_lines_omitted for rendition in renditions),
        num_chars_out=as_sent.num_chars_in - sum(rendition.num_chars_saved for rendition in renditions),
        renditions=renditions,
        originals=turn.originals,
    )
