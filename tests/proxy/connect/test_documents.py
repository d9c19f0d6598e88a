from __future__ import annotations

import json
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from sluice.proxy.connect.documents import MISSING, Form, UnreadableSettingsError, find, parse, put, remove, render

names = st.text("abcdefgh_", min_size=1, max_size=6)
values = st.text("abc /:.#'\"ä", max_size=12)
trees: Any = st.recursive(
    st.dictionaries(names, values, max_size=3), lambda inner: st.dictionaries(names, inner | values, max_size=3)
)
keys = st.lists(names, min_size=1, max_size=3).map(tuple)


@pytest.mark.parametrize("form", [Form.JSON, Form.TOML, Form.YAML])
@given(tree=trees, place=keys, value=values)
def test_what_is_put_is_found_after_writing_and_all_else_stays(
    form: Form, tree: Any, place: tuple[str, ...], value: str
) -> None:
    text = render(tree, form)
    document = parse(text, form)
    try:
        put(document, place, value)
    except UnreadableSettingsError:
        return  # a text stands where a table would have to
    again = parse(render(document, form, text), form)
    assert find(again, place) == value
    put(tree, place, value)
    assert find(again, ()) == find(tree, ())


@pytest.mark.parametrize("form", [Form.JSON, Form.TOML, Form.YAML])
@given(tree=trees, place=keys, value=values)
def test_what_was_put_and_removed_leaves_what_was_there(
    form: Form, tree: Any, place: tuple[str, ...], value: str
) -> None:
    document = parse(render(tree, form), form)
    before = find(document, ())
    if find(document, place[:1]) is not MISSING:
        return
    put(document, place, value)
    remove(document, place)
    assert find(parse(render(document, form), form), ()) == before


def test_toml_keeps_comments_and_order() -> None:
    text = '# mine\nmodel = "gpt-5"  # the good one\n\n[tui]\ntheme = "dark"\n'
    document = parse(text, Form.TOML)
    put(document, ("model_provider",), "sluice")
    put(document, ("model_providers", "sluice", "base_url"), "http://127.0.0.1:8790/v1")
    shown = render(document, Form.TOML, text)
    assert '# mine\nmodel = "gpt-5"  # the good one\n' in shown
    # A key behind a table would belong to it.
    assert shown.index("model_provider =") < shown.index("[tui]")
    remove(document, ("model_provider",))
    remove(document, ("model_providers", "sluice", "base_url"))
    assert render(document, Form.TOML, text).strip() == text.strip()


def test_yaml_keeps_comments() -> None:
    text = "# mine\ndark-mode: true  # at night\n"
    document = parse(text, Form.YAML)
    put(document, ("openai-api-base",), "http://127.0.0.1:8790/v1")
    assert render(document, Form.YAML, text) == text + "openai-api-base: http://127.0.0.1:8790/v1\n"


@pytest.mark.parametrize("indent", [2, 4, "\t"])
def test_json_keeps_its_indentation(indent: int | str) -> None:
    text = json.dumps({"b": {"c": 1}, "a": [1, 2]}, indent=indent) + "\n"
    assert render(parse(text, Form.JSON), Form.JSON, text) == text


def test_dotenv_keeps_every_other_line() -> None:
    text = "# keys\nexport OPENAI_API_KEY='sk-1'\n\nA=1\nA=2\n"
    document = parse(text, Form.DOTENV)
    assert find(document, ("OPENAI_API_KEY",)) == "sk-1"
    assert find(document, ("A",)) == "2"
    put(document, ("OPENAI_API_BASE",), "http://127.0.0.1:8790/v1")
    put(document, ("A",), "3")
    assert render(document, Form.DOTENV) == (
        "# keys\nexport OPENAI_API_KEY='sk-1'\n\nA=1\nA=3\nOPENAI_API_BASE=http://127.0.0.1:8790/v1\n"
    )


@pytest.mark.parametrize(
    ("form", "text"),
    [
        (Form.JSON, '{"a": 1, // mine\n}'),
        (Form.JSON, "[1]"),
        (Form.TOML, "a = \n"),
        (Form.YAML, "a: [1\n"),
        (Form.YAML, "- 1\n"),
    ],
)
def test_what_cannot_be_understood_is_refused(form: Form, text: str) -> None:
    with pytest.raises(UnreadableSettingsError, match=r"cannot be read|top level"):
        parse(text, form)
