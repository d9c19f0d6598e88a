"""Freshness, sharing by content, other trees, killed builds, hostile files."""

from __future__ import annotations

import os
import shutil
import signal
import subprocess
import sys
import threading
import time

import numpy as np
import pytest

from sluice.search.errors import StoreError, WrongTreeError
from sluice.search.index.repo_index import RepoIndex
from sluice.search.index.scanner import Scanner
from sluice.search.index.segment import build_segment, pack, unpack
from sluice.search.index.store import SegmentStore
from tests.search.trees import index_of, write_tree


def paths_of(view) -> set[str]:
    return {entry.path for entry, stands in zip(view.files, view.alive_files, strict=True) if stands}


def holders(view, term: str) -> set[str]:
    chunks, _ = view.body(term)
    return {view.files[file].path for file in view.file_of_chunk[chunks].tolist()}


def test_a_changed_file_is_answered_as_it_is_now(tmp_path):
    index = index_of(write_tree(tmp_path))
    assert holders(index.view(), "zebra") == set()
    (tmp_path / "src/cookies.py").write_text("zebra = 1\n", encoding="utf-8")
    assert not index.is_current(["src/cookies.py"])
    view = index.view()
    assert holders(view, "zebra") == {"src/cookies.py"}
    assert "src/cookies.py" not in holders(view, "cooki")
    assert index.last_refresh.num_changed == 1
    assert index.last_refresh.num_built == 1


def test_added_and_removed_files(tmp_path):
    index = index_of(write_tree(tmp_path))
    before = paths_of(index.view())
    (tmp_path / "src/new.py").write_text("fresh_name = 1\n", encoding="utf-8")
    (tmp_path / "src/cookies.py").unlink()
    view = index.view()
    assert paths_of(view) == before - {"src/cookies.py"} | {"src/new.py"}
    assert view.num_files == len(before)
    assert not index.is_current(["src/cookies.py"])


def test_same_size_and_same_time_stamp_are_not_trusted_right_after_a_write(tmp_path):
    index = index_of(write_tree(tmp_path))
    target = tmp_path / "src/cookies.py"
    index.view()
    for word in ("aaaa", "bbbb", "cccc"):  # faster than a time stamp may move
        target.write_text(f"{word} = 1\n", encoding="utf-8")
        assert holders(index.view(), word) == {"src/cookies.py"}


def test_many_changes_are_merged_and_nothing_is_lost(tmp_path):
    files = {f"f{number}.py": f"name_{number} = {number}\n" for number in range(30)}
    index = index_of(write_tree(tmp_path, files))
    index.view()
    for number in range(0, 30, 3):
        (tmp_path / f"f{number}.py").write_text(f"renamed_{number} = 1\n", encoding="utf-8")
        view = index.view()
        assert holders(view, f"renamed_{number}") == {f"f{number}.py"}
        assert holders(view, f"name_{number}") == set()
    assert paths_of(view) == set(files)
    fresh = index_of(tmp_path).view()
    assert fresh.num_chunks == view.num_chunks
    assert {t: holders(fresh, t) for t in ("name_1", "renam")} == {t: holders(view, t) for t in ("name_1", "renam")}


def test_worktrees_share_segments_by_content(tmp_path):
    store = SegmentStore(None)
    RepoIndex(write_tree(tmp_path / "one"), store).view()
    other = RepoIndex(write_tree(tmp_path / "two"), store)
    other.view()
    assert other.last_refresh.num_built == 0
    assert other.last_refresh.num_changed == other.last_refresh.num_files > 0


def test_another_start_reads_no_file_again(tmp_path, monkeypatch):
    write_tree(tmp_path / "tree")
    store = SegmentStore(tmp_path / "cache" / "segments.db")
    for path in (tmp_path / "tree").rglob("*"):
        os.utime(path, ns=(1, 10**18))  # long ago: not racy
    first = RepoIndex(tmp_path / "tree", store).view()
    again = RepoIndex(tmp_path / "tree", store)
    monkeypatch.setattr(RepoIndex, "read", lambda *_: pytest.fail("a file was read"))
    assert paths_of(again.view()) == paths_of(first)


def test_an_index_refuses_to_stand_for_another_tree(tmp_path):
    index = index_of(write_tree(tmp_path / "one"))
    index.view()
    index.check_tree()
    write_tree(tmp_path / "two", {"b.py": "x = 1\n"})
    shutil.move(tmp_path / "one", tmp_path / "old")
    shutil.move(tmp_path / "two", tmp_path / "one")
    with pytest.raises(WrongTreeError, match="taken the place"):
        index.check_tree()
    assert paths_of(index.view()) == {"b.py"}


