"""Messages in, smaller messages out: replays what the ledger holds, decides what is new, freezes it.

The order of the steps, and the threads that they take. Fails open, in order: known decisions are replayed and new
messages go out untouched; only where no decision is known do the client's bytes go out as they came.
"""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace

from sluice.compressor import instructions, ledger, pins
from sluice.compressor.advance import advance, leave_rest, leave_untouched, shed
from sluice.compressor.conversation import Conversation
from sluice.compressor.cutoff import Cutoff
from sluice.compressor.dialects.base import Dialect
from sluice.compressor.errors import AmbiguousRecallError, StateError, TooManyPinsError, UnknownRecallError
from sluice.compressor.held import Held
from sluice.compressor.judge import Judge, KeepAll
from sluice.compressor.judges import Judges
from sluice.compressor.ledger import Rendition
from sluice.compressor.lookup import Lookup
from sluice.compressor.outcome import forwarded, trail_of
from sluice.compressor.pins import Pin
from sluice.compressor.profiles import PROFILES, Profile
from sluice.compressor.reading import Reader, Reading
from sluice.compressor.records import Records, Written
from sluice.compressor.scoring import Scorer
from sluice.compressor.settings import CompressorSettings
from sluice.compressor.state import RECALL_PREFIX_CHARS, StateStore
from sluice.compressor.trail import Trails
from sluice.compressor.turn import Turn
from sluice.compressor.types import Compressed, Mode

logger = logging.getLogger(__name__)


