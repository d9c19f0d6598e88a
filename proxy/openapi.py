"""`GET /openapi.json`: what this proxy's own routes take and give.

Written by hand, as narrow as the checks are: the fields of a wire that the upstream reads are its business, and
described by its provider.
"""

from __future__ import annotations

from typing import Any

import msgspec
from starlette.requests import Request
from starlette.responses import Response

from sluice import __version__
from sluice.compressor import Mode
from sluice.proxy.wire.base import Wire
from sluice.proxy.wire.wires import WIRES

_Json = dict[str, Any]

_OBJECT: _Json = {"type": "object"}
_MODE: _Json = {
    "name": "x-sluice-mode",
    "in": "header",
    "description": "How much may be dropped.",
    "schema": {"type": "string", "enum": list(Mode)},
}
_BUDGET: _Json = {
    "name": "x-sluice-budget-tokens",
    "in": "header",
    "description": "The most tokens that the messages may be forwarded with.",
    "schema": {"type": "integer", "minimum": 1},
}
_SPANS: _Json = {
    "type": "array",
    "items": {
        "type": "object",
        "required": ["start", "end"],
        "properties": {"start": {"type": "integer", "minimum": 1}, "end": {"type": "integer", "minimum": 1}},
    },
}
_RANGES: _Json = {"compacted_line_ranges": _SPANS, "kept_line_ranges": _SPANS}


def _answers(schema: _Json, **others: str) -> _Json:
    content = {"application/json": {"schema": schema}}
    failed = {"application/json": {"schema": {"type": "object", "required": ["error"]}}}
    found: _Json = {"200": {"description": "Done.", "content": content}}
    for status, description in {"400": "The request is not as it should be.", **others}.items():
        found[status.removeprefix("s")] = {"description": description, "content": failed}
    return found


def _body(schema: _Json) -> _Json:
    return {"required": True, "content": {"application/json": {"schema": schema}}}


def _of_wire(wire: Wire) -> _Json:
    properties: _Json = {"model": {"type": "string"}, "stream": {"type": "boolean"}}
    if wire.shape.list_field is not None:
        messages: _Json = {"type": "array", "items": _OBJECT}
        takes_text = {"anyOf": [{"type": "string"}, messages]}
        properties[wire.shape.list_field] = takes_text if wire.shape.takes_text else messages
    schema: _Json = {"type": "object", "properties": properties, "required": sorted(wire.shape.required)}
    responses = _answers(
        {}, s413="The body is too large.", s502="No answer from upstream.", s504="The upstream is late."
    )
    responses["default"] = {"description": "What the upstream answered."}
    return {
        "post": {
            "summary": f"The {wire.name} wire, smaller messages forwarded.",
            "parameters": [_MODE, _BUDGET],
            "requestBody": _body(schema),
            "responses": responses,
        }
    }


def describe_routes() -> _Json:
    """The description, as OpenAPI 3.1."""
    compact = {
        "type": "object",
        "properties": {
            "input": {"anyOf": [{"type": "string"}, {"type": "array", "items": _OBJECT}]},
            "messages": {"type": "array", "items": _OBJECT},
            "query": {"type": "string"},
            "compression_ratio": {"type": "number", "exclusiveMinimum": 0, "maximum": 1},
            "preserve_recent": {"type": "integer", "minimum": 0},
            "include_markers": {"type": "boolean"},
            "model": {"type": "string"},
        },
        "oneOf": [{"required": ["input"]}, {"required": ["messages"]}],
    }
    compacted = {
        "type": "object",
        "required": ["id", "object", "model", "usage"],
        "properties": {
            "output": {"type": "string"},
            "messages": {"type": "array", "items": {"type": "object", "properties": _RANGES}},
            **_RANGES,
        },
    }
    recall_id = {"name": "recall_id", "in": "path", "required": True, "schema": {"type": "string", "minLength": 1}}
    recalled = {"type": "object", "required": ["id", "text"]}
    return {
        "openapi": "3.1.0",
        "info": {"title": "Sluice", "version": __version__},
        "paths": {
            **{wire.path: _of_wire(wire) for wire in WIRES.values()},
            "/v1/compact": {
                "post": {
                    "summary": "A text or messages, shortened once.",
                    "parameters": [_MODE],
                    "requestBody": _body(compact),
                    "responses": _answers(compacted, s413="The body is too large."),
                }
            },
            "/v1/recall/{recall_id}": {
                "get": {
                    "summary": "The original under a marker's id.",
                    "parameters": [recall_id],
                    "responses": _answers(recalled, s404="Nothing is kept under it.", s409="Several originals fit."),
                }
            },
            "/healthz": {"get": {"summary": "The process is alive.", "responses": _answers(_OBJECT)}},
            "/readyz": {
                "get": {
                    "summary": "Store and upstreams answer.",
                    "responses": {
                        "200": {"description": "Ready."},
                        "503": {"description": "Not ready, and why."},
                    },
                }
            },
            "/metrics": {
                "get": {
                    "summary": "Counters in Prometheus' form.",
                    "responses": {"200": {"description": "Counters.", "content": {"text/plain": {}}}},
                }
            },
        },
    }


async def openapi(request: Request) -> Response:
    """Serve the description."""
    return Response(msgspec.json.encode(describe_routes()), media_type="application/json")
