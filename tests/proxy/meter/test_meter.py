from __future__ import annotations

import pytest

from sluice.proxy.breaker import Breaker
from sluice.proxy.meter.counterfactual import Last
from sluice.proxy.meter.meter import Meter
from sluice.proxy.meter.prices import load_prices
from sluice.proxy.meter.redis_store import RedisMeterStore
from sluice.proxy.meter.stats import compare_conversations, stats_of
from sluice.proxy.meter.turn import Arm, Charge, Source, Turn, bucket_ms, bucket_of, charge
from sluice.proxy.meter.usage import Usage
from tests.proxy.meter.turns import AT_S, DAY, MODEL, turn
from tests.redis_server import RedisServer

PRICES = load_prices()
PRICE = PRICES.find(MODEL)


async def stats(meter: Meter):  # type: ignore[no-untyped-def]  # the shape is what the tests look into
    store = await meter.reading()
    is_shared = store is not meter.local
    comparison = compare_conversations(await store.conversations(0, 10_000))
    return stats_of(await store.sums([DAY]), comparison, since=DAY, until=DAY, scope=str(is_shared))


def test_a_turn_is_charged_as_measured_and_as_untouched() -> None:
    charged = charge(turn(), PRICE)
    assert charged.cost == pytest.approx((1000 * 3.75 + 1000 * 0.30 + 100 * 15) / 1e6)
    assert charged.cost_untouched == pytest.approx(charged.cost + 1000 * 3.75 / 1e6)
    # One turn later, what had been dropped would have been read.
    later = turn(at_s=AT_S + 60, tokens_in=3500, tokens_out=2500, usage=Usage(cache_write_5m=500, cache_read=2000))
    again = charge(later, PRICE, charged.last)
    assert again.cost_untouched - again.cost == pytest.approx(1000 * 0.30 / 1e6)


def test_held_out_and_off_turns_save_nothing() -> None:
    for changes in ({"is_holdout": True}, {"mode": "off"}):
        charged = charge(turn(**changes), PRICE, Last(AT_S - 60, 2000, 500))
        assert charged.cost == charged.cost_untouched > 0
        assert charged.last is None


def test_without_a_price_or_a_usage_nothing_is_made_up() -> None:
    assert charge(turn(model="unknown"), None).cost_untouched == 0
    unpriced, unmetered = charge(turn(), None), charge(turn(usage=None), PRICE)
    assert (unpriced.is_metered, unpriced.is_priced) == (True, False)
    assert (unmetered.is_metered, unmetered.cost) == (False, 0)


def test_an_answer_from_the_cache_costs_nothing_and_says_what_it_saved() -> None:
    charged = charge(turn(source=Source.HIT), PRICE)
    assert (charged.cost, charged.cost_untouched, charged.last) == (0, 0, None)
    assert charged.cost_answered == charge(turn(), PRICE).cost


def test_overhead_buckets_are_good_to_a_fifth() -> None:
    for overhead_ms in (0.06, 0.5, 1.0, 7.3, 250.0, 4000.0):
        upper = bucket_ms(bucket_of(overhead_ms / 1000))
        assert overhead_ms <= upper <= overhead_ms * 1.2001


async def test_turns_add_up() -> None:
    meter = Meter(PRICES)
    meter.record(turn(epoch="pays"))
    meter.record(turn(conversation="c2", is_holdout=True, tokens_out=3000))
    meter.record(turn(conversation="", mode="off", model="unknown"))
    meter.record(turn(conversation="c3", usage=None, bypass="state", num_retries=2))
    meter.record(turn(conversation="c4", status=529, usage=None))
    meter.record(turn(conversation="c5", source=Source.HIT))
    found = await stats(meter)
    assert found.totals.num_turns == 6
    assert (found.totals.num_errors, found.totals.num_unmetered, found.totals.num_unpriced) == (1, 1, 1)
    assert found.arms["treated"].num_turns == 4
    assert found.arms["holdout"].tokens_out == found.arms["holdout"].tokens_in == 3000
    assert found.totals.usage == Usage(cache_write_5m=3000, cache_read=3000, output_tokens=300)
    assert found.totals.saved == pytest.approx(1000 * 3.75 / 1e6)
    assert (found.epochs, found.bypasses, found.num_retries) == ({"pays": 1}, {"state": 1}, 2)
    assert (found.answers.num_hits, found.answers.saved > 0) == (1, True)
    assert [group.name for group in found.by_model] == [MODEL, "unknown"]
    assert [group.name for group in found.by_day] == [DAY]
    assert found.overhead_ms.p50 == pytest.approx(2.0, rel=0.2)
    assert found.scope == "False"
    assert (found.holdout.num_treated, found.holdout.num_held_out) == (1, 1)
    await meter.aclose()


