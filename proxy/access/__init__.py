"""Who may use the proxy, from where, and how much. Knows no wire format and no upstream."""

from sluice.proxy.access.access import Access
from sluice.proxy.access.guard import STATE_KEY, Guard
from sluice.proxy.access.keys import ProxyKey

__all__ = ["STATE_KEY", "Access", "Guard", "ProxyKey"]
