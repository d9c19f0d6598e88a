"""The command `sluice keys`: makes, lists and removes proxy keys, in the file or the Redis that the settings name."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Any

import click


@click.group()
@click.option(
    "--config", type=click.Path(path_type=Path), metavar="FILE", help="Settings file.  [default: ./sluice.toml]"
)
@click.option("--file", "keys_file", type=click.Path(path_type=Path), metavar="FILE", help="Where keys are kept.")
@click.option("--redis", "redis_url", metavar="URL", help="The Redis that keys are kept in, unless there is a file.")
@click.pass_context
def keys(ctx: click.Context, /, config: Path | None, **flags: object) -> None:
    """Make, list and remove keys of the proxy's own.

    They are kept in the file that the setting keys_file names, else in Redis; the proxy asks for a key once either
    keys_file or require_keys is set. Send a key as x-sluice-key, or where the provider's would stand if the proxy has
    that itself.
    """
    ctx.obj = (config, flags)


@keys.command()
@click.argument("name")
@click.option("--requests-per-minute", type=float, help="How many requests may come in a minute.")
@click.option("--max-concurrent", type=int, help="How many requests may be served at once.")
@click.option("--tokens-per-day", type=int, help="Tokens of a day (UTC).")
@click.option("--tokens-per-month", type=int, help="Tokens of a month (UTC).")
@click.option("--dollars-per-day", type=float, help="Money of a day (UTC).")
@click.option("--dollars-per-month", type=float, help="Money of a month (UTC).")
@click.pass_obj
def add(obj: Any, /, name: str, **limits: float | None) -> None:
    """Make a key for NAME and print it: it is shown this once, and kept as a hash."""
    from pydantic import ValidationError

    from sluice.proxy.access.keys import make_key

    try:
        key, text = make_key(name, **limits)
    except ValidationError as error:
        detail = error.errors()[0]
        field = str(detail["loc"][0]).replace("_", "-")
        raise click.BadParameter(f"{detail['input']!r}: {detail['msg']}", param_hint=field) from None
    _with_keys(obj, lambda kept: kept.add(key))
    click.echo(text)
    click.echo(f"key {key.id} of {name}: keep it, it is not shown again", err=True)


@keys.command(name="list")
@click.pass_obj
def list_(obj: Any) -> None:
    """List all keys: id, name, limits."""
    found = _with_keys(obj, lambda kept: kept.list())
    if not found:
        click.echo("there are no keys there", err=True)
    for key in found:
        limits = key.model_dump(exclude={"id", "name", "hash"}, exclude_none=True)
        click.echo("  ".join([key.id, key.name, *(f"{name}={value:.15g}" for name, value in limits.items())]))


@keys.command()
@click.argument("key_id")
@click.pass_obj
def remove(obj: Any, key_id: str) -> None:
    """Remove a key by its id; it stops working within seconds."""
    if not _with_keys(obj, lambda kept: kept.remove(key_id)):
        raise click.ClickException(f"there is no key {key_id}")


def _with_keys(obj: tuple[Path | None, dict[str, object]], act: Callable[[Any], Any]) -> Any:
    """Do something with the keys that the settings name."""
    from sluice.compressor.errors import StateError
    from sluice.proxy.access.keyring import FileKeys
    from sluice.proxy.access.redis import RedisKeys
    from sluice.proxy.errors import ConfigError
    from sluice.proxy.load_settings import load_settings
    from sluice.proxy.state.client import RedisClient

    config, flags = obj
    try:
        settings = load_settings(flags, config)
        if settings.keys_file is not None:
            return act(FileKeys(settings.keys_file))
        if settings.redis_url is None:
            raise ConfigError("nowhere to keep keys: give --file FILE or --redis URL, or set keys_file or redis_url")
        url = settings.redis_url.get_secret_value()

        async def run() -> Any:
            client = RedisClient(url, timeout_s=5.0)
            try:
                done: Awaitable[Any] = act(RedisKeys(client))
                return await done
            finally:
                await client.aclose()

        return asyncio.run(run())
    except (ConfigError, StateError) as error:
        raise click.ClickException(str(error)) from None
