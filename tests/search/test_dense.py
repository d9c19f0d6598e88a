"""The dense tier: vectors by content, made in the background, used when they are there and never waited for."""

from __future__ import annotations

import hashlib
import threading

import numpy as np
import pytest

from sluice.search.dense import DenseIndex, SharedModel, make_embedder
from sluice.search.errors import ModelError
from sluice.search.index.repo_index import RepoIndex
from sluice.search.index.store import SegmentStore
from sluice.search.index.tokenizer import raw_tokens, terms_of
from sluice.search.ranking.fast import answer
from sluice.search.ranking.rankers import learned_rankers
from sluice.search.service import SearchService
from sluice.search.settings import SearchSettings
from tests.search.trees import write_tree

WAIT_S = 30.0


class HashedWords:
    """A model that knows words by their hash. Counts what it is shown; may be held up."""

    name = "hashed"

    def __init__(self) -> None:
        self.num_texts = 0
        self.may_go = threading.Event()
        self.may_go.set()

    def embed(self, texts):
        assert self.may_go.wait(WAIT_S)
        self.num_texts += len(texts)
        rows = np.zeros((len(texts), 64), np.float32)
        for row, text in zip(rows, texts, strict=True):
            for term in (term for token in raw_tokens(text) for term in terms_of(token)):
                row[hashlib.sha256(term.encode()).digest()[0] % 64] += 1
        return rows / np.maximum(np.linalg.norm(rows, axis=1, keepdims=True), 1e-9)


class Model(SharedModel):
    def __init__(self, embedder: HashedWords) -> None:
        super().__init__("hashed")
        self._embedder = embedder


@pytest.fixture
def root(tmp_path):
    return write_tree(tmp_path / "tree")


def test_an_answer_waits_for_no_vectors(root):
    store, embedder = SegmentStore(None), HashedWords()
    embedder.may_go.clear()
    index = RepoIndex(root, store)
    dense = DenseIndex(index, store, Model(embedder))
    view = index.view()
    assert dense.similarities(view, "retry backoff") is None
    embedder.may_go.set()
    assert dense.wait(view, WAIT_S)
    found = dense.similarities(view, "exponential backoff delay with a cap")
    assert found.shape == (len(view.starts),)
    assert view.files[view.file_of_chunk[int(found.argmax())]].path in ("src/retry.py", "tests/test_retry.py")
    dense.close()


def test_vectors_are_kept_by_content(root, tmp_path):
    database = tmp_path / "segments.db"
    first, again = HashedWords(), HashedWords()
    for embedder, tree in ((first, root), (again, write_tree(tmp_path / "worktree"))):
        store = SegmentStore(database)
        index = RepoIndex(tree, store)
        dense = DenseIndex(index, store, Model(embedder))
        assert dense.wait(index.view(), WAIT_S)
        dense.close()
        store.close()
    assert first.num_texts > 0
    assert again.num_texts == 0


def test_a_changed_file_costs_itself(root):
    store, embedder = SegmentStore(None), HashedWords()
    index = RepoIndex(root, store)
    dense = DenseIndex(index, store, Model(embedder))
    assert dense.wait(index.view(), WAIT_S)
    before = embedder.num_texts
    (root / "src/cookies.py").write_text("def bake():\n    return 'oven'\n")
    view = index.view()
    assert dense.wait(view, WAIT_S)
    assert embedder.num_texts == before + 1
    found = dense.similarities(view, "bake oven")
    assert view.files[view.file_of_chunk[int(found.argmax())]].path == "src/cookies.py"
    dense.close()


def test_similar_chunks_rank_higher(root):
    index = RepoIndex(root, SegmentStore(None))
    view = index.view()
    liked = np.array([float(view.files[file].path == "src/server.go") for file in view.file_of_chunk.tolist()])
    order = {}
    for name, similarities in (("without", None), ("with", 20 * liked)):
        found = answer(
            view, "path header request", learned_rankers(), index.read, budget_tokens=800, similarities=similarities
        )
        order[name] = [result.path for result in found]
    assert order["with"][0] == "src/server.go"
    assert order["without"].index("src/server.go") >= order["with"].index("src/server.go")


async def test_without_its_model_search_goes_on(root, caplog):
    service = SearchService(SearchSettings((root,), dense_model="static:/no/such/model"))
    assert (await service.search("retry backoff")).results
    await service.aclose()
    assert "without its dense tier" in caplog.text


def test_a_model_that_is_not_there_is_named(monkeypatch):
    pytest.importorskip("model2vec", reason="the extra `dense` is not installed")
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    with pytest.raises(ModelError, match="/no/such/model"):
        make_embedder("static:/no/such/model")
