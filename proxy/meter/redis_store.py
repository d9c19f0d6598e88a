"""The meter's sums in Redis: they survive restarts and add up over workers.

A batch is one script, atomic and told by its id, so that one whose reply was lost can be given again. Counters are
hashes per day; a conversation has a hash, a list of turns and its place by time in one sorted set. All keys expire.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Awaitable, Callable, Sequence
from typing import Any, TypeVar, cast

import msgspec

from sluice.proxy.breaker import Breaker
from sluice.proxy.meter.counterfactual import Last
from sluice.proxy.meter.store import (
    MAX_CELLS_A_DAY,
    MAX_CONVERSATIONS,
    MAX_DAYS,
    MAX_TURNS_EACH,
    About,
    Cell,
    Conversation,
    Counters,
    Entry,
    TurnRow,
    conversation_counters,
)
from sluice.proxy.state.client import KEY_PREFIX as STATE_PREFIX
from sluice.proxy.state.client import RedisClient

T = TypeVar("T")

KEY_PREFIX = STATE_PREFIX.decode() + "meter:"
_DAY_S = 86_400
_RECENT = KEY_PREFIX + "recent"
_PIECE = 200
"""Conversations that are read in one round trip."""
_MAX_FIELDS_A_DAY = 40 * MAX_CELLS_A_DAY

# KEYS[1] is the batch's id, ARGV[1] its commands as msgpack, in which Redis before 7 knows no bytes: all is text. A day
# that holds too many names takes no new ones: their counters are added under `other`, which stands last in the command.
_ADD = """
local commands = cmsgpack.unpack(ARGV[1])
if not redis.call('SET', KEYS[1], '1', 'NX', 'EX', 3600) then return 0 end
for _, command in ipairs(commands) do
  if command[1] == 'COUNT' then
    local field = command[3]
    if redis.call('HLEN', command[2]) > tonumber(ARGV[2]) and redis.call('HEXISTS', command[2], field) == 0 then
      field = command[5]
    end
    redis.call('HINCRBYFLOAT', command[2], field, command[4])
  else
    redis.call(unpack(command))
  end
