"""The option that names a proxy by its URL. Knows click, and no server."""

from __future__ import annotations

from urllib.parse import urlsplit

import click


class Origin(click.ParamType[str]):
    """A URL of http or https, with or without a trailing `/v1`; its value is the origin."""

    name = "url"

    def convert(self, value: str, param: click.Parameter | None, ctx: click.Context | None) -> str:
        """Check it and cut what is not part of the origin."""
        try:
            parts = urlsplit(value)
            is_good = parts.scheme in ("http", "https") and bool(parts.hostname) and parts.port != 0
        except ValueError:  # brackets that do not close, a port that is no number
            is_good = False
        if not is_good:
            self.fail(f"{value!r} is no http:// or https:// URL", param, ctx)
        return value.rstrip("/").removesuffix("/v1")


proxy_url = click.option(
    "--url",
    type=Origin(),
    metavar="URL",
    default="http://127.0.0.1:8790",
    show_default=True,
    envvar="SLUICE_URL",
    show_envvar=True,
    help="The proxy's.",
)
