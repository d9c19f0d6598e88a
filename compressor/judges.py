"""The judge of each mode, made when it is first asked for: a model is loaded where a mode needs one, and only there."""

from __future__ import annotations

import logging
from collections.abc import Mapping

from sluice.compressor.judge import Judge, KeepAll
from sluice.compressor.line_judge import LineJudge
from sluice.compressor.scoring import ModelFileError, Scorer, load_default
from sluice.compressor.settings import CompressorSettings
from sluice.compressor.types import Mode

logger = logging.getLogger(__name__)


class Judges:
    """The modes' judges, but for `off`, in which nothing is judged.

    Args:
        settings: see `CompressorSettings`.
        scorer: by what the modes go that score lines; None takes the shipped one.
        judges: in place of the modes' own.
    """

    def __init__(self, settings: CompressorSettings, scorer: Scorer | None, judges: Mapping[Mode, Judge]) -> None:
        self._settings = settings
        self._scorer = scorer
        self._judges: dict[Mode, Judge] = {Mode.SAFE: KeepAll(), **judges}

    def of(self, mode: Mode) -> Judge:
        """A mode's judge; one who keeps all where lines cannot be scored, which is logged."""
        judge = self._judges.get(mode)
        if judge is None:
            prices = self._settings.balanced if mode is Mode.BALANCED else self._settings.aggressive
            try:
                judge = LineJudge(self._scorer or load_default(), prices, self._settings)
            except (ImportError, ModelFileError) as error:
                logger.error("no scorer, so that mode %s drops no more than safe does: %s", mode, error)
                judge = KeepAll()
            self._judges[mode] = judge
        return judge
