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
from sluice.proxy.dashboard.reader import SORTS
from sluice.proxy.meter.store import MAX_CONVERSATIONS, MAX_DAYS
from sluice.proxy.wire.base import Wire
from sluice.proxy.wire.wires import MESSAGES, WIRES

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
    "description": "Where the messages hold more tokens, old results are rewritten towards so many.",
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


def _request_of(wire: Wire) -> _Json:
    properties: _Json = {"model": {"type": "string"}, "stream": {"type": "boolean"}}
    if wire.shape.list_field is not None:
        messages: _Json = {"type": "array", "items": _OBJECT}
        takes_text = {"anyOf": [{"type": "string"}, messages]}
        properties[wire.shape.list_field] = takes_text if wire.shape.takes_text else messages
    return {"type": "object", "properties": properties, "required": sorted(wire.shape.required)}


def _of_wire(wire: Wire) -> _Json:
    responses = _answers(
        {}, s413="The body is too large.", s502="No answer from upstream.", s504="The upstream is late."
    )
    responses["default"] = {"description": "What the upstream answered."}
    return {
        "post": {
            "summary": f"The {wire.name} wire, smaller messages forwarded.",
            "parameters": [_MODE, _BUDGET],
            "requestBody": _body(_request_of(wire)),
            "responses": responses,
        }
    }


def _of_dashboard() -> _Json:
    """What the dashboard's pages ask; their figures are explained in docs/dashboard.md."""
    conversation = {
        "name": "conversation_id",
        "in": "path",
        "required": True,
        "schema": {"type": "string", "minLength": 1},
    }
    span = {name: {"type": "integer", "minimum": 0} for name in ("message", "text", "start", "stop")}
    properties = {**span, "pinned": {"type": "boolean", "default": True}}
    pin = {"type": "object", "required": sorted(span), "properties": properties, "additionalProperties": False}
    no_key = {"s401": "A key is wanted, or the one that was sent is not known."}
    not_kept = {**no_key, "s404": "Nothing is kept under this id, or not for this key."}

    def get(summary: str, required: list[str], *parameters: _Json, **others: str) -> _Json:
        schema = {"type": "object", "required": required}
        return {
            "get": {
                "summary": summary,
                "parameters": [*parameters],
                "responses": _answers(schema, **(others or no_key)),
            }
        }

    listing = [
        _number("start", 0, MAX_CONVERSATIONS, 0),
        _number("limit", 1, 200, 50),
        {"name": "sort", "in": "query", "schema": {"type": "string", "enum": list(SORTS)}},
        {"name": "q", "in": "query", "schema": {"type": "string"}},
    ]
    one = "/dashboard/api/conversations/{conversation_id}"
    return {
        "/dashboard": {
            "get": {
                "summary": "The dashboard's page.",
                "responses": {"200": {"description": "The page.", "content": {"text/html": {}}}},
            }
        },
        "/dashboard/api/session": get("What whoever asks may see.", ["role", "version"]),
        "/dashboard/api/overview": get("Figures at a glance.", ["totals", "holdout"], _number("days", 1, MAX_DAYS, 30)),
        "/dashboard/api/conversations": get("Recent conversations.", ["total", "conversations"], *listing),
        one: get("One conversation, turn by turn.", ["id", "turns"], conversation, **not_kept),
        f"{one}/request": get("Its last request, as it came and as it went.", ["messages"], conversation, **not_kept),
        f"{one}/pins": {
            "post": {
                "summary": "Have lines of a tool result dropped never, or again.",
                "parameters": [conversation],
                "requestBody": _body(pin),
                "responses": _answers(
                    {"type": "object", "required": ["start", "stop", "pinned"]},
                    **not_kept,
                    s409="The pins of the conversation may be changed no more.",
                    s413="The body is too large.",
                ),
            }
        },
        "/dashboard/api/backends": get("Self-hosted backends.", ["backends"]),
        "/dashboard/api/searches": get("Recent code searches.", ["searches"]),
    }


def _count_tokens() -> _Json:
    counted = {"type": "object", "required": ["input_tokens"], "properties": {"input_tokens": {"type": "integer"}}}
    responses = _answers(counted, s413="The body is too large.", s502="No answer from upstream.")
    responses["default"] = {"description": "What the upstream answered."}
    return {
        "post": {
            "summary": "Tokens of what would be forwarded.",
            "parameters": [_MODE, _BUDGET],
            "requestBody": _body(_request_of(MESSAGES)),
            "responses": responses,
        }
    }


def _number(name: str, low: int, high: int, default: int) -> _Json:
    schema = {"type": "integer", "minimum": low, "maximum": high, "default": default}
    return {"name": name, "in": "query", "schema": schema}


def _stats() -> _Json:
    conversation_id = {"name": "conversation_id", "in": "path", "required": True, "schema": {"type": "string"}}
    pages = [_number("start", 0, MAX_CONVERSATIONS, 0), _number("limit", 1, MAX_CONVERSATIONS, 100)]
    return {
        "/v1/stats": {
            "get": {
                "summary": "What was spent and saved.",
                "parameters": [_number("days", 1, MAX_DAYS, 30)],
                "responses": _answers({"type": "object", "required": ["totals", "arms", "holdout"]}),
            }
        },
        "/v1/stats/conversations": {
            "get": {
                "summary": "Recent conversations, the newest first.",
                "parameters": pages,
                "responses": _answers({"type": "object", "required": ["conversations"]}),
            }
        },
        "/v1/stats/conversations/{conversation_id}": {
            "get": {
                "summary": "The turns of a conversation.",
                "parameters": [conversation_id],
                "responses": _answers({"type": "object", "required": ["id", "turns"]}, s404="None is kept under it."),
            }
        },
    }


def _search() -> _Json:
    asked = {
        "type": "object",
        "required": ["query"],
        "properties": {
            "query": {"type": "string"},
            "repo": {"anyOf": [{"type": "string"}, {"type": "null"}]},
            "budget_tokens": {"type": "integer"},
            "max_results": {"anyOf": [{"type": "integer"}, {"type": "null"}]},
            "mode": {"type": "string", "enum": ["fast", "deep"]},
        },
    }
    found = {"type": "object", "required": ["results", "tokens", "took_ms"]}
    return {
        "post": {
            "summary": "Line ranges of a configured repository.",
            "requestBody": _body(asked),
            "responses": _answers(found, s404="No such repository.", s413="The body is too large.", s422="Not so."),
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
            **_of_dashboard(),
            "/v1/messages/count_tokens": _count_tokens(),
            "/v1/models": {
                "get": {
                    "summary": "The models that can be asked for.",
                    "responses": {
                        **_answers({"type": "object", "required": ["data"]}, s502="No answer from upstream."),
                        "default": {"description": "What the upstream answered."},
                    },
                }
            },
            "/v1/search": _search(),
            **_stats(),
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
