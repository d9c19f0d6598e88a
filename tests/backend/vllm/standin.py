"""Speaks as `vllm serve` does: health, completions, tokenize, metrics, KV events. For tests of what manages vLLM.

A token is a word; its answer to any prompt is the number after the last one in it. What should go wrong is said by
environment variables that begin with `STANDIN_`.
"""

from __future__ import annotations

import argparse
import json
import os
import signal
import subprocess
import sys
import threading
import time
import zlib
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

BLOCK_TOKENS = 16
LOCK = threading.Lock()


class State:
    """What the server has done so far."""

    def __init__(self, publish: Any) -> None:
        self.num_asked = 0
        self.prompt_tokens = 0
        self.cached_tokens = 0
        self.output_tokens = 0
        self.num_running = 0
        self.blocks: dict[tuple[int, ...], int] = {}
        self.publish = publish

    def prefill(self, tokens: list[int]) -> int:
        """Cache a prompt's full blocks; how many tokens of it were cached before."""
        cached, parent, new = 0, None, []
        for stop in range(BLOCK_TOKENS, len(tokens) + 1, BLOCK_TOKENS):
            prefix = tuple(tokens[:stop])
            if prefix in self.blocks:
                cached, parent = stop, self.blocks[prefix]
            else:
                self.blocks[prefix] = zlib.crc32(repr(prefix).encode())
                new.append(prefix)
        if new and self.publish:
            self.publish(
                {
                    "type": "BlockStored",
                    "block_hashes": [self.blocks[prefix] for prefix in new],
                    "parent_block_hash": parent,
                    "token_ids": tokens[cached : len(new[-1])],
                    "block_size": BLOCK_TOKENS,
                    "lora_id": None,
                    "medium": "GPU",
                    "lora_name": None,
                }
            )
        self.prompt_tokens += len(tokens)
        self.cached_tokens += cached
        return cached


def tokens_of(body: dict[str, Any]) -> list[int]:
    text = body.get("prompt") or " ".join(f"{m['role']} {m['content']}" for m in body.get("messages", []))
    return [zlib.crc32(word.encode()) % 50_000 for word in text.split()]


def answer_to(body: dict[str, Any], num_asked: int) -> str:
    if num_asked >= int(os.environ.get("STANDIN_WRONG_FROM", "1000000")):
        return " banana"
    numbers = [word for word in str(body.get("prompt", "")).split() if word.isdigit()]
    return f" {int(numbers[-1]) + 1}" if numbers else " fine"


class Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    state: State
    model: str
    dies = False
    is_draining = False

    def log_message(self, *_: Any) -> None:
        pass

    def reply(self, body: Any, status: int = 200, kind: str = "application/json") -> None:
        data = body.encode() if isinstance(body, str) else json.dumps(body).encode()
        self.send_response(status)
        self.send_header("content-type", kind)
        self.send_header("content-length", str(len(data)))
        self.end_headers()
        self.wfile.write(data)

    def do_GET(self) -> None:
        state = self.state
        if self.path == "/health":
            self.reply("")
        elif self.path == "/v1/models":
            self.reply({"object": "list", "data": [{"id": self.model, "object": "model"}]})
        elif self.path == "/metrics":
            lines = {
                "vllm:num_requests_running": state.num_running,
                "vllm:num_requests_waiting": 0,
                "vllm:kv_cache_usage_perc": min(1.0, len(state.blocks) / 1000),
                "vllm:prompt_tokens_total": state.prompt_tokens,
                "vllm:prompt_tokens_cached_total": state.cached_tokens,
                "vllm:generation_tokens_total": state.output_tokens,
                "vllm:spec_decode_num_draft_tokens_total": 4 * state.output_tokens,
                "vllm:spec_decode_num_accepted_tokens_total": 3 * state.output_tokens,
                "vllm:num_preemptions_total": 0,
            }
            for name in ("time_to_first_token", "inter_token_latency"):
                lines |= {f"vllm:{name}_seconds_count": state.output_tokens, f"vllm:{name}_seconds_sum": 0.1}
            text = "".join(f'{name}{{engine="0",model_name="{self.model}"}} {value}\n' for name, value in lines.items())
            for name in ("time_to_first_token", "inter_token_latency"):
                text += f'vllm:{name}_seconds_bucket{{engine="0",le="0.1"}} {state.output_tokens}\n'
                text += f'vllm:{name}_seconds_bucket{{engine="0",le="+Inf"}} {state.output_tokens}\n'
            text += 'vllm:cache_config_info{block_size="16",num_gpu_blocks="1000",kv_cache_size_tokens="16000"} 1.0\n'
            self.reply(text, kind="text/plain")
        else:
            self.reply({"error": {"message": "no such route"}}, 404)

    def do_POST(self) -> None:
        body = json.loads(self.rfile.read(int(self.headers["content-length"])))
        state, tokens = self.state, tokens_of(body)
        if self.path == "/tokenize":
            return self.reply({"count": len(tokens), "tokens": tokens})
        if body.get("model") != self.model:
            return self.reply({"error": {"message": f"no model {body.get('model')!r}", "code": 404}}, 404)
        with LOCK:
            state.num_asked += 1
            state.num_running += 1
            cached = state.prefill(tokens)
            text = answer_to(body, state.num_asked)
            state.output_tokens += 1
        if "die before" in str(body) or self.dies:
            os.kill(os.getpid(), signal.SIGKILL)
        usage = {
            "prompt_tokens": len(tokens),
            "completion_tokens": 1,
            "total_tokens": len(tokens) + 1,
            "prompt_tokens_details": {"cached_tokens": cached},
        }
        is_chat = self.path == "/v1/chat/completions"
        if body.get("stream"):
            self.stream(body, text)
        else:
            choice = {"message": {"role": "assistant", "content": text}} if is_chat else {"text": text}
            self.reply({"id": "x", "model": self.model, "choices": [{"index": 0, **choice}], "usage": usage})
        with LOCK:
            state.num_running -= 1
        self.close_connection |= self.is_draining
        return None

    def stream(self, body: dict[str, Any], text: str) -> None:
        self.send_response(200)
        self.send_header("content-type", "text/event-stream")
        self.send_header("transfer-encoding", "chunked")
        self.end_headers()
        for number in range(int(body.get("max_tokens", 3))):
            chunk = {"id": "x", "model": self.model, "choices": [{"index": 0, "delta": {"content": f"{text}{number}"}}]}
            self.part(f"data: {json.dumps(chunk)}\n\n")
            if "die amid" in str(body):
                os.kill(os.getpid(), signal.SIGKILL)
            time.sleep(float(os.environ.get("STANDIN_TOKEN_S", "0")))
        self.part("data: [DONE]\n\n")
        self.part("")

    def part(self, text: str) -> None:
        data = text.encode()
        self.wfile.write(b"%x\r\n%s\r\n" % (len(data), data))
        self.wfile.flush()


