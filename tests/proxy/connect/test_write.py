from __future__ import annotations

import json
import stat
from pathlib import Path

import pytest

from sluice.proxy.connect.agents import AGENTS, Place
from sluice.proxy.connect.documents import Change, Form, UnreadableSettingsError, find, parse
from sluice.proxy.connect.journal import Journal
from sluice.proxy.connect.write import undo, write
from tests.full_disk import files_end_at

URL = "http://127.0.0.1:8790"
WITH_FILES = [name for name in AGENTS if name not in ("cline", "openhands")]


@pytest.fixture
def place(tmp_path: Path) -> Place:
    return Place(tmp_path / "home", {}, "linux")


@pytest.fixture
def journal(tmp_path: Path) -> Journal:
    return Journal(tmp_path / "state")


@pytest.mark.parametrize("name", WITH_FILES)
@pytest.mark.parametrize("model", [None, "gpt-4o"])
def test_written_and_undone_nothing_is_left(name: str, model: str | None, place: Place, journal: Journal) -> None:
    changes = AGENTS[name].setup(place, URL, model).changes
    files = write(name, changes, journal)
    assert set(files) == {change.file for change in changes}
    for change in changes:
        assert find(parse(change.file.read_text(), change.form), change.keys) == change.value
    assert write(name, changes, journal) == []
    assert all(one.is_restored for one in undo(name, journal))
    assert not any(file.exists() for file in files)
    assert undo(name, journal) == []


def test_what_stood_there_comes_back(place: Place, journal: Journal) -> None:
    settings = place.home / ".claude" / "settings.json"
    settings.parent.mkdir(parents=True)
    before = {"env": {"ANTHROPIC_BASE_URL": "https://other.example", "A": "1"}, "hooks": []}
    settings.write_text(json.dumps(before, indent=4) + "\n")
    text = settings.read_text()
    agent = AGENTS["claude-code"]
    write(agent.name, agent.setup(place, URL, None).changes, journal)
    write(agent.name, agent.setup(place, "http://127.0.0.1:9000", None).changes, journal)
    assert json.loads(settings.read_text())["env"] == {"ANTHROPIC_BASE_URL": "http://127.0.0.1:9000", "A": "1"}
    undo(agent.name, journal)
    assert settings.read_text() == text


def test_what_a_person_changed_since_stays(place: Place, journal: Journal) -> None:
    agent = AGENTS["codex"]
    write(agent.name, agent.setup(place, URL, None).changes, journal)
    config = place.home / ".codex" / "config.toml"
    config.write_text(config.read_text().replace('model_provider = "sluice"', 'model_provider = "mine"'))
    done = {one.entry.keys: one.is_restored for one in undo(agent.name, journal)}
    assert done.pop(("model_provider",)) is False
    assert len(done) == 4
    assert all(done.values())
    assert config.read_text().strip() == 'model_provider = "mine"'


def test_what_a_person_set_between_two_writes_is_what_comes_back(place: Place, journal: Journal) -> None:
    agent = AGENTS["aider"]
    changes = agent.setup(place, URL, None).changes
    write(agent.name, changes, journal)
    config = place.home / ".aider.conf.yml"
    config.write_text("openai-api-base: https://mine.example/v1\n")
    write(agent.name, changes, journal)
    undo(agent.name, journal)
    assert config.read_text() == "openai-api-base: https://mine.example/v1\n"


def test_a_file_that_cannot_be_understood_is_left_alone_and_named(place: Place, journal: Journal) -> None:
    good, bad = place.home / "good.json", place.home / "bad.json"
    place.home.mkdir()
    good.write_text("{}\n")
    bad.write_text("{ // mine\n}\n")
    changes = [Change(file, Form.JSON, ("a",), "b") for file in (good, bad)]
    with pytest.raises(UnreadableSettingsError, match=r"bad\.json was left as it is"):
        write("x", changes, journal)
    assert good.read_text() == "{}\n"
    assert bad.read_text() == "{ // mine\n}\n"
    assert journal.read("x") == []


def test_a_file_that_was_written_in_two_goes_is_taken_back_whole(place: Place, journal: Journal) -> None:
    one, other = place.home / "one.json", place.home / "other.json"
    write("x", [Change(file, Form.JSON, ("a",), "1") for file in (one, other)], journal)
    write("x", [Change(one, Form.JSON, ("b",), "2")], journal)
    assert all(undone.is_restored for undone in undo("x", journal))
    assert not one.exists()
    assert not other.exists()


def test_rights_and_links_are_kept(place: Place, journal: Journal, tmp_path: Path) -> None:
    real = tmp_path / "dotfiles" / "settings.json"
    real.parent.mkdir()
    real.write_text("{}\n")
    real.chmod(0o640)
    linked = place.home / ".claude" / "settings.json"
    linked.parent.mkdir(parents=True)
    linked.symlink_to(real)
    agent = AGENTS["claude-code"]
    write(agent.name, agent.setup(place, URL, None).changes, journal)
    assert linked.is_symlink()
    assert stat.S_IMODE(real.stat().st_mode) == 0o640
    assert "ANTHROPIC_BASE_URL" in real.read_text()


def test_openhands_settings_are_changed_only_where_it_made_them(place: Place, journal: Journal) -> None:
    agent = AGENTS["openhands"]
    assert agent.setup(place, URL, None).changes == ()
    file = place.home / ".openhands" / "agent_settings.json"
    file.parent.mkdir(parents=True)
    file.write_text('{"llm": {"model": "openai/gpt-5", "base_url": null}}\n')
    write(agent.name, agent.setup(place, URL, None).changes, journal)
    assert json.loads(file.read_text())["llm"]["base_url"] == f"{URL}/v1"
    undo(agent.name, journal)
    assert json.loads(file.read_text()) == {"llm": {"model": "openai/gpt-5", "base_url": None}}


def test_a_disk_that_is_full_changes_nothing_and_names_the_file(place: Place, journal: Journal) -> None:
    agent = AGENTS["claude-code"]
    settings = place.home / ".claude" / "settings.json"
    settings.parent.mkdir(parents=True)
    settings.write_text(json.dumps({"env": {}, "notes": "x" * 5_000}))
    before = settings.read_text()
    with files_end_at(4_000), pytest.raises(OSError, match="File too large") as caught:
        write(agent.name, agent.setup(place, URL, None).changes, journal)
    assert caught.value.filename == str(settings)
    assert settings.read_text() == before
    assert [file.name for file in settings.parent.iterdir()] == ["settings.json"]
    with files_end_at(10), pytest.raises(OSError, match="File too large") as caught:
        write(agent.name, agent.setup(place, URL, "m").changes, Journal(place.home / "other"))
    assert caught.value.filename == str(place.home / "other" / f"{agent.name}.json")
    assert list((place.home / "other").iterdir()) == []


def test_a_memory_that_cannot_be_read_says_what_to_do(place: Place, journal: Journal, tmp_path: Path) -> None:
    agent = AGENTS["claude-code"]
    write(agent.name, agent.setup(place, URL, None).changes, journal)
    (tmp_path / "state" / f"{agent.name}.json").write_text("[{")
    with pytest.raises(UnreadableSettingsError, match=r"claude-code\.json: put the settings back by hand"):
        undo(agent.name, journal)
