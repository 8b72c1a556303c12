"""What signs sessions, logins, keys: no page names them, by whatever name, spelling or link."""

from __future__ import annotations

import json
import os
import stat
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest

from studio.errors import InputError
from studio.reach import allowed, opened, reading_for
from studio.settings import Settings, browser_secret
from studio.ui.server.sessions import SessionFile
from tests.security.conftest import Handlers

CANARY = "CANARY-0042"
ROW = json.dumps({"prompt": CANARY, "completion": CANARY}) + "\n"


def lay(path: Path) -> Path:
    """Make a file that every reader would show, with the text that must appear nowhere."""
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(ROW)
    return path


def linked(path: Path, make: Callable[[Path, Path], None], name: str) -> Path:
    other = path.parent.parent / "uploads" / name
    other.parent.mkdir(exist_ok=True)
    other.unlink(missing_ok=True)
    make(other, path)
    return other


# From the home to the name by which a page asks.
PLACES: dict[str, Callable[[Path], Path]] = {
    "secrets": lambda home: lay(home / "secrets" / "browser.secret"),
    "another secret": lambda home: lay(home / "secrets" / "deep" / "token.jsonl"),
    "dots": lambda home: lay(home / "secrets" / "x.jsonl").parent / ".." / "secrets" / "x.jsonl",
    "the folder": lambda home: lay(home / "secrets" / "x.jsonl").parent,
    "symbolic link": lambda home: linked(lay(home / "secrets" / "x"), lambda a, b: a.symlink_to(b), "soft.jsonl"),
    "hard link": lambda home: linked(lay(home / "secrets" / "x"), lambda a, b: a.hardlink_to(b), "hard.jsonl"),
    "link to the folder": lambda home: linked(
        lay(home / "secrets" / "x.jsonl").parent / "y", lambda a, b: a.symlink_to(b.parent), "folder"
    ) / "x.jsonl",
    "older secret": lambda home: lay(home / "browser.secret"),
    "sessions being written": lambda home: lay(home / ".sessions.json.abc"),
    "being written": lambda home: lay(home / ".browser.secret.abc"),
    "ended sessions": lambda home: lay(home / "signed-out.json"),
    "supervisor's log": lambda home: lay(home / "supervisor.log"),
    "supervisor's record": lambda home: lay(home / "supervisor.json"),
    "lock": lambda home: lay(home / "queue.lock"),
    "environment": lambda home: lay(home / "uploads" / ".env"),
    "environment by case": lambda home: lay(home / "uploads" / ".ENV.local"),
    "environment by name": lambda home: lay(home / "uploads" / "prod.env"),
    "keys of ssh": lambda home: lay(home / "uploads" / ".ssh" / "rows.jsonl"),
    "keys of ssh by case": lambda home: lay(home / "uploads" / ".SSH" / "rows.jsonl"),
    "netrc": lambda home: lay(home / "uploads" / ".netrc"),
    "key": lambda home: lay(home / "uploads" / "server.PEM"),
    "temporary": lambda home: lay(home / "tmp" / "gradio" / "rows.jsonl"),
    "chat log": lambda home: lay(home / "tmp" / "chat-1.log"),
    "hard link to what was sent": lambda home: linked(
        lay(home / "tmp" / "rows.jsonl"), lambda a, b: a.symlink_to(b), "sent.jsonl"
    ),
}  # fmt: skip


@pytest.fixture(params=PLACES)
def secret(request: pytest.FixtureRequest, page_settings: Settings) -> Path:
    """The name of a secret in the page's home."""
    before = set(page_settings.home.rglob("*"))
    path = PLACES[request.param](page_settings.home)
    request.addfinalizer(lambda: [one.unlink() for one in set(page_settings.home.rglob("*")) - before if one.is_file()])
    return path


