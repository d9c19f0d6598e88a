"""A dictionary that forgets what was not used for longest. For one thread."""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Callable
from typing import Generic, TypeVar

K = TypeVar("K")
V = TypeVar("V")


class LRU(Generic[K, V]):
    """Holds the entries used last, and the newest whatever it weighs.

    Args:
        max_weight: of all entries together; 0 holds nothing.
        weigh: what a value weighs, when it is put; by default each weighs 1.
    """

    def __init__(self, max_weight: int, weigh: Callable[[V], int] = lambda _: 1) -> None:
        self._max_weight = max_weight
        self._weigh = weigh
        self._items: OrderedDict[K, tuple[V, int]] = OrderedDict()
        self._weight = 0

    def get(self, key: K) -> V | None:
        """The value, which counts as a use."""
        item = self._items.get(key)
        if item is None:
            return None
        self._items.move_to_end(key)
        return item[0]

    def pop(self, key: K) -> V | None:
        """Take an entry out."""
        item = self._items.pop(key, None)
        if item is None:
            return None
        self._weight -= item[1]
        return item[0]

    def put(self, key: K, value: V) -> None:
        """Add or replace an entry; the oldest make room."""
        if self._max_weight == 0:
            return
        self.pop(key)
        weight = self._weigh(value)
        self._items[key] = value, weight
        self._weight += weight
        while self._weight > self._max_weight and len(self._items) > 1:
            self._weight -= self._items.popitem(last=False)[1][1]