end
return 1
"""

_encoder = msgspec.json.Encoder()
_last_decoder = msgspec.json.Decoder(Last)
_row_decoder = msgspec.json.Decoder(TurnRow)
_about_decoder = msgspec.json.Decoder(About)
_name_decoder = msgspec.json.Decoder(tuple[str, str, str, str, str])


class RedisMeterStore:
    """A store in Redis.

    Args:
        url: `redis://`, `rediss://` or `unix://`.
        timeout_s: longest silence of Redis, connecting included, in seconds.
        ttl_s: seconds after which a conversation that is quiet is forgotten.
        breaker: decides whether a Redis that failed is asked again.
    """

    def __init__(
        self, url: str, *, timeout_s: float = 2.0, ttl_s: float = 7 * _DAY_S, breaker: Breaker | None = None
    ) -> None:
        self._client = RedisClient(url, timeout_s=timeout_s, breaker=breaker)
        self._script = self._client.redis.register_script(_ADD)
        self._ttl_s = int(ttl_s)

    async def add(self, batch: bytes, entries: Sequence[Entry]) -> None:
        """See `MeterStore`."""
        commands = self._commands(entries)
        key = KEY_PREFIX.encode() + b"batch:" + batch
        args: list[bytes | int] = [msgspec.msgpack.encode(commands), _MAX_FIELDS_A_DAY]
        await self._client.run(lambda: self._script(keys=[key], args=args))

    async def lasts(self, conversations: Sequence[str]) -> dict[str, Last]:
        """See `MeterStore`."""
        if not conversations:
            return {}
        redis = self._client.redis
        found = await self._client.run(lambda: redis.mget([_last_key(name) for name in conversations]))
        pairs = zip(conversations, cast("list[bytes | None]", found), strict=True)
        return {name: last for name, data in pairs if data and (last := _read(_last_decoder.decode, data)) is not None}

    async def sums(self, days: Sequence[str]) -> dict[Cell, Counters]:
        """See `MeterStore`."""
        pipe = self._client.pipeline()
        for day in days:
            pipe.hgetall(_day_key(day))
        cells: dict[Cell, Counters] = defaultdict(dict)
        for day, fields in zip(days, await self._client.run(pipe.execute), strict=True):
            for field, value in fields.items():
                if (name := _read(_name_decoder.decode, field)) is not None:
                    cells[Cell(day, *name[:4])][name[4]] = float(value)
        return dict(cells)

    async def conversations(self, start: int, limit: int) -> list[Conversation]:
        """See `MeterStore`."""
        names = await self._client.run(
            lambda: cast("Awaitable[list[bytes]]", self._client.redis.zrevrange(_RECENT, start, start + limit - 1))
        )
        found: list[Conversation] = []
        for first in range(0, len(names), _PIECE):
            piece = names[first : first + _PIECE]
            pipe = self._client.pipeline()
            for name in piece:
                pipe.hgetall(_conversation_key(name.decode()))
            read = zip(piece, await self._client.run(pipe.execute), strict=True)
            found += [one for name, fields in read if (one := _summed_up(name.decode(), fields)) is not None]
        return found

    async def num_conversations(self) -> int:
        """See `MeterStore`."""
        return await self._client.run(lambda: self._client.redis.zcard(_RECENT))

    async def conversation(self, name: str) -> Conversation | None:
        """See `MeterStore`."""
        redis = self._client.redis
        fields = await self._client.run(
            lambda: cast("Awaitable[dict[bytes, bytes]]", redis.hgetall(_conversation_key(name)))
        )
        return _summed_up(name, fields)

    async def turns(self, conversation: str) -> list[TurnRow]:
        """See `MeterStore`."""
        rows = await self._client.run(
            lambda: cast("Awaitable[list[bytes]]", self._client.redis.lrange(_turns_key(conversation), 0, -1))
        )
        return [row for data in rows if (row := _read(_row_decoder.decode, data)) is not None]

    async def aclose(self) -> None:
        """See `MeterStore`."""
        await self._client.aclose()

    def _commands(self, entries: Sequence[Entry]) -> list[list[Any]]:
        commands: list[list[Any]] = []
        counters: dict[tuple[str, str, str], float] = defaultdict(float)
        for entry in entries:
            cell = entry.cell
            for name, value in entry.counters.items():
                field = _encode((cell.model, cell.key, cell.mode, cell.arm, name))
                other = _encode(("other", "other", cell.mode, cell.arm, name))
                counters[_day_key(cell.day), field, other] += value
            if entry.conversation and entry.row is not None and entry.about is not None:
                commands += self._turn(entry.conversation, entry.about, entry.row, entry)
        for (key, field, other), value in counters.items():
            commands.append(["COUNT", key, field, repr(value), other])
        commands += [["EXPIRE", key, MAX_DAYS * _DAY_S] for key in sorted({key for key, _, _ in counters})]
        commands.append(["ZREMRANGEBYRANK", _RECENT, 0, -MAX_CONVERSATIONS - 1])
        return commands

    def _turn(self, name: str, about: About, row: TurnRow, entry: Entry) -> list[list[Any]]:
        key, turns = _conversation_key(name), _turns_key(name)
        commands: list[list[Any]] = [
            ["HINCRBYFLOAT", key, counter, repr(value)]
            for counter, value in conversation_counters(row, entry.counters).items()
        ]
        commands += [
            ["HSETNX", key, "first_at_s", repr(row.at_s)],
            ["HSET", key, "about", _encode(about)],
            ["EXPIRE", key, self._ttl_s],
            ["RPUSH", turns, _encode(row)],
            ["LTRIM", turns, -MAX_TURNS_EACH, -1],
            ["EXPIRE", turns, self._ttl_s],
            ["ZADD", _RECENT, repr(row.at_s), name],
        ]
        if entry.last is not None:
            commands.append(["SET", _last_key(name), _encode(entry.last), "EX", self._ttl_s])
        return commands


def _summed_up(name: str, fields: dict[bytes, bytes]) -> Conversation | None:
    """What a conversation's hash says; None where it has expired."""
    about = _read(_about_decoder.decode, fields.pop(b"about", b""))
    if about is None:
        return None
    first_at_s = float(fields.pop(b"first_at_s", 0))
    return Conversation(name, about, first_at_s, {key.decode(): float(value) for key, value in fields.items()})


def _encode(value: object) -> str:
    return _encoder.encode(value).decode()


def _read(decode: Callable[[bytes], T], data: bytes) -> T | None:
    """Decode what another version may have written in another form; None where it did."""
    try:
        return decode(data)
    except (msgspec.DecodeError, UnicodeDecodeError):
        return None


def _day_key(day: str) -> str:
    return KEY_PREFIX + "day:" + day


def _conversation_key(name: str) -> str:
    return KEY_PREFIX + "conversation:" + name


def _turns_key(name: str) -> str:
    return KEY_PREFIX + "turns:" + name


def _last_key(name: str) -> str:
    return KEY_PREFIX + "last:" + name
