"""What is held, by number and by weight."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from sluice.compressor.lru import LRU


def test_what_was_not_used_for_longest_makes_room() -> None:
    held: LRU[str, int] = LRU(2)
    held.put("a", 1)
    held.put("b", 2)
    assert held.get("a") == 1
    held.put("c", 3)
    assert [held.get(key) for key in "abc"] == [1, None, 3]


def test_the_newest_is_held_whatever_it_weighs_but_where_nothing_may_be() -> None:
    held: LRU[str, int] = LRU(10, weigh=lambda value: value)
    for number in (4, 5, 40):
        held.put(str(number), number)
    assert [held.get(key) for key in ("4", "5", "40")] == [None, None, 40]
    none: LRU[str, int] = LRU(0)
    none.put("a", 1)
    assert none.get("a") is None


@given(st.lists(st.tuples(st.sampled_from(["put", "get", "pop"]), st.integers(0, 5), st.integers(0, 9)), max_size=60))
def test_it_holds_the_last_used_that_fit(steps: list[tuple[str, int, int]]) -> None:
    held: LRU[int, int] = LRU(15, weigh=lambda value: value)
    model: dict[int, int] = {}  # in the order of use
    for what, key, value in steps:
        if what == "put":
            held.put(key, value)
            model.pop(key, None)
            model[key] = value
            while sum(model.values()) > 15 and len(model) > 1:
                del model[next(iter(model))]
        elif what == "get":
            assert held.get(key) == model.get(key)
            if key in model:
                model[key] = model.pop(key)
        else:
            assert held.pop(key) == model.pop(key, None)
