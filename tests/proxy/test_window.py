from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from sluice.proxy.window import Windows, messages_bound


def test_a_named_limit_is_met_in_the_models_own_tokens() -> None:
    # 100,000 estimated were 125,000 to the model, which takes 105,000, of which 5,000 are taken.
    assert messages_bound(100_000, 125_000, 5_000, 105_000) == int((0.95 * 105_000 - 5_000) / 1.25)


def test_a_limit_that_is_not_named_is_approached_blindly() -> None:
    assert messages_bound(100_000, None, 5_000, 0) == 70_000
    assert messages_bound(100_000, None, 5_000, 4_000) == 70_000


@given(st.floats(0, 1e7), st.none() | st.integers(0, 10**7), st.floats(0, 1e6), st.integers(0, 2_000_000))
def test_what_was_refused_always_has_to_shrink(
    num_estimated: float, num_counted: int | None, num_beside: float, limit: int
) -> None:
    bound = messages_bound(num_estimated, num_counted, num_beside, limit)
    assert 0 <= bound <= num_estimated


def test_what_a_model_takes_is_known_by_upstream_and_bounds_each_request_by_what_stands_beside_its_messages() -> None:
    windows = Windows()
    windows.named("https://a", "m", 1_000)
    assert windows.bound("https://a", "m", 300.5) == 699
    assert windows.bound("https://a", "m", 1_000) is None, "no shorter history helps"
    assert windows.bound("https://a", "n", 0) is None
    assert windows.bound("https://b", "m", 0) is None