class Publisher:
    """Numbered batches, and those before again for who asks."""

    def __init__(self, config: dict[str, Any]) -> None:
        import zmq

        context = zmq.Context()
        self.socket = context.socket(zmq.PUB)
        self.socket.bind(config["endpoint"])
        self.replays = context.socket(zmq.ROUTER)
        self.replays.bind(config["replay_endpoint"])
        self.batches: list[bytes] = []
        threading.Thread(target=self.answer_replays, daemon=True).start()

    def __call__(self, event: dict[str, Any]) -> None:
        import msgspec

        payload = msgspec.msgpack.encode([time.time(), [event], 0])
        self.batches.append(payload)
        self.socket.send_multipart((b"", (len(self.batches) - 1).to_bytes(8, "big"), payload))

    def answer_replays(self) -> None:
        while True:
            client, _, start = self.replays.recv_multipart()
            for number, payload in list(enumerate(self.batches))[int.from_bytes(start, "big") :]:
                self.replays.send_multipart((client, b"", b"", number.to_bytes(8, "big"), payload))
            self.replays.send_multipart((client, b"", b"", b"\xff" * 8, b""))


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("command")
    parser.add_argument("model")
    for name in ("host", "port", "served-model-name", "kv-events-config", "shutdown-timeout"):
        parser.add_argument(f"--{name}")
    parser.add_argument("--dies", action="store_true", help="over the first request")
    known, _ = parser.parse_known_args()
    print("INFO starting", " ".join(sys.argv[1:]), flush=True)
    if marker := os.environ.get("STANDIN_PID_FILE"):
        helper = subprocess.Popen([sys.executable, "-c", "import time; time.sleep(600)"])
        with open(marker, "a") as file:
            file.write(f"{os.getpid()} {helper.pid}\n")
    if fault := os.environ.get("STANDIN_FAULT"):
        print(f"ValueError: {fault}", flush=True)
        sys.exit(3)
    if os.environ.get("STANDIN_HANG"):
        time.sleep(600)
    Handler.state = State(Publisher(json.loads(known.kv_events_config)) if known.kv_events_config else None)
    Handler.dies = known.dies
    Handler.model = known.served_model_name or known.model
    server = ThreadingHTTPServer((known.host, int(known.port)), Handler)
    server.daemon_threads = False

    def drain(*_: Any) -> None:
        print("INFO draining", flush=True)
        Handler.is_draining = True
        threading.Thread(target=server.shutdown).start()

    signal.signal(signal.SIGTERM, drain)
    server.serve_forever(poll_interval=0.02)
    server.server_close()  # waits for answers in progress
    os._exit(0)


if __name__ == "__main__":
    main()
