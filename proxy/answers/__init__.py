"""The exact prompt cache: whole answers to identical requests, and one upstream call for requests that are twins."""

from sluice.proxy.answers.answers import Answers, SourcedAnswer, Unshared
from sluice.proxy.answers.factory import make_answers
from sluice.proxy.answers.key import answer_key, may_keep, may_take

__all__ = ["Answers", "SourcedAnswer", "Unshared", "answer_key", "make_answers", "may_keep", "may_take"]
