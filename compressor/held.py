"""The states of conversations that this process holds, so that a turn goes on from the one before it.

A state is taken out while it grows: a request beside on the same conversation builds its own. For one event loop.
"""

from __future__ import annotations

import asyncio

from sluice.compressor.conversation import Conversation
from sluice.compressor.judge import Judge
from sluice.compressor.lru import LRU
from sluice.compressor.settings import CompressorSettings
from sluice.compressor.turn import Turn

Key = tuple[Judge, bytes]
"""Who judges, and the chain hash of the newest message."""


class Held:
    """States, by what they are states of.

    Args:
        settings: how much of them, and what an empty one is made for.
    """

    def __init__(self, settings: CompressorSettings) -> None:
        self._settings = settings
        self._states: LRU[Key, Conversation] = LRU(settings.max_conversation_bytes, Conversation.num_bytes)
        self._late: dict[Key, asyncio.Task[Conversation | None]] = {}
        """Those that are still made though their requests have gone out."""

    async def take(self, turn: Turn, judge: Judge) -> Conversation:
        """The state that a turn goes on from: the newest that is held of its messages, else an empty one.

        One that is late is waited for: to build it anew would take longer, and make others late.
        """
        if any(work.get_loop() is not asyncio.get_running_loop() for work in self._late.values()):
            self._late.clear()  # a process forked: what is made on its parent's loop never comes
        behind = turn.records[turn.num_old :]
        if turn.inherited or any(record is not None and record.epoch for record in behind):
            return judge.new_conversation(self._settings)  # an epoch behind a changed message holds for those before it
        for index in range(turn.num_old, 0, -1):
            if index - 1 in turn.refused:
                break  # as below: what was forwarded behind it was rewritten when the upstream refused it
            key = (judge, turn.hashes[index - 1])
            if (late := self._late.get(key)) is not None:
                await asyncio.wait([late])
            if (state := self._states.pop(key)) is not None:
                return state
            record = turn.records[index - 1]
            if record is not None and record.epoch:
                break  # what was held before an epoch shows what is no longer forwarded
        return judge.new_conversation(self._settings)

    def put(self, key: Key, state: Conversation) -> None:
        """Hold a state."""
        self._states.put(key, state)

    def put_late(self, key: Key, work: asyncio.Task[Conversation | None]) -> None:
        """Hold what `work` comes to; None is nothing."""
        self._late[key] = work
        work.add_done_callback(lambda done: self._came(key, done))

    def drop(self, key: Key) -> None:
        """Forget a state, also one that is still made: something else was forwarded than it says."""
        self._late.pop(key, None)
        self._states.pop(key)

    def _came(self, key: Key, work: asyncio.Task[Conversation | None]) -> None:
        if self._late.get(key) is not work:
            return
        del self._late[key]
        if not work.cancelled() and (state := work.result()) is not None:
            self._states.put(key, state)
