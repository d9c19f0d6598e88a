from __future__ import annotations

import contextlib

import pytest

from sluice.backend.hosts import is_loopback, may_come_from, may_name_host, name_of
from sluice.proxy.errors import ConfigError
from sluice.proxy.serve import check_not_itself
from sluice.proxy.settings import Settings


@pytest.mark.parametrize(
    ("authority", "name"),
    [
        ("127.0.0.1:8790", "127.0.0.1"),
        ("LocalHost", "localhost"),
        ("[::1]:8790", "::1"),
        ("evil.com:8790", "evil.com"),
        ("localhost@evil.com", "evil.com"),
        ("[::1", ""),
        ("", ""),
    ],
)
def test_names_are_read_from_authorities(authority: str, name: str) -> None:
    assert name_of(authority) == name


@pytest.mark.parametrize("name", ["localhost", "a.localhost", "127.0.0.1", "127.9.9.9", "::1", "::ffff:127.0.0.1"])
def test_loopback_is_told_by_its_form(name: str) -> None:
    assert is_loopback(name)


@pytest.mark.parametrize(
    "name", ["", "localhost.evil.com", "127.0.0.1.evil.com", "0.0.0.0", "10.0.0.1", "::2", "2130706433"]
)
def test_what_only_looks_like_it_is_not(name: str) -> None:
    assert not is_loopback(name)


def test_on_loopback_only_loopback_and_what_is_allowed_may_be_named() -> None:
    assert may_name_host("localhost:1", "127.0.0.1", ())
    assert may_name_host(None, "127.0.0.1", ())
    assert not may_name_host("evil.com", "127.0.0.1", ())
    assert not may_name_host("", "127.0.0.1", ())
    assert may_name_host("host.docker.internal:8790", "127.0.0.1", ("host.docker.internal",))


def test_elsewhere_any_name_may_be_unless_it_is_said_which() -> None:
    assert may_name_host("proxy.example.org", "0.0.0.0", ())
    assert not may_name_host("evil.com", "0.0.0.0", ("proxy.example.org",))


def test_a_page_may_ask_where_it_came_from_itself_or_is_allowed() -> None:
    assert may_come_from(None, "127.0.0.1:1", ())
    assert may_come_from("http://127.0.0.1:1", "127.0.0.1:1", ())
    assert may_come_from("http://localhost:3000", "127.0.0.1:1", ("http://localhost:3000",))
    assert may_come_from("https://any", "127.0.0.1:1", ("*",))
    for origin in ("null", "http://evil.com", "http://127.0.0.1:2", "http://127.0.0.1:1.evil.com", ""):
        assert not may_come_from(origin, "127.0.0.1:1", ())


@pytest.mark.parametrize(
    ("origin", "address", "port", "is_itself"),
    [
        ("http://127.0.0.1:8000", "127.0.0.1", 8000, True),
        ("http://localhost:8000", "0.0.0.0", 8000, True),
        ("http://[::1]:8000", "::", 8000, True),
        ("http://127.0.0.1:8000", "100.64.0.5", 8000, False),
        ("http://100.64.0.5:8000", "100.64.0.5", 8000, True),
        ("http://127.0.0.1", "127.0.0.1", 80, True),
        ("https://127.0.0.1", "127.0.0.1", 443, True),
        ("http://127.0.0.1", "127.0.0.1", 443, False),
    ],
)
def test_an_upstream_is_the_proxy_itself_where_it_listens(
    origin: str, address: str, port: int, is_itself: bool
) -> None:
    with pytest.raises(ConfigError, match="itself") if is_itself else contextlib.nullcontext():
        check_not_itself(address, port, Settings(upstream=origin))