def test_every_way_to_name_a_file(secret: Path, handlers: Handlers, page_settings: Settings) -> None:
    assert allowed(secret, page_settings) is None
    with reading_for(page_settings), pytest.raises((InputError, IsADirectoryError)):
        opened(secret).read()
    described = page_settings.uploads / "described" / "dataset_info.json"
    lay(described).write_text(json.dumps({"x": {"file_name": str(secret)}}))
    source = [{"path": str(secret), "format": "auto"}]
    answers = [
        handlers.call("add_path", str(secret), [], "0.1"),
        handlers.call("add_path", f"{described}:x", [], "0.1"),
        handlers.call("show", str(secret), "main"),
        handlers.form("update", data__train=source, meta=""),
        handlers.form("update", data__validation=str(secret), meta=""),
        handlers.form("start", data__train=source, meta=""),
        handlers.form("update", tuning__adapter=str(secret), meta=""),
    ]
    for option in ("reward_schema", "reward_python"):
        named = f"{secret}:score" if option == "reward_python" else str(secret)
        rewards = "json_schema" if option == "reward_schema" else "python"
        chosen = {"method__name": "grpo", "method__rewards": rewards, f"method__{option}": named}
        answers.append(handlers.form("update", **chosen, meta=""))
    for answer in answers:
        assert CANARY not in answer.text and "unexpected error" not in answer.text


def test_what_lies_beside_them_is_read(page_settings: Settings, handlers: Handlers) -> None:
    """So that the refusals above mean something."""
    for name in ("rows.jsonl", "environment.jsonl", "secrets.jsonl", "keys/rows.jsonl"):
        path = lay(page_settings.uploads / "open" / name)
        assert allowed(path, page_settings) == path.resolve()
        with reading_for(page_settings):
            assert CANARY.encode() in opened(path).read()
        assert handlers.call("add_path", str(path), [], "0.1").json()["data"][3] == ""


def test_a_login_file_wherever_it_lies(page_settings: Settings) -> None:
    """By its own name, a link, or another name of the same file."""
    logins = lay(page_settings.uploads / "logins.jsonl")
    ours = replace(page_settings, login_file=logins)
    other = page_settings.uploads / "other.jsonl"
    other.unlink(missing_ok=True)
    other.hardlink_to(logins)
    for path in (logins, other):
        assert allowed(path, page_settings) is not None and allowed(path, ours) is None
        with reading_for(ours), pytest.raises(InputError):
            opened(path)
    other.unlink()


def test_tokens_of_the_hub_in_a_root(tmp_path: Path, settings: Settings, monkeypatch: pytest.MonkeyPatch) -> None:
    """Who makes the Hub's cache a root shows its models, not the token that lies beside them."""
    cache = tmp_path / "huggingface"
    monkeypatch.setenv("HF_HOME", str(cache))
    monkeypatch.delenv("HF_TOKEN_PATH", raising=False)
    ours = replace(settings, roots=(cache,))
    for name in ("token", "stored_tokens"):
        assert allowed(lay(cache / name), ours) is None
    assert allowed(lay(cache / "hub" / "models--a--b" / "snapshots" / "main" / "config.json"), ours) is not None


def test_a_secret_of_an_older_version_moves(settings: Settings) -> None:
    """Pages that were open stay signed in; what lay in the home is gone from there."""
    settings.home.mkdir(exist_ok=True)
    older = settings.home / "browser.secret"
    older.write_text("ab" * 32)
    assert browser_secret(settings) == "ab" * 32 and not older.exists()
    kept = settings.secrets / "browser.secret"
    assert kept.read_text() == "ab" * 32 and stat.S_IMODE(kept.stat().st_mode) == 0o600
    assert stat.S_IMODE(settings.secrets.stat().st_mode) == 0o700
    assert browser_secret(settings) == "ab" * 32 and os.listdir(settings.secrets) == ["browser.secret"]  # noqa: PTH208


def test_sessions_are_no_data(settings: Settings) -> None:
    """The file that the page writes of them, under its own name and another one; a set of that name is one."""
    SessionFile(settings.home).new_link()
    file, other, data = (settings.home / name for name in ("sessions.json", "uploads/x.json", "uploads/sessions.json"))
    other.parent.mkdir()
    other.hardlink_to(file)
    data.write_text("[]")
    with reading_for(settings):
        for path in (file, other):
            assert allowed(path, settings) is None
            with pytest.raises(InputError):
                opened(path)
        assert allowed(data, settings) == data.resolve() and opened(data).read() == b"[]"
