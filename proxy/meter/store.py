"""Where sums and recent conversations are kept: the interface, and the store in this process.

Sums are counters by day, model, key, mode and arm; a new counter needs no new code here. Everything is bounded:
the oldest days, conversations and turns go first, and names past a day's bound are summed under `other`.
"""

from __future__ import annotations

import itertools
from collections import OrderedDict, deque
from collections.abc import Mapping, Sequence
from typing import Protocol

import msgspec

from sluice.proxy.meter.counterfactual import Last

MAX_DAYS = 400
MAX_CELLS_A_DAY = 2_000
MAX_CONVERSATIONS = 10_000
MAX_TURNS_EACH = 400
"""Newest turns that are kept of a conversation."""
OTHER = "other"

Counters = dict[str, float]


class Cell(msgspec.Struct, frozen=True):
    """What sums are kept by."""

    day: str
    model: str
    key: str
    mode: str
    arm: str


class TurnRow(msgspec.Struct, frozen=True, array_like=True):
    """One turn of a recent conversation."""

    at_s: float
    status: int
    tokens_in: int
    tokens_out: int
    num_prompt: int
    """Tokens of the prompt, by the upstream's count."""
    cache_read: int
    cache_write: int
    output_tokens: int
    cost: float
    cost_untouched: float
    overhead_ms: float
    epoch: str | None = None
    bypass: str | None = None
    source: str = "upstream"


class About(msgspec.Struct, frozen=True, array_like=True):
    """What is the same for a whole conversation, as of its last turn."""

    model: str
    key: str
    mode: str
    arm: str
    upstream: str
    last_at_s: float


class Conversation(msgspec.Struct, frozen=True):
    """A recent conversation, summed up."""

    id: str
    about: About
    first_at_s: float
    sums: Counters
    """`turns`, `cost`, `cost_untouched`, `tokens_in`, `tokens_out`, `cache_read`, `num_prompt`, `epochs`, `priced`."""


class Entry(msgspec.Struct, frozen=True):
    """What one turn adds."""

    cell: Cell
    counters: Counters
    conversation: str = ""
    about: About | None = None
    row: TurnRow | None = None
    last: Last | None = None


class MeterStore(Protocol):
    """Keeps what the meter records."""

    async def add(self, batch: bytes, entries: Sequence[Entry]) -> None:
        """Add turns. A batch that was added before, told by its id, is not added again.

        Raises:
            StateError: the store did not answer; the batch may be given again.
        """
        ...

    async def lasts(self, conversations: Sequence[str]) -> dict[str, Last]:
        """The last turns of those conversations that are known.

        Raises:
            StateError: the store did not answer.
        """
        ...

    async def sums(self, days: Sequence[str]) -> dict[Cell, Counters]:
        """All counters of these days.

        Raises:
            StateError: the store did not answer.
        """
        ...

    async def conversations(self, start: int, limit: int) -> list[Conversation]:
        """Conversations by their last turn, newest first.

        Raises:
            StateError: the store did not answer.
        """
        ...

    async def num_conversations(self) -> int:
        """How many conversations there are.

        Raises:
            StateError: the store did not answer.
        """
        ...

    async def conversation(self, name: str) -> Conversation | None:
        """One conversation; None where it is not known.

        Raises:
            StateError: the store did not answer.
        """
        ...

    async def turns(self, conversation: str) -> list[TurnRow]:
        """The newest turns of a conversation, in order; none where it is not known.

        Raises:
            StateError: the store did not answer.
        """
        ...

    async def aclose(self) -> None:
        """Close connections."""
        ...


def conversation_counters(row: TurnRow, counters: Mapping[str, float]) -> Counters:
    """What a turn adds to its conversation's sums."""
    sums: Counters = {
        "turns": 1,
        "tokens_in": row.tokens_in,
        "tokens_out": row.tokens_out,
        "num_prompt": row.num_prompt,
        "cache_read": row.cache_read,
        "cost": row.cost,
        "cost_untouched": row.cost_untouched,
        "epochs": row.epoch is not None,
        "priced": row.num_prompt > 0 and "unpriced" not in counters,
    }
    return {name: float(value) for name, value in sums.items() if value}


