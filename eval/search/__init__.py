"""Measures code search on questions with known answers: how good, how fast, how large."""
