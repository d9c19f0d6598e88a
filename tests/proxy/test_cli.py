from __future__ import annotations

import os
import shlex
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from importlib.metadata import EntryPoint
from pathlib import Path

import httpx
import pytest
from click.testing import CliRunner

import sluice
from sluice.proxy.cli import _load, main, summary_of

HEAVY = ("torch", "transformers", "numpy", "sluice.eval", "sluice.backend.embedded")


def imported_by(*arguments: str) -> set[str]:
    """Modules that `sluice ARGUMENTS` imports."""
    code = (
        "import sys\nfrom sluice.proxy.cli import main\n"
        "try:\n    main(sys.argv[1:], standalone_mode=False)\n"
        "finally:\n    print('\\n'.join(sys.modules), file=sys.stderr)"
    )
    done = subprocess.run([sys.executable, "-c", code, *arguments], capture_output=True, text=True, timeout=60)
    assert done.returncode == 0, done.stderr
    return set(done.stderr.split())


@pytest.mark.parametrize("arguments", [["--help"], ["serve", "--help"], ["--version"]])
def test_help_imports_nothing_heavy(arguments: list[str]) -> None:
    modules = imported_by(*arguments)
    assert "sluice.proxy.cli" in modules
    assert not {name for name in modules if name.startswith(("torch", "transformers", "numpy", "fastapi", "aiohttp"))}
    # The packages that a command lies in are found by importing them; the command itself is only read.
    assert not {name for name in modules if name.startswith(("sluice.eval", "sluice.backend")) and name.endswith("cli")}
    assert not {name for name in modules if name.startswith("sluice.backend.embedded")}


def test_the_application_imports_nothing_heavy() -> None:
    code = "import sys, sluice.proxy.serve\nprint('\\n'.join(sys.modules))"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=60, check=True)
    modules = set(done.stdout.split())
    assert not modules & set(HEAVY)
    # Of the backend, what bears half an emoji and what tells hosts, and no more.
    assert {name for name in modules if name.startswith("sluice.backend")} == {
        "sluice.backend",
        "sluice.backend.hosts",
        "sluice.backend.surrogates",
    }
    assert not modules & {"tiktoken", "redis", "bpe_openai"}


def test_help_lists_the_commands_with_their_summaries() -> None:
    shown = CliRunner().invoke(main, ["--help"]).output
    assert "serve" in shown
    assert "Serve the proxy." in shown


def test_the_version() -> None:
    assert CliRunner().invoke(main, ["--version"]).output == f"sluice, version {sluice.__version__}\n"


def test_an_unknown_command_is_named() -> None:
    outcome = CliRunner().invoke(main, ["fly"])
    assert outcome.exit_code == 2
    assert "'fly'" in outcome.output
    assert "Did you mean" not in outcome.output
    assert "No such command 'serv'. Did you mean 'serve'?" in CliRunner().invoke(main, ["serv"]).output


@pytest.mark.parametrize(
    ("line", "status", "says"),
    [
        ("completion bash > /dev/full", 1, "Error: cannot write: No space left on device\n"),
        ("compact <&-", 0, "0 of 0 lines, 100% of the characters\n"),
        ("completion bash >&-", 0, ""),
        ("completion bash >&- 2>&-", 0, ""),
    ],
)
def test_streams_that_are_closed_or_full_are_no_fault_of_ours(line: str, status: int, says: str) -> None:
    command = [sys.executable, "-c", "from sluice.proxy.cli import main; main()"]
    done = subprocess.run(["sh", "-c", f"{shlex.join(command)} {line}"], capture_output=True, text=True, timeout=60)
    assert (done.returncode, done.stdout, done.stderr) == (status, "", says)


def test_a_command_whose_extra_is_missing_says_how_to_get_it(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "needy.py").write_text("import no_such_module_at_all\n")
    monkeypatch.syspath_prepend(tmp_path)
    monkeypatch.setattr("sluice.proxy.cli.EXTRA_OF_PACKAGE", {"needy": "eval"})
    with pytest.raises(Exception, match=r"no_such_module_at_all.*pip install 'sluicegate\[eval\]'"):
        _load(EntryPoint("needy", "needy:command", "sluice.commands"))


def test_summaries_are_read_from_source(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "odd_command.py").write_text('import no_such_module\ndef go():\n    """First.\n\n    More.\n    """\n')
    monkeypatch.syspath_prepend(tmp_path)
    assert summary_of(EntryPoint("go", "odd_command:go", "g")) == "First."
    assert summary_of(EntryPoint("go", "odd_command:other", "g")) == ""
    assert summary_of(EntryPoint("go", "nowhere_at_all.cli:go", "g")) == ""


def run_serve(*arguments: str, **environment: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-m", "sluice.proxy.cli", "serve", *arguments],
        capture_output=True,
        text=True,
        timeout=60,
        env={**os.environ, **environment},
    )


def test_without_an_upstream_it_says_what_to_do() -> None:
    done = run_serve()
    assert done.returncode == 1
    assert "--upstream URL" in done.stderr
    assert "--backend embedded" in done.stderr
    assert len(done.stderr.strip().splitlines()) == 1


