"""One request the way an agent would send it, to see whether it reaches the proxy and what stands behind it.

It names a model that nobody has unless one is given, so that it costs nothing: that an upstream refuses the model, or
asks for a credential, shows as well that the way is open.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import httpx

from sluice.backend.hosts import leads_out
from sluice.proxy.metering import NO_MODEL
from sluice.proxy.wire import WireName

_TIMEOUT_S = 20.0
_SAY = [{"role": "user", "content": "Say OK."}]
_REQUESTS: Mapping[WireName, tuple[str, dict[str, Any]]] = {
    WireName.CHAT: ("/v1/chat/completions", {"messages": _SAY, "max_completion_tokens": 16}),
    WireName.RESPONSES: ("/v1/responses", {"input": _SAY, "max_output_tokens": 16, "store": False}),
    WireName.MESSAGES: ("/v1/messages", {"messages": _SAY, "max_tokens": 16}),
}


@dataclass(frozen=True, slots=True)
class Checked:
    """What one request showed."""

    is_good: bool
    """Whether the agent's requests will reach the upstream through the proxy."""
    says: str
    """One sentence for a person."""


def check(
    origin: str,
    wire: WireName,
    model: str | None,
    environment: Mapping[str, str],
    key: str | None = None,
    *,
    is_only_key: bool = False,
) -> Checked:
    """Send one request and say what came of it. Never raises for what the other side does.

    Args:
        origin: the proxy's.
        wire: what the agent speaks.
        model: to be asked; None names one that does not exist.
        environment: where the agent would find its credential (`OPENAI_API_KEY`, `ANTHROPIC_API_KEY`).
        key: the proxy key, if there is one.
        is_only_key: whether the agent sends it in the place of a credential.
    """
    path, fields = _REQUESTS[wire]
    credential = {} if key and is_only_key else _credential(wire, environment)
    ours = {"x-sluice-key": key} if key else {}
    try:
        answer = httpx.post(
            origin + path,
            json={"model": model or NO_MODEL, **fields},
            headers=credential | ours,
            timeout=_TIMEOUT_S,
            trust_env=leads_out(origin),
        )
    except httpx.ConnectError:
        return Checked(False, f"nothing listens at {origin}: start it with sluice serve")
    except httpx.TimeoutException:
        return Checked(False, f"{origin} gave no answer within {_TIMEOUT_S:g} s")
    except (httpx.HTTPError, ImportError) as error:  # the last: of a SOCKS proxy's client, which is not here
        return Checked(False, f"{origin} gave no whole answer: {error or type(error).__name__}")
    if "x-sluice-mode" not in answer.headers:
        if answer.status_code in (401, 403, 421, 429):
            hint = "" if key or answer.status_code != 401 else "; name one with --key"
            return Checked(False, f"{origin} does not let the request in: {_message(answer)}{hint}")
        return Checked(False, f"what listens at {origin} is not Sluice (it answered {answer.status_code})")
    if answer.status_code < 300:
        return Checked(True, f"{model or 'the upstream'} answered, through the proxy")
    if answer.status_code in (401, 403):
        if key and is_only_key:
            sent = "has to have its credential configured: the agent sends none beside the proxy key"
            return Checked(False, f"the proxy passes requests on; the upstream {sent} ({answer.status_code})")
        sent = "refuses the credential in the environment" if credential else "asks for the agent's own credential"
        return Checked(not credential, f"the proxy passes requests on; the upstream {sent} ({answer.status_code})")
    if answer.status_code < 500 and model is None:
        return Checked(True, f"the upstream answers through the proxy; no model was asked ({answer.status_code})")
    return Checked(False, f"the proxy answers, the request was not served: {answer.status_code} {_message(answer)}")


def _credential(wire: WireName, environment: Mapping[str, str]) -> dict[str, str]:
    if wire is WireName.MESSAGES:
        key = environment.get("ANTHROPIC_API_KEY")
        return {"x-api-key": key, "anthropic-version": "2023-06-01"} if key else {}
    key = environment.get("OPENAI_API_KEY")
    return {"authorization": f"Bearer {key}"} if key else {}


def _message(answer: httpx.Response) -> str:
    """What an error says; the beginning of the body where it has no known form."""
    try:
        error = answer.json()["error"]
        return str(error["message"] if isinstance(error, dict) else error)
    except (ValueError, KeyError, TypeError):
        return answer.text[:200]
