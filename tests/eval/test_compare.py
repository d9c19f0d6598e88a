"""Other proxies beside ours: started from a description, judged by what reaches the recorder."""

from __future__ import annotations

import json
import shlex
import sys
import tomllib
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner

from sluice.compressor import Mode
from sluice.eval.cli import evaluate
from sluice.eval.compare.system import KNOWN, OURS, load_systems, ours
from sluice.eval.errors import SpecError
from sluice.eval.traces import trace_file

FILE = str(trace_file("claude-code"))
NUM_TURNS = 13

PROXY = """
import sys
from aiohttp import ClientSession, web

async def chat(request):
    body = await request.json()
    if request.headers.get("x-fail") and len(body["messages"]) > 3:
        return web.Response(status=500, text="sorry")
    if len(request.headers.getall("authorization", [])) != 1:
        return web.Response(status=401, text="who are you?")
    if request.headers.get("x-ask-more"):
        async with ClientSession() as session, session.post(sys.argv[2] + "/v1/chat/completions", json=body) as answer:
            await answer.read()
    for message in body["messages"]:
        if message["role"] == "tool":
            message["content"] = message["content"][:100]
    if request.headers.get("x-garble"):
        body = {"prompt": "what was said"}
    async with ClientSession() as session, session.post(sys.argv[2] + "/v1/chat/completions", json=body) as answer:
        return web.Response(body=await answer.read(), content_type="application/json")

async def ready(request):
    return web.Response()

app = web.Application(client_max_size=2**30)
app.router.add_post("/v1/chat/completions", chat)
app.router.add_get("/ready", ready)
web.run_app(app, host="127.0.0.1", port=int(sys.argv[1]), print=None)
"""


@pytest.fixture
def spec(tmp_path: Path) -> Path:
    """Three systems: one that cuts every result; the same, failing all but the first turns; the same, garbling all."""
    (tmp_path / "proxy.py").write_text(PROXY)
    start = f"{shlex.quote(sys.executable)} {tmp_path / 'proxy.py'} {{port}} {{upstream}}"
    file = tmp_path / "systems.toml"
    file.write_text(
        f'[[system]]\nname = "cutter"\nstart = "{start}"\nready = "/ready"\n'
        f'[[system]]\nname = "broken"\nstart = "{start}"\nready = "/ready"\nheaders = {{ x-fail = "1" }}\n'
        f'[[system]]\nname = "garbled"\nstart = "{start}"\nready = "/ready"\nheaders = {{ x-garble = "1" }}\n'
    )
    return file


def test_a_run_with_other_proxies(spec: Path, tmp_path: Path) -> None:
    files = ["--json", str(tmp_path / "out.json"), "--report", str(tmp_path / "out.html")]
    arguments = [
        "compare",
        FILE,
        "--system",
        str(spec),
        "--mode",
        "safe",
        "--equal-to",
        "cutter",
        "--jobs",
        "1",
        *files,
    ]
    result = CliRunner().invoke(evaluate, arguments, catch_exceptions=False)
    assert result.exit_code == 0, result.output
    assert f"broken: compression was bypassed on {NUM_TURNS - 2} of {NUM_TURNS} turns: answered 500" in result.output
    garbled = f"garbled: compression was bypassed on {NUM_TURNS} of {NUM_TURNS} turns: forwarded no chat request"
    assert garbled in result.output
    data = json.loads((tmp_path / "out.json").read_text())
    rows = {row["policy"]: row for row in data["policies"]}
    assert list(rows)[:6] == ["untouched", "cutter", "broken", "garbled", "safe", "mask-10"]
    assert rows["cutter"]["input_cost"]["value"] < rows["safe"]["input_cost"]["value"] < 1
    assert rows["random-equal"]["input_cost"]["value"] == pytest.approx(rows["cutter"]["input_cost"]["value"], abs=0.05)
    assert all(rows[name]["round_trip"]["p50_ms"] > 0 for name in ("untouched", "cutter", "safe"))
    assert rows["untouched"]["input_cost"]["value"] == 1
    # What a tool's results cost, summed over all sources, is the whole bill.
    for row, trace_costs in (
        (rows[name], data["traces"][0]["policies"][name]["input_cost"]) for name in ("cutter", "safe")
    ):
        assert sum(row["sources"].values()) == pytest.approx(trace_costs)
        assert sum(row["turn_costs"]) == pytest.approx(trace_costs)
    assert rows["cutter"]["sources"]["Read"] < rows["untouched"]["sources"]["Read"]
    page = (tmp_path / "out.html").read_text()
    assert "cutter" in page
    assert data["run"]["command"]


