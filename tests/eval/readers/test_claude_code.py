"""Claude Code's sessions in which somebody went back: what was abandoned stands in no later request."""

from __future__ import annotations

from pathlib import Path

from tests.eval.readers.samples import Json, claude, lines, read, told


def said(uuid: str, parent: str | None, text: str, **more: Json) -> Json:
    return claude("user", {"role": "user", "content": text}, uuid=uuid, parentUuid=parent, **more)


def answered(uuid: str, parent: str, *blocks: Json, name: str = "") -> Json:
    message = {"role": "assistant", "id": name or uuid, "content": list(blocks)}
    return claude("assistant", message, uuid=uuid, parentUuid=parent)


def text(words: str) -> Json:
    return {"type": "text", "text": words}


def call(name: str) -> Json:
    return {"type": "tool_use", "id": name, "name": "Read", "input": {}}


def gave(uuid: str, parent: str, name: str) -> Json:
    block = {"type": "tool_result", "tool_use_id": name, "content": f"result {name}"}
    return claude("user", {"role": "user", "content": [block]}, uuid=uuid, parentUuid=parent)


BEGUN = [said("u1", None, "fix it"), answered("a1", "u1", text("done"))]
TOLD = [("user", "fix it"), ("assistant", "done")]


def test_an_abandoned_branch_is_a_conversation_of_its_own(tmp_path: Path) -> None:
    main, aside = read(
        lines(
            tmp_path / "s.jsonl",
            *BEGUN,
            said("u2", "a1", "wrong"),
            answered("a2", "u2", call("c")),
            gave("r2", "a2", "c"),
            answered("a3", "r2", text("oh")),
            said("u3", "a1", "right"),
            answered("a4", "u3", text("good")),
        )
    )
    assert (main.id, told(main)) == ("s1", [*TOLD, ("user", "right"), ("assistant", "good")])
    wrong = [("user", "wrong"), ("assistant", ""), ("tool", "result c"), ("assistant", "oh")]
    assert (aside.id, told(aside)) == ("s1/branch-1", [*TOLD, *wrong])


def test_a_first_prompt_that_was_changed(tmp_path: Path) -> None:
    main, aside = read(
        lines(tmp_path / "s.jsonl", *BEGUN, said("u2", None, "fix that"), answered("a2", "u2", text("yes")))
    )
    assert told(main) == [("user", "fix that"), ("assistant", "yes")]
    assert told(aside) == TOLD


def test_calls_side_by_side_are_no_branches(tmp_path: Path) -> None:
    """Each result names the line of its own call as its parent: only the last one is an ancestor of the rest."""
    (trace,) = read(
        lines(
            tmp_path / "s.jsonl",
            said("u1", None, "fix it"),
            answered("a1", "u1", call("c1"), name="m"),
            answered("a2", "a1", call("c2"), name="m"),
            gave("r1", "a1", "c1"),
            said("m1", "a1", "a skill", isMeta=True),
            gave("r2", "a2", "c2"),
            answered("a3", "r2", text("done")),
            said("u2", "a3", "more"),
        )
    )
    results = [("tool", "result c1"), ("user", "a skill"), ("tool", "result c2")]
    assert told(trace) == [("user", "fix it"), ("assistant", ""), *results, ("assistant", "done"), ("user", "more")]
    assert trace.messages[1].num_calls == 2


def test_a_compaction_continues_what_it_sums_up(tmp_path: Path) -> None:
    boundary = {
        "type": "system",
        "subtype": "compact_boundary",
        "sessionId": "s1",
        "uuid": "b",
        "parentUuid": None,
        "logicalParentUuid": "a1",
    }
    for between in ([boundary], []):
        summary = said("s", "b" if between else None, "so far", isCompactSummary=True, isVisibleInTranscriptOnly=True)
        (trace,) = read(lines(tmp_path / "s.jsonl", *BEGUN, *between, summary, said("u2", "s", "more")))
        assert told(trace) == [*TOLD, ("user", "so far"), ("user", "more")]
        assert trace.starts == {2}


def test_who_went_back_to_before_a_compaction_is_sent_no_summary(tmp_path: Path) -> None:
    summary = said("s", "a1", "so far", isCompactSummary=True)
    main, aside = read(lines(tmp_path / "s.jsonl", *BEGUN, summary, said("u2", "s", "more"), said("u3", "a1", "other")))
    assert (told(main), main.starts) == ([*TOLD, ("user", "other")], frozenset())
    assert told(aside) == [*TOLD, ("user", "so far"), ("user", "more")]


def test_a_parent_that_is_not_in_the_file_breaks_nothing_off(tmp_path: Path) -> None:
    (trace,) = read(lines(tmp_path / "s.jsonl", *BEGUN, said("u2", "elsewhere", "more")))
    assert told(trace) == [*TOLD, ("user", "more")]


def test_sub_agents_of_one_file_are_kept_apart(tmp_path: Path) -> None:
    side = [
        said("x1", None, "look here", isSidechain=True),
        {**answered("y1", "x1", text("one")), "isSidechain": True},
        said("x2", None, "look there", isSidechain=True),
        {**answered("y2", "x2", text("two")), "isSidechain": True},
    ]
    main, *others = read(lines(tmp_path / "s.jsonl", *BEGUN, *side))
    assert told(main) == TOLD
    assert sorted(map(told, others)) == [
        [("user", "look here"), ("assistant", "one")],
        [("user", "look there"), ("assistant", "two")],
    ]
