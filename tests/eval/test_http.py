"""Over HTTP, against the real proxy: it forwards what the compressor makes of the same requests in process."""

from __future__ import annotations

import asyncio
import json
import os
from pathlib import Path

import pytest
from aiohttp import web

from sluice.backend.free_port import free_port
from sluice.eval.child import ProxyProcess
from sluice.eval.errors import ReplayError
from sluice.eval.http import Agreement, Target, replay_over_http
from sluice.eval.recorder import Recorder
from sluice.eval.replay import Options
from sluice.eval.runner import Selection, TraceScores, replay_all
from sluice.eval.traces import AGENTS, trace_file
from tests.eval.builders import Message, assistant, recorded, tool, user

ALL = Selection(tuple(trace_file(agent) for agent in AGENTS))
DEFAULTS = Options()
ONE = Selection((trace_file("claude-code"),))


def silent(phase: str, num_done: int) -> None:
    pass


def replayed(selection: Selection) -> list[TraceScores]:
    return replay_all(selection, ["safe"], Options(), num_jobs=1, ours="safe", progress=silent)


def over_http(target: Target, selection: Selection, options: Options = DEFAULTS) -> tuple[list[TraceScores], Agreement]:
    found = replay_all(selection, [target.mode], options, num_jobs=1, ours=target.mode, progress=silent)
    return found, asyncio.run(replay_over_http(found, selection, options, target, silent))


def assert_same(found: list[TraceScores], agreement: Agreement) -> None:
    for trace in found:
        ours, theirs = trace.scores["safe"], trace.scores["safe over HTTP"]
        assert ours.bypasses == theirs.bypasses == []
        assert ours.digests == theirs.digests
        assert ours.usage == theirs.usage
        assert (ours.words, ours.lines, ours.places) == (theirs.words, theirs.lines, theirs.places)
        assert theirs.num_markers == ours.num_markers > 0
        assert theirs.num_rewrites == 0
        assert len(theirs.overhead_ms) == theirs.num_turns
    assert agreement.num_same == agreement.num_turns == sum(trace.scores["safe"].num_turns for trace in found)
    assert agreement.first_difference is None


def test_forwards_the_same_messages_as_in_process() -> None:
    assert_same(*over_http(Target("safe"), ALL))


def test_the_same_for_events_and_after_crashes() -> None:
    found, agreement = over_http(Target("safe", is_streamed=True, restart_every=5), ONE)
    assert_same(found, agreement)
    assert agreement.num_restarts == 2  # 13 turns


def test_settings_of_the_user_have_no_part_in_it(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "sluice.toml").write_text("holdout = 1.0\n")
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("SLUICE_MODE", "off")
    monkeypatch.setenv("SLUICE_MAX_BODY_BYTES", "10")
    assert_same(*over_http(Target("safe"), ONE))
    (tmp_path / "wanted.toml").write_text("holdout = 1.0\n")
    _, agreement = over_http(Target("safe", serve_arguments=("--config", "wanted.toml")), ONE)
    assert agreement.num_same < agreement.num_turns


def test_the_proxy_reckons_with_the_same_prices(tmp_path: Path) -> None:
    """A conversation whose old results are rewritten or not, as reads cost something or nothing."""
    steps: list[Message] = []
    for n in range(32):
        call = {
            "id": f"c{n}",
            "type": "function",
            "function": {"name": "Bash", "arguments": f'{{"command": "grep {n}"}}'},
        }
        found = "\n".join(f"src/module_{n}_{k}.py:{k}: thing_{n} = compute_{n * k}({k})" for k in range(150))
        steps += [{"role": "assistant", "content": "", "tool_calls": [call]}, tool(found, tool_call_id=f"c{n}")]
    file = tmp_path / "t.jsonl"
    file.write_text(json.dumps(recorded(user("go"), *steps, assistant("end"))) + "\n")
    costs = {}
    for prices in ("openai", "self-hosted"):
        (trace,), agreement = over_http(Target("balanced"), Selection((file,)), Options(prices=prices))
        assert agreement.first_difference is None
        costs[prices] = trace.scores["balanced"].num_rewrites
    assert costs["openai"] != costs["self-hosted"]  # else this would prove nothing


@pytest.mark.redis
def test_the_same_through_redis_after_crashes(redis_url: str, tmp_path: Path) -> None:
    config = tmp_path / "patient.toml"  # however busy the machine
    config.write_text("redis_timeout_s = 20\ncompress_timeout_s = 60\n")
    arguments = ("--redis", redis_url, "--config", str(config))
    found, agreement = over_http(Target("safe", serve_arguments=arguments, restart_every=6), ONE)
    assert_same(found, agreement)
    assert agreement.num_restarts == 2


def test_another_mode_is_told_apart() -> None:
    found = replayed(ONE)
    found[0].scores["off"] = found[0].scores["safe"]  # as if `off` had to forward what `safe` does
    agreement = asyncio.run(replay_over_http(found, ONE, Options(), Target("off"), silent))
    assert agreement.num_same < agreement.num_turns
    assert agreement.first_difference is not None
    assert agreement.first_difference.startswith("made-up/claude-code, turn ")


async def test_a_proxy_that_runs_already() -> None:
    port = free_port()
    # The recorder comes after the proxy here, as for users: `/readyz` needs an upstream, so one stands in meanwhile.
    async with Recorder(port=port) as recorder:
        process = ProxyProcess(("--upstream", recorder.url, "--log-level", "warning"))
        await process.__aenter__()
    try:
        found = await asyncio.to_thread(replayed, ONE)
        target = Target("safe", url=f"{process.url}/v1", recorder_port=port)
        assert_same(found, await replay_over_http(found, ONE, Options(), target, silent))
    finally:
        await process.__aexit__(None, None, None)


def test_a_proxy_that_does_not_start_says_why() -> None:
    with pytest.raises(ReplayError, match=r"(?s)ended at once \(status 2\).*--no-such-flag"):
        over_http(Target("safe", serve_arguments=("--no-such-flag",)), ONE)


@pytest.mark.parametrize(
    ("status", "problem"), [(200, "nothing reached the recorder"), (418, "answered 418: a teapot")]
)
async def test_a_proxy_that_fails_is_named(status: int, problem: str) -> None:
    async def answer(request: web.Request) -> web.Response:
        return web.Response(status=status, text="a teapot")

    app = web.Application()
    app.router.add_post("/v1/chat/completions", answer)
    runner = web.AppRunner(app)
    await runner.setup()
    try:
        site = web.TCPSite(runner, "127.0.0.1", 0)
        await site.start()
        found = await asyncio.to_thread(replayed, ONE)
        target = Target("safe", url=f"http://127.0.0.1:{runner.addresses[0][1]}")
        with pytest.raises(ReplayError, match=problem):
            await replay_over_http(found, ONE, Options(), target, silent)
    finally:
        await runner.cleanup()


async def test_a_proxy_that_is_not_there() -> None:
    async with Recorder() as recorder:
        url = recorder.url
    found = await asyncio.to_thread(replayed, ONE)
    with pytest.raises(ReplayError, match="did not answer"):
        await replay_over_http(found, ONE, Options(), Target("safe", url=url), silent)


async def test_nothing_is_left_running() -> None:
    async with Recorder() as recorder:
        async with ProxyProcess(("--upstream", recorder.url)) as process:
            before = process.pid
            await process.restart()
            after = process.pid
        assert before != after
        for pid in (before, after):
            with pytest.raises(ProcessLookupError):
                os.kill(pid or 0, 0)
