"""A small repository to search, and an index of it."""

from __future__ import annotations

from pathlib import Path

from sluice.search.index.repo_index import RepoIndex
from sluice.search.index.store import SegmentStore

FILES = {
    "src/retry.py": '''"""Retries of failed requests."""
import time


class RetryPolicy:
    """Decides how long to wait before a request is sent again."""

    def __init__(self, max_attempts=3, base_delay_s=0.5):
        self.max_attempts = max_attempts
        self.base_delay_s = base_delay_s

    def backoff_delay(self, attempt):
        """Exponential backoff with a cap."""
        delay = self.base_delay_s * (2 ** attempt)
        return min(delay, 30.0)


def send_with_retry(client, request, policy):
    for attempt in range(policy.max_attempts):
        response = client.send(request)
        if response.status < 500:
            return response
        time.sleep(policy.backoff_delay(attempt))
    raise TimeoutError("gave up")
''',
    "src/cookies.py": '''"""Parsing of cookie headers."""


def parse_cookie_header(header):
    """Split a Cookie header into names and values."""
    jar = {}
    for part in header.split(";"):
        name, _, value = part.strip().partition("=")
        if name:
            jar[name] = value
    return jar
''',
    "src/server.go": """package server

// Router matches request paths to handlers.
type Router struct {
	routes map[string]Handler
}

// Handle registers a handler for a path.
func (r *Router) Handle(path string, handler Handler) {
	r.routes[path] = handler
}
""",
    "tests/test_retry.py": """from src.retry import RetryPolicy


def test_backoff_delay_is_capped():
    assert RetryPolicy().backoff_delay(40) == 30.0
""",
    "docs/guide.md": "# Guide\n\nHow to configure retry and backoff.\n",
    "vendor/lib/retry.py": "def backoff_delay():\n    pass\n",
    ".gitignore": "build/\n*.log\n",
    "build/out.py": "def backoff_delay():\n    pass\n",
    "debug.log": "backoff_delay failed\n",
}


def write_tree(root: Path, files: dict[str, str] | None = None) -> Path:
    """Write files below `root`."""
    for path, text in (FILES if files is None else files).items():
        target = root / path
        target.parent.mkdir(parents=True, exist_ok=True)
        target.write_text(text, encoding="utf-8")
    return root


def index_of(root: Path) -> RepoIndex:
    """An index that keeps nothing on disk."""
    return RepoIndex(root, SegmentStore(None))
