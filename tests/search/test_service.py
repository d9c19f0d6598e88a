"""The service: only configured roots, fresh answers, clear errors; deep mode with a scripted model."""

from __future__ import annotations

import asyncio
import json
import threading
import time

import pytest
from aiohttp import web

from sluice.search.deep.model import Call, HTTPChatModel, Reply
from sluice.search.deep.seen import Seen
from sluice.search.deep.tools import TOOLS, call_tool
from sluice.search.errors import BackendError, QueryError, UnknownRootError
from sluice.search.index.store import SegmentStore
from sluice.search.service import SearchService
from sluice.search.settings import DeepSettings, SearchSettings
from sluice.search.text import as_json, as_text
from tests.search.trees import index_of, write_tree


class Scripted:
    """A model that says what it was told to; remembers what it was shown."""

    def __init__(self, *replies: Reply | Exception) -> None:
        self.replies = list(replies)
        self.shown: list[list[dict]] = []

    async def reply(self, messages, tools):
        self.shown.append(list(messages))
        said = self.replies.pop(0)
        if isinstance(said, Exception):
            raise said
        return said


def calls(*pairs: tuple[str, dict]) -> Reply:
    return Reply("", tuple(Call(str(at), name, json.dumps(given)) for at, (name, given) in enumerate(pairs)))


@pytest.fixture
def root(tmp_path):
    return write_tree(tmp_path / "tree")


async def ask(root, query="retry backoff delay", *, model=None, deep=None, mode="fast", **options):
    service = SearchService(SearchSettings((root,), deep=deep or DeepSettings()), model=model)
    try:
        return await service.search(query, mode=mode, **options)
    finally:
        await service.aclose()


async def test_trees_are_indexed_ahead_of_the_first_question(root, tmp_path):
    gone = tmp_path / "gone"
    gone.mkdir()
    service = SearchService(SearchSettings((gone, root)))
    index = service.index_of("tree")

    def wait() -> None:
        ends_at = time.monotonic() + 30
        while not index.last_refresh.num_files:
            assert time.monotonic() < ends_at
            time.sleep(0.01)

    try:
        gone.rmdir()
        service.warm_up()
        await asyncio.to_thread(wait)
        assert index.last_refresh.num_built > 0
        assert (await service.search("retry backoff delay", repo="tree")).results
    finally:
        await service.aclose()


async def test_a_service_that_closes_does_not_wait_for_a_large_tree(tmp_path, monkeypatch):
    monkeypatch.setattr("sluice.search.index.repo_index._BATCH", 1)
    root = write_tree(tmp_path / "tree", {f"m{number}.py": f"x = {number}\n" for number in range(50)})
    begun, go_on = threading.Event(), threading.Event()
    store = SegmentStore.put_segments

    def slow(self, segments):
        begun.set()
        go_on.wait(30)
        store(self, segments)

    monkeypatch.setattr(SegmentStore, "put_segments", slow)
    service = SearchService(SearchSettings((root,)))
    service.warm_up()
    assert await asyncio.to_thread(begun.wait, 30)
    closing = asyncio.create_task(service.aclose())
    await asyncio.sleep(0)
    go_on.set()
    await asyncio.wait_for(closing, 30)
    assert service.index_of(None).last_refresh.num_files == 0, "it was given up"


async def test_an_answer(root):
    answer = await ask(root, budget_tokens=500)
    assert answer.results[0].path == "src/retry.py"
    assert 0 < answer.tokens <= 500
    assert answer.took_ms > 0
    parsed = json.loads(as_json(answer))
    assert set(parsed) == {"results", "tokens", "took_ms"}
    assert set(parsed["results"][0]) == {"path", "start", "end", "score", "reason", "text"}
    assert "src/retry.py:" in as_text(answer)


async def test_only_configured_roots_are_read(root, tmp_path):
    write_tree(tmp_path / "other", {"a.py": "secret = 1\n"})
    service = SearchService(SearchSettings((root,)))
    for repo in (str(tmp_path / "other"), "other", "/", f"{root}/src", f"{root}/../other"):
        with pytest.raises(UnknownRootError):
            await service.search("secret", repo)
    for repo in (None, str(root), f"{root}/", "tree"):
        assert (await service.search("cookie", repo)).results
    await service.aclose()


async def test_without_roots_every_search_is_refused():
    service = SearchService(SearchSettings())
    with pytest.raises(UnknownRootError, match="none is configured"):
        await service.search("anything")
    await service.aclose()