def add_to(sums: Counters, more: Mapping[str, float]) -> None:
    """Add counters, one by one."""
    for name, value in more.items():
        sums[name] = sums.get(name, 0.0) + value


class _Recent:
    def __init__(self, first_at_s: float, about: About) -> None:
        self.first_at_s = first_at_s
        self.about = about
        self.sums: Counters = {}
        self.rows: deque[TurnRow] = deque(maxlen=MAX_TURNS_EACH)
        self.last: Last | None = None


def _summed_up(name: str, recent: _Recent) -> Conversation:
    return Conversation(name, recent.about, recent.first_at_s, dict(recent.sums))


class MemoryMeterStore:
    """A store in this process.

    Args:
        max_turns: turns of all conversations together; those of the conversations quiet for longest go first.
    """

    def __init__(self, max_turns: int = 100_000) -> None:
        self._max_turns = max_turns
        self._num_turns = 0
        self._days: OrderedDict[str, dict[Cell, Counters]] = OrderedDict()
        self._recent: OrderedDict[str, _Recent] = OrderedDict()

    async def add(self, batch: bytes, entries: Sequence[Entry]) -> None:
        """See `MeterStore`. Never fails, so that no batch comes twice."""
        for entry in entries:
            self._add_to_day(entry)
            if entry.conversation and entry.row is not None and entry.about is not None:
                self._add_turn(entry.conversation, entry.about, entry.row, entry)

    async def lasts(self, conversations: Sequence[str]) -> dict[str, Last]:
        """See `MeterStore`."""
        found = ((name, self._recent.get(name)) for name in conversations)
        return {name: recent.last for name, recent in found if recent is not None and recent.last is not None}

    async def sums(self, days: Sequence[str]) -> dict[Cell, Counters]:
        """See `MeterStore`."""
        return {cell: dict(sums) for day in days for cell, sums in self._days.get(day, {}).items()}

    async def conversations(self, start: int, limit: int) -> list[Conversation]:
        """See `MeterStore`."""
        names = itertools.islice(reversed(self._recent), start, start + limit)
        return [_summed_up(name, self._recent[name]) for name in names]

    async def num_conversations(self) -> int:
        """See `MeterStore`."""
        return len(self._recent)

    async def conversation(self, name: str) -> Conversation | None:
        """See `MeterStore`."""
        recent = self._recent.get(name)
        return None if recent is None else _summed_up(name, recent)

    async def turns(self, conversation: str) -> list[TurnRow]:
        """See `MeterStore`."""
        recent = self._recent.get(conversation)
        return [] if recent is None else list(recent.rows)

    async def aclose(self) -> None:
        """See `MeterStore`."""

    def _add_to_day(self, entry: Entry) -> None:
        cell = entry.cell
        cells = self._days.setdefault(cell.day, {})
        if cell not in cells and len(cells) >= MAX_CELLS_A_DAY:
            cell = Cell(cell.day, OTHER, OTHER, cell.mode, cell.arm)
        add_to(cells.setdefault(cell, {}), entry.counters)
        while len(self._days) > MAX_DAYS:
            del self._days[min(self._days)]

    def _add_turn(self, name: str, about: About, row: TurnRow, entry: Entry) -> None:
        recent = self._recent.get(name)
        if recent is None:
            recent = self._recent[name] = _Recent(row.at_s, about)
        self._recent.move_to_end(name)
        self._num_turns += len(recent.rows) < MAX_TURNS_EACH
        recent.about = about
        recent.rows.append(row)
        recent.last = entry.last or recent.last
        add_to(recent.sums, conversation_counters(row, entry.counters))
        while len(self._recent) > MAX_CONVERSATIONS or (self._num_turns > self._max_turns and len(self._recent) > 1):
            _, gone = self._recent.popitem(last=False)
            self._num_turns -= len(gone.rows)
