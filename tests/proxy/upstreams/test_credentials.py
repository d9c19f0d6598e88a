from __future__ import annotations

from sluice.proxy.upstreams.credentials import (
    path_without_credential,
    token_of,
    with_credential,
    without_credential,
)
from sluice.proxy.upstreams.presets import AuthForm, preset_of, profile_of, provider_of_key


def test_a_credential_is_found_in_any_of_its_headers() -> None:
    assert token_of([(b"authorization", b"Bearer  abc ")]) == "abc"
    assert token_of([(b"x-api-key", b"abc")]) == "abc"
    assert token_of([(b"accept", b"*/*")]) is None


def test_it_is_put_into_the_form_that_is_wanted_and_stands_once() -> None:
    headers = [(b"accept", b"*/*"), (b"x-api-key", b"old"), (b"authorization", b"Bearer old"), (b"cookie", b"a=1")]
    assert with_credential(headers, "new", AuthForm.BEARER) == [(b"accept", b"*/*"), (b"authorization", b"Bearer new")]
    assert with_credential(headers, "new", AuthForm.API_KEY) == [(b"accept", b"*/*"), (b"x-api-key", b"new")]
    assert without_credential(headers) == [(b"accept", b"*/*")]


def test_a_subscriptions_token_stays_a_bearer_token() -> None:
    headers = with_credential([], "sk-ant-oat01-x", AuthForm.API_KEY)
    assert headers == [(b"authorization", b"Bearer sk-ant-oat01-x")]


def test_a_key_in_a_query_goes_nowhere_else() -> None:
    assert path_without_credential("/v1/m?beta=true&key=s&x=1") == "/v1/m?beta=true&x=1"
    assert path_without_credential("/v1/m?key=s") == "/v1/m"
    assert path_without_credential("/v1/m?api_key=s&x=1") == "/v1/m?x=1"
    assert path_without_credential("/v1/m?monkey=1") == "/v1/m?monkey=1"


def test_whose_a_key_is_and_who_stands_at_an_origin() -> None:
    assert [provider_of_key(key) for key in ("sk-ant-api03-x", "sk-proj-x", "AIzaX", "sk-x")] == [
        "anthropic",
        "openai",
        "gemini",
        None,
    ]
    assert preset_of("https://api.openai.com").name == "openai"
    assert preset_of("https://generativelanguage.googleapis.com/v1beta/openai").name == "gemini"
    assert preset_of("https://api.deepseek.com/anthropic").name == "any"
    assert preset_of("http://127.0.0.1:8000").name == "any"
    assert profile_of("https://api.deepseek.com/anthropic") == "deepseek"
    assert profile_of("https://api.openai.com.example.org") == "anthropic"
