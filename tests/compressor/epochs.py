"""A compressor whose epochs are easy to tell, and what has to hold of what it sends."""

from __future__ import annotations

import json
import re
import zlib
from collections.abc import Sequence
from typing import Any

from sluice.compressor import OPENAI_CHAT, Compressed, Compressor, CompressorSettings, Mode, StateStore
from sluice.compressor.evidence import Evidence, SegmentEvidence
from sluice.compressor.line_judge import LineJudge
from sluice.compressor.lines import split
from sluice.compressor.patches import new_side
from sluice.compressor.profiles import PROFILES, Profile
from sluice.compressor.scoring import Moment
from sluice.compressor.settings import Prices
from tests.compressor.conversations import Json, encode

AS_IN = re.compile(r"^\[sluice [0-9a-f]{4}: (\d+) lines as in message (\d+)(?:, numbered \d+-\d+)?\]$")


OMITTED = re.compile(r"^\[sluice [0-9a-f]{4}: (\d+) lines omitted, \d+-\d+\]$")


AGAIN = re.compile(r"^\[sluice [0-9a-f]{4}: (\d+) lines of message (\d+) again, \d+-\d+\]$")


COLD_S = 301.0


class CoinScorer:
    """Needs some lines and not others, by their text alone; at arrival it wants more than at an epoch."""

    def for_turn(self) -> CoinScorer:
        return self

    def score(self, evidence: Evidence, segments: Sequence[SegmentEvidence], moment: Moment) -> list[Sequence[float]]:
        share = 30 if moment is Moment.ARRIVAL else 60
        return [
            [float(zlib.crc32(body.encode("utf-8", "surrogatepass")) % 100 >= share) for body in segment.lines.bodies]
            for segment in segments
        ]


class Clock:
    def __init__(self) -> None:
        self.now_s = 1e6

    def __call__(self) -> float:
        return self.now_s


def make(store: StateStore, clock: Clock, *, profile: Profile = PROFILES["anthropic"], exempt: int = 2) -> Compressor:
    limits = CompressorSettings(num_exempt_results=exempt, rewrite_margin=1.0, state_timeout_s=10.0)
    judge = LineJudge(CoinScorer(), Prices(arrival=0.01, epoch=0.01), limits)
    return Compressor(store, limits, profile=profile, clock=clock, judges={Mode.BALANCED: judge})


async def send(compressor: Compressor, messages: Sequence[Json], **asked: Any) -> Compressed:
    return await compressor.compress(
        [encode(message) for message in messages],
        dialect=OPENAI_CHAT,
        mode=Mode.BALANCED,
        tenant=b"t",
        upstream="http://up",
        **asked,
    )


def shown(raw: bytes) -> list[tuple[str, ...]]:
    message = OPENAI_CHAT.parse(raw)
    strings = [text.text for text in message.texts]
    for tool_call in message.calls:
        strings += [value for value in json.loads(tool_call.arguments).values() if isinstance(value, str)]
    return [split(text).bodies for text in strings] + [hunk.bodies for text in strings for hunk in new_side(text)]


def holds(texts: Sequence[tuple[str, ...]], wanted: tuple[str, ...]) -> bool:
    return any(text[i : i + len(wanted)] == wanted for text in texts for i in range(len(text)))


def check(messages: Sequence[Json], compressed: Compressed, *, before: Sequence[Json] = ()) -> int:
    """Kept lines are verbatim and in order; what markers refer to is in the same request. Gives the recoveries.

    Lines that were given back stay, whatever becomes of where they stood `before` the client changed something.
    """
    num_recoveries = 0
    for message, raw in zip(messages, compressed.messages, strict=True):
        if raw == encode(message):
            continue
        original, forwarded = split(message["content"]), split(json.loads(raw)["content"])
        index, lines = 0, list(forwarded.texts)
        while lines:
            line = lines.pop(0)
            if marker := AS_IN.match(line):
                wanted = original.bodies[index : index + int(marker[1])]
                assert holds(shown(compressed.messages[int(marker[2]) - 1]), wanted)
                index += int(marker[1])
            elif marker := OMITTED.match(line):
                index += int(marker[1])
            elif marker := AGAIN.match(line):
                given, lines = lines[: int(marker[1])], lines[int(marker[1]) :]
                source = tuple((before or messages)[int(marker[2]) - 1]["content"].split("\n"))
                assert holds([source], tuple(given))
                num_recoveries += 1
            else:
                assert line == original.texts[index]
                index += 1
        assert index == len(original)
    return num_recoveries
