"""What can go wrong in the backend.

BackendError
├── WeightsError               the weights cannot be had
│   ├── MissingWeightsError    the package with the default weights is not installed
│   ├── CorruptWeightsError    a weight file is not what its checksum says
│   ├── ModelUnavailableError  a folder or hub name cannot be loaded
│   └── UnwritableCacheError   converted weights cannot be kept
├── RequestError               the caller asked for something that cannot be done
│   ├── InvalidRequestError    a field has a wrong type or value
│   ├── ModelNotFoundError     the request names a model that is not served
│   └── ContextLengthError     the prompt does not fit the model's window
├── EngineError                the engine failed on a request that was in order
│   ├── EngineClosedError      the engine is shutting down, or has stopped
│   └── EngineOverloadedError  more requests wait than the queue holds
├── EngineProcessError         the engine's process did not start, or died
├── GivenUpError               a server that was kept up ended too often
├── RouterError                requests cannot be spread over replicas
│   └── NoReplicaError         none is left that has not failed
└── VllmError                  the managed vLLM cannot be had
    ├── VllmSettingsError      a setting is wrong, or two exclude each other
    ├── VllmInstallError       its environment is missing or cannot be made
    ├── VllmProcessError       it did not start, or died
    └── WrongAnswerError       it answers, and answers wrongly
"""

from __future__ import annotations

from pathlib import Path


class BackendError(Exception):
    """Base of all errors that the backend raises."""


class WeightsError(BackendError):
    """The weights cannot be had."""


class MissingWeightsError(WeightsError):
    """The package with the default weights is not installed."""


class CorruptWeightsError(WeightsError):
    """A weight file is not what its checksum says."""


class ModelUnavailableError(WeightsError):
    """A folder or hub name cannot be loaded as a model."""

    def __init__(self, model: str, reason: str) -> None:
        super().__init__(f"cannot load model {model!r}: {reason}")
        self.model = model


class UnwritableCacheError(WeightsError):
    """Converted weights cannot be kept: the disk is full, or the folder may not be written."""

    def __init__(self, folder: Path, reason: str) -> None:
        super().__init__(
            f"cannot keep converted weights in {folder}: {reason}; make room there, or name another folder with "
            "SLUICE_CACHE_DIR"
        )
        self.folder = folder


class RequestError(BackendError):
    """The caller asked for something that cannot be done."""


class InvalidRequestError(RequestError):
    """A field of the request has a wrong type or value."""

    def __init__(self, message: str, param: str | None = None) -> None:
        super().__init__(message)
        self.param = param


class ModelNotFoundError(RequestError):
    """The request names a model that is not served here."""

    def __init__(self, model: str, served: str) -> None:
        super().__init__(f"model {model!r} is not served here; this engine serves {served!r}")
        self.model = model


class ContextLengthError(RequestError):
    """The prompt does not fit the model's window."""

    def __init__(self, num_prompt_tokens: int, max_model_len: int) -> None:
        super().__init__(
            f"the prompt has {num_prompt_tokens} tokens, but the model's window holds {max_model_len}"
            " with at least one token of output"
        )
        self.num_prompt_tokens = num_prompt_tokens
        self.max_model_len = max_model_len


class EngineError(BackendError):
    """The engine failed on a request that was in order."""


class EngineClosedError(EngineError):
    """The engine takes no more requests: it is shutting down, or a failure has stopped it."""


class EngineOverloadedError(EngineError):
    """More requests wait than the queue holds."""


class EngineProcessError(BackendError):
    """The engine's process did not start, or died."""


class GivenUpError(BackendError):
    """A server that was kept up ended too often, and is not started again.

    Args:
        name: of the server.
        num_ends: how often it ended.
        within_s: in which time, in seconds.
        last: how it ended the last time, with its last lines.
    """

    def __init__(self, name: str, num_ends: int, within_s: float, last: str) -> None:
        often = f"ended {num_ends} times within {within_s:g} s"
        super().__init__(f"{name} {often} and is given up; the last time it {last}")


class RouterError(BackendError):
    """Requests cannot be spread over replicas."""


class NoReplicaError(RouterError):
    """No replica is left that has not failed."""


class VllmError(BackendError):
    """The managed vLLM cannot be had."""


class VllmSettingsError(VllmError):
    """A setting is wrong, or two exclude each other. The message names keys and values."""


class VllmInstallError(VllmError):
    """The environment that vLLM lives in is missing, or cannot be made."""


class VllmProcessError(VllmError):
    """vLLM did not start, or died. The message ends with its last lines."""


class WrongAnswerError(VllmError):
    """vLLM answers a question with a known answer wrongly: its build does not compute what it should."""
