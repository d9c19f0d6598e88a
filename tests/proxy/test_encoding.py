from __future__ import annotations

import gzip
import json
import zlib
from collections.abc import Callable

import pytest
import zstandard
from hypothesis import given
from hypothesis import strategies as st

from sluice.proxy.encoding import UnreadableBodyError, unpack
from sluice.proxy.errors import BodyTooLargeError
from tests.proxy.servers import ScriptedUpstream, proxy, reading_twice


def deflate_raw(data: bytes) -> bytes:
    packer = zlib.compressobj(wbits=-zlib.MAX_WBITS)
    return packer.compress(data) + packer.flush()


PACKERS: dict[str, tuple[str, Callable[[bytes], bytes]]] = {
    "gzip": ("gzip", gzip.compress),
    "zlib": ("deflate", zlib.compress),
    "deflate": ("Deflate", deflate_raw),
    "zstd": ("zstd", zstandard.compress),
}


@pytest.mark.parametrize("name", PACKERS)
@given(data=st.binary(max_size=3000))
def test_what_was_packed_is_unpacked(name: str, data: bytes) -> None:
    encoding, pack = PACKERS[name]
    assert unpack(pack(data), encoding, 3000) == data
    assert unpack(data, "identity", 10) == unpack(data, "", 10) == data


@pytest.mark.parametrize("name", PACKERS)
def test_a_bomb_is_refused_at_the_cap(name: str) -> None:
    encoding, pack = PACKERS[name]
    with pytest.raises(BodyTooLargeError):
        unpack(pack(bytes(50_000_000)), encoding, 1_000_000)
    assert len(unpack(pack(bytes(1_000_000)), encoding, 1_000_000)) == 1_000_000


def test_several_members_are_one_body() -> None:
    assert unpack(gzip.compress(b"a") + gzip.compress(b"b"), "gzip", 10) == b"ab"
    assert unpack(zstandard.compress(b"a") + zstandard.compress(b"b"), "zstd", 10) == b"ab"


def test_a_body_of_very_many_members_is_unpacked_in_one_pass_over_it() -> None:
    assert unpack(gzip.compress(b"") * 200_000 + gzip.compress(b"a"), "gzip", 10) == b"a"


@pytest.mark.parametrize("encoding", ["gzip", "deflate", "zstd", "br", "gzip, gzip"])
def test_what_is_not_packed_so_is_unreadable(encoding: str) -> None:
    for body in (b"no such thing", gzip.compress(b"x" * 100)[:-20], zlib.compress(b"x") + b"more"):
        with pytest.raises(UnreadableBodyError):
            unpack(body, encoding, 1000)


@pytest.mark.parametrize("name", PACKERS)
async def test_a_packed_request_is_compressed_and_forwarded_plain(upstream: ScriptedUpstream, name: str) -> None:
    encoding, pack = PACKERS[name]
    body = pack(json.dumps({"model": "m", "messages": reading_twice()}).encode())
    async with proxy(upstream.url) as client:
        answer = await client.post("/v1/chat/completions", content=body, headers={"content-encoding": encoding})
    assert answer.status_code == 200
    assert upstream.last.header("content-encoding") is None
    assert "as in message 3" in upstream.last.json["messages"][4]["content"]


async def test_a_request_that_unpacks_to_more_than_the_cap_is_413(upstream: ScriptedUpstream) -> None:
    async with proxy(upstream.url, max_body_bytes=10_000) as client:
        body = gzip.compress(json.dumps({"model": "m", "messages": [], "x": "y" * 20_000}).encode())
        answer = await client.post("/v1/chat/completions", content=body, headers={"content-encoding": "gzip"})
    assert answer.status_code == 413
    assert not upstream.exchanges
