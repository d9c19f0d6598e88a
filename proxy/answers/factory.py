"""Makes the prompt cache that the settings ask for."""

from __future__ import annotations

from sluice.proxy.answers.answers import Answers
from sluice.proxy.answers.store import AnswerStore, MemoryAnswers
from sluice.proxy.settings import Settings


def make_answers(settings: Settings) -> Answers | None:
    """Make the prompt cache; None where it is switched off."""
    if not settings.answer_cache_ttl_s:
        return None
    store: AnswerStore = MemoryAnswers(settings.answer_cache_ttl_s, settings.answer_cache_max_bytes)
    if settings.redis_url is not None:
        from sluice.proxy.answers.redis_store import RedisAnswers

        url = settings.redis_url.get_secret_value()
        store = RedisAnswers(url, settings.answer_cache_ttl_s, settings.redis_timeout_s)
    return Answers(store, settings.answer_max_bytes)