def test_without_an_upstream_it_says_which_variable_was_perhaps_to_name_one() -> None:
    done = run_serve(SLUICE_UPSTRAEM="http://127.0.0.1:9")
    assert done.returncode == 1
    assert "did you mean SLUICE_UPSTREAM?" in done.stderr
    assert "--upstream URL" in done.stderr.splitlines()[-1]


def test_a_port_in_use_is_one_clear_line() -> None:
    with socket.create_server(("127.0.0.1", 0)) as listener:
        port = listener.getsockname()[1]
        done = run_serve("--upstream", "http://127.0.0.1:9", "--port", str(port))
    assert done.returncode == 1
    assert done.stderr.startswith(f"Error: cannot listen on 127.0.0.1:{port}: Address already in use; another program")
    assert "--port" in done.stderr
    assert len(done.stderr.splitlines()) == 1


def test_an_upstream_that_is_the_proxy_itself_stops_the_start() -> None:
    with socket.create_server(("127.0.0.1", 0)) as listener:
        port = listener.getsockname()[1]
    done = run_serve("--upstream", f"http://localhost:{port}/v1", "--port", str(port))
    assert done.returncode == 1
    assert "is this proxy itself" in done.stderr


def test_what_is_not_as_somebody_meant_it_is_said_at_the_start() -> None:
    command = [sys.executable, "-m", "sluice.proxy.cli", "serve", "--upstream", "http://127.0.0.1:9", "--port", "0"]
    environment = {**os.environ, "SLUICE_UPSTRAM": "x"}
    with subprocess.Popen(command, stderr=subprocess.PIPE, text=True, env=environment) as process:
        assert process.stderr is not None
        lines = [process.stderr.readline() for _ in range(2)]
        process.kill()
    assert "sluice listens on" in lines[0]
    assert (
        lines[1]
        == "warning: environment: SLUICE_UPSTRAM is no setting and does nothing; did you mean SLUICE_UPSTREAM?\n"
    )


@pytest.mark.parametrize(
    ("name", "text", "said"),
    [
        ("SLUICE_PRICES_FILE", "price = 3", "bad value for prices_file"),
        ("SLUICE_KEYS_FILE", "{}", "is no list of keys"),
    ],
)
def test_a_file_that_cannot_be_used_stops_the_start_before_it_listens(
    tmp_path: Path, name: str, text: str, said: str
) -> None:
    (tmp_path / "file").write_text(text)
    done = run_serve("--upstream", "http://127.0.0.1:9", "--port", "0", **{name: str(tmp_path / "file")})
    assert done.returncode == 1
    assert said in done.stderr
    assert len(done.stderr.splitlines()) == 1


def test_a_log_that_cannot_be_written_costs_no_request() -> None:
    with socket.create_server(("127.0.0.1", 0)) as listener:
        port = listener.getsockname()[1]
    command = [sys.executable, "-m", "sluice.proxy.cli", "serve", "--upstream", "http://127.0.0.1:9"]
    # What is open for reading alone takes no line, like a disk that is full.
    with open(os.devnull) as closed, subprocess.Popen([*command, "--port", str(port)], stderr=closed) as process:
        try:
            deadline = time.monotonic() + 60
            while True:
                try:
                    answer = httpx.get(f"http://127.0.0.1:{port}/v1/models", trust_env=False, timeout=60)
                    break
                except httpx.TransportError:
                    assert process.poll() is None
                    assert time.monotonic() < deadline
                    time.sleep(0.05)
            assert answer.status_code == 502
            process.send_signal(signal.SIGTERM)
            assert process.wait(60) in (0, 120)  # Python's own, for a stderr that it cannot flush
        finally:
            process.kill()


def test_a_bad_setting_stops_the_start() -> None:
    done = run_serve("--upstream", "http://127.0.0.1:9", SLUICE_READ_TIMEOUT_S="never")
    assert done.returncode == 1
    assert "read_timeout_s: 'never'" in done.stderr
    assert "Traceback" not in done.stderr


@pytest.mark.parametrize(
    ("arguments", "says"),
    [
        (["--port", "70000"], "bad value for port: 70000"),
        (["--", "--seed", "7"], "backend_args = '--seed 7' (what stands behind --) goes to vLLM, and backend = 'none'"),
    ],
)
def test_a_bad_command_line_ends_with_2(arguments: list[str], says: str) -> None:
    done = run_serve("--upstream", "http://127.0.0.1:9", *arguments)
    assert done.returncode == 2
    assert says in done.stderr


def test_several_workers_need_redis() -> None:
    done = run_serve("--upstream", "http://127.0.0.1:9", "--workers", "2")
    assert done.returncode == 1
    assert done.stderr == "Error: workers = 2 needs redis_url: workers have to share what they decided\n"


@pytest.mark.parametrize("host", ["0.0.0.0", "::"])
def test_it_listens_to_no_other_machine_without_keys_unless_told(host: str) -> None:
    done = run_serve("--upstream", "http://127.0.0.1:9", "--port", "0", "--host", host)
    assert done.returncode == 1
    assert host in done.stderr
    assert "allow_public" in done.stderr
    assert "sluice keys add" in done.stderr


