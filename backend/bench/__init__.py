"""Measures the embedded engine and any OpenAI server beside it."""