def compared(tmp_path: Path, spec: Path, **changes: object) -> dict[str, Any]:
    """Compare the first of the systems, changed, with ours."""
    described = tomllib.loads(spec.read_text())["system"][0] | changes
    file = tmp_path / "one.json"
    lines = (f"{name} = {json.dumps(value)}" for name, value in described.items() if name != "headers")
    headers = "".join(f"{name} = {json.dumps(value)}\n" for name, value in described.get("headers", {}).items())
    (tmp_path / "one.toml").write_text("\n".join(lines) + f"\n[headers]\n{headers}")
    arguments = ["compare", FILE, "--system", str(tmp_path / "one.toml"), "--mode", "safe", "--policy", "mask-10"]
    result = CliRunner().invoke(evaluate, [*arguments, "--jobs", "1", "--max-turns", "3", "--json", str(file)])
    assert result.exit_code == 0, result.output
    return {"output": result.output, **json.loads(file.read_text())}


def test_requests_of_a_systems_own_are_told(spec: Path, tmp_path: Path) -> None:
    found = compared(tmp_path, spec, headers={"x-ask-more": "1"})
    assert "cutter: 3 further requests to its upstream on 3 turns are billed nowhere here" in found["output"]
    rows = {row["policy"]: row["measured"] for row in found["policies"]}
    assert (rows["cutter"]["num_further_requests"], rows["safe"]["num_further_requests"]) == (3, 0)


def test_a_systems_own_credential_stands_alone(spec: Path, tmp_path: Path) -> None:
    found = compared(tmp_path, spec, headers={"Authorization": "Bearer real"})
    assert found["policies"][1]["measured"]["bypasses"] == {}


def test_a_name_may_hold_brackets(spec: Path, tmp_path: Path) -> None:
    found = compared(tmp_path, spec, name="[/x] [bold]")
    assert "[/x] [bold]" in found["output"]
    assert found["policies"][1]["policy"] == "[/x] [bold]"


def test_ours_are_told_whose_cache_to_reckon_with() -> None:
    command = shlex.split(ours(Mode.SAFE, "self-hosted", ("--redis", "a b")).start)
    assert command[command.index("--provider") + 1] == "self-hosted"
    assert command[-2:] == ["--redis", "a b"]


def test_what_is_known_by_name_can_be_read() -> None:
    for name in KNOWN:
        (system,) = load_systems(name)
        assert system.name == name
        assert {"{port}", "{upstream}"} <= set(shlex.split(system.start))


def test_ours_are_told_apart_by_a_header() -> None:
    assert [ours(mode, "openai").headers["x-sluice-mode"] for mode in OURS] == ["safe", "balanced", "aggressive"]


@pytest.mark.parametrize(
    ("text", "problem"),
    [
        ('name = "a"\n', "'a' needs one of start and url"),
        ('name = "a"\nurl = "http://127.0.0.1:1"\n', "so it needs the recorder_port"),
        ('name = "a"\nstrat = "x"\n', "unknown field `strat`"),
        ("name =", "systems.toml: Invalid value"),
        ('name = "a"\nstart = "a \'b"\n', "system 'a': start = \"a 'b\": No closing quotation"),
        ('start = "a"\n', "missing required field `name`"),
    ],
)
def test_a_description_that_cannot_be_used_is_named(tmp_path: Path, text: str, problem: str) -> None:
    file = tmp_path / "systems.toml"
    file.write_text(text)
    with pytest.raises(SpecError) as caught:
        load_systems(str(file))
    assert problem in str(caught.value)
    assert str(file) in str(caught.value)


@pytest.mark.parametrize(
    ("arguments", "problem"),
    [
        (["--system", "nothing.toml"], "No such file or directory; known by name: headroom"),
        (["--equal-to", "nobody"], "--equal-to 'nobody' is not compared here"),
        (["--mode", "safe", "--policy", "safe", "--equal-to", "safe"], "the name 'safe' stands for two systems"),
        (["--report", "none/out.html"], "there is no folder"),
        (["--serve-args", "--redis 'x"], '--serve-args: "--redis \'x": No closing quotation'),
        (["--system", "direct.toml", "--policy", "mask-10"], "no system can be named 'direct'"),
        (["--policy", "nonsense"], "no policy is named 'nonsense'"),
    ],
)
def test_bad_input_is_named(
    arguments: list[str], problem: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    Path("direct.toml").write_text('name = "direct"\nstart = "a"\n')
    result = CliRunner().invoke(evaluate, ["compare", FILE, "--jobs", "1", *arguments])
    assert result.exit_code in (1, 2)
    assert problem in " ".join(result.output.split())
    assert "Traceback" not in result.output


def test_a_system_that_does_not_start_says_why(tmp_path: Path) -> None:
    file = tmp_path / "systems.toml"
    file.write_text('name = "ghost"\nstart = "no-such-program --port {port}"\n')
    arguments = ["compare", FILE, "--system", str(file), "--policy", "mask-10", "--jobs", "1"]
    result = CliRunner().invoke(evaluate, arguments)
    assert result.exit_code == 1
    assert "ghost cannot be started: no-such-program: No such file" in result.output
