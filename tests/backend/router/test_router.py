from __future__ import annotations

import random
from collections import Counter

import numpy as np
import pytest

from sluice.backend.errors import NoReplicaError
from sluice.backend.router import Prompt, Router, RouterSettings
from sluice.backend.router.policy import rendezvous

NAMES = ("http://a", "http://b", "http://c")


def turn(name: str, number: int, tokens: int = 1000) -> Prompt:
    """Turn `number` of a conversation: each adds `tokens`."""
    return Prompt(
        tuple(f"{name}/{part}".encode() for part in range(number + 1)),
        tuple(tokens * (part + 1) for part in range(number + 1)),
    )


def test_a_conversation_stays_where_its_prefix_is() -> None:
    router = Router(NAMES)
    places = set()
    for number in range(20):
        route = router.route(turn("one", number), float(number))
        router.begun(route)
        places.add(route.replica)
        assert route.num_cached_tokens == 1000 * number
    assert len(places) == 1


def test_new_conversations_go_where_least_was_done() -> None:
    router = Router(NAMES)
    places = Counter(router.route(turn(str(number), 0), 0.0).replica for number in range(30))
    assert places == dict.fromkeys(NAMES, 10)


def test_a_hot_replica_sheds_and_what_is_dear_to_move_stays() -> None:
    router = Router(NAMES[:2])
    home = router.route(turn("long", 40), 0.0)
    small = router.route(turn("short", 1), 0.0, exclude=[name for name in NAMES[:2] if name != home.replica])
    assert small.replica == home.replica
    for number in range(30):
        router.route(turn(f"flood {number}", 2), 0.0, exclude=[name for name in NAMES[:2] if name != home.replica])
    assert router.route(turn("short", 2), 0.0).replica != home.replica
    assert router.route(turn("long", 41), 0.0).replica == home.replica


def test_work_counts_until_the_answer_begins() -> None:
    router = Router(NAMES, RouterSettings(request_tokens=7))
    route = router.route(turn("one", 0), 0.0)
    assert router.queued()[route.replica] == 1007
    router.begun(route)
    router.begun(route)
    assert set(router.queued().values()) == {0.0}


def test_a_replica_that_is_down_gets_nothing_and_has_forgotten() -> None:
    router = Router(NAMES)
    home = router.route(turn("one", 0), 0.0).replica
    router.set_up(home, False)
    moved = router.route(turn("one", 1), 0.0)
    assert moved.replica != home
    assert moved.num_cached_tokens == 0
    router.set_up(home, True)
    assert router.route(turn("one", 2), 0.0).replica == moved.replica


def test_where_all_are_down_one_is_tried_all_the_same() -> None:
    router = Router(NAMES)
    for name in NAMES:
        router.set_up(name, False)
    tried: list[str] = []
    for _ in NAMES:
        tried.append(router.route(None, 0.0, exclude=tried).replica)
    assert sorted(tried) == sorted(NAMES)
    with pytest.raises(NoReplicaError, match="none of 3 replicas"):
        router.route(None, 0.0, exclude=tried)


def test_what_replicas_say_they_hold_stands_above_what_is_remembered() -> None:
    router = Router(NAMES)
    home = router.route(turn("one", 4), 0.0).replica
    other = next(name for name in NAMES if name != home)
    held = np.array([5000.0 if name == other else 0.0 for name in NAMES])
    assert router.route(turn("one", 5), 0.0, held=held).replica == other


def test_where_another_proxy_sent_it_counts() -> None:
    router = Router(NAMES)
    for name in NAMES:
        route = router.route(turn("one", 9), 0.0, placed=(name, 9000))
        assert (route.replica, route.num_cached_tokens) == (name, 9000)
        router = Router(NAMES)
    assert router.route(turn("one", 9), 0.0, placed=("http://gone", 9000)).num_cached_tokens == 0


def test_work_done_by_other_proxies_counts() -> None:
    router = Router(NAMES)
    router.set_elsewhere({"http://a": 50_000.0, "http://b": 50_000.0})
    assert {router.route(turn(str(number), 0), 0.0).replica for number in range(5)} == {"http://c"}


def test_capacity_bounds_what_is_believed_to_be_cached() -> None:
    router = Router(NAMES[:1])
    router.set_capacity(NAMES[0], 4096)
    router.route(turn("one", 3), 0.0)
    for number in range(8):
        router.route(turn(f"other {number}", 3), 0.0)
    assert router.route(turn("one", 4), 0.0).num_cached_tokens == 0


def test_proxies_that_know_nothing_agree_on_an_idle_fleet_at_any_turn() -> None:
    places = [{Router(NAMES).route(turn(str(number), at), 0.0).replica for at in (1, 2, 9)} for number in range(30)]
    assert all(len(found) == 1 for found in places)
    assert len(set.union(*places)) == 3


def test_a_hot_replica_is_no_home() -> None:
    router = Router(NAMES)
    home = router.route(turn("one", 1), 0.0).replica
    hot = Router(NAMES)
    for _ in range(3):
        hot.begun(hot.route(turn("other", 30), 0.0, exclude=[name for name in NAMES if name != home]))
    assert hot.route(turn("one", 1), 0.0).replica != home


def test_a_lost_name_moves_only_its_own_keys() -> None:
    keys = [str(number).encode() for number in range(300)]
    before = {key: rendezvous(key, NAMES) for key in keys}
    after = {key: rendezvous(key, NAMES[1:]) for key in keys}
    assert all(after[key] == before[key] for key in keys if before[key] != NAMES[0])
    assert 60 < Counter(before.values())[NAMES[0]] < 140


def test_time_that_passes_for_days_does_not_overflow() -> None:
    router, draw = Router(NAMES), random.Random(0)
    for number in range(200):
        router.begun(router.route(turn(str(number), 0), number * 86_400.0 + draw.random()))
    assert 0 <= float(router._recent_at(200 * 86_400.0).sum()) < 1.0


@pytest.mark.parametrize("idle_s", [5e5, 1e7, 1e15])
def test_a_pause_of_any_length_is_only_forgetting(idle_s: float) -> None:
    router = Router(NAMES)
    router.begun(router.route(turn("one", 0), 0.0))
    router.begun(router.route(turn("one", 1), idle_s))
    assert 0 < float(router._recent_at(idle_s).sum()) < 2000, "the last turn's alone"


def test_names_have_to_differ() -> None:
    with pytest.raises(ValueError, match="differ"):
        Router(["http://a", "http://a"])
