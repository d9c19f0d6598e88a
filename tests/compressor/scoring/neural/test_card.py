"""What of a model's folder is read where there is no torch."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from sluice.compressor.scoring import ModelFileError
from sluice.compressor.scoring.forest import write_forest
from sluice.compressor.scoring.neural.bases import BaseTokenizer, find_base
from sluice.compressor.scoring.neural.card import CARD, COMBINATION, read_card, read_combination
from sluice.compressor.scoring.neural.errors import MissingBaseError
from sluice.compressor.scoring.neural.processor import load_processor
from tests.compressor.conversations import READ, evidence_of
from tests.compressor.scoring.neural.doubles import processor
from tests.compressor.scoring.neural.tiny import write_processor


def test_a_processor_is_read_as_it_was_written(tmp_path: Path) -> None:
    found, evidence = load_processor(write_processor(tmp_path)), evidence_of(READ)
    assert found.version == read_card(tmp_path).version == "7"
    windows = [each.maker.windows(evidence, evidence.segments) for each in (found, processor())]
    assert [len(window.token_ids) for window in windows[0]] == [len(window.token_ids) for window in windows[1]]


@pytest.mark.parametrize(
    "change",
    [
        lambda card: card.pop("base"),
        lambda card: card.pop("shape"),
        lambda card: card["shape"].update(max_tokens=3),
        lambda card: card["shape"].update(colour="red"),
    ],
)
def test_a_card_that_is_none_is_named(tmp_path: Path, change: object) -> None:
    file = write_processor(tmp_path) / CARD
    card = json.loads(file.read_text())
    change(card)  # type: ignore[operator]  # one of several
    file.write_text(json.dumps(card))
    with pytest.raises(ModelFileError, match=r"card\.json"):
        read_card(tmp_path)


@pytest.mark.parametrize("text", ["", "[]", "{", "null"])
def test_what_is_no_card_at_all_is_named(tmp_path: Path, text: str) -> None:
    (tmp_path / CARD).write_text(text)
    with pytest.raises(ModelFileError, match=r"card\.json"):
        read_card(tmp_path)


def test_a_last_layer_over_other_columns_is_refused(tmp_path: Path) -> None:
    forest = processor().combination.forest
    other = type(forest)(forest.heads, forest.features[1:], *(getattr(forest, n) for n in forest.__slots__[2:]))
    write_forest(tmp_path / COMBINATION, other, {})
    with pytest.raises(ModelFileError, match="other columns"):
        read_combination(tmp_path)


def test_a_base_is_a_folder_or_known_to_the_caller_or_missing(tmp_path: Path) -> None:
    assert find_base(str(tmp_path)).folder == tmp_path
    assert find_base("converted", {"converted": tmp_path}).folder == tmp_path
    with pytest.raises(MissingBaseError, match="no such/base/any where"):
        find_base("no such/base/any where")
    with pytest.raises(MissingBaseError, match=str(tmp_path)):
        BaseTokenizer(find_base(str(tmp_path)))
