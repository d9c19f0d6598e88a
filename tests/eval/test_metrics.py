"""The figures on conversations small enough to be worked by hand."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import pytest

from sluice.eval.cost import PRICES, Cache, PrefixMeter
from sluice.eval.data import Trace
from sluice.eval.facts import needed_facts
from sluice.eval.message import encode
from sluice.eval.metrics import Reader, Score, Scorer, num_shared
from sluice.eval.policies.untouched import Untouched
from sluice.eval.replay import Options, Script, client_messages, play
from tests.eval.builders import Message, assistant, system, tool, trace_of, user

Forward = Callable[[list[bytes]], Sequence[bytes]]


def scored(trace: Trace, forward: Forward, cold: Sequence[bool] | None = None) -> Score:
    """Score what a function makes of each request."""
    turns = trace.turns()
    scorer = Scorer(trace, Reader(trace), PrefixMeter())
    for number, (turn, facts) in enumerate(zip(turns, needed_facts(trace, turns), strict=True)):
        sent = client_messages(trace, turn, Cache.PREFIX)
        scorer.turn(turn, facts, sent=sent, forwarded=forward(sent), is_cold=bool(cold and cold[number]))
    return scorer.score


def replacing(index: int, message: Message) -> Forward:
    """Forward another message in the place of one."""
    return lambda sent: [encode(message) if i == index else raw for i, raw in enumerate(sent)]


def test_input_cost_worked_by_hand() -> None:
    # Tokens: a 5, b 6, c 7, d 8 (text of 4, 8, 12, 16 characters, by 4, plus 4).
    trace = trace_of(user("a" * 4), assistant("b" * 8), tool("c" * 12), assistant("d" * 16))
    score = scored(trace, lambda sent: sent)
    # Turn 1 sends a: 5 written. Turn 2 sends a, b, c: 5 read, 13 written.
    assert (score.usage.read, score.usage.write) == (5, 5 + 13)
    assert score.usage.cost(PRICES["anthropic"]) == pytest.approx(5 * 0.1 + 18 * 1.25)
    assert score.output_tokens == 6 + 8
    assert score.peak_tokens == 18
    assert scored(trace, lambda sent: sent, cold=[False, True]).usage.write == 5 + 18


def test_a_rewritten_message_breaks_the_prefix_from_there_on() -> None:
    trace = trace_of(user("a" * 4), assistant("b" * 8), tool("c" * 12), assistant("d" * 16), tool("e"), assistant("f"))
    masked = encode(tool("c"))

    def forward(sent: list[bytes]) -> list[bytes]:
        return [masked if i == 2 and len(sent) > 3 else raw for i, raw in enumerate(sent)]

    score = scored(trace, forward)
    # Turn 3 sends a 5, b 6, masked 4.25, d 8, e 4.25; of turn 2 (a, b, c) it shares a and b.
    assert score.usage.read == 5 + (5 + 6)
    assert score.usage.write == 5 + (6 + 7) + (4.25 + 8 + 4.25)
    assert score.num_rewrites == 1


def test_what_the_client_itself_rewrites_is_no_rewrite() -> None:
    trace = trace_of(
        system("s"), user("a"), assistant("b"), user("sum", compaction_summary=True), assistant("c"), assistant("d")
    )
    score = scored(trace, lambda sent: sent)
    assert score.num_rewrites == 0
    assert score.usage.read == 4.25 + (4.25 + 4.75)  # `s` on turn 2; `s` and `sum` on turn 3


SHOWN = tool("l1\nl2\ndef my_name(x):\n    return total_of(rows)\nl5\nl6")
NEEDING = (
    user("go"),
    assistant("", {"a": 1}),
    SHOWN,
    assistant("my_name: return total_of(rows)\nreturn total_of(rows)"),
)


def test_all_is_kept_untouched() -> None:
    score = scored(trace_of(*NEEDING), lambda sent: sent)
    assert (score.words, score.lines, score.places) == ((2, 2), (1, 1), (2, 2))  # my_name, total_of; one line


def test_words_and_lines_are_kept_anywhere_places_only_in_place() -> None:
    # The names stand in a list, the line stands alone: nothing of their surroundings is left.
    moved = tool("my_name total_of\nx\nx return total_of(rows) x")
    score = scored(trace_of(*NEEDING), replacing(2, moved))
    assert (score.words, score.lines, score.places) == ((2, 2), (1, 1), (0, 2))


def test_what_is_dropped_is_lost() -> None:
    score = scored(trace_of(*NEEDING), replacing(2, tool("l1\nl2\ndef my_name(x):\nl5")))
    assert (score.words, score.lines, score.places) == ((1, 2), (0, 1), (0, 2))


def test_one_of_three_places_is_enough() -> None:
    copies = [tool(f"{n}\nuse my_name\n{n}") for n in range(3)]
    trace = trace_of(user("go"), *copies, assistant("my_name"))
    gone = encode(tool("gone"))
    assert scored(trace, lambda sent: [*sent[:1], gone, gone, *sent[3:]]).places == (1, 1)
    assert scored(trace, lambda sent: [*sent[:1], gone, gone, gone]).places == (0, 1)


def test_no_fact_is_found_across_two_messages() -> None:
    trace = trace_of(user("go"), tool("a\nuse my_name\nb"), assistant("my_name"))
    score = scored(trace, lambda sent: [encode(user("use my_")), encode(tool("name"))])
    assert score.words == (0, 1)


def test_a_fact_written_by_the_agent_is_found_in_its_arguments() -> None:
    trace = trace_of(user("go"), tool("see my_name"), assistant("my_name"))
    score = scored(trace, lambda sent: [encode(assistant("", {"text": "about my_name here"}))])
    assert score.words == (1, 1)


def test_markers_and_recoveries_are_counted_when_first_forwarded() -> None:
    trace = trace_of(
        user("go"), assistant("", {"a": 1}), tool("1\n2\n3\n4\nend"), assistant("x"), tool("new"), assistant("y")
    )
    marked = encode(tool("[sluice 7f3a: 4 lines omitted, 1-4]\nend"))
    restored = encode(tool("new\n\nrestored:\n1\n2\n3\n4"))

    def forward(sent: list[bytes]) -> list[bytes]:
        return [{2: marked, 4: restored}.get(i, raw) for i, raw in enumerate(sent)]

    score = scored(trace, forward)
    assert (score.num_markers, score.num_recoveries, score.num_rewrites) == (1, 1, 0)


def test_what_stands_behind_a_rewrite_is_counted_once() -> None:
    trace = trace_of(
        user("go"), *[each for n in range(3) for each in (assistant("", {"n": n}), tool(f"{n}\n{n}"))], assistant("end")
    )

    def forward(sent: list[bytes]) -> list[bytes]:
        is_last = len(sent) == 7
        texts = {i: f"[sluice {i}aaa: 1 lines omitted, 1-1]\n{i}" for i in (2, 4, 6)}
        texts[2] += " again" if is_last else ""
        return [encode(tool(texts[i])) if i in texts else raw for i, raw in enumerate(sent)]

    score = scored(trace, forward)
    assert (score.num_rewrites, score.num_markers) == (1, 4)  # three, and the one that was written anew
    assert score.num_recoveries == 4  # so are the lines that no client sent


def test_a_message_that_a_proxy_adds_makes_no_recoveries_of_what_follows() -> None:
    results = [each for n in range(3) for each in (assistant("", {"n": n}), tool(f"first {n}\nlast {n}"))]
    trace = trace_of(user("go"), *results, assistant("end"))

    def forward(sent: list[bytes]) -> list[bytes]:
        cut = [raw.replace(b"first", b"") if b"first" in raw else raw for raw in sent]
        cut = [encode(tool(f"last {(i - 2) // 2}")) if b"last" in raw else raw for i, raw in enumerate(cut)]
        return [encode(system("added")), *cut]

    assert scored(trace, forward).num_recoveries == 1  # what was added


def test_results_are_named_by_the_nearest_call_before_them() -> None:
    def step(name: str) -> list[Message]:
        call = {"id": "call_0", "type": "function", "function": {"name": name, "arguments": "{}"}}
        return [{"role": "assistant", "content": "", "tool_calls": [call]}, tool("x" * 40)]

    score = scored(trace_of(user("go"), *step("read"), *step("write"), assistant("end")), lambda sent: sent)
    assert {name: usage.num_tokens for name, usage in score.sources.items() if name in ("read", "write")} == {
        "read": 28,  # in two requests
        "write": 14,
    }


@pytest.mark.parametrize(
    "message",
    [
        {"role": "assistant", "content": "", "tool_calls": [{"id": "c", "type": "custom", "custom": {"name": "run"}}]},
        {"role": "assistant", "content": "", "function_call": {"name": "run", "arguments": "{}"}},
    ],
)
def test_results_of_other_kinds_of_calls_are_named_too(message: Message) -> None:
    result = (
        {"role": "tool", "tool_call_id": "c", "content": "x"}
        if "tool_calls" in message
        else {"role": "function", "name": "run", "content": "x"}
    )
    assert "run" in scored(trace_of(user("go"), message, result, assistant("end")), lambda sent: sent).sources


def test_digests_tell_what_was_forwarded_but_not_the_ids_of_markers() -> None:
    trace = trace_of(*NEEDING)
    one, other = (scored(trace, replacing(2, tool(f"[sluice {i}: 5 lines omitted, 1-5]"))) for i in ("aaaa", "bbbb"))
    assert one.digests == other.digests
    assert one.digests != scored(trace, replacing(2, tool("[sluice aaaa: 4 lines omitted, 1-4]"))).digests


def test_shared_messages() -> None:
    assert num_shared([], [b"a"]) == 0
    assert num_shared([b"a", b"b"], [b"a", b"b", b"c"]) == 2
    assert num_shared([b"a", b"x"], [b"a", b"b", b"c"]) == 1
    assert num_shared([b"a", b"b"], [b"a"]) == 1


async def test_a_recorded_turn_is_played_with_claude_codes_breakpoints() -> None:
    trace = trace_of(system("s" * 4), user("a" * 4), assistant("b" * 8), tool("c" * 12), assistant("d"))
    options = Options(cache=Cache.ANTHROPIC)
    score = await play(Script.of(trace, options), Untouched(), options)
    # Turn 1: 10 written. Turn 2: the entry at `a` is found: 10 read, b and c (13) written. Marks rewrite nothing.
    assert (score.usage.read, score.usage.write, score.usage.plain) == (10, 10 + 13, 0)
    assert score.num_rewrites == 0
