"""Passwords, guesses and sessions, without a page around them."""

from __future__ import annotations

import itertools
import os
import pty
import stat
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import pytest

from studio.errors import InputError
from studio.settings import Settings, read_settings
from studio.ui.server import login
from studio.ui.server.login import Guesses, Logins, fits, hash_password, read_logins, write_login

PASSWORD = "correct horse battery"
CHEAP = (16, 8, 1)


def named(settings: Settings, tmp_path: Path, *names: str) -> Settings:
    for name in names:
        write_login(tmp_path / "logins", name, hash_password(f"{PASSWORD} of {name}", cost=CHEAP))
    return replace(settings, login_file=tmp_path / "logins")


def test_a_hash_fits_its_password_only() -> None:
    hashed = hash_password(PASSWORD)
    assert fits(PASSWORD, hashed) and not fits(PASSWORD + " ", hashed) and PASSWORD not in hashed
    assert hashed != hash_password(PASSWORD)  # each has a salt of its own
    # RFC 7914 section 12: "password", salt "NaCl", N=1024, r=8, p=16
    assert "/bq+HJ00cgB4VucZDQHp/nxq18vII3gw53N2Y0s3MWI=" in hash_password("password", b"NaCl", (1024, 8, 16))


def test_a_login_file_is_its_owners_alone(tmp_path: Path) -> None:
    path = tmp_path / "logins"
    path.touch(0o600)
    path.write_text("# the team\n")
    with pytest.raises(InputError, match="empty"):
        read_logins(path)
    path.unlink()
    first, second = hash_password("first one", cost=CHEAP), hash_password("second one", cost=CHEAP)
    assert write_login(path, "ada", first) is False
    path.write_text("# the team\n\n" + path.read_text())
    assert write_login(path, "bob", first) is False
    assert write_login(path, "ada", second) is True
    assert read_logins(path) == {"ada": second, "bob": first}
    assert path.read_text().startswith("# the team\n\nada:")
    assert stat.S_IMODE(path.stat().st_mode) == 0o600
    path.chmod(0o640)
    with pytest.raises(InputError, match="other users may read"):
        read_logins(path)


@pytest.mark.parametrize(
    "line",
    [
        "ada", "ada:", "ada:secret", "ada:scrypt$1$2$3", "a da:{}", ":{}", "ada:md5$16$8$1$c2FsdHNhbHQ=$aGFzaA==",
        "ada:scrypt$1073741824$8$1$c2FsdHNhbHQ=$" + "A" * 43 + "=", "bob:{}\nbob:{}",
    ],
)  # fmt: skip
def test_a_line_that_is_no_login_stops_the_start(tmp_path: Path, line: str) -> None:
    path = tmp_path / "logins"
    path.touch(0o600)
    path.write_text(line.replace("{}", hash_password(PASSWORD, cost=CHEAP)))
    with pytest.raises(InputError, match=r"line [12]: not a login"):
        read_logins(path)


def test_names_and_passwords_belong_together(settings: Settings, tmp_path: Path) -> None:
    logins = Logins(named(settings, tmp_path, "ada", "bob"))
    assert logins.check("ada", f"{PASSWORD} of ada") and logins.check("bob", f"{PASSWORD} of bob")
    for name, password in [("ada", f"{PASSWORD} of bob"), ("eve", PASSWORD), ("", ""), ("ada", "")]:
        assert not logins.check(name, password)


def test_a_password_and_a_file_are_not_both_meant(home: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("STUDIO_TOKEN", PASSWORD)
    assert read_settings().password == PASSWORD  # its older name
    monkeypatch.setenv("STUDIO_PASSWORD", "another password")
    with pytest.raises(InputError, match="STUDIO_TOKEN differ"):
        read_settings()
    monkeypatch.delenv("STUDIO_TOKEN")
    monkeypatch.setenv("STUDIO_LOGIN_FILE", "logins")
    with pytest.raises(InputError, match="a password and a login file"):
        read_settings()


def test_a_link_is_asked_for_instead_of_a_password(home: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("STUDIO_TOKEN", "1")
    settings = read_settings()
    assert settings.link and settings.asks and settings.password is None
    logins = Logins(settings)
    assert logins.by_link and not logins.named and not logins.check("", "") and not logins.check("", "1")
    for name in ("STUDIO_PASSWORD", "STUDIO_LOGIN_FILE"):
        with monkeypatch.context() as also:
            also.setenv(name, "another password")
            with pytest.raises(InputError, match="a sign-in link cannot be combined"):
                read_settings()


@pytest.mark.parametrize("hours", ["0", "-1", "inf", "nan", "a day"])
def test_hours_of_a_session_are_a_number_above_zero(home: Path, monkeypatch: pytest.MonkeyPatch, hours: str) -> None:
    monkeypatch.setenv("STUDIO_SESSION_HOURS", hours)
    with pytest.raises(InputError, match="STUDIO_SESSION_HOURS"):
        read_settings()
    monkeypatch.setenv("STUDIO_SESSION_HOURS", "1.5")
    assert read_settings().session_hours == 1.5


def test_guesses_are_counted_by_address_and_in_all(monkeypatch: pytest.MonkeyPatch) -> None:
    clock = itertools.repeat(100.0)
    monkeypatch.setattr(login.time, "monotonic", lambda: next(clock))
    guesses = Guesses()
    assert [guesses.take("10.0.0.1") is None for _ in range(login.GUESSES_EACH + 1)][-2:] == [False, True]
    other = guesses.take("10.0.0.2")
    assert other is not None
    guesses.right(other)
    # A right password takes its own guess back and none before it.
    assert guesses.take("10.0.0.1") is None
    # One connection has many addresses of IPv6; an IPv4 address stays what it is behind ::ffff:.
    assert all(guesses.take(f"2001:db8::{number}") for number in range(login.GUESSES_EACH))
    assert guesses.take("2001:db8::ffff") is None and guesses.take("2001:db8:0:1::1") is not None
    assert guesses.take("::ffff:10.0.0.1") is None
    taken = [guesses.take(f"192.0.2.{number}") is not None for number in range(login.GUESSES_ALL)]
    assert sum(taken) == login.GUESSES_ALL - 2 * login.GUESSES_EACH - 1
    clock = itertools.repeat(100.0 + login.GUESS_SECONDS)
    assert guesses.take("10.0.0.1") is not None


def test_the_command_asks_on_the_terminal(tmp_path: Path) -> None:
    command = [sys.executable, "-m", "studio", "password", "--user", "ada", "--file", str(tmp_path / "logins")]
    piped = subprocess.run(command, input=f"{PASSWORD}\n{PASSWORD}\n", text=True, capture_output=True)
    assert piped.returncode == 2 and "terminal" in piped.stderr
    pid, terminal = pty.fork()
    if pid == 0:
        os.execv(sys.executable, command)
    said = b""
    for question in (b"Password: ", b"Repeat password: "):
        while question not in said:
            said += os.read(terminal, 1000)
        os.write(terminal, f"{PASSWORD}\n".encode())
    while b"STUDIO_LOGIN_FILE" not in said:
        said += os.read(terminal, 1000)
    assert os.waitpid(pid, 0)[1] == 0
    os.close(terminal)
    assert PASSWORD.encode() not in said  # not echoed
    assert fits(PASSWORD, read_logins(tmp_path / "logins")["ada"])