@pytest.mark.parametrize("options", [["--allow-public"], []])
def test_it_does_where_it_is_told_or_wants_keys(tmp_path: Path, options: list[str]) -> None:
    environment = dict(os.environ) if options else {**os.environ, "SLUICE_KEYS_FILE": str(tmp_path / "keys.json")}
    command = [sys.executable, "-m", "sluice.proxy.cli", "serve", "--upstream", "http://127.0.0.1:9", "--port", "0"]
    command += ["--host", "0.0.0.0", *options]
    process = subprocess.Popen(command, stderr=subprocess.PIPE, text=True, env=environment)
    assert process.stderr is not None
    line = process.stderr.readline()
    process.kill()
    process.wait()
    process.stderr.close()
    assert "sluice listens on http://0.0.0.0:" in line
    assert ("keys wanted" in line) == (not options)


def test_keys_that_nobody_can_look_up_are_not_asked_for() -> None:
    done = run_serve("--upstream", "http://127.0.0.1:9", SLUICE_REQUIRE_KEYS="true")
    assert done.returncode == 1
    assert "require_keys" in done.stderr


@pytest.fixture
def served() -> Iterator[tuple[subprocess.Popen[str], str, str]]:
    """A proxy in a process of its own: the process, its first line, its URL."""
    process = subprocess.Popen(
        [sys.executable, "-m", "sluice.proxy.cli", "serve", "--upstream", "http://127.0.0.1:9/v1", "--port", "0"],
        stderr=subprocess.PIPE,
        text=True,
    )
    assert process.stderr is not None
    line = process.stderr.readline()
    yield process, line, line.split("http://", 1)[1].split(" ")[0]
    process.kill()
    process.wait()
    process.stderr.close()


@pytest.mark.parametrize("sign", [signal.SIGINT, signal.SIGTERM])
def test_it_serves_says_where_logs_a_line_and_ends(served: tuple[subprocess.Popen[str], str, str], sign: int) -> None:
    process, line, address = served
    assert line.endswith("upstream http://127.0.0.1:9 · mode balanced · state memory · dashboard at /dashboard\n")
    body = {"model": "gpt-4o", "messages": [{"role": "user", "content": "hush-content"}]}
    headers = {"authorization": "Bearer hush-key"}
    answer = httpx.post(f"http://{address}/v1/chat/completions", json=body, headers=headers, trust_env=False)
    assert answer.status_code == 502
    process.send_signal(sign)
    assert process.wait(20) == 0
    assert process.stderr is not None
    log = process.stderr.read()
    served_line, ending = log.splitlines()
    assert "chat status=502 mode=balanced" in served_line
    assert ending.startswith("ending: ")
    assert "hush" not in log


def test_it_ends_while_a_client_holds_a_connection(served: tuple[subprocess.Popen[str], str, str]) -> None:
    process, _, address = served
    host, port = address.split(":")
    with socket.create_connection((host, int(port))) as connection:
        connection.sendall(b"POST /v1/chat/completions HTTP/1.1\r\nhost: x\r\ncontent-length: 100\r\n\r\n{")
        time.sleep(0.2)
        process.send_signal(signal.SIGINT)
        assert process.wait(20) == 0


@pytest.mark.engine
def test_the_embedded_backend_starts_and_ends_with_the_proxy(tmp_path: Path) -> None:
    from tests.backend.conftest import write_tiny_model

    model = write_tiny_model(tmp_path / "tiny")
    options = ["--backend", "embedded", "--model", str(model), "--port", "0"]
    process = subprocess.Popen(
        [sys.executable, "-m", "sluice.proxy.cli", "serve", *options], stderr=subprocess.PIPE, text=True
    )
    assert process.stderr is not None
    lines = []
    while not lines or "sluice listens on" not in lines[-1]:
        lines.append(process.stderr.readline())
        assert lines[-1], "".join(lines)
    address = lines[-1].split("http://", 1)[1].split(" ")[0]
    engine = lines[-1].split("upstream ", 1)[1].split(" ")[0]
    with httpx.Client(base_url=f"http://{address}", trust_env=False, timeout=60) as client:
        name = client.get("/v1/models").json()["data"][0]["id"]
        body = {"model": name, "messages": [{"role": "user", "content": "hi"}], "max_tokens": 3}
        assert client.post("/v1/chat/completions", json=body).json()["usage"]["completion_tokens"] <= 3
        unknown = client.post("/v1/chat/completions", json={**body, "model": "nope"})
        assert (unknown.status_code, unknown.json()["error"]["code"]) == (404, "model_not_found")
    process.send_signal(signal.SIGTERM)
    assert process.wait(30) == 0
    process.stderr.close()
    with pytest.raises(httpx.ConnectError):
        httpx.get(f"{engine}/healthz", trust_env=False)


@pytest.mark.engine
def test_an_embedded_backend_that_does_not_start_says_why() -> None:
    done = run_serve("--backend", "embedded", "--model", "/no/such/model", "--port", "0")
    assert done.returncode == 1
    assert "the embedded backend does not start" in done.stderr
    assert "/no/such/model" in done.stderr
