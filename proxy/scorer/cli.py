"""`sluice scorer …`: a line scorer in a process of its own. Heavy libraries are imported when it serves."""

from __future__ import annotations

import contextlib
import time
from pathlib import Path

import click

READY_LINE = "scorer listens at "
"""What is printed before the URL, once requests are answered; the model may still be loading."""
_POLL_S = 0.01


@click.group()
def scorer() -> None:
    """The network that scores lines, in a process of its own."""


@scorer.command()
@click.option("--host", default="127.0.0.1", show_default=True, help="Address to listen on.")
@click.option(
    "--port", default=8792, show_default=True, type=click.IntRange(0, 65535), help="Port; 0 takes a free one."
)
@click.option(
    "--model",
    type=click.Path(exists=True, file_okay=False, path_type=Path),
    help="Folder of a trained model.  [default: the one that comes along]",
)
@click.option("--device", default="auto", show_default=True, type=click.Choice(["auto", "cpu", "cuda"]))
@click.option("--allow-public", is_flag=True, help="Listen to other machines: whoever can connect may ask.")
@click.option("--log-level", default="info", type=click.Choice(["debug", "info", "warning", "error"]))
def serve(host: str, port: int, model: Path | None, device: str, allow_public: bool, log_level: str) -> None:
    """Serve scores to proxies whose setting `scorer` is this one's URL.

    It gets token ids and gives numbers, and keeps neither. Until its model is loaded it says so at once; where that
    cannot be loaded, it ends.
    """
    import uvicorn

    from sluice.proxy.doctor.installation import EXTRAS, is_installed

    if missing := [module for module in EXTRAS["scorer"][0] if not is_installed(module)]:
        raise click.ClickException(f"{', '.join(missing)}: not installed; run: pip install 'sluicegate[scorer]'")
    from sluice.backend.hosts import authority, is_loopback
    from sluice.compressor.scoring import ModelFileError
    from sluice.compressor.scoring.neural.batcher import Batcher
    from sluice.compressor.scoring.neural.card import read_card
    from sluice.compressor.scoring.neural.loading import default_folder, load_model
    from sluice.proxy.errors import StartError
    from sluice.proxy.log import set_up_logging
    from sluice.proxy.scorer.bases import folders_for
    from sluice.proxy.scorer.server import ScorerApp
    from sluice.proxy.serve import bind

    if device == "cuda":
        import torch

        if not torch.cuda.is_available():  # it would serve, and never be ready
            raise click.ClickException("--device cuda: torch sees no GPU")
    try:
        folder = model or default_folder()
        read_card(folder)
        listener = bind(host, port)
    except (ModelFileError, StartError) as error:
        raise click.ClickException(str(error)) from None
    with listener:
        address: str = listener.getsockname()[0]
        if not (is_loopback(address) or allow_public):
            raise click.ClickException(f"--host {host} lets other machines connect: say --allow-public if they may")
        set_up_logging(log_level)
        failures: list[Exception] = []

        def end(error: Exception) -> None:
            """End the server, on another thread than its own: without a model it is of no use to anybody."""
            failures.append(error)
            while not server.started:  # told before, it would leave its start half done
                time.sleep(_POLL_S)
            server.should_exit = True

        batcher = Batcher(
            lambda: load_model(folder, device=device, folders=folders_for(folder)),  # type: ignore[arg-type]
            on_failed=end,
        )
        click.echo(f"{READY_LINE}http://{authority(address, listener.getsockname()[1])}", err=True)
        config = uvicorn.Config(
            ScorerApp(batcher, address), http="httptools", ws="none", log_config=None, access_log=False, lifespan="on"
        )
        server = uvicorn.Server(config)
        with contextlib.suppress(KeyboardInterrupt):  # told to end, and it has
            server.run(sockets=[listener])
    for failure in failures:
        raise click.ClickException(f"the model in {folder} cannot be used: {str(failure) or type(failure).__name__}")


@scorer.command()
@click.argument("to", type=click.Path(file_okay=False, path_type=Path))
@click.option("--model", type=click.Path(exists=True, file_okay=False, path_type=Path), help="As for serve.")
def export(to: Path, model: Path | None) -> None:
    """Write a model's base into the folder TO, for vLLM, and say how it is served."""
    from sluice.backend.errors import BackendError
    from sluice.compressor.scoring import ModelFileError

    try:
        from sluice.compressor.scoring.neural.card import read_card
        from sluice.compressor.scoring.neural.export import export_base
        from sluice.compressor.scoring.neural.loading import default_folder
        from sluice.proxy.scorer.bases import folders_for
        from sluice.proxy.scorer.vllm import served_name

        folder = model or default_folder()
        card = read_card(folder)
        export_base(folder, to, folders_for(folder))
    except (BackendError, ModelFileError) as error:
        raise click.ClickException(str(error)) from None
    except ModuleNotFoundError as error:
        raise _not_installed(error.name) from None
    click.echo(
        f"vllm serve {to} --runner pooling --served-model-name {served_name(card.version)} "
        f"--max-model-len {card.shape.max_tokens}"
    )


def _not_installed(module: str | None) -> click.ClickException:
    return click.ClickException(f"{module} is not installed; run: pip install 'sluicegate[scorer]'")


if __name__ == "__main__":
    scorer()
