"""Traffic for the dashboard: recorded conversations replayed through a real proxy, and their turns spread over weeks.

The upstream answers with the usage of a provider that caches prefixes, so that what the meter says is what it would
say.
"""

from __future__ import annotations

import hashlib
import json
import random
import time
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import httpx
import msgspec

from sluice.eval.data import Trace, read_traces
from sluice.eval.traces import AGENTS, trace_file
from sluice.proxy.meter import Meter
from sluice.proxy.meter.composition import Arrived
from sluice.proxy.meter.turn import Turn
from tests.proxy.servers import Exchange, completion

DAY_S = 86_400.0
MODELS = ("claude-sonnet-4-5", "claude-opus-4-5", "gpt-5.1-codex", "claude-haiku-4-5")
CHARS_PER_TOKEN = 4
METRICS = """
vllm:num_requests_running 3
vllm:num_requests_waiting 1
vllm:kv_cache_usage_perc 0.625
vllm:cache_config_info{{num_gpu_blocks="8192",block_size="16"}} 1
vllm:generation_tokens_total {0}
vllm:prompt_tokens_total {1}
vllm:prompt_tokens_cached_total {2}
vllm:spec_decode_num_draft_tokens_total 400
vllm:spec_decode_num_accepted_tokens_total 300
vllm:time_to_first_token_seconds_bucket{{le="0.1"}} 60
vllm:time_to_first_token_seconds_bucket{{le="0.5"}} 99
vllm:time_to_first_token_seconds_bucket{{le="+Inf"}} 100
vllm:time_to_first_token_seconds_sum 11
vllm:time_to_first_token_seconds_count 100
"""
NUM_TURNS_EACH = 8
NUM_COMPOSED = 300


class CachingProvider:
    """Answers chat requests, and counts what it was sent as a provider with a prefix cache does."""

    def __init__(self) -> None:
        self._held: dict[bytes, list[bytes]] = {}
        self._num_output = 1_000

    async def __call__(self, exchange: Exchange) -> None:
        if exchange.path == "/metrics":  # as a vLLM of one's own says it
            self._num_output += 500
            await exchange.whole(METRICS.format(self._num_output, 8 * self._num_output, 7 * self._num_output).encode())
            return
        request = exchange.json
        messages = [json.dumps(message).encode() for message in request.get("messages") or request["input"]]
        first = hashlib.sha256(b"".join(messages[:2])).digest()
        held = self._held.get(first, [])
        num_read = 0
        for one, other in zip(messages, held, strict=False):
            if one != other:
                break
            num_read += len(one)
        self._held[first] = messages
        num_all = sum(map(len, messages))
        read, written = num_read // CHARS_PER_TOKEN, (num_all - num_read) // CHARS_PER_TOKEN
        usage = {
            "prompt_tokens": read + written,
            "completion_tokens": 180,
            "total_tokens": read + written + 180,
            "prompt_tokens_details": {"cached_tokens": read, "cache_write_tokens": written},
        }
        await exchange.whole(json.dumps({**completion("Done."), "usage": usage}).encode())


def shipped() -> list[Trace]:
    """The conversations that are part of the project."""
    return [trace for agent in AGENTS for trace in read_traces(trace_file(agent))]


async def replay(
    client: httpx.AsyncClient, traces: Iterable[Trace], *, max_turns: int = 40, keys: Sequence[str] = ("",)
) -> None:
    """Send every request of some conversations, in order.

    Args:
        client: of the proxy.
        traces: the conversations.
        max_turns: of each.
        keys: proxy keys, used in turn; an empty one sends none.
    """
    for number, trace in enumerate(traces):
        key = keys[number % len(keys)]
        headers = {"authorization": f"Bearer upstream-{number % len(MODELS)}", **({"x-sluice-key": key} if key else {})}
        head = {"model": MODELS[number % len(MODELS)], "max_tokens": 512}
        for turn in trace.turns(max_turns):
            messages = b",".join(trace.messages[index].raw for index in turn.history)
            body = json.dumps(head).encode()[:-1] + b', "messages": [' + messages + b"]}"
            headers["content-type"] = "application/json"
            answer = await client.post("/v1/chat/completions", content=body, headers=headers)
            assert answer.status_code == 200, answer.text


class Tape:
    """Keeps the turns that a meter records."""

    def __init__(self, meter: Meter) -> None:
        self.turns: list[Turn] = []
        self.arrived: dict[tuple[str, int], Arrived] = {}
        self._record = meter.record
        meter.record = self._note  # type: ignore[method-assign]

    def _note(self, turn: Turn, arrived: Arrived | None = None) -> None:
        self.turns.append(turn)
        if arrived is not None:
            self.arrived[turn.conversation, turn.num_messages] = arrived
        self._record(turn, arrived)

    @property
    def conversations(self) -> list[list[Turn]]:
        """The turns of each conversation."""
        found: dict[str, list[Turn]] = {}
        for turn in self.turns:
            if turn.conversation:
                found.setdefault(turn.conversation, []).append(turn)
        return list(found.values())


async def spread(
    meter: Meter,
    treated: Sequence[Sequence[Turn]],
    held_out: Sequence[Sequence[Turn]],
    number: int,
    *,
    num_days: int = 21,
    holdout: float = 0.3,
    arrived: Mapping[tuple[str, int], Arrived] | None = None,
) -> None:
    """Record replayed conversations again and again, as so many of other days, models and people.

    Args:
        meter: what records them.
        treated: turns of conversations that were compressed.
        held_out: turns of conversations that went through untouched.
        number: conversations to record.
        num_days: over which they are spread.
        holdout: share of them that is drawn from those held out.
        arrived: the messages that were new in each turn, as a tape kept them; those of the first few hundred are used.
    """
    rng = random.Random(7)
    until_s = time.time()
    starts = sorted(until_s - rng.random() ** 1.4 * num_days * DAY_S for _ in range(number))
    for index, start_s in enumerate(starts):
        turns = rng.choice(held_out if rng.random() < holdout else treated)
        name = hashlib.sha256(f"{index}".encode()).hexdigest()[:32]
        changes: dict[str, Any] = {
            "conversation": name,
            "model": rng.choice(MODELS[:3] + MODELS[:1]),
            "key": rng.choice(("ann", "ben", "ci-runner", "team-web")),
        }
        at_s = start_s
        scale = rng.lognormvariate(0, 0.35)
        for turn in turns[:NUM_TURNS_EACH]:
            at_s += rng.uniform(360, 1500) if turn.epoch == "cold" else rng.expovariate(1 / 25)
            overhead_s = turn.overhead_s * rng.lognormvariate(0, 0.4)
            usage = turn.usage and type(turn.usage)(
                *(round(getattr(turn.usage, field) * scale) for field in turn.usage.__struct_fields__)
            )
            new = (arrived or {}).get((turn.conversation, turn.num_messages)) if index < NUM_COMPOSED else None
            changed = msgspec.structs.replace(
                turn, at_s=min(at_s, until_s), overhead_s=overhead_s, usage=usage, **changes
            )
            meter.record(changed, new)
        if index % 500 == 0:
            await meter.flush()
    await meter.flush()
