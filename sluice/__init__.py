"""Sluice: a drop-in `base_url` for coding agents that makes their context, and their bill, smaller."""

__version__ = "0.1.0"
