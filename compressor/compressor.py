"""Messages in, smaller messages out: replays what the ledger holds, decides what is new, freezes it.

The only module of the compressor that waits for anything. Fails open, in order: known decisions are replayed and new
messages go out untouched; only where no decision is known do the client's bytes go out as they came.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from hashlib import blake2b

from sluice.compressor import ledger
from sluice.compressor.conversation import Conversation
from sluice.compressor.decide import decide, replayed, untouched
from sluice.compressor.dialects.base import Dialect
from sluice.compressor.errors import AmbiguousRecallError, MalformedMessageError, StateError, UnknownRecallError
from sluice.compressor.ledger import Rendition
from sluice.compressor.lru import LRU
from sluice.compressor.settings import CompressorSettings
from sluice.compressor.state import RECALL_PREFIX_CHARS, StateStore
from sluice.compressor.types import Compressed, Message, Mode, Role

logger = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class _Digest:
    """What every later turn needs of a message that was read once."""

    identity: bytes
    role: Role
    num_chars: int


@dataclass(slots=True)
class _Turn:
    """The messages of one request, less the leading system messages, and what is known of them."""

    raws: Sequence[bytes]
    hashes: list[bytes]
    dialect: Dialect
    renditions: list[Rendition | None]
    """One a message; None where the ledger holds none."""
    new: list[int]
    """Indexes of the messages that the ledger did not hold."""
    originals: dict[str, str] = field(default_factory=dict)
    bypass: str | None = None


class Compressor:
    """Compresses the messages of requests; one instance serves all conversations of a process.

    Args:
        store: where renditions and originals live.
        settings: see `CompressorSettings`.
    """

    def __init__(self, store: StateStore, settings: CompressorSettings | None = None) -> None:
        self._store = store
        self._settings = settings or CompressorSettings()
        self._digests: LRU[bytes, _Digest] = LRU(self._settings.max_digests)
        self._conversations: LRU[bytes, Conversation] = LRU(self._settings.max_conversations)

    async def compress(
        self, messages: Sequence[bytes], *, dialect: Dialect, mode: Mode, tenant: bytes, upstream: str
    ) -> Compressed:
        """Make a request's messages smaller. The same prefix is forwarded as the same bytes, whatever comes after it.

        Never raises for what the messages hold or for a store that is lost.

        Args:
            messages: JSON of each message, as the client sent it.
            dialect: of these messages.
            mode: `off` gives the messages back as they are.
            tenant: who sends them; nothing is shared between tenants.
            upstream: where they go; nothing is shared between upstreams.
        """
        digests = [self._digest(raw, dialect) for raw in messages]
        num_chars = sum(digest.num_chars for digest in digests)
        as_sent = Compressed(list(messages), mode, num_chars_in=num_chars, num_chars_out=num_chars)
        if mode is Mode.OFF:
            return as_sent
        # Leading system messages may change with every request (a date, a branch …), and so are no part of the chain.
        num_leading = next((i for i, digest in enumerate(digests) if digest.role != "system"), len(digests))
        hashes = ledger.chain(
            ledger.chain_start(tenant, upstream), (digest.identity for digest in digests[num_leading:])
        )
        records, lost = await self._look_up(hashes)
        if lost and not any(records):
            return replace(as_sent, bypass="state")
        renditions = [ledger.decode(record) if record else None for record in records]
        new = [index for index, rendition in enumerate(renditions) if rendition is None]
        turn = _Turn(messages[num_leading:], hashes, dialect, renditions, new, bypass="state" if lost else None)
        if new:
            await self._decide_new(turn)
            await self._freeze(turn, tenant)
        return self._forwarded(turn, as_sent)

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

    def _digest(self, raw: bytes, dialect: Dialect) -> _Digest:
        key = blake2b(raw, digest_size=16, person=dialect.name.encode()[:16]).digest()
        digest = self._digests.get(key)
        if digest is None:
            message = _parse(raw, dialect)
            digest = _Digest(message.identity, message.role, message.num_chars)
            self._digests.put(key, digest)
        return digest

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

    async def _decide_new(self, turn: _Turn) -> None:
        """Fill in the renditions that the ledger does not hold."""
        if turn.bypass:
            for index in turn.new:
                turn.renditions[index] = untouched(_parse(turn.raws[index], turn.dialect)).rendition
            return
        # The state is taken out while it grows: a request beside this one on the same conversation builds its own.
        conversation = Conversation(self._settings.min_run_lines)
        for index in range(turn.new[0], 0, -1):
            if (held := self._conversations.pop(turn.hashes[index - 1])) is not None:
                conversation = held
                break
        num_bytes = sum(len(raw) for raw in turn.raws[conversation.num_messages :])
        if num_bytes > self._settings.max_inline_bytes:
            await asyncio.to_thread(self._extend, turn, conversation)
        else:
            self._extend(turn, conversation)
        if turn.bypass is None:
            self._conversations.put(turn.hashes[-1], conversation)

    def _extend(self, turn: _Turn, conversation: Conversation) -> None:
        """Bring a conversation's state up to the newest message, deciding what is not decided."""
        for index in range(conversation.num_messages, len(turn.raws)):
            raw, rendition = turn.raws[index], turn.renditions[index]
            message = _parse(raw, turn.dialect)
            try:
                if rendition is not None:
                    decision = replayed(message, rendition, turn.dialect)
                else:
                    decision = decide(message, raw, turn.dialect, conversation, self._settings)
                conversation.add(message, decision.texts)
            # Whatever breaks in here must not cost the request: what is not decided goes out untouched.
            except Exception:
                logger.exception("compression failed at message %d; it and those after it go out untouched", index + 1)
                turn.bypass = "error"
                for later in range(index, len(turn.raws)):
                    if turn.renditions[later] is None:
                        turn.renditions[later] = untouched(_parse(turn.raws[later], turn.dialect)).rendition
                return
            turn.renditions[index] = decision.rendition
            turn.originals.update(decision.originals)

    async def _freeze(self, turn: _Turn, tenant: bytes) -> None:
        """Write what was decided; where another worker was first, what it wrote stands."""
        records = {
            turn.hashes[index]: ledger.encode(rendition)
            for index in turn.new
            if (rendition := turn.renditions[index]) is not None
        }
        try:
            async with asyncio.timeout(self._settings.state_timeout_s):
                standing = await self._store.put_new(records)
                if turn.originals:
                    await self._store.put_originals(tenant, turn.originals)
        except (StateError, TimeoutError) as error:
            # Not written: the next turn decides the same again, since decisions depend on the prefix alone.
            logger.warning("state store lost on write: %s", error or "no answer")
            return
        for index in turn.new:
            record = standing[turn.hashes[index]]
            if record != records[turn.hashes[index]] and (adopted := ledger.decode(record)) is not None:
                turn.renditions[index] = adopted
                self._conversations.pop(turn.hashes[-1])

    def _forwarded(self, turn: _Turn, as_sent: Compressed) -> Compressed:
        renditions = [rendition for rendition in turn.renditions if rendition is not None]
        assert len(renditions) == len(turn.raws), "every message is decided by now"
        num_leading = len(as_sent.messages) - len(turn.raws)
        messages = as_sent.messages[:num_leading]
        for raw, rendition in zip(turn.raws, renditions, strict=True):
            if rendition.body is None:
                messages.append(raw)
            else:
                messages.append(turn.dialect.carry(raw, rendition.body))
        return replace(
            as_sent,
            messages=messages,
            bypass=turn.bypass,
            num_new=len(turn.new),
            num_markers=sum(rendition.num_markers for rendition in renditions),
            num_lines_omitted=sum(rendition.num_lines_omitted for rendition in renditions),
            num_chars_out=as_sent.num_chars_in - sum(rendition.num_chars_saved for rendition in renditions),
            originals=turn.originals,
        )


def _parse(raw: bytes, dialect: Dialect) -> Message:
    """Read a message; one that is not of its dialect's form is opaque, and goes out as it came."""
    try:
        return dialect.parse(raw)
    except MalformedMessageError:
        return Message("user", (), (), identity=blake2b(raw, digest_size=16).digest(), num_chars=len(raw))
