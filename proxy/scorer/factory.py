"""Makes the scorer that the settings ask for; what it needs is loaded behind the requests' backs."""

from __future__ import annotations

import asyncio
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING

from sluice.compressor import StateStore
from sluice.compressor.scoring import ModelFileError
from sluice.compressor.scoring.neural.scores import LineScores
from sluice.proxy.log import fields, logger
from sluice.proxy.scorer.metrics import ScorerMetrics
from sluice.proxy.settings import VLLM_PREFIX, Settings

if TYPE_CHECKING:
    from sluice.compressor.scoring.neural.neural_scorer import NeuralScorer
    from sluice.compressor.scoring.neural.processor import Processor
    from sluice.compressor.scoring.neural.types import LineModel

_MAX_WAITING = 256
"""Requests that wait for a network at once; threads are started as they are needed."""


def make_scorer(settings: Settings, store: StateStore, metrics: ScorerMetrics) -> NeuralScorer | None:
    """Make and start the scorer, on the running event loop; None where features alone are to score.

    A model that is not there, or not whole, is no reason not to serve: it is logged, and features score.
    """
    if settings.scorer == "features":
        return None
    try:
        from sluice.compressor.scoring.feature_scorer import load_default
        from sluice.compressor.scoring.neural.card import read_card
        from sluice.compressor.scoring.neural.loading import default_folder
        from sluice.compressor.scoring.neural.neural_scorer import NeuralScorer
        from sluice.compressor.scoring.neural.score_cache import StoreCache

        folder = settings.scorer_model or default_folder()
        scorer = NeuralScorer(
            load_default(),
            partial(_processor, folder),
            _scores(settings, folder, read_card(folder).version),
            deadline_s=settings.scorer_deadline_ms / 1000,
            cache=StoreCache(store, asyncio.get_running_loop()),
            watch=metrics,
        )
    except (ImportError, ModelFileError) as error:
        logger.error(fields("scorer_unavailable", scorer=settings.scorer, reason=error))
        return None
    # Whoever waits for a network holds a thread: as many as usual would have requests wait for each other.
    asyncio.get_running_loop().set_default_executor(ThreadPoolExecutor(_MAX_WAITING, thread_name_prefix="sluice"))
    scorer.start()
    return scorer


def _scores(settings: Settings, folder: Path, version: str) -> LineScores:
    if settings.scorer == "neural":
        from sluice.compressor.scoring.neural.batcher import Batcher

        return Batcher(partial(_model, folder, settings))
    from sluice.proxy.scorer.client import RemoteScores

    if settings.scorer.startswith(VLLM_PREFIX):
        from sluice.compressor.scoring.neural.head import read_head
        from sluice.proxy.scorer.vllm import VllmWire

        return RemoteScores(settings.scorer.removeprefix(VLLM_PREFIX), VllmWire(version, read_head(folder)))
    from sluice.proxy.scorer.wire import OwnWire

    return RemoteScores(settings.scorer, OwnWire(version))


def _processor(folder: Path) -> Processor:
    from sluice.compressor.scoring.neural.processor import load_processor
    from sluice.proxy.scorer.bases import folders_for

    return load_processor(folder, folders_for(folder))


def _model(folder: Path, settings: Settings) -> LineModel:
    from sluice.compressor.scoring.neural.loading import load_model
    from sluice.proxy.scorer.bases import folders_for

    return load_model(folder, device=settings.scorer_device, folders=folders_for(folder))