async def test_another_tree_in_the_roots_place_is_indexed_before_it_is_answered_for(root, tmp_path):
    service = SearchService(SearchSettings((root,), rescan_s=3600.0))
    assert (await service.search("parse_cookie_header")).results
    root.rename(tmp_path / "old")
    write_tree(root, {"other.py": "def parse_cookie_header():\n    return 'other'\n"})
    answer = await service.search("parse_cookie_header")
    assert {r.path for r in answer.results} == {"other.py"}
    await service.aclose()


async def test_two_roots_of_one_name_must_be_told_apart(tmp_path):
    one, two = write_tree(tmp_path / "a" / "tree"), write_tree(tmp_path / "b" / "tree")
    service = SearchService(SearchSettings((one, two)))
    with pytest.raises(UnknownRootError, match="ambiguous"):
        await service.search("cookie", "tree")
    assert (await service.search("cookie", str(two))).results
    await service.aclose()


async def test_a_file_that_changed_since_is_never_answered_from_stale(root):
    service = SearchService(SearchSettings((root,), rescan_s=3600.0))
    before = (await service.search("parse_cookie_header")).results[0]
    assert before.path == "src/cookies.py"
    (root / "src/cookies.py").write_text(
        "# moved\n\n\n\n\ndef parse_cookie_header(header):\n    return 7\n", encoding="utf-8"
    )
    after = next(r for r in (await service.search("parse_cookie_header")).results if r.path == "src/cookies.py")
    assert "return 7" in after.text
    lines = (root / "src/cookies.py").read_text(encoding="utf-8").split("\n")
    assert after.text == "\n".join(lines[after.start - 1 : after.end])
    await service.aclose()


@pytest.mark.parametrize(
    ("options", "named"),
    [
        ({"budget_tokens": 0}, "budget_tokens"),
        ({"budget_tokens": 10**9}, "budget_tokens"),
        ({"max_results": 0}, "max_results"),
        ({"mode": "wild"}, "wild"),
        ({"mode": "deep"}, "none is configured"),
    ],
)
async def test_what_cannot_be_meant_is_named(root, options, named):
    with pytest.raises(QueryError, match=named):
        await ask(root, **options)


@pytest.mark.parametrize(
    "make",
    [
        lambda: SearchSettings(rescan_s=-1.0),
        lambda: SearchSettings(deep=DeepSettings(max_turns=0)),
    ],
)
def test_bad_settings_name_their_key(make):
    with pytest.raises(ValueError, match=r"search\.(rescan_s|deep\.max_turns) = "):
        make()


async def test_deep_answers_with_lines_that_the_model_was_shown(root):
    model = Scripted(
        calls(("read", {"path": "src/cookies.py", "start": 4, "end": 8}), ("grep", {"pattern": "partition"})),
        Reply("src/cookies.py:4-8\nsrc/server.go:1-500\nnowhere.py:1-3", ()),
    )
    answer = await ask(root, "parse_cookie_header", model=model, mode="deep", budget_tokens=400)
    first = answer.results[0]
    assert (first.path, first.start, first.end) == ("src/cookies.py", 4, 8)
    assert all(r.path != "nowhere.py" for r in answer.results)
    assert all(r.path != "src/server.go" or r.end <= 13 for r in answer.results)
    assert answer.tokens <= 400
    tools = [message for message in model.shown[1] if message["role"] == "tool"]
    assert len(tools) == 2
    assert "4: def parse_cookie_header" in tools[0]["content"]


@pytest.mark.parametrize(
    "replies",
    [
        [BackendError("down")],
        [Reply("I do not know.", ())],
        [Reply("src/server.go:900-950", ())],
        [calls(("read", {"path": "/etc/passwd"})), calls(("nonsense", {})), Reply("/etc/passwd:1-2", ())],
        [calls(("grep", {"pattern": "x"})) for _ in range(4)],
    ],
    ids=["error", "no place", "unseen lines", "bad calls", "never answers"],
)
async def test_on_nonsense_the_indexs_answer_stands(root, replies):
    fast = await ask(root, "cookie header")
    deep = await ask(root, "cookie header", model=Scripted(*replies), mode="deep")
    assert [(r.path, r.start, r.end) for r in deep.results] == [(r.path, r.start, r.end) for r in fast.results]


async def test_what_a_model_repeats_for_ever_holds_nothing_up(root):
    endless = Reply("src/cookies.py:4-5 " + "a" * 20_000, ())
    answer = await ask(root, "parse_cookie_header", model=Scripted(endless), mode="deep")
    assert [(r.path, r.start, r.end) for r in answer.results] == [("src/cookies.py", 4, 5)]


async def test_a_model_that_hangs_is_left(root, caplog):
    class Hanging:
        async def reply(self, messages, tools):
            await asyncio.sleep(3600)

    answer = await ask(root, "cookie", model=Hanging(), mode="deep", deep=DeepSettings(timeout_s=0.2))
    assert answer.results
    assert "no answer within 0.2 s" in caplog.text


