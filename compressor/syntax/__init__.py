"""Where a source text's definitions and statements begin and end, for any of some thirty languages.

One parser (tree-sitter, an optional dependency that is imported on first use) serves the compressor and code search.
Knows files only as bytes: no paths on disk, no tools, no messages.
"""

from __future__ import annotations

from sluice.compressor.syntax.languages import LANGUAGES, Language, language_of
from sluice.compressor.syntax.outline import Definition, Outline, Statement, outline

__all__ = ["LANGUAGES", "Definition", "Language", "Outline", "Statement", "language_of", "outline"]
