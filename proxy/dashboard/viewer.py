"""Who looks at the dashboard, and what that person may see.

Without proxy keys, figures are for everybody on this machine. With them, each key is shown its own figures and content,
and the proxy's owner, who has the dashboard's own key, all.
"""

from __future__ import annotations

import hmac
from dataclasses import dataclass

from starlette.requests import Request

from sluice.proxy.access.keys import HEADER
from sluice.proxy.errors import MissingKeyError, UnknownKeyError
from sluice.proxy.headers import find
from sluice.proxy.services import Services
from sluice.proxy.tenant import tenant_of


@dataclass(frozen=True, slots=True)
class Viewer:
    """What somebody may see."""

    role: str
    """`owner`, `key`, or `guest`, who sees figures and changes nothing."""
    name: str = ""
    """Of the key."""
    tenant: bytes = b""
    """Whose content this is; empty for others than holders of a key."""
    key_id: str | None = None
    """Whose figures may be shown; None: everybody's."""

    def may_read(self, tenant: bytes) -> bool:
        """Whether the content of a tenant may be shown."""
        return self.role == "owner" or (self.role == "key" and hmac.compare_digest(self.tenant, tenant))


async def viewer_of(request: Request) -> Viewer:
    """Tell who asks.

    Raises:
        MissingKeyError: a key is wanted, and there is none.
        UnknownKeyError: the key is not known.
        KeysUnavailableError: that cannot be told.
    """
    services: Services = request.app.state.services
    settings = services.settings
    text = find(request.scope["headers"], HEADER)
    if services.access.is_owners(text):
        return Viewer("owner", "owner")
    if settings.wants_keys:
        key = await services.access.identify(text)
        assert key is not None, "keys are wanted"
        tenant = tenant_of(request.scope["headers"], await services.store.secret())
        return Viewer("key", key.name, tenant, key.id)
    if text:
        raise UnknownKeyError
    return Viewer("guest")


def require_key(viewer: Viewer) -> None:
    """Let nobody through who has shown no key.

    Raises:
        MissingKeyError: it is a guest.
    """
    if viewer.role == "guest":
        raise MissingKeyError
