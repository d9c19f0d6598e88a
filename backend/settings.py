"""Where the backend keeps files when it is not told otherwise."""

from __future__ import annotations

import os
import sys
from pathlib import Path


def default_cache_dir() -> Path:
    """Sluice's cache folder: `SLUICE_CACHE_DIR`, else one in `XDG_CACHE_HOME`, else in the system's usual place."""
    if folder := os.environ.get("SLUICE_CACHE_DIR"):
        return Path(folder)
    if base := os.environ.get("XDG_CACHE_HOME"):
        return Path(base) / "sluice"
    if sys.platform == "darwin":
        return Path.home() / "Library" / "Caches" / "sluice"
    if sys.platform == "win32":
        return Path(os.environ.get("LOCALAPPDATA") or Path.home() / "AppData" / "Local") / "sluice" / "cache"
    return Path.home() / ".cache" / "sluice"
