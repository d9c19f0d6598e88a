"""Judges Sluice from outside: replays recorded conversations, prices what is forwarded, counts what is kept.

`metrics.py` says what is measured, `policies/` what is compared, `replay.py` and `http.py` how a conversation is
played. Nothing else in the project imports this package.
"""