async def test_names_that_clients_choose_are_cut_and_made_printable() -> None:
    meter = Meter(PRICES)
    meter.record(turn(model="a\nb\x1f" + "x" * 500))
    found = await stats(meter)
    assert found.by_model[0].name == ("a?b?" + "x" * 116)
    await meter.aclose()


@pytest.mark.redis
async def test_sums_survive_a_restart_and_the_history_goes_on(redis_url: str) -> None:
    first = Meter(PRICES, RedisMeterStore(redis_url), pause_s=0.01)
    first.record(turn())
    await first.aclose()
    second = Meter(PRICES, RedisMeterStore(redis_url), pause_s=0.01)
    later = turn(
        at_s=AT_S + 60, tokens_in=3500, tokens_out=2500, usage=Usage(cache_write_5m=500, cache_read=2000), num_new=1
    )
    second.record(later)
    found = await stats(second)
    assert (found.totals.num_turns, found.scope) == (2, "True")
    # The second process knew from the first that the tokens had been dropped before.
    assert found.totals.saved == pytest.approx((1000 * 3.75 + 1000 * 0.30) / 1e6)
    await second.aclose()


@pytest.mark.redis
async def test_a_lost_redis_loses_no_turn(redis_server: RedisServer) -> None:
    meter = Meter(PRICES, RedisMeterStore(redis_server.url, breaker=Breaker(retry_s=0)), pause_s=0.01)
    meter.record(turn())
    assert (await stats(meter)).scope == "True"
    redis_server.kill()
    meter.record(turn())
    found = await stats(meter)
    # Meanwhile there is what this process saw itself.
    assert (found.totals.num_turns, found.scope) == (2, "False")
    redis_server.start()
    found = await stats(meter)
    assert (found.totals.num_turns, found.scope) == (2, "True")
    await meter.aclose()


async def test_a_fault_of_the_meter_costs_no_other_turn() -> None:
    class Failing:
        def export(self, turn: Turn, charged: Charge) -> None:
            raise RuntimeError("broken")

        def close(self) -> None: ...

    meter = Meter(PRICES, exporters=[Failing()])
    meter.record(turn(at_s=float("nan")))
    meter.record(turn())
    assert (await stats(meter)).arms[Arm.TREATED].num_turns == 1
    await meter.aclose()


def test_a_turn_that_was_not_counted_saves_nothing_and_leaves_the_history_as_it_was() -> None:
    first = charge(turn(), PRICE)
    later = turn(at_s=AT_S + 60, usage=Usage(cache_write_5m=500, cache_read=2000), tokens_in=None, tokens_out=None)
    uncounted = charge(later, PRICE, first.last)
    assert uncounted.cost_untouched == uncounted.cost > 0
    assert uncounted.last is None


async def test_after_a_turn_that_was_not_counted_what_was_dropped_before_is_not_dropped_anew() -> None:
    meter = Meter(PRICES)
    meter.record(turn())
    meter.record(turn(at_s=AT_S + 60, tokens_in=None, tokens_out=None))
    used = Usage(cache_write_5m=500, cache_read=2000)
    meter.record(turn(at_s=AT_S + 120, tokens_in=3500, tokens_out=2500, usage=used))
    found = await stats(meter)
    # Written once, on the first turn, and read on the third.
    assert found.totals.saved == pytest.approx((1000 * 3.75 + 1000 * 0.30) / 1e6)
    await meter.aclose()


async def test_only_answers_of_upstreams_are_unmetered_or_unpriced() -> None:
    meter = Meter(PRICES)
    meter.record(turn(source=Source.HIT, usage=None))
    meter.record(turn(source=Source.SHARED, model="unknown"))
    found = await stats(meter)
    assert (found.totals.num_unmetered, found.totals.num_unpriced) == (0, 0)
    await meter.aclose()
