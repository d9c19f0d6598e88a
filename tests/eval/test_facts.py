"""Each rule of what is a fact, on a conversation small enough to be worked by hand."""

from __future__ import annotations

from sluice.eval.data import Trace
from sluice.eval.facts import TurnFacts, needed_facts, words_of
from tests.eval.builders import Message, assistant, system, tool, trace_of, user


def needed(*messages: Message) -> tuple[set[str], set[str]]:
    """Words and lines needed at the last assistant message."""
    facts = facts_of(trace_of(*messages))
    return {fact.text.decode() for fact in facts.words}, {fact.text.decode() for fact in facts.lines}


def facts_of(trace: Trace) -> TurnFacts:
    return needed_facts(trace, trace.turns())[-1]


def test_words_are_names_paths_and_numbers() -> None:
    text = "see parse_config in src/app.py, or loadFile. ERROR 404: plain words, tiny x1 v2.0.1/ getHTTP abc123 12"
    assert words_of(text) == {"parse_config", "src/app.py", "loadFile", "404", "getHTTP", "abc123", "v2.0.1"}


def test_words_lose_what_stands_at_their_ends() -> None:
    # `-` alone does not tell a name from prose; `.` at the end is the sentence's.
    assert words_of("a well-known sentence. In my_file.py. Path lib/x_y/-/") == {"my_file.py", "lib/x_y"}


def test_a_word_is_needed_if_a_result_showed_it_and_nobody_else_said_it() -> None:
    shown = tool("def load_rows(path_name): return 4711")
    assert needed(user("go"), assistant("", {"a": 1}), shown, assistant("I change load_rows."))[0] == {"load_rows"}
    assert needed(user("fix load_rows"), assistant("", {"a": 1}), shown, assistant("I change load_rows."))[0] == set()
    assert needed(system("load_rows"), user("go"), shown, assistant("I change load_rows."))[0] == set()
    assert needed(user("go"), assistant("I guess load_rows"), shown, assistant("I change load_rows."))[0] == set()
    assert needed(user("go"), assistant("not_shown_yet"))[0] == set()


def test_a_word_is_needed_once() -> None:
    shown = tool("def load_rows(): pass")
    once = (user("go"), assistant("", {"a": 1}), shown, assistant("load_rows is it"))
    assert needed(*once)[0] == {"load_rows"}
    assert needed(*once, tool("load_rows"), assistant("again load_rows"))[0] == set()


def test_a_part_of_a_word_is_not_that_word() -> None:
    shown = tool("src/app_main.py:3: x")
    assert needed(user("go"), assistant("", {"a": 1}), shown, assistant("open app_main.py"))[0] == set()
    assert needed(user("go"), assistant("", {"a": 1}), shown, assistant("open src/app_main.py"))[0] == {
        "src/app_main.py"
    }


def test_words_and_lines_are_taken_from_all_strings_of_the_arguments() -> None:
    shown = tool("     3→    return load_rows(path)\n     4→\n")
    edit = {"file": "x", "edits": [{"old": "    return load_rows(path)"}]}
    assert needed(user("go"), assistant("", {"a": 1}), shown, assistant("", edit)) == (
        {"load_rows"},
        {"return load_rows(path)"},
    )


def test_lines_lose_gutter_and_margin_and_are_at_least_16_characters() -> None:
    for gutter in ("  12→", "12|", "12:", "12\t", "  12 | "):
        shown = tool(f"{gutter}    return total_of(rows)")
        assert needed(user("go"), shown, assistant("return total_of(rows)  "))[1] == {"return total_of(rows)"}
    assert needed(user("go"), tool("123456789012345"), assistant("123456789012345"))[1] == set()
    assert needed(user("go"), tool("abcdefghijklmnop"), assistant("abcdefghijklmnop"))[1] == {"abcdefghijklmnop"}


def test_a_line_is_needed_until_the_agent_has_written_it_whoever_else_has() -> None:
    line = "the quick brown fox"
    assert needed(user(line), tool(line), assistant(line))[1] == {line}
    assert needed(user("go"), assistant(line), tool(line), assistant(line))[1] == set()


def test_what_was_shown_before_a_compaction_is_no_fact_after_it() -> None:
    before = (user("go"), assistant("", {"a": 1}), tool("def load_rows(): pass"))
    summary = user("so far", compaction_summary=True)
    assert needed(*before, summary, assistant("load_rows"))[0] == set()
    assert needed(*before, summary, tool("load_rows"), assistant("load_rows"))[0] == {"load_rows"}


def test_places_are_the_first_middle_and_last_line_with_two_neighbours() -> None:
    first = tool("a\nb\nc\nuse my_name\nd\ne\nf")
    second = tool("my_name again\ng\nh\ni")
    third = tool("j\nk\nl\nend my_name")
    (fact,) = facts_of(trace_of(user("go"), first, second, third, assistant("my_name"))).words
    assert fact.spots == ((1, 3), (2, 0), (3, 3))
    assert fact.places == (b"b\nc\nuse my_name\nd\ne", b"my_name again\ng\nh", b"k\nl\nend my_name")


def test_a_line_that_shows_a_word_twice_is_one_place() -> None:
    (fact,) = facts_of(trace_of(user("go"), tool("x\nmy_name my_name\ny"), assistant("my_name"))).words
    assert fact.places == (b"x\nmy_name my_name\ny",)


def test_observations_of_text_only_agents_show_facts() -> None:
    trace = trace_of(user("go"), assistant("ls"), user("my_file.py"), assistant("my_file.py"), observation_indexes=[2])
    assert [fact.text for fact in facts_of(trace).words] == [b"my_file.py"]
