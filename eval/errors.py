"""What can go wrong in an evaluation.

EvalError
├── TraceError     a recorded conversation cannot be read
├── PolicyError    a policy's name or its parameter is not known
├── SpecError      the description of a system to compare cannot be used
├── ScorerError    a model that scores text cannot be used
└── ReplayError    the proxy that is judged did not start, or did not answer as a proxy should
"""

from __future__ import annotations


def told(error: BaseException) -> str:
    """What an exception of a client library says of itself; its kind, where it says nothing."""
    return str(error) or type(error).__name__


class EvalError(Exception):
    """Base of all errors that the evaluation raises."""


class TraceError(EvalError):
    """A recorded conversation cannot be read; the message begins with file and line."""

    def __init__(self, path: str, line: int | None, problem: str) -> None:
        super().__init__(f"{path}:{line}: {problem}" if line is not None else f"{path}: {problem}")
        self.path = path
        self.line = line
        self.problem = problem

    def __reduce__(self) -> tuple[type[TraceError], tuple[str, int | None, str]]:
        """Let it cross from a worker process: its arguments are not those of `Exception`."""
        return (TraceError, (self.path, self.line, self.problem))


class PolicyError(EvalError):
    """A policy's name or its parameter is not known."""


class SpecError(EvalError):
    """The description of a system to compare cannot be used; the message begins with its file."""


class ScorerError(EvalError):
    """A model that scores text is not there, or does not give log-probabilities."""


class ReplayError(EvalError):
    """The proxy that is judged did not start, or did not answer as a proxy should."""
