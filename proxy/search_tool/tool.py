"""The tool that the proxy adds to requests and answers itself: which conversations have it, and what it remembers.

Decided at a conversation's first message and never changed: what a provider has cached begins with the tools.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Mapping, Sequence
from dataclasses import dataclass

import msgspec

from sluice.compressor import Compressor, StateError, StateStore
from sluice.compressor.dialects.base import Dialect
from sluice.compressor.ledger import is_held_out
from sluice.compressor.lru import LRU
from sluice.compressor.turn import parse
from sluice.proxy.answers import SourcedAnswer
from sluice.proxy.body import Body
from sluice.proxy.log import fields, logger, where
from sluice.proxy.search_tool.answer import answered
from sluice.proxy.search_tool.chat import ChatForm
from sluice.proxy.search_tool.definition import DESCRIPTION, NAME, PARAMETERS, Asked, asked, can_join, joined
from sluice.proxy.search_tool.form import KEPT_VERSION, Form, Kept
from sluice.proxy.search_tool.history import Run, decision_key, exchange_key, fingerprint, restored
from sluice.proxy.search_tool.messages import MessagesForm
from sluice.proxy.search_tool.responses import ResponsesForm
from sluice.proxy.search_tool.rounds import Call
from sluice.proxy.translation.json_codec import Json, encode
from sluice.proxy.wire import WireName
from sluice.proxy.wire.base import Wire
from sluice.search import SearchError

FORMS: Mapping[WireName, Form] = {
    WireName.CHAT: ChatForm(),
    WireName.MESSAGES: MessagesForm(),
    WireName.RESPONSES: ResponsesForm(),
}
_TIMEOUT_S = 30.0
"""Longest wait for one search: a large tree that is still being indexed takes so long."""
_MAX_MEMO = 65_536
_YES, _NO = b"1", b"0"


@dataclass(frozen=True, slots=True)
class Searching:
    """A request that has the tool."""

    parsed: Body
    """The body with the tool in it, and with what the client did not see of earlier turns."""
    sent: Body
    """The client's."""
    form: Form
    dialect: Dialect
    head: bytes | None
    """Chain hash of the client's newest message; None where the answer goes on from one of the assistant's."""


