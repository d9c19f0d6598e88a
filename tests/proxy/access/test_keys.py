from __future__ import annotations

import os
import stat
import threading
from collections.abc import Sequence
from pathlib import Path

import pytest
from click.testing import CliRunner
from pydantic import ValidationError

from sluice.proxy.access.cli import keys
from sluice.proxy.access.keyring import FileKeys, GivenKeys, find_key
from sluice.proxy.access.keys import ProxyKey, is_genuine, make_key, parse_key, take_key
from sluice.proxy.access.redis import RedisKeys
from sluice.proxy.errors import ConfigError, KeysUnavailableError
from sluice.proxy.state.client import RedisClient
from tests.full_disk import files_end_at
from tests.redis_server import RedisServer


def test_a_key_is_told_from_any_other_and_is_not_kept() -> None:
    record, text = make_key("ann", requests_per_minute=5)
    other, _ = make_key("bob")
    parts = parse_key(text)
    assert parts is not None
    assert parts[0] == record.id
    assert is_genuine(record, parts[1])
    assert not is_genuine(other, parts[1])
    assert not is_genuine(record, parts[1][:-1] + ("A" if parts[1][-1] != "A" else "B"))
    assert parts[1] not in record.model_dump_json()
    assert text not in repr(record)


@pytest.mark.parametrize(
    "text", ["", "sk-sluice-", "sk-x", "sk-sluice-0123456789ab-short", "sk-sluice-ZZ3456789abc-" + "a" * 43]
)
def test_what_has_not_the_form_is_no_key(text: str) -> None:
    assert parse_key(text) is None


def test_limits_that_make_no_sense_are_refused() -> None:
    with pytest.raises(ValidationError):
        make_key("ann", requests_per_minute=0)
    with pytest.raises(ValidationError):
        make_key("")


def test_a_key_is_taken_from_where_agents_put_it_and_stays_out_of_the_providers_headers() -> None:
    _, text = make_key("ann")
    key = text.encode()
    for header in ((b"authorization", b"Bearer " + key), (b"x-api-key", key), (b"x-sluice-key", key)):
        found, headers = take_key([header, (b"accept", b"*/*")])
        assert (found, headers) == (text, [(b"accept", b"*/*"), (b"x-sluice-key", key)])
    found, headers = take_key([(b"x-sluice-key", b"k"), (b"authorization", b"Bearer sk-provider")])
    assert (found, headers) == ("k", [(b"authorization", b"Bearer sk-provider"), (b"x-sluice-key", b"k")])
    assert take_key([(b"authorization", b"Bearer sk-provider")]) == (None, [(b"authorization", b"Bearer sk-provider")])


async def test_a_file_of_keys_is_read_again_when_it_changes(tmp_path: Path) -> None:
    path = tmp_path / "sub" / "keys.json"
    now = 0.0
    served, edited = FileKeys(path, clock=lambda: now), FileKeys(path)
    key, text = make_key("ann")
    assert await served.find(key.id) is None
    edited.add(key)
    assert stat.S_IMODE(os.stat(path).st_mode) == 0o600
    assert text not in path.read_text()
    assert await served.find(key.id) is None, "it is looked at once a second"
    now = 1.0
    assert await served.find(key.id) == key
    path.write_text("nonsense")
    now = 2.0
    assert await served.find(key.id) == key, "keys that work go on working"
    with pytest.raises(ConfigError, match="no list of keys"):
        edited.list()
    with pytest.raises(KeysUnavailableError):
        await FileKeys(path).find(key.id)


@pytest.mark.redis
async def test_keys_in_redis_outlive_it_once_they_were_seen(redis_server: RedisServer) -> None:
    client = RedisClient(redis_server.url, timeout_s=5.0)
    now = 0.0
    ring = RedisKeys(client, clock=lambda: now)
    (seen, _), (unseen, _) = make_key("ann"), make_key("bob")
    await ring.add(seen)
    await ring.add(unseen)
    assert await ring.find(seen.id) == seen
    assert [key.name for key in await ring.list()] == ["ann", "bob"]
    redis_server.kill()
    now = 100.0
    assert await ring.find(seen.id) == seen
    with pytest.raises(KeysUnavailableError):
        await ring.find(unseen.id)
    with pytest.raises(KeysUnavailableError):
        await find_key([GivenKeys([]), ring], unseen.id)
    assert await find_key([GivenKeys([unseen]), ring], unseen.id) == unseen
    await client.aclose()


