from __future__ import annotations

import json
import shutil
from pathlib import Path

import pytest

from sluice.backend.errors import InvalidRequestError, ModelUnavailableError
from sluice.backend.tokenizer import Tokenizer


def test_text_survives_encoding_and_decoding(tiny_folder: Path) -> None:
    tokenizer = Tokenizer(tiny_folder)
    text = "def f():\n\treturn 'é漢'\n"
    assert tokenizer.decode(tokenizer.encode(text)) == text


def test_the_chat_template_marks_roles_with_special_tokens(tiny_folder: Path) -> None:
    tokenizer = Tokenizer(tiny_folder)
    ids = tokenizer.encode(tokenizer.render_chat([{"role": "user", "content": "hi"}]))
    assert ids.count(0) == 2
    assert ids.count(1) == 1
    assert tokenizer.end_token_ids == {1}


def _with_config(tiny_folder: Path, folder: Path, **changes: object) -> Path:
    shutil.copytree(tiny_folder, folder)
    path = folder / "tokenizer_config.json"
    path.write_text(json.dumps(json.loads(path.read_text()) | changes))
    return folder


def test_a_template_that_refuses_says_why(tiny_folder: Path, tmp_path: Path) -> None:
    folder = _with_config(tiny_folder, tmp_path / "m", chat_template="{{ raise_exception('roles must alternate') }}")
    with pytest.raises(InvalidRequestError, match="roles must alternate"):
        Tokenizer(folder).render_chat([{"role": "user", "content": "hi"}])


def test_a_template_cannot_reach_python(tiny_folder: Path, tmp_path: Path) -> None:
    escape = "{{ messages.__class__.__base__.__subclasses__() }}"
    folder = _with_config(tiny_folder, tmp_path / "m", chat_template=escape)
    with pytest.raises(InvalidRequestError, match="unsafe"):
        Tokenizer(folder).render_chat([{"role": "user", "content": "hi"}])


def test_of_several_templates_the_default_is_taken(tiny_folder: Path, tmp_path: Path) -> None:
    templates = [{"name": "rag", "template": "no"}, {"name": "default", "template": "yes {{ tools }}"}]
    tokenizer = Tokenizer(_with_config(tiny_folder, tmp_path / "m", chat_template=templates))
    assert tokenizer.render_chat([], []) == "yes []"
    assert tokenizer.knows_tools


def test_no_template_is_a_clear_error(tiny_folder: Path, tmp_path: Path) -> None:
    folder = _with_config(tiny_folder, tmp_path / "m", chat_template=None)
    with pytest.raises(InvalidRequestError, match="no chat template"):
        Tokenizer(folder).render_chat([{"role": "user", "content": "hi"}])


def test_an_unreadable_tokenizer_names_the_folder(tmp_path: Path) -> None:
    (tmp_path / "tokenizer.json").write_text("{")
    with pytest.raises(ModelUnavailableError, match=str(tmp_path)):
        Tokenizer(tmp_path)


@pytest.mark.engine
def test_the_default_tokenizer_splits_numbers_into_digits(default_folder: Path) -> None:
    tokenizer = Tokenizer(default_folder)
    digits = tokenizer.encode("12345")
    assert [tokenizer.decode([token]) for token in digits] == list("12345")
    assert tokenizer.encode("<|im_start|>user") == [1, *tokenizer.encode("user")]
    assert tokenizer.end_token_ids == {2}
