"""Where requests go: which upstream serves a model, retries, fallbacks, health. Knows no wire format from inside."""

from sluice.proxy.upstreams.answers import HeldAnswer, RoutedAnswer
from sluice.proxy.upstreams.limits import HttpLimits
from sluice.proxy.upstreams.managed import BackendStatus
from sluice.proxy.upstreams.metrics import UpstreamMetrics
from sluice.proxy.upstreams.overflow import is_context_overflow
from sluice.proxy.upstreams.presets import PRESETS, Preset
from sluice.proxy.upstreams.retries import Policy
from sluice.proxy.upstreams.settings import UpstreamSettings
from sluice.proxy.upstreams.types import Answer, Target, Translator
from sluice.proxy.upstreams.upstreams import Upstreams

__all__ = [
    "PRESETS",
    "Answer",
    "BackendStatus",
    "HeldAnswer",
    "HttpLimits",
    "Policy",
    "Preset",
    "RoutedAnswer",
    "Target",
    "Translator",
    "UpstreamMetrics",
    "UpstreamSettings",
    "Upstreams",
    "is_context_overflow",
]
