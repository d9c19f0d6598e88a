from __future__ import annotations

import pytest

from sluice.compressor import Compressor, CompressorSettings, MemoryStore, Mode
from sluice.compressor import judges as judges_module
from sluice.compressor.judge import KeepAll
from sluice.compressor.judges import Judges
from sluice.compressor.line_judge import LineJudge
from sluice.compressor.scoring import ModelFileError
from tests.compressor.sending import reread, send


def test_each_mode_has_a_judge_of_its_own_and_keeps_it() -> None:
    judges = Judges(CompressorSettings(), None, {})
    assert isinstance(judges.of(Mode.SAFE), KeepAll)
    assert isinstance(judges.of(Mode.BALANCED), LineJudge)
    assert len({id(judges.of(mode)) for mode in (Mode.SAFE, Mode.BALANCED, Mode.AGGRESSIVE) for _ in range(2)}) == 3


@pytest.mark.parametrize("error", [ImportError("no numpy"), ModelFileError("features.npz", "no such file")])
async def test_without_a_scorer_every_mode_drops_what_safe_drops(
    error: Exception, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    def broken() -> None:
        raise error

    monkeypatch.setattr(judges_module, "load_default", broken)
    safe = await send(Compressor(MemoryStore()), reread(), mode=Mode.SAFE)
    for mode in (Mode.BALANCED, Mode.AGGRESSIVE):
        compressor = Compressor(MemoryStore())
        compressor.load(mode)
        assert (await send(compressor, reread(), mode=mode)).messages == safe.messages
        assert f"mode {mode} drops no more than safe does: {error}" in caplog.text