def test_a_segment_that_cannot_be_read_is_built_anew(tmp_path):
    write_tree(tmp_path / "tree")
    store = SegmentStore(tmp_path / "segments.db")
    expected = paths_of(RepoIndex(tmp_path / "tree", store).view())
    with store._using() as database:
        database.execute("UPDATE segments SET data = X'00' WHERE rowid % 2 = 0")
        database.execute("DELETE FROM segments WHERE rowid % 2 = 1")
    view = RepoIndex(tmp_path / "tree", store).view()
    assert paths_of(view) == expected
    assert holders(view, "backoff_delay") == {"src/retry.py", "tests/test_retry.py"}


def test_killed_while_it_writes_it_rebuilds_what_is_missing(tmp_path):
    files = {f"f{number}.py": f"def name_{number}():\n    return {number}\n" * 40 for number in range(900)}
    write_tree(tmp_path / "tree", files)
    code = (
        "import sys; from pathlib import Path\n"
        "from sluice.search.index.repo_index import RepoIndex\n"
        "from sluice.search.index.store import SegmentStore\n"
        "index = RepoIndex(Path(sys.argv[1]), SegmentStore(Path(sys.argv[2])))\n"
        "print('go', flush=True); index.view()\n"
    )
    database = tmp_path / "segments.db"
    process = subprocess.Popen(
        [sys.executable, "-c", code, str(tmp_path / "tree"), str(database)], stdout=subprocess.PIPE
    )
    assert process.stdout is not None
    process.stdout.readline()
    deadline = time.monotonic() + 20
    store = SegmentStore(database)
    while time.monotonic() < deadline:
        with store._using() as db:
            if db.execute("SELECT COUNT(*) FROM segments").fetchone()[0] > 0:
                break
        time.sleep(0.005)
    process.send_signal(signal.SIGKILL)
    process.wait()
    process.stdout.close()
    index = RepoIndex(tmp_path / "tree", store)
    assert paths_of(index.view()) == set(files)
    assert index.last_refresh.num_built < len(files)


def test_a_file_deleted_during_the_scan_is_passed_over(tmp_path, monkeypatch):
    index = index_of(write_tree(tmp_path))
    read = RepoIndex.read

    def vanishing(self, path):
        if path == "src/cookies.py":
            (tmp_path / path).unlink(missing_ok=True)
        return read(self, path)

    monkeypatch.setattr(RepoIndex, "read", vanishing)
    assert "src/cookies.py" not in paths_of(index.view())
    assert "src/retry.py" in paths_of(index.view())


def test_a_file_that_cannot_be_read_any_more_is_gone(tmp_path, monkeypatch):
    index = index_of(write_tree(tmp_path))
    index.view()
    read = RepoIndex.read

    def locked(self, path):
        if path == "src/cookies.py":
            raise PermissionError(path)
        return read(self, path)

    monkeypatch.setattr(RepoIndex, "read", locked)
    (tmp_path / "src/cookies.py").write_text("zebra = 1\n", encoding="utf-8")
    assert "src/cookies.py" not in paths_of(index.view())
    (tmp_path / "src/cookies.py").unlink()
    (tmp_path / "src/new.py").write_text("fresh_name = 1\n", encoding="utf-8")
    assert "src/cookies.py" not in paths_of(index.view())
    assert holders(index.view(), "fresh_name") == {"src/new.py"}


@pytest.mark.parametrize("failing", ["get_segments", "put_segments"])
@pytest.mark.parametrize("num_calls", [0, 1, 2])
def test_the_next_refresh_makes_good_one_that_failed(tmp_path, monkeypatch, failing, num_calls):
    monkeypatch.setattr("sluice.search.index.repo_index._BATCH", 2)
    files = {f"f{number}.py": f"name_{number} = 1\n" for number in range(8)}
    store = SegmentStore(None)
    index = RepoIndex(write_tree(tmp_path, files), store)
    index.view()
    for number in range(5):
        (tmp_path / f"f{number}.py").write_text(f"renamed_{number} = 1\n", encoding="utf-8")
    (tmp_path / "f7.py").unlink()
    calls = [StoreError("disk full"), *[None] * num_calls]
    method = getattr(store, failing)

    def sometimes(*arguments):
        if calls and (error := calls.pop()) is not None:
            raise error
        return method(*arguments)

    monkeypatch.setattr(store, failing, sometimes)
    with pytest.raises(StoreError):
        index.view()
    view = index.view()
    assert paths_of(view) == {f"f{number}.py" for number in range(7)}
    for number in range(7):
        assert holders(view, f"renamed_{number}") == ({f"f{number}.py"} if number < 5 else set())
        assert holders(view, f"name_{number}") == (set() if number < 5 else {f"f{number}.py"})


