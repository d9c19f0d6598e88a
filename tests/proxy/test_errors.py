from __future__ import annotations

import inspect
import json

import pytest

from sluice.compressor import errors as compressor_errors
from sluice.compressor.errors import AmbiguousRecallError
from sluice.proxy import errors as proxy_errors
from sluice.proxy.error_table import ERROR_TABLE, rendering_of
from sluice.proxy.errors import InvalidFieldError, UpstreamReadTimeoutError
from sluice.proxy.wire.render_errors import openai_error
from sluice.search import errors as search_errors
from tests.proxy.servers import ScriptedUpstream, proxy

PACKAGES = (compressor_errors, proxy_errors, search_errors)


def classes_of(module: object) -> list[type[Exception]]:
    return [
        cls
        for _, cls in inspect.getmembers(module, inspect.isclass)
        if issubclass(cls, Exception) and cls.__module__ in {package.__name__ for package in PACKAGES}
    ]


@pytest.mark.parametrize("cls", sorted({c for p in PACKAGES for c in classes_of(p)}, key=lambda cls: cls.__name__))
def test_every_class_is_in_the_table(cls: type[Exception]) -> None:
    assert cls in ERROR_TABLE


def test_codes_tell_classes_apart() -> None:
    codes = [rendering.code for rendering in ERROR_TABLE.values()]
    assert len(codes) == len(set(codes))


@pytest.mark.parametrize("module", PACKAGES)
def test_the_tree_is_drawn_in_the_docstring(module: object) -> None:
    drawn = inspect.getdoc(module) or ""
    for cls in classes_of(module):
        if cls.__module__ == getattr(module, "__name__", ""):
            assert cls.__name__ in drawn


def test_an_error_is_rendered_in_openais_form() -> None:
    status, body = openai_error(InvalidFieldError("x must be 1", param="x"))
    assert status == 400
    assert json.loads(body) == {
        "error": {"message": "x must be 1", "type": "invalid_request_error", "param": "x", "code": "invalid_value"}
    }
    assert rendering_of(UpstreamReadTimeoutError("http://u", 3)).status == 504
    assert rendering_of(AmbiguousRecallError("7f3a", ["a", "b"])).status == 409


def test_a_subclass_is_rendered_as_its_base() -> None:
    class OddFieldError(InvalidFieldError):
        pass

    assert rendering_of(OddFieldError("x")) == ERROR_TABLE[InvalidFieldError]


def test_a_fault_of_ours_says_nothing_of_its_text() -> None:
    status, body = openai_error(RuntimeError("Bearer sk-secret"))
    assert (status, json.loads(body)["error"]["code"]) == (500, "internal_error")
    assert b"secret" not in body


async def test_unknown_routes_and_methods_are_named(upstream: ScriptedUpstream) -> None:
    async with proxy(upstream.url) as client:
        for method, path, status, code in (
            ("GET", "/nothing", 404, "unknown_route"),
            ("POST", "/healthz", 405, "method_not_allowed"),
        ):
            answer = await client.request(method, path)
            assert (answer.status_code, answer.json()["error"]["code"]) == (status, code)
            assert f"{method} {path}" in answer.json()["error"]["message"]
    assert not upstream.exchanges
