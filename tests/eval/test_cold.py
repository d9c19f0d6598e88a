from __future__ import annotations

from sluice.eval.cold import answers_a_person, cold_turns
from tests.eval.builders import assistant, tool, trace_of, user


def test_only_a_persons_message_after_an_assistants_without_calls_counts() -> None:
    trace = trace_of(
        user("a"),
        assistant("b", {"x": 1}),  # first turn: nobody had spoken before the person
        tool("c"),
        assistant("d"),  # after a result
        user("e"),
        user("f"),
        assistant("g", {"x": 1}),  # after a person's two messages, which answer `d`
        user("stop!"),
        assistant("h"),  # after a person's message, but `g` had called a tool
    )
    assert [answers_a_person(trace, turn) for turn in trace.turns()] == [False, False, True, False]


def test_observations_are_no_persons() -> None:
    trace = trace_of(user("a"), assistant("ls"), user("b"), assistant("c"), observation_indexes=[2])
    assert [answers_a_person(trace, turn) for turn in trace.turns()] == [False, False]


def test_the_draw_is_seeded_and_has_its_shares() -> None:
    quiet = trace_of(user("a"), *[assistant("b", {"x": 1}), tool("c")] * 2000)
    turns = quiet.turns()
    assert cold_turns(quiet, turns, seed=1) == cold_turns(quiet, turns, seed=1)
    assert cold_turns(quiet, turns, seed=1) != cold_turns(quiet, turns, seed=2)
    assert 0.03 < sum(cold_turns(quiet, turns, seed=1)) / 2000 < 0.05
    chat = trace_of(*[user("a"), assistant("b")] * 2000)
    # 1 − 0.96 · 0.5 = 0.52
    assert 0.49 < sum(cold_turns(chat, chat.turns(), seed=1)) / 2000 < 0.55
