"""Sessions as they are kept: what ends them, what the file tells, and what happens to it."""

from __future__ import annotations

import stat
from dataclasses import replace
from pathlib import Path

import pytest

from studio.settings import Settings
from studio.ui.server import sessions as module
from studio.ui.server.login import Logins, hash_password, write_login
from studio.ui.server.sessions import MOST_EACH, SessionFile, Sessions
from tests.ui.server.test_login import CHEAP, named


def of(settings: Settings) -> Sessions:
    return Sessions(settings, Logins(settings))


def test_a_session_ends_by_time_by_signing_out_and_with_its_password(
    settings: Settings, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    settings = named(settings, tmp_path, "ada", "bob")
    sessions = of(settings)
    ada, bob = sessions.begin("ada"), sessions.begin("bob")
    found = sessions.find([ada.cookie], ada.key)
    assert found is not None and sessions.find([bob.cookie], bob.key) not in (None, found)
    sessions.end(found)
    for one in (sessions, of(settings)):
        assert one.find([ada.cookie], ada.key) is None and one.find([bob.cookie], bob.key) is not None
    write_login(tmp_path / "logins", "bob", hash_password("a new password", cost=CHEAP))
    assert of(settings).find([bob.cookie], bob.key) is None
    now = module.time.time()
    monkeypatch.setattr(module.time, "time", lambda: now + settings.session_hours * 3600 + 1)
    assert sessions.find([bob.cookie], bob.key) is None


def test_no_session_can_be_made_up(settings: Settings, tmp_path: Path) -> None:
    settings = named(settings, tmp_path, "ada", "bob")
    sessions = of(settings)
    ada, bob = sessions.begin("ada"), sessions.begin("bob")
    one = ada.key.partition(".")[0]
    for key in ("", ".", one, f"{one}.", f"{one}.x", ada.cookie, bob.key, f"{ada.key}x", ada.key[:-1], f"é.{ada.key}"):
        assert sessions.find([ada.cookie], key) is None, key
    for cookie in ("", ".", one, f"{one}.", ada.key, bob.cookie, f"{ada.cookie}x", "é"):
        assert sessions.find([cookie], ada.key) is None and sessions.knows(["", one, f"{one}.é"]) is None, cookie
    assert sessions.find(["é", bob.cookie, ada.cookie], ada.key) == one
    elsewhere = replace(settings, home=tmp_path / "another")
    assert of(elsewhere).find([ada.cookie], ada.key) is None


def test_the_file_holds_no_part_of_a_session(settings: Settings, tmp_path: Path) -> None:
    settings = named(settings, tmp_path, "ada")
    pair, link = of(settings).begin("ada"), SessionFile(settings.home).new_link()
    path = settings.home / "sessions.json"
    text = path.read_text()
    for secret in (pair.cookie, pair.key, link):
        assert secret not in text and secret.partition(".")[2] not in text.split() and "ada" in text
    assert stat.S_IMODE(path.stat().st_mode) == 0o600


def test_all_processes_see_the_same(settings: Settings, tmp_path: Path) -> None:
    settings = named(settings, tmp_path, "ada", "bob")
    first, second = of(settings), of(settings)
    ada, bob = first.begin("ada"), second.begin("bob")
    assert second.find([ada.cookie], ada.key) and first.find([bob.cookie], bob.key)
    assert SessionFile(settings.home).end_all("ada") == 1  # the command line
    assert first.find([ada.cookie], ada.key) is None and first.find([bob.cookie], bob.key)
    assert SessionFile(settings.home).end_all() == 1
    assert second.find([bob.cookie], bob.key) is None


@pytest.mark.parametrize("text", ["", "{", "[]", '{"sessions": {"a": 1}, "links": {}}', '{"sessions": {}}', "null"])
def test_a_damaged_file_signs_everybody_out(settings: Settings, tmp_path: Path, text: str) -> None:
    settings = named(settings, tmp_path, "ada")
    sessions = of(settings)
    pair = sessions.begin("ada")
    (settings.home / "sessions.json").write_text(text)
    assert sessions.find([pair.cookie], pair.key) is None
    pair = sessions.begin("ada")
    assert sessions.find([pair.cookie], pair.key)


def test_a_full_disk_locks_nobody_out(
    settings: Settings, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:  # fmt: skip
    settings = named(settings, tmp_path, "ada")
    sessions = of(settings)

    def full(*_: object) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(module, "write_json", full)
    pair = sessions.begin("ada")
    found = sessions.find([pair.cookie], pair.key)
    assert found is not None
    with pytest.raises(OSError, match="No space"):  # that it ends for good cannot be promised
        sessions.end(found)
    assert sessions.find([pair.cookie], pair.key) is None


def test_sessions_of_a_name_are_not_without_number(settings: Settings, tmp_path: Path) -> None:
    settings = named(settings, tmp_path, "ada", "bob")
    sessions = of(settings)
    bob, pairs = sessions.begin("bob"), [sessions.begin("ada") for _ in range(MOST_EACH + 2)]
    alive = [sessions.find([pair.cookie], pair.key) is not None for pair in pairs]
    assert alive == [False, False] + [True] * MOST_EACH and sessions.find([bob.cookie], bob.key)
