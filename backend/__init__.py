"""Tokens in, tokens out: the embedded engine and an OpenAI server of its own.

Knows nothing of compression or search.
"""