class Compressor:
    """Compresses the messages of requests; one instance serves all conversations of a process.

    Args:
        store: where renditions and originals live.
        settings: see `CompressorSettings`.
        profile: what the provider's cache costs.
        clock: the wall clock, in seconds: by it the provider's cache expires.
        judges: in place of the modes' own.
        scorer: by what they go, in place of the shipped one.
        on_unreadable: see `Records`.
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
        on_unreadable: Callable[[], None] = lambda: None,
    ) -> None:
        self._store = store
        self._settings = settings or CompressorSettings()
        self._profile = profile
        self._trails = Trails(self._settings.max_trail_bytes)
        self._reader = Reader(self._settings.max_digests, self._trails)
        limits = self._settings
        self._records = Records(store, limits.state_timeout_s, limits.max_rendition_bytes, on_unreadable)
        self._lookup = Lookup(self._records, clock, has_pins=self._settings.max_pins > 0)
        self._held = Held(self._settings)
        self._judges = Judges(self._settings, scorer, judges or {})

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
        if mode is Mode.OFF:
            num_chars = self._reader.num_chars(messages, dialect)
            return Compressed(list(messages), mode, num_chars_in=num_chars, num_chars_out=num_chars)
        reading = self._reader.read(messages, dialect, ledger.chain_start(tenant, upstream))
        num_chars = reading.num_chars_in
        as_sent = Compressed(list(messages), mode, num_chars_in=num_chars, num_chars_out=num_chars)
        if not reading.hashes:
            return as_sent
        found = await self._lookup.find(reading, dialect, context, max_tokens)
        if found is None:
            return replace(as_sent, bypass="state")
        turn = found.turn
        is_lost = turn.bypass is not None
        before = turn.before
        turn.is_holdout = before.is_holdout if before else ledger.is_held_out(turn.hashes[0], holdout)
        if session and self._settings.max_reattached_chars and not is_lost:
            await self._reattach(turn, session, tenant)
        if found.is_pinned and not is_lost and not turn.is_holdout:
            turn.pins = await self.pins(turn.hashes[0])
        is_settled = not is_lost and not turn.moved
        if turn.new:
            judge = self._judges.of(mode)
            turn = await self._decide(turn, judge, profile)
            written = await self._records.freeze(turn, tenant)
            is_settled &= written is Written.OURS
            if written is Written.THEIRS:
                self._held.drop((judge, turn.hashes[-1]))
        elif is_refused and max_tokens is not None and not turn.is_holdout:
            turn = await self._shed(turn, self._judges.of(mode), tenant, profile)
            is_settled = False
        compressed = forwarded(turn, reading, as_sent)
        if is_settled and turn.bypass in (None, "timeout"):
            self._trails.put(trail_of(turn, reading, compressed, found.looked_up_s), reading.trail)
        else:
            self._trails.drop(turn.hashes[0])
        return compressed

    def read(self, messages: Sequence[bytes], *, dialect: Dialect, tenant: bytes, upstream: str) -> Reading:
        """Read a request's messages as `compress` does: whose each is, and their chain hashes. Decides nothing."""
        return self._reader.read(messages, dialect, ledger.chain_start(tenant, upstream))

    async def known_alone(
        self, messages: Sequence[bytes], *, dialect: Dialect, tenant: bytes, upstream: str
    ) -> list[Rendition | None]:
        """What the ledger holds of messages that were compressed each for itself, in one look-up.

        Args:
            messages: JSON of each; none of the system's.
            dialect: of these messages.
            tenant: see `compress`.
            upstream: see `compress`.
        """
        start = ledger.chain_start(tenant, upstream)
        keys = [self._reader.read([raw], dialect, start).hashes[0] for raw in messages]
        records, _ = await self._records.look_up(keys)
        return [self._records.read(key, record) for key, record in zip(keys, records, strict=True)]

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
        """Have lines kept from now on, and given back with the next tool result where they were dropped; or no longer.

        Args:
            conversation: chain hash of its first message: `Compressed.conversation`, as bytes.
            pin: the lines. Where they are pinned, or not pinned, already, nothing is written.

        Raises:
            TooManyPinsError: the conversation may have no more.
            StateError: the store did not answer.
        """
        slots = [pins.slot(conversation, number) for number in range(self._settings.max_pins)]
        held = await self._store.get_many(slots)
        known = (pins.decode(record) for record in held if record is not None)
        if pins.says((one for one in known if one is not None), pin):
            return
        record = pins.encode(pin)
        for key in (key for key, taken in zip(slots, held, strict=True) if taken is None):
            if (await self._store.put_new({key: record}))[key] == record:
                return
        raise TooManyPinsError(self._settings.max_pins)

    async def pins(self, conversation: bytes) -> list[Pin]:
        """What was pinned in a conversation and what was taken back, in order; none where the store does not answer."""
        slots, _ = await self._records.look_up(
            [pins.slot(conversation, number) for number in range(self._settings.max_pins)]
        )
        found = (pins.decode(record) for record in slots if record is not None)
        return [pin for pin in found if pin is not None]

    def load(self, mode: Mode) -> None:
        """Load what a mode needs, so that its first request does not wait for it. Takes a fraction of a second."""
        if mode is not Mode.OFF:
            self._judges.of(mode)

    async def _decide(self, turn: Turn, judge: Judge, profile: Profile) -> Turn:
        """Decide what the ledger does not hold; the turn, decided."""
        if turn.bypass:
            leave_untouched(turn)
            return turn
        if turn.is_holdout:
            leave_rest(turn, profile)
            return turn
        key = (judge, turn.hashes[-1])
        fork, cutoff = turn.forked(), Cutoff()
        work: asyncio.Task[Conversation | None] | None = None
        try:
            async with asyncio.timeout(self._settings.decide_timeout_s):
                conversation = await self._held.take(turn, judge)
                turn_judge = judge.for_turn()
                num_bytes = sum(len(raw) for raws in turn.raws[conversation.num_messages :] for raw in raws)
                if num_bytes > self._settings.max_inline_bytes or not isinstance(judge, KeepAll):
                    deciding = asyncio.to_thread(
                        advance, fork, conversation, turn_judge, profile, self._settings, cutoff
                    )
                    work = asyncio.create_task(deciding)
                    grown = await asyncio.shield(work)
                else:
                    grown = advance(fork, conversation, turn_judge, profile, self._settings)
        except TimeoutError:
            turn = cutoff.come(fork.forked)
            turn.bypass = "timeout"
            leave_rest(turn, profile)
            if work is not None:
                self._held.put_late(key, work)
            return turn
        except BaseException:  # the client has gone: what is still decided is nobody's
            cutoff.come(lambda: None)
            raise
        if grown is not None:
            self._held.put(key, grown)
        return fork

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

    async def _shed(self, turn: Turn, judge: Judge, tenant: bytes, profile: Profile) -> Turn:
        """Rewrite the history of a request that the upstream refused, and freeze that beside the request's records.

        The turn with it, or as it was where nothing can be shed in time.
        """
        conversation, fork = judge.new_conversation(self._settings), turn.forked()
        try:
            async with asyncio.timeout(self._settings.decide_timeout_s):
                epoch = await asyncio.to_thread(shed, fork, conversation, judge.for_turn(), profile, self._settings)
        except Exception:  # the upstream's refusal is then the answer
            logger.exception("a request that the upstream refused could not be made smaller")
            epoch = None
        if epoch is None:
            turn.renditions = turn.in_force()
            return turn
        self._held.drop((judge, turn.hashes[-1]))
        await self._records.freeze_refused(fork, epoch, tenant)
        return fork
