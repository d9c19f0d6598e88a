"""Says one wire format's requests and answers in another's. Chat is the hub: what has no direct way goes through it.

Plain functions of bodies and answers; knows no upstream and no route.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

from sluice.proxy.errors import InvalidFieldError, InvalidJsonError
from sluice.proxy.headers import Header
from sluice.proxy.translation import chat_to_messages, messages_to_chat, responses_to_chat
from sluice.proxy.translation.answer import Reader, TranslatedAnswer, Writer
from sluice.proxy.translation.foreign_thinking import without_foreign_reasoning, without_foreign_thinking
from sluice.proxy.translation.from_chat import ChatReader
from sluice.proxy.translation.from_messages import MessagesReader
from sluice.proxy.translation.json_codec import Json, decode, encode, mapping
from sluice.proxy.translation.to_chat import ChatWriter
from sluice.proxy.translation.to_messages import MessagesWriter
from sluice.proxy.translation.to_responses import ResponsesWriter
from sluice.proxy.translation.tool_names import chat_tools, tools_of
from sluice.proxy.upstreams.types import Answer
from sluice.proxy.wire import WireName
from sluice.proxy.wire.wires import WIRES

_ANTHROPIC_VERSION = (b"anthropic-version", b"2023-06-01")
_PROVIDERS_OWN = (b"anthropic-", b"openai-", b"x-stainless-", b"x-codex-", b"chatgpt-")
"""Headers that only the provider whose client sends them understands."""
_REQUESTS: dict[tuple[WireName, WireName], tuple[Callable[[Json], Json], ...]] = {
    (WireName.MESSAGES, WireName.CHAT): (messages_to_chat.request,),
    (WireName.RESPONSES, WireName.CHAT): (responses_to_chat.request,),
    (WireName.CHAT, WireName.MESSAGES): (chat_to_messages.request,),
    (WireName.RESPONSES, WireName.MESSAGES): (responses_to_chat.request, chat_to_messages.request),
}
_READERS: dict[WireName, Callable[[], Reader]] = {WireName.CHAT: ChatReader, WireName.MESSAGES: MessagesReader}


class Translation:
    """The translator that upstreams are given."""

    def can(self, source: WireName, target: WireName) -> bool:
        """Whether requests in `source` can be put as `target`."""
        return (source, target) in _REQUESTS

    def path(self, target: WireName) -> str:
        """Where requests in a format go. A query of the client's is meant for its own provider, and is left out."""
        return WIRES[target].path

    def headers(self, target: WireName, headers: Sequence[Header]) -> list[Header]:
        """The headers of a translated request, names in lower case; the credential is left as it is."""
        own = [(name, value) for name, value in headers if not name.startswith(_PROVIDERS_OWN)]
        own = [(name, value) for name, value in own if name not in (b"accept-encoding", b"content-encoding")]
        own.append((b"accept-encoding", b"identity"))
        return [*own, _ANTHROPIC_VERSION] if target is WireName.MESSAGES else own

    def request(self, source: WireName, target: WireName, body: bytes) -> bytes:
        """Translate a request's body.

        The same body always gives the same bytes, and a longer conversation's messages begin with a shorter one's.

        Raises:
            InvalidJsonError: the body is no JSON.
            InvalidFieldError: it asks for what only its own provider has.
        """
        try:
            request = decode(body)
        except ValueError as error:
            raise InvalidJsonError(f"the body is no JSON: {error}") from None
        if not isinstance(request, dict):
            raise InvalidFieldError("the body must be a JSON object")
        for step in _REQUESTS[source, target]:
            request = step(request)
        return encode(request)

    def cleaned(self, wire: WireName, body: bytes, provider: str) -> bytes:
        """See `Translator` of the upstreams."""
        if wire is WireName.MESSAGES:
            return without_foreign_thinking(body)
        return without_foreign_reasoning(body) if wire is WireName.RESPONSES and provider == "openai" else body

    def answer(self, source: WireName, target: WireName, answer: Answer, *, stream: bool, request: bytes) -> Answer:
        """Wrap an answer that comes in `target`, errors included, so that it reads as `source`.

        Args:
            source: what the client speaks.
            target: what the upstream speaks.
            answer: the upstream's, its body not yet read.
            stream: whether the client asked for events.
            request: the client's body.
        """
        return TranslatedAnswer(answer, _READERS[target](), _writer(source, mapping(decode(request))), stream=stream)


def _writer(source: WireName, request: Json) -> Writer:
    if source is WireName.MESSAGES:
        thinking = mapping(request.get("thinking")).get("type")
        names = messages_to_chat.tool_names(request)
        return MessagesWriter(shows_thinking=thinking in ("enabled", "adaptive"), names=names)
    if source is WireName.RESPONSES:
        return ResponsesWriter(names=chat_tools(tools_of(request))[1])
    return ChatWriter(includes_usage=mapping(request.get("stream_options")).get("include_usage") is True)
