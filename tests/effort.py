"""How hard property tests try: as much as a developer waits for, or, in `make test-full`, thirty times as much."""

from __future__ import annotations

import os

from hypothesis import HealthCheck, settings

_FACTOR = 30 if os.environ.get("SLUICE_TEST_FULL") else 1


def scaled(num: int) -> int:
    """So many in a usual run, thirty times as many in the full one."""
    return num * _FACTOR


def examples(num: int) -> settings:
    """Settings for a property test that runs `num` examples, or thirty times as many."""
    return settings(max_examples=scaled(num), deadline=None, suppress_health_check=[HealthCheck.too_slow])
