"""Where keys are kept: the settings, a file, or Redis (`redis.py`). Knows no request."""

from __future__ import annotations

import asyncio
import contextlib
import os
import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from pathlib import Path
from typing import Protocol

from pydantic import TypeAdapter, ValidationError

from sluice.proxy.access.keys import ProxyKey
from sluice.proxy.errors import ConfigError, KeysUnavailableError
from sluice.proxy.log import fields, logger

_KEYS = TypeAdapter(list[ProxyKey])


class KeySource(Protocol):
    """A place where keys are kept."""

    async def find(self, key_id: str) -> ProxyKey | None:
        """Look a key up; None where it is not there.

        Raises:
            KeysUnavailableError: that cannot be told.
        """
        ...


class GivenKeys:
    """Keys that stand in the settings."""

    def __init__(self, keys: Iterable[ProxyKey]) -> None:
        self._keys = {key.id: key for key in keys}

    async def find(self, key_id: str) -> ProxyKey | None:
        """See `KeySource`."""
        return self._keys.get(key_id)


class FileKeys:
    """Keys in a JSON file, which is read again when it changes.

    Args:
        path: the file; one that is not there holds no keys.
        check_s: seconds between looks at whether it changed.
        clock: seconds, monotonic.
    """

    def __init__(self, path: Path, *, check_s: float = 1.0, clock: Callable[[], float] = time.monotonic) -> None:
        self._path = path
        self._check_s = check_s
        self._clock = clock
        self._checked_at = -check_s
        self._stamp: tuple[int, int] | None = None
        self._keys: dict[str, ProxyKey] = {}
        self._said = ""
        """What was last logged of why the file cannot be read."""

    async def find(self, key_id: str) -> ProxyKey | None:
        """See `KeySource`. A file that cannot be read any more leaves the keys as they were."""
        if (now := self._clock()) - self._checked_at >= self._check_s:
            self._checked_at = now
            try:
                self._refresh()
                self._said = ""
            except ConfigError as error:
                if self._said != str(error):
                    self._said = str(error)
                    known = "those that were read before go on working" if self._stamp else "nobody is let in"
                    logger.error(fields("keys_not_read", reason=error, keys=known))
                if self._stamp is None:
                    raise KeysUnavailableError from None
        return self._keys.get(key_id)

    def list(self) -> Sequence[ProxyKey]:
        """All keys.

        Raises:
            ConfigError: the file cannot be read.
        """
        self._refresh()
        return list(self._keys.values())

    def add(self, key: ProxyKey) -> None:
        """Keep a key.

        Raises:
            ConfigError: the file cannot be read or written.
        """
        with self._locked():
            self._write([*self.list(), key])

    def remove(self, key_id: str) -> bool:
        """Forget a key; whether it was there.

        Raises:
            ConfigError: the file cannot be read or written.
        """
        with self._locked():
            keys = self.list()
            kept = [key for key in keys if key.id != key_id]
            if len(kept) < len(keys):
                self._write(kept)
        return len(kept) < len(keys)

    @contextlib.contextmanager
    def _locked(self) -> Iterator[None]:
        """Change the file alone: of two at once, one would put back what it read before the other wrote.

        The folder is what is locked, since the file itself is replaced.
        """
        folder: int | None = None
        with contextlib.suppress(ImportError, OSError):  # no such locks on Windows, nor on every file system
            import fcntl

            self._path.parent.mkdir(parents=True, exist_ok=True)
            folder = os.open(self._path.parent, os.O_RDONLY | os.O_CLOEXEC)
            fcntl.flock(folder, fcntl.LOCK_EX)
        try:
            yield
        finally:
            if folder is not None:
                os.close(folder)

    def _refresh(self) -> None:
        try:
            status = self._path.stat()
            stamp = (status.st_mtime_ns, status.st_ino)
            if stamp != self._stamp:
                self._keys = {key.id: key for key in _KEYS.validate_json(self._path.read_bytes())}
                self._stamp = stamp
        except FileNotFoundError:
            self._keys, self._stamp = {}, (0, 0)
        except OSError as error:
            raise ConfigError(f"cannot read the keys in {self._path}: {error.strerror}") from None
        except ValidationError:
            raise ConfigError(
                f"{self._path} is no list of keys as 'sluice keys add' writes it: move it away or put back an older one"
            ) from None

    def _write(self, keys: Sequence[ProxyKey]) -> None:
        """Put a new file in the place of the old one, readable by its owner alone."""
        draft = self._path.with_name(f".{self._path.name}.{os.getpid()}")
        try:
            self._path.parent.mkdir(parents=True, exist_ok=True)
            with open(os.open(draft, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600), "wb") as file:
                file.write(_KEYS.dump_json(list(keys), indent=1, exclude_none=True))
                file.flush()
                os.fsync(file.fileno())
            draft.replace(self._path)
        except OSError as error:
            with contextlib.suppress(OSError):
                draft.unlink()
            raise ConfigError(
                f"cannot write the keys to {self._path}, which is as it was: {error.strerror}; make room there, or "
                "name another file with --file"
            ) from None


async def find_key(sources: Sequence[KeySource], key_id: str) -> ProxyKey | None:
    """Look a key up in all places at once; None where it is in none.

    Raises:
        KeysUnavailableError: it was found in none, and one could not be asked.
    """
    lost: KeysUnavailableError | None = None
    for found in await asyncio.gather(*(source.find(key_id) for source in sources), return_exceptions=True):
        if isinstance(found, KeysUnavailableError):
            lost = found
        elif isinstance(found, BaseException):
            raise found
        elif found is not None:
            return found
    if lost is not None:
        raise lost
    return None
