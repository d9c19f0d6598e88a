"""Compares systems in one run: proxies over HTTP, ours among them, and frames in process, under one judge."""
