"""The commands `sluice search` and `sluice mcp`. Answers go to stdout, everything else to stderr."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any
from urllib.parse import urlsplit

import click

from sluice.search.settings import MAX_BUDGET_TOKENS, MIN_BUDGET_TOKENS

if TYPE_CHECKING:
    from sluice.search.settings import SearchSettings
    from sluice.search.types import SearchAnswer


def _checked_url(_context: click.Context, _option: click.Parameter, url: str) -> str:
    if url and not (url.startswith(("http://", "https://")) and urlsplit(url).hostname):
        raise click.BadParameter(f"{url!r} is no http:// or https:// URL")
    return url


_DEFAULT_CACHE = Path("~/.cache/sluice/search")
_SHARED = (
    click.option(
        "--cache",
        type=click.Path(path_type=Path),
        default=_DEFAULT_CACHE,
        show_default=True,
        envvar="SLUICE_SEARCH_CACHE_DIR",
        show_envvar=True,
        help="Where the index is kept.",
    ),
    click.option("--no-cache", is_flag=True, help="Keep nothing on disk."),
    click.option(
        "--deep-url",
        default="",
        callback=_checked_url,
        envvar="SLUICE_SEARCH_DEEP_URL",
        show_envvar=True,
        help="An OpenAI-compatible server, for deep.",
    ),
    click.option(
        "--deep-model", default="", envvar="SLUICE_SEARCH_DEEP_MODEL", show_envvar=True, help="The model's name there."
    ),
    click.option(
        "--deep-key", default="", envvar="SLUICE_SEARCH_DEEP_KEY", show_envvar=True, help="Sent as a bearer token."
    ),
)


def _shared_options(command: Callable[..., None]) -> Callable[..., None]:
    for option in reversed(_SHARED):
        command = option(command)
    return command


@click.command()
@click.argument("query")
@click.option("--repo", type=click.Path(exists=True, file_okay=False, path_type=Path), default=".", show_default=True)
@click.option(
    "--budget",
    type=click.IntRange(MIN_BUDGET_TOKENS, MAX_BUDGET_TOKENS),
    default=1000,
    show_default=True,
    help="Tokens that the results may take together.",
)
@click.option("--max-results", type=click.IntRange(1), default=None, help="At most so many results.")
@click.option("--json", "as_json_line", is_flag=True, help="One line of JSON.")
@click.option("--mode", type=click.Choice(["fast", "deep"]), default="fast", show_default=True)
@_shared_options
def search(
    query: str,
    repo: Path,
    budget: int,
    max_results: int | None,
    as_json_line: bool,
    mode: str,
    **shared: Any,
) -> None:
    """Find the lines of a repository that answer QUERY."""
    if mode == "deep" and not (shared["deep_url"] and shared["deep_model"]):
        raise click.UsageError("--mode deep needs --deep-url and --deep-model: the model that looks around")
    answer = _run(_settings([repo], **shared), query, budget, max_results, mode)
    if as_json_line:
        from sluice.search.text import as_json

        click.echo(as_json(answer))
        return
    _print(answer)


@click.command()
@click.option(
    "--repo",
    "repos",
    type=click.Path(exists=True, file_okay=False, path_type=Path),
    multiple=True,
    default=["."],
    show_default=True,
    help="A repository that may be searched; may be repeated.",
)
@_shared_options
@click.option(
    "--dense",
    default="",
    envvar="SLUICE_SEARCH_DENSE_MODEL",
    show_envvar=True,
    help="An embedding model, e.g. all-MiniLM-L6-v2.",
)
@click.option(
    "--proxy",
    default="",
    callback=_checked_url,
    envvar="SLUICE_PROXY_URL",
    show_envvar=True,
    help="A running proxy; adds the tool `recall`.",
)
@click.option(
    "--proxy-key",
    default="",
    envvar="SLUICE_KEY",
    show_envvar=True,
    help="What the agent sends there: its proxy key, else its provider's credential.",
)
def mcp(repos: tuple[Path, ...], dense: str, proxy: str, proxy_key: str, **shared: Any) -> None:
    """Serve code search to an agent over MCP, on standard input and output."""
    settings = _settings(list(repos), **shared, dense=dense)
    with _errors():
        from sluice.search.mcp_server import build_server
        from sluice.search.recall import proxy_recall
        from sluice.search.service import SearchService

        server = build_server(SearchService(settings), proxy_recall(proxy, proxy_key) if proxy else None)
    server.run("stdio")


def _settings(
    repos: list[Path], cache: Path, no_cache: bool, deep_url: str, deep_model: str, deep_key: str, dense: str = ""
) -> SearchSettings:
    try:
        from sluice.search.settings import DeepSettings, SearchSettings

        deep = DeepSettings(base_url=deep_url, model=deep_model, api_key=deep_key)
        return SearchSettings(tuple(repos), None if no_cache else cache.expanduser(), dense_model=dense, deep=deep)
    except ValueError as error:
        raise click.ClickException(str(error)) from error


def _run(settings: SearchSettings, query: str, budget: int, max_results: int | None, mode: str) -> SearchAnswer:
    with _errors():
        from sluice.search.service import SearchService

        async def run() -> SearchAnswer:
            service = SearchService(settings)
            try:
                return await service.search(query, None, budget, max_results, "deep" if mode == "deep" else "fast")
            finally:
                await service.aclose()

        return asyncio.run(run())


@contextmanager
def _errors() -> Iterator[None]:
    """What search raises becomes the command line's; so does a package that is not installed."""
    from sluice.search.errors import SearchError

    try:
        yield
    except SearchError as error:
        raise click.ClickException(str(error)) from error
    except ImportError as error:
        raise click.ClickException(
            f"code search needs its extra: pip install 'sluicegate[search]' ({error})"
        ) from error


def _print(answer: SearchAnswer) -> None:
    """For people: `path:start-end` is what terminals make clickable; click drops colour where it is not wanted."""
    for result in answer.results:
        place = click.style(f"{result.path}:{result.start}-{result.end}", fg="cyan", bold=True)
        click.echo(f"{place}  {click.style(result.reason, dim=True)}")
        width = len(str(result.end))
        for number, line in enumerate(result.text.split("\n"), result.start):
            click.echo(f"{click.style(str(number).rjust(width), fg='yellow')}  {line}")
        click.echo()
    click.echo(f"{len(answer.results)} results, {answer.tokens} tokens, {answer.took_ms:.0f} ms", err=True)
