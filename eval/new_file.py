"""The type of options that name a file which is written once all work is done."""

from __future__ import annotations

from pathlib import Path

import click


class NewFile(click.Path):
    """A file in a folder that is there: found out before the work, not after it."""

    def __init__(self) -> None:
        super().__init__(dir_okay=False, writable=True, path_type=Path)

    def convert(self, value: object, param: click.Parameter | None, ctx: click.Context | None) -> Path:
        """Check it."""
        path = super().convert(value, param, ctx)  # type: ignore[arg-type]
        assert isinstance(path, Path)
        if not path.absolute().parent.is_dir():
            self.fail(f"{path}: there is no folder {path.absolute().parent}", param, ctx)
        return path