@pytest.mark.redis
async def test_a_key_that_was_removed_stops_within_seconds(redis_url: str) -> None:
    client = RedisClient(redis_url, timeout_s=5.0)
    now = 0.0
    ring = RedisKeys(client, clock=lambda: now)
    key, _ = make_key("ann")
    await ring.add(key)
    assert await ring.find(key.id) == key
    assert await ring.remove(key.id)
    assert not await ring.remove(key.id)
    assert await ring.find(key.id) == key
    now = 5.0
    assert await ring.find(key.id) is None
    await client.aclose()


@pytest.mark.redis
@pytest.mark.parametrize("place", ["file", "redis"])
def test_the_command_adds_lists_and_removes(tmp_path: Path, redis_url: str, place: str) -> None:
    where = ["--file", str(tmp_path / "keys.json")] if place == "file" else ["--redis", redis_url]
    run = CliRunner()
    added = run.invoke(keys, [*where, "add", "ann", "--requests-per-minute", "5", "--tokens-per-day", "1000"])
    assert added.exit_code == 0, added.output
    text = added.stdout.strip()
    key_id = (parse_key(text) or ("", ""))[0]
    listed = run.invoke(keys, [*where, "list"])
    assert listed.output == f"{key_id}  ann  requests_per_minute=5  tokens_per_day=1000\n"
    assert run.invoke(keys, [*where, "remove", key_id]).exit_code == 0
    assert run.invoke(keys, [*where, "list"]).output == "there are no keys there\n"
    gone = run.invoke(keys, [*where, "remove", key_id])
    assert (gone.exit_code, key_id in gone.output) == (1, True)


def test_the_command_says_what_it_lacks(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    run = CliRunner()
    assert "keys_file or redis_url" in run.invoke(keys, ["list"]).output
    bad = run.invoke(keys, ["--file", "k", "add", "ann", "--max-concurrent", "0"])
    assert (bad.exit_code, "max-concurrent" in bad.output) == (2, True)
    lost = run.invoke(keys, ["--redis", "redis://:hush@127.0.0.1:9/0", "list"])
    assert (lost.exit_code, "Redis" in lost.output, "hush" in lost.output) == (1, True, False)


def test_numbers_are_shown_in_full(tmp_path: Path) -> None:
    file = tmp_path / "keys.json"
    FileKeys(file).add(make_key("ann", tokens_per_day=12_345_678, dollars_per_day=0.5)[0])
    listed = CliRunner().invoke(keys, ["--file", str(file), "list"])
    assert "tokens_per_day=12345678  dollars_per_day=0.5" in listed.stdout


def test_of_two_that_change_the_file_at_once_neither_loses_a_key(tmp_path: Path) -> None:
    file = tmp_path / "keys.json"
    ann, bob = make_key("ann")[0], make_key("bob")[0]
    adding = threading.Thread(target=lambda: FileKeys(file).add(bob))

    class Slow(FileKeys):
        def list(self) -> Sequence[ProxyKey]:
            found = super().list()
            adding.start()
            adding.join(0.3)  # it has written by now, unless it waits
            return found

    Slow(file).add(ann)
    adding.join()
    assert {key.name for key in FileKeys(file).list()} == {"ann", "bob"}


async def test_a_file_that_cannot_be_read_is_said_once(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    path = tmp_path / "keys.json"
    path.write_text("{")
    source = FileKeys(path, check_s=0.0)
    for _ in range(3):
        with pytest.raises(KeysUnavailableError):
            await source.find("0" * 12)
    said = [record.getMessage() for record in caplog.records]
    assert len(said) == 1
    assert "keys.json is no list of keys" in said[0]
    assert "nobody is let in" in said[0]


def test_keys_for_which_there_is_no_room_leave_the_file_as_it_was(tmp_path: Path) -> None:
    path = tmp_path / "keys.json"
    source = FileKeys(path)
    source.add(make_key("ann")[0])
    before = path.read_bytes()
    many = [make_key("x" * 100)[0] for _ in range(300)]
    with files_end_at(50_000), pytest.raises(ConfigError, match="as it was: File too large; make room"):
        source._write(many)
    assert path.read_bytes() == before
    assert [file.name for file in tmp_path.iterdir()] == ["keys.json"]


@pytest.mark.redis
async def test_a_key_of_another_version_is_passed_over(redis_url: str, caplog: pytest.LogCaptureFixture) -> None:
    client = RedisClient(redis_url, timeout_s=5.0)
    ring = RedisKeys(client)
    key, _ = make_key("ann")
    await ring.add(key)
    await client.redis.hset("sluice:1:keys", "0123456789ab", '{"id": "0123456789ab", "colour": "red"}')  # type: ignore[misc]
    assert await ring.list() == [key]
    assert await ring.find("0123456789ab") is None
    await client.aclose()
    assert "key_not_readable key=0123456789ab" in caplog.text
