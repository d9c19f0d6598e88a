"""What can go wrong in a translation of an answer. What is wrong with a request is a `RequestError` of the proxy's.

UpstreamError
└── UnreadableAnswerError       the upstream's answer is none in the format that it should have
    └── AnswerTooLargeError
"""

from __future__ import annotations

from sluice.proxy.errors import UpstreamError


class UnreadableAnswerError(UpstreamError):
    """The upstream's answer is none in the format that it should have."""


class AnswerTooLargeError(UnreadableAnswerError):
    """The upstream's answer, or one event of it, is larger than what is held in memory."""

    def __init__(self, max_bytes: int) -> None:
        super().__init__(f"the upstream's answer is larger than {max_bytes:,} bytes, so that it cannot be translated")
