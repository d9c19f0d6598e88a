"""Models and who serves them: routing by name or pattern, renaming, and one list out of several. Knows no sockets."""

from __future__ import annotations

import fnmatch
import json
from collections.abc import Iterable, Mapping, Sequence

import msgspec

from sluice.proxy.errors import UnknownModelError
from sluice.proxy.upstreams.settings import UpstreamSettings

_WILD = frozenset("*?[")


class Routing:
    """Which upstream serves a model.

    Args:
        upstreams: in the order in which their patterns count.
    """

    def __init__(self, upstreams: Sequence[UpstreamSettings]) -> None:
        self._by_name: dict[str, str] = {}
        self._patterns: list[tuple[str, str]] = []
        for upstream in upstreams:
            for model in upstream.models:
                if _WILD.isdisjoint(model):
                    self._by_name.setdefault(model, upstream.name)
                else:
                    self._patterns.append((model, upstream.name))
        catch_alls = [name for pattern, name in self._patterns if pattern == "*"]
        self._default = catch_alls[0] if catch_alls else upstreams[0].name

    def find(self, model: str) -> str:
        """Name of the upstream that serves a model; an empty model is served by the first that takes any.

        Raises:
            UnknownModelError: none does.
        """
        if not model:
            return self._default
        if (name := self._by_name.get(model)) is not None:
            return name
        for pattern, name in self._patterns:
            if fnmatch.fnmatchcase(model, pattern):
                return name
        raise UnknownModelError(model)

    def serves(self, name: str, model: str) -> bool:
        """Whether requests for a model go to this upstream."""
        try:
            return self.find(model) == name
        except UnknownModelError:
            return False


def rename_model(body: bytes, names: Mapping[str, str]) -> bytes:
    """Put the upstream's name of a model in the place of the client's; all other fields stay byte for byte.

    Args:
        body: a JSON object; anything else is returned as it is.
        names: the upstream's, by the client's.
    """
    try:
        fields = msgspec.json.decode(body, type=dict[str, msgspec.Raw])
        name = names.get(msgspec.json.decode(fields["model"], type=str))
        if name is None:
            return body
        fields["model"] = msgspec.Raw(msgspec.json.encode(name))
        return msgspec.json.encode(fields)
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError, KeyError):
        return _rename_slowly(body, names)


def _rename_slowly(body: bytes, names: Mapping[str, str]) -> bytes:
    """Do the same to what msgspec refuses: escaped lone surrogates, as agents in JavaScript send them."""
    try:
        fields = json.loads(body)
        fields["model"] = names[fields["model"]]
        return json.dumps(fields, separators=(",", ":")).encode()
    except (ValueError, TypeError, KeyError, RecursionError):
        return body


def merge_lists(listed: Iterable[tuple[UpstreamSettings, bytes]], routing: Routing) -> bytes:
    """Make one list of models out of several, each under the name that clients use.

    A model is in it if requests for it go to the upstream that lists it; names that are configured are in it though
    their upstream lists none.

    Args:
        listed: upstreams, each with its answer to `GET /v1/models`, in OpenAI's or Anthropic's form.
        routing: which upstream serves a model.
    """
    models: dict[str, object] = {}
    for upstream, body in listed:
        clients_names = {name: model for model, name in upstream.rename.items()}
        for entry in _entries(body):
            name = entry["id"].removeprefix(upstream.known.id_prefix)
            model = clients_names.get(name, name)
            if routing.serves(upstream.name, model):
                models.setdefault(model, {**entry, "id": model})
        for model in (*upstream.models, *upstream.rename):
            if _WILD.isdisjoint(model) and routing.serves(upstream.name, model):
                models.setdefault(model, {"id": model, "object": "model", "created": 0, "owned_by": upstream.name})
    ids = list(models)
    # The fields of Anthropic's form stand beside those of OpenAI's, so that clients of both can read it.
    outer = {"object": "list", "data": list(models.values()), "has_more": False}
    return msgspec.json.encode({**outer, "first_id": ids[0] if ids else None, "last_id": ids[-1] if ids else None})


def _entries(body: bytes) -> list[dict[str, str]]:
    try:
        data = msgspec.json.decode(body)["data"]
        return [entry for entry in data if isinstance(entry["id"], str)]
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError, KeyError, TypeError):
        return []
