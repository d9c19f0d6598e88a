"""What search can be told. One frozen slice; nothing here reads the environment."""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path

MIN_BUDGET_TOKENS = 32
MAX_BUDGET_TOKENS = 32_000


@dataclass(frozen=True)
class DeepSettings:
    """The model behind `mode: deep`; any server that speaks OpenAI's chat form."""

    base_url: str = ""
    """Origin with or without `/v1`; empty: there is none, and `deep` is refused."""
    model: str = ""
    """Name that the server knows the model by."""
    api_key: str = ""
    """Sent as a bearer token; empty: none is sent."""
    timeout_s: float = 20.0
    """For the whole side conversation; then the index's answer stands."""
    max_turns: int = 4
    """Calls of the model."""
    max_calls: int = 8
    """Tool calls that one turn may make at once; what is asked beyond them is refused."""


@dataclass(frozen=True)
class SearchSettings:
    """How and where search may look."""

    roots: tuple[Path, ...] = ()
    """The only directories that are ever read; none: every search is refused."""
    cache_dir: Path | None = None
    """Where segments are kept, to be shared by all roots; None: in memory, for the life of the process."""
    rescan_s: float = 1.0
    """A tree is listed anew when its last listing is older; files that are answered from are always checked."""
    max_budget_tokens: int = MAX_BUDGET_TOKENS
    """A larger budget is refused."""
    dense_model: str = ""
    """Embedding model that files and chunks are weighed with as well (see `dense/embedder.py`); empty: none."""
    deep: DeepSettings = field(default_factory=DeepSettings)
    """The model behind `mode: deep`."""

    def __post_init__(self) -> None:
        """Refuse values that cannot be meant.

        Raises:
            ValueError: names the key and the value.
        """
        for key in ("rescan_s", "max_budget_tokens"):
            if getattr(self, key) < 0:
                raise ValueError(f"search.{key} = {getattr(self, key)!r} is below 0")
        for key in ("timeout_s", "max_turns", "max_calls"):
            if getattr(self.deep, key) <= 0:
                raise ValueError(f"search.deep.{key} = {getattr(self.deep, key)!r} is not above 0")
        for root in self.roots:
            if not root.is_dir():
                raise ValueError(f"search.roots: {str(root)!r} is no directory")
