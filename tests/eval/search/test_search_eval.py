"""Figures of merit, questions out of files and histories, baselines, and the whole command on a small tree."""

from __future__ import annotations

import json
import math
import shutil
import subprocess
from dataclasses import dataclass

import pytest
from click.testing import CliRunner

from sluice.eval.search.ablation import variants
from sluice.eval.search.baselines.bm25 import FileBM25Engine
from sluice.eval.search.baselines.ripgrep import WINDOW_LINES, RipgrepEngine
from sluice.eval.search.cli import search_command, train_command
from sluice.eval.search.data import Query, Target, read_queries
from sluice.eval.search.docstrings import docstring_test
from sluice.eval.search.history import History
from sluice.eval.search.metrics import file_recall, file_targets, is_hit, line_recall, ndcg, percentile
from sluice.eval.search.speed import measure_speed
from sluice.search.ranking.fast import answer
from sluice.search.ranking.rankers import learned_rankers
from sluice.search.tokens import result_tokens
from tests.search.trees import index_of, write_tree


@dataclass(frozen=True)
class Range:
    path: str
    start: int
    end: int


TARGETS = (Target("a", 10, 11), Target("b", 5, 5))
QUERY = Query("q", "r", "r", "", "change", "text", TARGETS)


def test_ndcg_counts_each_target_at_the_first_range_that_overlaps_it():
    results = [Range("a", 1, 9), Range("a", 11, 20), Range("b", 1, 5), Range("a", 10, 10)]
    ideal = 1 + 1 / math.log2(3)
    assert ndcg(results, TARGETS) == pytest.approx((1 / math.log2(3) + 1 / math.log2(4)) / ideal)
    assert ndcg(results, file_targets(QUERY)) == pytest.approx((1 + 1 / math.log2(4)) / ideal)
    assert ndcg([], TARGETS) == 0
    assert ndcg([Range("b", 5, 5), Range("a", 10, 10)], TARGETS) == pytest.approx(1)
    assert ndcg([Range("x", 1, 1)] * 10 + results, TARGETS) == 0


def test_line_recall_counts_lines_once():
    results = [Range("a", 11, 12), Range("a", 11, 11), Range("c", 10, 10)]
    assert line_recall(results, TARGETS) == pytest.approx(1 / 3)
    assert line_recall([Range("a", 1, 99), Range("b", 1, 99)], TARGETS) == 1
    assert line_recall(results, (Target("a"),)) == 0


def test_file_recall_and_hit():
    assert file_recall([Range("a", 1, 1)], QUERY) == 0.5
    assert file_recall([Range("x", 1, 1)] * 10 + [Range("a", 1, 1)], QUERY) == 0
    assert is_hit([Range("a", 10, 10)], TARGETS)
    assert not is_hit([Range("a", 1, 9)], TARGETS)
    assert not is_hit([], TARGETS)


def test_percentiles():
    assert percentile([3, 1, 2, 4], 0.5) == 2
    assert percentile([3, 1, 2, 4], 0.95) == 4
    assert percentile([], 0.5) == 0


def questions(path, rows):
    path.write_text("\n".join(json.dumps(row) for row in rows) + "\n", encoding="utf-8")
    return path


ROWS = [
    {"id": "1", "repo": "tree", "kind": "topic", "query": "cookie header", "relevant": [{"path": "src/cookies.py"}]},
    {
        "id": "2",
        "repo": "x",
        "dir": "tree",
        "root": "src",
        "kind": "change",
        "query": "cap the backoff delay",
        "relevant": [{"path": "src/retry.py", "start": 14, "end": 15}],
    },
    {"id": "3", "repo": "absent", "kind": "topic", "query": "x y z", "relevant": [{"path": "a"}]},
]


def test_questions_are_read(tmp_path):
    found = read_queries(questions(tmp_path / "q.jsonl", ROWS))
    assert [(q.checkout, q.root, q.kind) for q in found] == [
        ("tree", "", "topic"),
        ("tree", "src", "change"),
        ("absent", "", "topic"),
    ]
    assert found[1].targets == (Target("retry.py", 14, 15),)
    with pytest.raises(ValueError, match=r"q\.jsonl:1 .*neither"):
        read_queries(questions(tmp_path / "q.jsonl", [{**ROWS[0], "kind": "other"}]))