def test_a_file_that_is_gone_with_its_segment_takes_no_other_with_it(tmp_path, monkeypatch):
    store = SegmentStore(None)
    files = {f"f{number}.py": f"name_{number} = 1\n" for number in range(6)}
    index = RepoIndex(write_tree(tmp_path, files), store)
    index.view()
    for number in range(2):  # a small layer
        (tmp_path / f"f{number}.py").write_text(f"renamed_{number} = 1\n", encoding="utf-8")
    index.view()
    scan = Scanner.scan

    def vanishing(self):
        found = scan(self)
        (tmp_path / "f0.py").unlink(missing_ok=True)
        with store._using() as database:
            database.execute("DELETE FROM segments")
        return found

    monkeypatch.setattr(Scanner, "scan", vanishing)
    (tmp_path / "f2.py").write_text("renamed_2 = 1\n", encoding="utf-8")
    index.view()
    monkeypatch.undo()
    view = index.view()
    assert paths_of(view) == {f"f{number}.py" for number in range(1, 6)}
    assert holders(view, "renamed_1") == {"f1.py"}


def test_hostile_files_cost_nothing(tmp_path):
    write_tree(tmp_path, {"good.py": "needle = 1\n"})
    (tmp_path / "minified.js").write_bytes(b"var a=1;" * 700_000)
    (tmp_path / "broken.py").write_bytes(b"needle = '\xff\xfe\xc3\x28'\ndef (:\n" * 50)
    (tmp_path / "one_line.py").write_bytes(b"x = [" + b"1," * 200_000 + b"]\n")
    (tmp_path / "deep.py").write_bytes(b"(" * 15_000 + b"\n")
    view = index_of(tmp_path).view()
    assert paths_of(view) == {"good.py", "broken.py", "deep.py"}
    assert holders(view, "needl") | holders(view, "needle") >= {"good.py", "broken.py"}


def test_threads_that_ask_at_once_get_the_same_tree(tmp_path):
    index = index_of(write_tree(tmp_path))
    seen: list[set[str]] = []
    threads = [threading.Thread(target=lambda: seen.append(paths_of(index.view()))) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(seen) == 4
    assert all(paths == seen[0] for paths in seen)


def test_a_store_that_cannot_be_opened_is_a_clear_error(tmp_path):
    (tmp_path / "file").write_text("no database", encoding="utf-8")
    with pytest.raises(StoreError, match="file"):
        SegmentStore(tmp_path / "file")


def test_segments_survive_packing():
    data = b"class A:\n    def f(self):\n        return value_one\n\nx = 1\n"
    from sluice.compressor.syntax import language_of

    segment = build_segment(data, language_of("a.py"))
    copy = unpack(pack(segment))
    assert copy.terms == segment.terms
    assert copy.definitions == segment.definitions
    for name in ("starts", "ends", "owners", "lengths", "posting_terms", "posting_chunks", "posting_counts", "levels"):
        assert np.array_equal(getattr(copy, name), getattr(segment, name))
    with pytest.raises(ValueError, match="not a segment"):
        unpack(b"\xc1nonsense")


def test_a_store_without_room_costs_work_and_no_answer(tmp_path, caplog):
    store = SegmentStore(tmp_path / "cache" / "segments.db")
    store._db.execute("PRAGMA max_page_count = 8")  # what sqlite makes of a full disk
    write_tree(tmp_path / "tree", {"big.py": "\n".join(f"value_{n * n} = call_{n * 7919}()" for n in range(3_000))})
    index = RepoIndex(write_tree(tmp_path / "tree"), store)
    assert {"big.py", "src/retry.py"} <= paths_of(index.view())
    (tmp_path / "tree" / "src" / "new.py").write_text("x = 1\n")
    assert {"src/new.py", "src/retry.py"} <= paths_of(index.view())
    said = [record.getMessage() for record in caplog.records]
    assert len(said) == 1
    assert "not kept on disk" in said[0]


def test_a_file_from_the_future_is_read_once(tmp_path):
    index = index_of(write_tree(tmp_path, {"a.py": "x = 1\n"}))
    ahead = time.time() + 3600
    os.utime(tmp_path / "a.py", (ahead, ahead))
    index.view()
    assert index.is_current(["a.py"])
    (tmp_path / "a.py").write_text("y = 1\n", encoding="utf-8")
    assert not index.is_current(["a.py"])


def test_a_file_that_cannot_be_read_has_nothing_written_anew(tmp_path, monkeypatch):
    monkeypatch.setattr("sluice.search.index.repo_index._REMEMBER_S", -1.0)
    read, kept = RepoIndex.read, []

    def refuse(index, path):
        if path == "b.py":
            raise PermissionError(path)
        return read(index, path)

    monkeypatch.setattr(RepoIndex, "read", refuse)
    store = SegmentStore(None)
    monkeypatch.setattr(store, "put_manifest", lambda root, data: kept.append(data))
    index = RepoIndex(write_tree(tmp_path, {"a.py": "x = 1\n", "b.py": "y = 1\n"}), store)
    past = time.time() - 3600
    os.utime(tmp_path / "a.py", (past, past))
    for _ in range(3):
        index.view()
    assert len(kept) == 1