async def test_calls_beyond_the_bound_are_refused(root):
    many = calls(*[("glob", {"pattern": "*.py"})] * 5)
    model = Scripted(many, Reply("src/cookies.py:1-1", ()))
    await ask(root, "cookie", model=model, mode="deep", deep=DeepSettings(max_calls=3))
    answers = [message["content"] for message in model.shown[1] if message["role"] == "tool"]
    assert len(answers) == 5
    assert [text.startswith("refused") for text in answers] == [False, False, False, True, True]


def test_every_tool_answers_and_notes_what_it_showed(root):
    index = index_of(root)
    view = index.view()
    given = {
        "grep": {"pattern": "backoff_delay"},
        "read": {"path": "src/retry.py", "start": 1, "end": 3},
        "glob": {"pattern": "src/*.py"},
        "definitions": {"name": "RetryPolicy"},
        "references": {"name": "RetryPolicy"},
    }
    assert {tool["function"]["name"] for tool in TOOLS} == set(given)
    showed = {"grep": [(12, 12), (23, 23)], "read": [(1, 3)], "glob": [], "definitions": [(5, 5)], "references": []}
    for name, arguments in given.items():
        seen = Seen()
        text = call_tool(index, view, seen, name, json.dumps(arguments))
        assert ('"""Retries of failed requests."""' if name == "read" else "retry.py") in text
        assert seen.within("src/retry.py", 1, 99) == showed[name]
    nulls = {"path": "src/retry.py", "start": None, "end": None}
    assert call_tool(index, view, Seen(), "read", json.dumps(nulls)).startswith("1: ")
    assert call_tool(index, view, Seen(), "grep", "{}") == "bad call of grep: the argument 'pattern' is missing"
    endless, deep = '{"path": "src/retry.py", "start": Infinity}', '{"path": ' + "[" * 100_000
    for broken in ("{", "[]", "{}", '{"path": "../x"}', '{"path": "src/retry.py", "start": "x"}', endless, deep):
        assert "read" in call_tool(index, view, Seen(), "read", broken)


def test_seen_gives_only_what_was_shown():
    seen = Seen()
    seen.add("a", 3, 5)
    seen.add("a", 9, 9)
    assert seen.within("a", 4, 20) == [(4, 5), (9, 9)]
    assert seen.within("b", 1, 9) == []


async def test_the_model_client_speaks_the_chat_form():
    asked: list[tuple[str, dict]] = []

    async def completions(request: web.Request) -> web.Response:
        asked.append((request.headers.get("authorization", ""), await request.json()))
        if len(asked) == 2:
            return web.json_response({"choices": []})
        call = {"id": "c1", "type": "function", "function": {"name": "grep", "arguments": "{}"}}
        return web.json_response({"choices": [{"message": {"content": None, "tool_calls": [call]}}]})

    application = web.Application()
    application.router.add_post("/v1/chat/completions", completions)
    runner = web.AppRunner(application)
    await runner.setup()
    await web.TCPSite(runner, "127.0.0.1", 0).start()
    [(host, port)] = runner.addresses
    model = HTTPChatModel(DeepSettings(base_url=f"http://{host}:{port}/v1", model="m", api_key="k"))
    try:
        reply = await model.reply([{"role": "user", "content": "x"}], TOOLS)
        assert reply.calls == (Call("c1", "grep", "{}"),)
        assert asked[0][0] == "Bearer k"
        assert asked[0][1]["model"] == "m"
        with pytest.raises(BackendError, match="no usable answer"):
            await model.reply([{"role": "user", "content": "x"}], ())
        assert "tools" not in asked[1][1]
    finally:
        await model.aclose()
        await runner.cleanup()


async def test_an_answer_that_comes_in_pieces_is_read_to_its_end():
    async def completions(request: web.Request) -> web.StreamResponse:
        response = web.StreamResponse()
        await response.prepare(request)
        for part in (b'{"choices": [{"message": {"con', b'tent": "in pieces"}}]}'):
            await response.write(part)
            await asyncio.sleep(0.05)
        return response

    application = web.Application()
    application.router.add_post("/v1/chat/completions", completions)
    runner = web.AppRunner(application)
    await runner.setup()
    await web.TCPSite(runner, "127.0.0.1", 0).start()
    [(host, port)] = runner.addresses
    model = HTTPChatModel(DeepSettings(base_url=f"http://{host}:{port}", model="m"))
    try:
        assert (await model.reply([{"role": "user", "content": "x"}], ())).text == "in pieces"
    finally:
        await model.aclose()
        await runner.cleanup()