def test_the_command_prints_and_writes_all_figures(tmp_path):
    write_tree(tmp_path / "tree")
    asked = questions(tmp_path / "q.jsonl", ROWS)
    arguments = [str(asked), "--repos", str(tmp_path), "--ablation", "--speed", str(tmp_path / "tree")]
    arguments += ["--docstrings", str(tmp_path / "tree"), "--out", str(tmp_path / "out.json")]
    done = CliRunner().invoke(search_command, arguments, catch_exceptions=False)
    assert done.exit_code == 0
    assert "1 of 3 questions have no checkout" in done.stderr
    report = json.loads((tmp_path / "out.json").read_text(encoding="utf-8"))
    ours = report["quality"]["sluice"]
    assert ours["topic"]["file_ndcg_10"] == 1
    assert ours["change"]["line_recall_1000"] == 1
    assert ours["change"]["tokens"] <= 1000
    assert {"ripgrep, 17-line windows", "whole-file BM25", *(f"ablation: {name}" for name in variants())} <= set(
        report["quality"]
    )
    assert report["speed"]["num_files"] == 6
    assert report["docstrings"]["num_queries"] >= 1
    assert (tmp_path / "tree/src/retry.py").read_text(encoding="utf-8").startswith('"""Retries')


def test_a_path_that_is_not_below_the_part_that_is_searched_cannot_be_found(tmp_path):
    row = {**ROWS[0], "root": "pkg", "relevant": [{"path": "setup.py"}, {"path": "pkg/setup.py"}]}
    (query,) = read_queries(questions(tmp_path / "queries.jsonl", [row]))
    outside, inside = query.targets
    assert inside.path == "setup.py"
    assert not outside.overlaps("setup.py", 1, 1)


def test_a_tree_without_a_file_to_time_is_named(tmp_path):
    write_tree(tmp_path / "repos" / "tree", {"src/cookies.py": "def cookies(): ...\n"})
    (tmp_path / "empty").mkdir()
    asked = questions(tmp_path / "queries.jsonl", ROWS[:1])
    arguments = [str(asked), "--repos", str(tmp_path / "repos"), "--no-baselines", "--speed", str(tmp_path / "empty")]
    done = CliRunner().invoke(search_command, arguments)
    assert done.exit_code == 1
    assert "holds no file that is indexed" in done.output


def test_a_question_without_an_answer_is_named_and_a_line_separator_in_one_ends_no_line(tmp_path):
    asked = questions(tmp_path / "queries.jsonl", [ROWS[0], {**ROWS[0], "relevant": []}])
    with pytest.raises(ValueError, match=r"queries.jsonl:2 is no question: 'relevant' names nothing"):
        read_queries(asked)
    asked.write_text(json.dumps({**ROWS[0], "query": "cookie\u2028header"}, ensure_ascii=False), encoding="utf-8")
    assert [query.text for query in read_queries(asked)] == ["cookie\u2028header"]


def test_without_any_checkout_it_says_so(tmp_path):
    asked = questions(tmp_path / "q.jsonl", ROWS[2:])
    done = CliRunner().invoke(search_command, [str(asked), "--repos", str(tmp_path)])
    assert done.exit_code != 0
    assert "no question's checkout" in done.stderr


@pytest.mark.parametrize("make", [RipgrepEngine, FileBM25Engine])
def test_baselines_keep_to_the_budget_and_find_the_plain_word(tmp_path, make):
    engine = make(write_tree(tmp_path))
    results = engine.search("parse_cookie_header", 200)
    assert results[0].path == "src/cookies.py"
    assert sum(result_tokens(r.path, r.start, r.end, r.num_chars) for r in results) <= 200
    if make is RipgrepEngine:
        assert all(r.end - r.start < WINDOW_LINES for r in results)


def test_the_docstring_is_hidden_from_the_index(tmp_path):
    secret = "Zanzibar walrus quixotic marmalade trapezoid umbrella."
    write_tree(
        tmp_path, {"a.py": f'def f(x):\n    """{secret}"""\n    return x\n', "b.py": "def g(y):\n    return y\n"}
    )
    figures = docstring_test(tmp_path, learned_rankers(), 5, 10)
    assert figures["num_queries"] == 1
    assert figures["recall_1000"] == 0


def test_speed_puts_the_file_back(tmp_path):
    write_tree(tmp_path)
    before = {path: path.read_bytes() for path in tmp_path.rglob("*") if path.is_file()}
    figures = measure_speed(tmp_path, ["retry"])
    assert {path: path.read_bytes() for path in before} == before
    assert figures["query_p95_ms"] > 0
    assert figures["num_files"] == 6


