"""Puts a request into the form that one upstream takes: path, credential, format, its name for the model.

Knows no sockets, and not in which order upstreams are asked.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Protocol

from sluice.proxy.errors import ForeignCredentialError, RequestError
from sluice.proxy.headers import Header
from sluice.proxy.upstreams.credentials import (
    path_without_credential,
    token_of,
    with_credential,
    without_credential,
)
from sluice.proxy.upstreams.models import rename_model
from sluice.proxy.upstreams.presets import CHAT, MESSAGES, RESPONSES, foreign_owner
from sluice.proxy.upstreams.settings import UpstreamSettings
from sluice.proxy.upstreams.types import Target, Translator
from sluice.proxy.wire import Outgoing, WireName

_HUBS = (CHAT, MESSAGES, RESPONSES)
"""Formats that a request is translated to, the most widely spoken first."""
_MESSAGES_PATH = "/v1/messages"
_VERSION = (b"anthropic-version", b"2023-06-01")


class Addressee(Protocol):
    """An upstream, as far as a request's form depends on it."""

    @property
    def settings(self) -> UpstreamSettings:
        """What was configured."""
        ...

    @property
    def target(self) -> Target:
        """What it is to the rest of the proxy."""
        ...


@dataclass(frozen=True, slots=True)
class Addressed:
    """A request in the form that one upstream takes."""

    path: str
    headers: Sequence[Header]
    body: bytes
    translated_to: WireName | None
    """The format that it was translated to; None where it is the client's."""


class Addressing:
    """Addresses requests.

    Args:
        translator: puts requests into formats that an upstream speaks; None sends them as they came.
    """

    def __init__(self, translator: Translator | None = None) -> None:
        self._translator = translator

    def address(self, upstream: Addressee, outgoing: Outgoing, primary: Addressee) -> Addressed | None:
        """Put a request into the form that an upstream takes; None where it must not or cannot be sent there.

        Args:
            upstream: who gets it.
            outgoing: as it is to be forwarded.
            primary: the upstream that the request is meant for.

        Raises:
            RequestError: the request is meant for this upstream, and its credential is not, or its format cannot be
                translated.
        """
        settings, is_primary = upstream.settings, upstream is primary
        wire, path, body = outgoing.wire, outgoing.path, outgoing.body
        spoken = self._spoken(upstream, wire, path)
        if spoken is None and wire is not None and not is_primary:
            return None
        translated_to = spoken if spoken != wire else None
        if outgoing.model in settings.rename and body:
            body = rename_model(body, settings.rename)  # first: what a field is called depends on the model
        if translated_to is not None:
            assert self._translator is not None
            assert wire is not None
            try:
                body = self._translator.request(wire, translated_to, body)
            except RequestError:
                if is_primary:
                    raise
                return None
            path = self._translator.path(translated_to)
        elif wire is not None and self._translator is not None:
            body = self._translator.cleaned(wire, body, settings.known.name)
        family = spoken or wire
        if path.startswith(_MESSAGES_PATH) or settings.known.wires == {MESSAGES}:
            family = MESSAGES  # of its other routes, too, such as files and batches
        headers = self._headers(upstream, outgoing, family, primary, translated_to)
        if headers is None:
            return None
        if upstream.target.origin != primary.target.origin:
            path = path_without_credential(path)
        path = settings.known.base_of(family) + path.removeprefix("/v1")
        return Addressed(path, headers, body, translated_to)

    def address_list(self, upstream: Addressee, path: str, headers: Sequence[Header]) -> Addressed:
        """Put the question for an upstream's models into the form that it takes.

        Raises:
            ForeignCredentialError: the request's credential is another provider's.
        """
        request = self.address(upstream, Outgoing("GET", path, headers), upstream)
        assert request is not None, "only fallbacks are passed over"
        if upstream.settings.known.wires != {MESSAGES}:
            return request
        # Anthropic gives twenty at a time unless it is asked for more.
        return replace(request, path=request.path + "?limit=1000")

    def _spoken(self, upstream: Addressee, wire: WireName | None, path: str) -> WireName | None:
        """The format in which an upstream is spoken to; None where it knows none that the request can be put in."""
        if wire is None or wire in upstream.target.wires:
            return wire
        # Of a format's routes, such as that which only counts tokens, the main one alone can be translated.
        if self._translator is not None and path.partition("?")[0] == self._translator.path(wire):
            for other in _HUBS:
                if other in upstream.target.wires and self._translator.can(wire, other):
                    return other
        return None

    def _headers(
        self,
        upstream: Addressee,
        outgoing: Outgoing,
        family: WireName | None,
        primary: Addressee,
        translated_to: WireName | None,
    ) -> list[Header] | None:
        """Headers for an upstream, with the credential that is meant for it; None where there is none to be had.

        Args:
            upstream: who gets them.
            outgoing: the request as it is to be forwarded.
            family: the format whose route is asked for; None where it belongs to none.
            primary: the upstream that the request is meant for.
            translated_to: see `Addressed`.
        """
        settings, known = upstream.settings, upstream.settings.known
        headers = list(outgoing.headers)
        if translated_to is not None:
            assert self._translator is not None
            headers = self._translator.headers(translated_to, headers)
        if settings.secret is not None:
            headers = with_credential(headers, settings.secret.get_secret_value(), known.auth_of(family))
        elif not settings.takes_clients_credential:
            headers = without_credential(headers)
        elif upstream.target.origin != primary.target.origin:
            return None
        elif (token := token_of(headers)) is not None:
            if (owner := foreign_owner(token, known)) is not None:
                raise ForeignCredentialError(owner, settings.name)
            if translated_to is not None:
                headers = with_credential(headers, token, known.auth_of(family))
        if family is MESSAGES and all(name != _VERSION[0] for name, _ in headers):
            headers.append(_VERSION)
        return headers
