from __future__ import annotations

import os
import sys
from pathlib import Path

import pytest

from sluice.backend.vllm.environment import Environment

STANDIN = Path(__file__).with_name("standin.py")


def write_standin(folder: Path) -> Environment:
    """An environment whose `vllm` is the stand-in."""
    program = folder / "bin" / "vllm"
    program.parent.mkdir(parents=True)
    (folder / "pyvenv.cfg").touch()
    program.write_text(f'#!/bin/sh\nexec "{sys.executable}" "{STANDIN}" "$@"\n')
    program.chmod(0o755)
    return Environment(folder, is_cpu=False)


@pytest.fixture
def installed(tmp_path: Path) -> Environment:
    return write_standin(tmp_path / "vllm")


def is_alive(pid: int) -> bool:
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    state = Path(f"/proc/{pid}/stat")
    return not state.exists() or state.read_text().rsplit(")", 1)[1].split()[0] != "Z"
