from __future__ import annotations

import json

import pytest
from hypothesis import given
from hypothesis import strategies as st

from sluice.proxy.errors import UnknownModelError
from sluice.proxy.upstreams import UpstreamSettings
from sluice.proxy.upstreams.models import Routing, merge_lists, rename_model
from tests.effort import examples


def upstream(name: str, *models: str, **more: object) -> UpstreamSettings:
    return UpstreamSettings.model_validate({"name": name, "origin": "http://h", "models": models, **more})


def test_a_name_counts_before_a_pattern_and_an_earlier_upstream_before_a_later() -> None:
    routing = Routing([upstream("a", "gpt-*"), upstream("b", "gpt-4o", "claude-*"), upstream("c", "*"), upstream("d")])
    assert [routing.find(model) for model in ("gpt-5", "gpt-4o", "claude-x", "qwen", "")] == ["a", "b", "b", "c", "c"]


def test_a_model_that_nobody_serves_is_named() -> None:
    routing = Routing([upstream("a", "gpt-*")])
    assert routing.find("") == "a"
    with pytest.raises(UnknownModelError, match="'claude-x'"):
        routing.find("claude-x")


def test_a_fallbacks_own_names_route_nothing_to_it() -> None:
    routing = Routing([upstream("a", "gpt-*"), upstream("b", rename={"gpt-4o": "local"})])
    assert routing.find("gpt-4o") == "a"


def test_a_model_is_renamed_and_all_else_stays_byte_for_byte() -> None:
    messages = b'[ {"role":"user", "content": "\\u00e9 1.0e5"} ]'
    body = b'{ "stream" :true, "model": "a", "messages": ' + messages + b', "seed":12345678901234567890}'
    renamed = rename_model(body, {"a": "b/c"})
    assert messages in renamed
    assert b"12345678901234567890" in renamed
    assert json.loads(renamed) == {**json.loads(body), "model": "b/c"}
    assert rename_model(body, {"other": "b"}) is body


DEEP = b'{"model": "a", "x": ' + b"[" * 5000 + b"]" * 5000 + b"}"
NO_MODEL = [b"", b"no json", b"[]", b'{"model": 1}', b'{"messages": []}', b"\xff", b'{"model": "a\xff"}', DEEP]


@pytest.mark.parametrize("body", NO_MODEL)
def test_what_has_no_model_is_left_alone(body: bytes) -> None:
    assert rename_model(body, {"a": "b"}) == body


def test_half_surrogate_pairs_are_kept() -> None:
    body = b'{"model": "a", "messages": [{"content": "\\ud83d"}]}'
    assert b"\\ud83d" in rename_model(body, {"a": "b"})
    assert json.loads(rename_model(body, {"a": "b"}))["model"] == "b"


JSON = st.recursive(st.none() | st.booleans() | st.integers() | st.text(), lambda inner: st.lists(inner, max_size=3))


@examples(60)
@given(fields=st.dictionaries(st.text(), JSON, max_size=4), model=st.text(), name=st.text())
def test_renaming_changes_the_model_alone(fields: dict[str, object], model: str, name: str) -> None:
    body = json.dumps({**fields, "model": model}).encode()
    assert json.loads(rename_model(body, {model: name})) == {**fields, "model": name}


def test_lists_are_merged_under_the_names_that_clients_use() -> None:
    a = upstream("a", "gpt-*", "big", rename={"big": "org/big-1"})
    b = upstream("b", "models-b", "*", preset="gemini")
    c = upstream("c", "gpt-*")
    listed = [
        (a, b'{"data": [{"id": "gpt-1", "object": "model"}, {"id": "org/big-1"}, {"id": "not-routed-here"}]}'),
        (b, b'{"data": [{"id": "models/gemini-x"}, {"id": "gpt-9"}, {"id": 3}]}'),
        (c, b'{"data": [{"id": "gpt-2"}]}'),
        (c, b"no json"),
        (c, b'{"data": [{"id": "gpt-\xff"}]}'),
        (c, b"[" * 100_000),
    ]
    merged = json.loads(merge_lists(listed, Routing([a, b, c])))
    assert [entry["id"] for entry in merged["data"]] == ["gpt-1", "big", "gemini-x", "models-b"]
    assert (merged["object"], merged["first_id"], merged["last_id"]) == ("list", "gpt-1", "models-b")
