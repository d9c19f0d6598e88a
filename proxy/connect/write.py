"""Changes settings files and takes the changes back. A file is replaced as a whole or not at all, with its rights kept.

What a person changed since is left as it is: only a value that is still ours is taken back.
"""

from __future__ import annotations

import os
from collections.abc import Iterable, Sequence
from contextlib import suppress
from dataclasses import dataclass
from itertools import groupby
from pathlib import Path

from sluice.proxy.connect.documents import (
    MISSING,
    Change,
    Form,
    UnreadableSettingsError,
    find,
    parse,
    put,
    remove,
    render,
)
from sluice.proxy.connect.journal import Entry, Journal


@dataclass(frozen=True, slots=True)
class Undone:
    """What became of a setting that was to be taken back."""

    entry: Entry
    is_restored: bool
    """False where somebody changed it since, or the file is gone."""


def write(agent: str, changes: Sequence[Change], journal: Journal) -> list[Path]:
    """Make the changes; what was there before is remembered first, once: a second call keeps the first one's memory.

    Returns:
        The files that are other than before.

    Raises:
        UnreadableSettingsError: a file cannot be understood. Then none is changed.
        OSError: a file cannot be read or written.
    """
    remembered = {(entry.file, entry.keys): entry for entry in journal.read(agent)}
    texts: list[tuple[Path, str]] = []
    for (file, form), group in groupby(changes, key=lambda change: (change.file, change.form)):
        old = _read(file)
        try:
            tree = parse(old or "", form)
            for change in group:
                before = find(tree, change.keys)
                put(tree, change.keys, change.value)
                known = remembered.get((file, change.keys))
                if known is not None and before != known.value:
                    known = None  # somebody set it otherwise since: that is what to go back to
                was_there = before is not MISSING
                remembered[file, change.keys] = Entry(
                    file,
                    form,
                    change.keys,
                    change.value,
                    known.was_there if known else was_there,
                    known.before if known else (before if was_there else None),
                    known.made_file if known else old is None,
                )
        except UnreadableSettingsError as error:
            raise UnreadableSettingsError(f"{file} was left as it is: {error}") from None
        new = render(tree, form, old or "")
        if new != old:
            texts.append((file, new))
    journal.keep(agent, list(remembered.values()))
    for file, text in texts:
        _replace(file, text)
    return [file for file, _ in texts]


def undo(agent: str, journal: Journal) -> list[Undone]:
    """Take back what `write` did.

    Raises:
        UnreadableSettingsError: a file cannot be understood any more. Then none is changed.
        OSError: a file cannot be read or written.
    """
    done: list[Undone] = []
    texts: list[tuple[Path, str | None]] = []
    entries = sorted(journal.read(agent), key=lambda entry: (entry.file, entry.form))  # each file is written once
    for (file, form), group in groupby(entries, key=lambda entry: (entry.file, entry.form)):
        text, undone = _undo_file(file, form, group)
        done += undone
        if any(one.is_restored for one in undone):
            texts.append((file, text))
    for file, text in texts:
        if text is None:
            file.unlink()
        else:
            _replace(file, text)
    journal.forget(agent)
    return done


def _undo_file(file: Path, form: Form, entries: Iterable[Entry]) -> tuple[str | None, list[Undone]]:
    """The text without our settings, None where nothing is left of a file that was made for them."""
    old = _read(file)
    if old is None:
        return None, [Undone(entry, is_restored=False) for entry in entries]
    try:
        tree = parse(old, form)
    except UnreadableSettingsError as error:
        raise UnreadableSettingsError(f"{file} was left as it is: {error}") from None
    done: list[Undone] = []
    is_ours = False
    for entry in entries:
        is_ours = is_ours or entry.made_file
        is_same = find(tree, entry.keys) == entry.value
        if is_same and entry.was_there:
            put(tree, entry.keys, entry.before)
        elif is_same:
            remove(tree, entry.keys)
        done.append(Undone(entry, is_restored=is_same))
    return (None if is_ours and not tree else render(tree, form, old)), done


def _read(file: Path) -> str | None:
    try:
        return file.read_text("utf-8")
    except FileNotFoundError:
        return None
    except UnicodeDecodeError:
        raise UnreadableSettingsError(f"{file} was left as it is: it is no UTF-8") from None


def _replace(file: Path, text: str) -> None:
    file.parent.mkdir(parents=True, exist_ok=True)
    file = file.resolve()  # settings are often links into a repository of dotfiles
    new = file.with_name(file.name + ".sluice-new")
    try:
        mode = file.stat().st_mode & 0o777 if file.exists() else 0o600
        with os.fdopen(os.open(new, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, mode), "w", encoding="utf-8") as out:
            out.write(text)
        new.replace(file)
    except BaseException as error:
        with suppress(OSError):
            new.unlink()
        if isinstance(error, OSError):  # a full disk does not say which file
            raise OSError(error.errno, error.strerror, str(file)) from None
        raise
