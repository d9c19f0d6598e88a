"""Whose credential goes to which upstream, and in which header. Nothing here logs or keeps one.

The client's own goes where it was meant to go, and nowhere else: another upstream gets what is configured for it.
"""

from __future__ import annotations

import re
from collections.abc import Sequence

from sluice.proxy.headers import CREDENTIALS, Header
from sluice.proxy.upstreams.presets import AuthForm

_PERSONAL = frozenset((*CREDENTIALS, b"cookie", b"openai-organization", b"openai-project", b"chatgpt-account-id"))
"""Headers that say who is asking, and are nobody else's business."""
_QUERY_KEY = re.compile(r"[?&](?:key|api[-_]?key|access_token)=[^&]*", re.IGNORECASE)
_OAUTH_START = "sk-ant-oat"
"""Anthropic's tokens of a subscription, which are bearer tokens though its keys are not."""


def token_of(headers: Sequence[Header]) -> str | None:
    """Return the bare credential of a request; None where it has none."""
    for name, value in headers:
        if name in CREDENTIALS:
            text = value.decode("latin-1").strip()
            scheme, _, token = text.partition(" ")
            return token.strip() if name == b"authorization" and scheme.lower() == "bearer" else text
    return None


def without_credential(headers: Sequence[Header]) -> list[Header]:
    """Leave out the credential and whatever else says who is asking."""
    return [(name, value) for name, value in headers if name not in _PERSONAL]


def with_credential(headers: Sequence[Header], token: str, form: AuthForm) -> list[Header]:
    """Put a credential in the place of the one that is there, in the form that an upstream wants."""
    if form is AuthForm.API_KEY and token.startswith(_OAUTH_START):
        form = AuthForm.BEARER
    value = f"Bearer {token}" if form is AuthForm.BEARER else token
    return [*without_credential(headers), (form.encode(), value.encode("latin-1"))]


def path_without_credential(path: str) -> str:
    """Leave a credential out of a query."""
    path, mark, query = path.partition("?")
    kept = _QUERY_KEY.sub("", mark + query).lstrip("&?")
    return f"{path}?{kept}" if kept else path
