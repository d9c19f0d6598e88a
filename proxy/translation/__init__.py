"""One wire format's requests and answers as another's, streamed and with tools, where an upstream lacks one."""

from sluice.proxy.translation.errors import AnswerTooLargeError, UnreadableAnswerError
from sluice.proxy.translation.translator import Translation

__all__ = ["AnswerTooLargeError", "Translation", "UnreadableAnswerError"]
