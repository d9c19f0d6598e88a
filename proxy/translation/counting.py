"""`count_tokens` of the Messages format, for upstreams that have no such route: counted with the model's tokenizer.

An estimate, as the upstream's chat template is not known: texts, tools and a little for each message.
"""

from __future__ import annotations

from sluice.proxy.errors import InvalidFieldError, InvalidJsonError
from sluice.proxy.tokens import TokenCounter
from sluice.proxy.translation import messages_to_chat
from sluice.proxy.translation.json_codec import decode_object, encode, objects, text


async def count_tokens(counter: TokenCounter, body: bytes) -> int:
    """Count the tokens of a Messages request, as it would be put in the chat format.

    Raises:
        InvalidJsonError: the body is no JSON object.
        InvalidFieldError: it has no list of messages.
    """
    try:
        source = decode_object(body)
    except ValueError as error:
        raise InvalidJsonError(f"the body is no JSON object: {error}") from None
    if not isinstance(source.get("messages"), list):
        raise InvalidFieldError("messages must be a list", param="messages")
    messages = [encode(message) for message in messages_to_chat.messages(source)]
    tools = [encode({"content": encode(tool).decode()}) for tool in objects(source.get("tools"))]
    return (await counter.count(text(source.get("model")), messages + tools))[0]
