"""The MCP server: the tools `code_search` and, where originals can be fetched, `recall`.

Built on the official `mcp` SDK; `build_server(...).run("stdio")` serves an agent directly, and
`build_server(...).streamable_http_app()` is what an HTTP server mounts at `/mcp`.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from typing import TYPE_CHECKING, Literal

from sluice.search.errors import MissingExtraError, SearchError
from sluice.search.service import SearchService
from sluice.search.text import as_text

if TYPE_CHECKING:
    from mcp.server import MCPServer
    from mcp.server.transport_security import TransportSecuritySettings

Recall = Callable[[str], Awaitable[str]]
"""Gives the original text under a marker's id; raises LookupError if there is none."""

_DESCRIPTION = (
    "Find code by meaning, name or symptom. Returns only the line ranges that answer, as path:start-end with their "
    "text. Use it before grep or reading whole files."
)


def build_server(service: SearchService, recall: Recall | None = None) -> MCPServer[None]:
    """A server with the tools that can be served.

    Args:
        service: what answers searches.
        recall: what fetches originals; None leaves the tool out.

    Raises:
        MissingExtraError: the `mcp` package is not installed.
    """
    try:
        from mcp.server import MCPServer
        from mcp.server.mcpserver.exceptions import ToolError
    except ImportError as error:
        raise MissingExtraError("the MCP server needs the package mcp: pip install 'sluicegate[search]'") from error
    server: MCPServer[None] = MCPServer("sluice", instructions=_DESCRIPTION)

    async def code_search(
        query: str,
        repo: str | None = None,
        budget_tokens: int = 1000,
        max_results: int | None = None,
        mode: Literal["fast", "deep"] = "fast",
    ) -> str:
        try:
            return as_text(await service.search(query, repo, budget_tokens, max_results, mode))
        except SearchError as error:
            raise ToolError(str(error)) from error

    server.add_tool(code_search, "code_search", description=_DESCRIPTION, structured_output=False)
    if recall is not None:

        async def recall_original(id: str) -> str:
            try:
                text = await recall(id)
            except LookupError as error:
                raise ToolError(str(error)) from error
            return text.encode("utf-8", "replace").decode()  # a lone surrogate would end the server as it is sent

        server.add_tool(
            recall_original,
            "recall",
            description="The original text behind a marker like [sluice 7f3a: 48 lines omitted, 41-88], by its id.",
            structured_output=False,
        )
    return server


def open_to_all_hosts() -> TransportSecuritySettings:
    """For `streamable_http_app` in a server that checks Host and Origin itself."""
    from mcp.server.transport_security import TransportSecuritySettings

    return TransportSecuritySettings(enable_dns_rebinding_protection=False)
