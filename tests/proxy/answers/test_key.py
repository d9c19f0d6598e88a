from __future__ import annotations

import json
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from sluice.proxy.answers.key import answer_key, may_keep, may_take
from sluice.proxy.headers import Header
from sluice.proxy.wire.types import Outgoing, WireName
from tests.effort import examples

BODY: dict[str, Any] = {"model": "m", "messages": [{"role": "user", "content": "hi"}], "temperature": 0}


def key(body: Any = BODY, *, tenant: bytes = b"t", origin: str = "http://u", **changes: Any) -> bytes | None:
    raw = body if isinstance(body, bytes) else json.dumps(body).encode()
    known: dict[str, Any] = {
        "method": "POST",
        "path": "/v1/chat/completions",
        "headers": [(b"authorization", b"Bearer a")],
        "body": raw,
        "wire": WireName.CHAT,
    }
    return answer_key(Outgoing(**{**known, **changes}), tenant=tenant, origin=origin)


def test_form_does_not_matter() -> None:
    indented = json.dumps(dict(reversed(BODY.items())), indent=3).encode()
    assert key() == key(indented) is not None


@pytest.mark.parametrize(
    "other",
    [
        {"body": {**BODY, "model": "n"}},
        {"body": {**BODY, "stream": True}},
        {"body": {**BODY, "seed": 1}},
        {"body": {**BODY, "messages": [{"role": "user", "content": "hi "}]}},
        {"tenant": b"other"},
        {"origin": "http://other"},
        {"path": "/v1/chat/completions?x=1"},
        {"wire": WireName.COMPLETIONS},
        {"headers": [(b"anthropic-beta", b"x")]},
        {"headers": [(b"accept-encoding", b"gzip")]},
    ],
)
def test_all_that_may_change_an_answer_is_in_the_key(other: Any) -> None:
    assert key(**other) not in (None, key())


def test_the_credential_is_not() -> None:
    assert key(headers=[(b"authorization", b"Bearer b")]) == key()


@pytest.mark.parametrize(
    ("body", "is_eligible"),
    [
        (BODY, True),
        ({**BODY, "temperature": 0.0}, True),
        ({"model": "m", "messages": [], "seed": 7}, True),
        ({"model": "m", "messages": [], "temperature": 1, "seed": 7}, True),
        ({"model": "m", "messages": []}, False),
        ({**BODY, "temperature": 0.2}, False),
        ({**BODY, "temperature": None}, False),
        ({**BODY, "temperature": False}, False),
        ({**BODY, "temperature": "0"}, False),
        ({**BODY, "previous_response_id": "resp_1"}, False),
        ({**BODY, "background": True}, False),
        (b'[{"temperature": 0}]', False),
        (b'{"temperature": 0', False),
        (b"", False),
    ],
)
def test_only_repeatable_requests_have_one(body: Any, is_eligible: bool) -> None:
    assert (key(body) is not None) == is_eligible


def test_what_is_not_understood_has_none() -> None:
    assert key(wire=None) is None
    assert key(method="GET") is None


@pytest.mark.parametrize(
    ("headers", "keeps", "takes"),
    [
        ([], True, True),
        ([(b"cache-control", b"no-store")], False, True),
        ([(b"cache-control", b"max-age=0, No-Cache")], True, False),
        ([(b"pragma", b"no-cache")], True, False),
        ([(b"x-cache-control", b"no-store")], True, True),
    ],
)
def test_cache_control_is_honoured(headers: list[Header], keeps: bool, takes: bool) -> None:
    assert (may_keep(headers), may_take(headers)) == (keeps, takes)


@given(body=st.dictionaries(st.text(), st.none() | st.integers() | st.floats() | st.text() | st.lists(st.text())))
@examples(100)
def test_no_body_makes_it_raise(body: dict[str, Any]) -> None:
    key(json.dumps({**body, "seed": 1}).encode())
