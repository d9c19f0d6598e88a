"""Where the backend keeps files when it is not told otherwise."""

from __future__ import annotations

import os
import sys
from pathlib import Path


def default_cache_dir() -> Path:
    """The platform's cache folder for Sluice: `XDG_CACHE_HOME`, else the system's usual place."""
    if base := os.environ.get("XDG_CACHE_HOME"):
        return Path(base) / "sluice"
    if sys.platform == "darwin":
        return Path.home() / "Library" / "Caches" / "sluice"
    if sys.platform == "win32":
        return Path(os.environ.get("LOCALAPPDATA") or Path.home() / "AppData" / "Local") / "sluice" / "cache"
    return Path.home() / ".cache" / "sluice"