class SearchTool:
    """Adds the tool, and answers its calls.

    Args:
        store: where decisions and exchanges are kept.
        compressor: knows the chain hashes of messages.
        search: answers a question, as text; raises SearchError.
        holdout: share of conversations that go through untouched, without the tool as well.
        state_timeout_s: longest wait for the store, in seconds.
    """

    def __init__(
        self,
        store: StateStore,
        compressor: Compressor,
        search: Callable[[Asked], Awaitable[str]],
        *,
        holdout: float = 0.0,
        state_timeout_s: float = 1.0,
    ) -> None:
        self._store = store
        self._compressor = compressor
        self._search = search
        self._holdout = holdout
        self._state_timeout_s = state_timeout_s
        self._fingerprints: LRU[bytes, bytes] = LRU(_MAX_MEMO)
        """Of what the assistant said in a turn, by its chain hash."""
        self._absent: LRU[bytes, bool] = LRU(_MAX_MEMO)
        """Exchanges that there are none of: one is written before its answer is whole, or never."""

    async def added(
        self, parsed: Body, wire: Wire, *, tenant: bytes, upstream: str, dry: bool = False
    ) -> Searching | None:
        """Add the tool to a request; None where it goes without. Never raises.

        Args:
            parsed: the client's body.
            wire: its format.
            tenant: who sends it.
            upstream: where it goes.
            dry: say what would be sent, and keep nothing.
        """
        form, dialect = FORMS.get(wire.name), wire.dialect
        if form is None or dialect is None or not tenant or parsed.spans is None:
            return None
        if wire.edits_history(parsed) or not form.fits(parsed) or not can_join(parsed.field("tools")):
            return None
        try:
            return await self._added(parsed, wire, form, dialect, tenant, upstream, dry=dry)
        except Exception as error:  # a fault of ours must not cost the request
            logger.error(fields("search_tool_failed", error=where(error)))
            return None

    async def answer(
        self, answer: SourcedAnswer, searching: Searching, send: Callable[[bytes], Awaitable[SourcedAnswer]]
    ) -> SourcedAnswer:
        """Wrap a request's answer, so that calls of the tool are answered here.

        Args:
            answer: its body not yet read.
            searching: what `added` said of the request.
            send: sends a body in the client's name.

        Raises:
            UpstreamError: an answer that is no stream broke off.
        """
        return await answered(answer, _Turn(self, searching, send))

    async def found(self, call: Call) -> str:
        """What a call comes to, as text for the model; never raises."""
        try:
            async with asyncio.timeout(_TIMEOUT_S):
                return await self._search(asked(call.arguments))
        except (SearchError, ValueError) as error:
            return f"search failed: {error}"
        except TimeoutError:
            return f"search failed: no answer within {_TIMEOUT_S:g} s"
        except Exception as error:
            logger.error(fields("search_failed", error=where(error)))
            return "search failed: internal error"

    async def keep(self, key: bytes, kept: Kept) -> None:
        """Keep an exchange; where that fails, its conversation goes on without it."""
        try:
            async with asyncio.timeout(self._state_timeout_s):
                await self._store.put_new({key: msgspec.msgpack.encode(kept)})
        except (StateError, TimeoutError) as error:
            logger.warning(fields("search_exchange_not_kept", error=where(error)))
        self._absent.pop(key)

    async def _added(
        self, parsed: Body, wire: Wire, form: Form, dialect: Dialect, tenant: bytes, upstream: str, *, dry: bool
    ) -> Searching | None:
        messages = parsed.messages
        reading = self._compressor.read(messages, dialect=dialect, tenant=tenant, upstream=upstream)
        hashes, num_leading = reading.hashes, len(reading.leading)
        if not hashes:
            return None
        keys: dict[Run, bytes] = {}
        for index in range(1, len(hashes)):
            if reading.role(index) == "assistant":
                start, stop = reading.stops[index - 1], reading.stops[index]
                mark = self._fingerprint(hashes[index], reading.sent[start:stop], dialect)
                keys[num_leading + start, num_leading + stop] = exchange_key(hashes[index - 1], mark)
        wanted = [key for key in keys.values() if self._absent.get(key) is None]
        root = decision_key(hashes[0])
        records = await self._look_up([root, *wanted])
        decision = records.get(root)
        if decision is None:
            if reading.is_begun:
                return None  # it began without, or what it began with is lost
            decision = _NO if is_held_out(hashes[0], self._holdout) else _YES
            if not dry:
                decision = (await self._store.put_new({root: decision}))[root]
        if decision != _YES:
            return None
        exchanges = {run: kept for run, key in keys.items() if (kept := _read(records.get(key))) is not None}
        changed = {"tools": joined(parsed.field("tools"), encode(form.tool(NAME, DESCRIPTION, PARAMETERS)))}
        if exchanges:
            changed[form.list_field] = _listed(restored(messages, exchanges, form))
        body = parsed.splice(messages, changed)
        head = hashes[-1] if reading.role(len(hashes) - 1) != "assistant" else None
        return Searching(wire.parse(body), parsed, form, dialect, head)

    async def _look_up(self, keys: Sequence[bytes]) -> dict[bytes, bytes | None]:
        """Records by their keys, as far as they can be had; what is certainly not there is remembered.

        Raises:
            TimeoutError: the store is silent.
        """
        try:
            async with asyncio.timeout(self._state_timeout_s):
                records = dict(zip(keys, await self._store.get_many(keys), strict=True))
        except StateError as error:
            return {key: error.known.get(key) for key in keys}
        for key in keys[1:]:
            if records[key] is None:
                self._absent.put(key, True)
        return records

    def _fingerprint(self, last: bytes, run: Sequence[bytes], dialect: Dialect) -> bytes:
        mark = self._fingerprints.get(last)
        if mark is None:
            mark = fingerprint(parse(message, dialect) for message in run)
            self._fingerprints.put(last, mark)
        return mark


class _Turn:
    """See `Turn` in `answer.py`."""

    def __init__(
        self, tool: SearchTool, searching: Searching, send: Callable[[bytes], Awaitable[SourcedAnswer]]
    ) -> None:
        self.form = searching.form
        self._tool = tool
        self._searching = searching
        self._send = send

    async def search(self, call: Call) -> str:
        return await self._tool.found(call)

    async def ask_on(self, messages: Sequence[Json]) -> SourcedAnswer:
        parsed = self._searching.parsed
        listed = _listed([*parsed.messages, *map(encode, messages)])
        return await self._send(parsed.splice(parsed.messages, {self.form.list_field: listed}))

    async def keep(self, kept: Kept, told: Sequence[Json]) -> None:
        head, dialect = self._searching.head, self._searching.dialect
        if head is not None:
            mark = fingerprint(parse(encode(message), dialect) for message in told)
            await self._tool.keep(exchange_key(head, mark), kept)


def _read(record: bytes | None) -> Kept | None:
    """An exchange; None where there is none, or one of another form."""
    if record is None:
        return None
    try:
        kept = msgspec.msgpack.decode(record, type=Kept)
    except msgspec.DecodeError:
        return None
    return kept if kept.version == KEPT_VERSION else None


def _listed(messages: Sequence[bytes]) -> bytes:
    return b"[" + b",".join(messages) + b"]"