@pytest.fixture
def repository(tmp_path):
    git = ["git", "-C", str(tmp_path), "-c", "user.name=a", "-c", "user.email=a@b"]
    subprocess.run([*git, "init", "-q"], check=True)
    write_tree(tmp_path)
    subprocess.run([*git, "add", "src", "tests", "docs"], check=True)
    subprocess.run([*git, "commit", "-q", "-m", "start"], check=True)
    source = tmp_path / "src/retry.py"
    source.write_text(source.read_text(encoding="utf-8").replace("30.0", "60.0"), encoding="utf-8")
    message = "fix(retry): wait up to a minute before giving up (#12)\n\nThe server needs longer to come back."
    subprocess.run([*git, "commit", "-q", "-a", "-m", message], check=True)
    return tmp_path / ".git"


def test_a_commit_asks_and_the_lines_before_it_answer(repository):
    (asked,) = History(repository).commits(5)
    text = "wait up to a minute before giving up. The server needs longer to come back."
    assert asked.query.text == text
    assert asked.query.targets == (Target("src/retry.py", 15, 15),)
    assert {entry.path for entry in asked.view.files} >= {"src/retry.py", "src/cookies.py"}


def test_comments_ask_and_are_hidden(repository):
    asked = list(History(repository).comments(30))
    by_text = {one.query.text: one for one in asked}
    one = by_text["Decides how long to wait before a request is sent again."]
    assert one.query.targets[0].path == "src/retry.py"
    assert not len(one.view.body("decid")[0])


def test_the_pieces_of_a_file_do_not_hold_the_comment_that_asks(repository):
    pytest.importorskip("lightgbm")
    from sluice.eval.search.train import example_of

    history = History(repository)
    text = "Decides how long to wait before a request is sent again."
    (asked,) = [one for one in history.comments(30) if one.query.text == text]
    assert asked.query.targets[0].start is not None
    pieces = example_of(asked, history).pieces
    of_comment = [
        matched
        for file, start, end, matched in zip(pieces.files, pieces.starts, pieces.ends, pieces.matched, strict=True)
        if asked.view.files[file].path == "src/retry.py" and start <= 6 <= end
    ]
    assert of_comment == [()], "the line that says 'request' asks"


def test_the_command_trains_on_several_repositories(repository, tmp_path_factory):
    pytest.importorskip("lightgbm")
    other, out = tmp_path_factory.mktemp("others") / "other", tmp_path_factory.mktemp("out") / "rankers.npz"
    shutil.copytree(repository.parent, other)
    alone = CliRunner().invoke(train_command, [str(repository), "--out", str(out)])
    assert alone.exit_code == 1
    assert "two repositories at least" in alone.output
    done = CliRunner().invoke(train_command, [str(repository), str(other / ".git"), "--out", str(out)])
    assert done.exit_code == 0, done.output
    assert "NDCG@10" in done.output
    index = index_of(other)
    assert answer(index.view(), "parse_cookie_header", learned_rankers(out), index.read, budget_tokens=300)


def test_training_gives_rankers_that_score(repository, tmp_path):
    pytest.importorskip("lightgbm")
    from sluice.eval.search.train import COLUMNS, example_of, save

    history = History(repository)
    examples = [example_of(asked, history) for asked in history.commits(5)]
    assert examples[0].file_right.any()
    assert examples[0].chunk_right.any()
    assert examples[0].piece_right.any()
    assert examples[0].file_rows.shape[1] == len(COLUMNS["file"])
    shipped = learned_rankers()
    save({"file": shipped.file, "chunk": shipped.chunk, "piece": shipped.piece}, tmp_path / "copy.npz")
    copy = learned_rankers(tmp_path / "copy.npz")
    rows = examples[0].file_rows
    assert copy.file.score(rows).tolist() == shipped.file.score(rows).tolist()


def test_what_is_no_history_is_named(tmp_path):
    done = CliRunner().invoke(train_command, [str(tmp_path), "--out", str(tmp_path / "rankers")])
    assert done.exit_code == 1
    assert f"{tmp_path}: fatal: not a git repository" in done.output


def test_a_question_that_lacks_a_field_is_told_which(tmp_path):
    with pytest.raises(ValueError, match=r"q\.jsonl:1 is no question: it has no field 'kind'"):
        read_queries(questions(tmp_path / "q.jsonl", [{"id": "1"}]))
