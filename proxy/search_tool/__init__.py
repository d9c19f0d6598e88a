"""A code search that models call as a tool, and that the proxy answers itself, out of the client's sight."""

from sluice.proxy.search_tool.definition import NAME, Asked
from sluice.proxy.search_tool.tool import Searching, SearchTool

__all__ = ["NAME", "Asked", "SearchTool", "Searching"]
