"""What cannot be used on another machine is a sentence each, against a real sshd; nothing is queued then."""

from __future__ import annotations

import sys
from pathlib import Path

import pytest

from studio.cli.main import main
from studio.errors import StudioError
from studio.launch.ssh.address import parse_address
from studio.launch.ssh.machine import Machine
from studio.launch.ssh.setup import SPARE_BYTES, Found, probe, require_room
from tests.support.programs.sshd import Sshd, needs_sshd

pytestmark = needs_sshd


def refused(capsys: pytest.CaptureFixture[str], to: str, *more: str) -> tuple[int, str]:
    """Exit code and sentence of a launch."""
    code = main(["launch", "demo/sft", "--to", to, "--detach", *more])
    return code, capsys.readouterr().err.strip().splitlines()[-1]


@pytest.fixture(autouse=True)
def nothing_queued(home: Path) -> object:
    yield
    assert not list((home / "jobs").glob("*"))


def test_a_place_that_is_none(capsys: pytest.CaptureFixture[str]) -> None:
    code, said = refused(capsys, "mars")
    assert code == 2 and said.startswith("--to: 'mars' is not a place for a run.")


def test_an_unknown_host(there: Sshd, capsys: pytest.CaptureFixture[str]) -> None:
    code, said = refused(capsys, "ssh://no-such-host.invalid")
    assert code == 2 and "there is no host 'no-such-host.invalid'" in said


def test_a_port_where_nobody_listens(there: Sshd, capsys: pytest.CaptureFixture[str]) -> None:
    there.stop()
    code, said = refused(capsys, there.url)
    assert code == 1 and "127.0.0.1 cannot be reached" in said and f"ssh -p {there.port} 127.0.0.1" in said


def test_a_key_that_is_refused(there: Sshd, capsys: pytest.CaptureFixture[str]) -> None:
    there.make_key("user")
    code, said = refused(capsys, there.url)
    assert code == 2 and "127.0.0.1 refused your key" in said and "authorized_keys" in said


def test_a_host_key_that_has_changed(there: Sshd, capsys: pytest.CaptureFixture[str]) -> None:
    there.stop()
    there.make_key("host")
    there.start()
    code, said = refused(capsys, there.url)
    assert code == 2 and "the host key of 127.0.0.1 is not the one that is known" in said
    there.know_host()  # the remedy
    with Machine(parse_address(there.url)) as machine:
        assert probe(machine).folder.startswith(str(there.home))


def test_a_host_key_that_is_not_known_yet(there: Sshd, capsys: pytest.CaptureFixture[str]) -> None:
    (there.folder / "known_hosts").write_text("")
    code, said = refused(capsys, there.url)
    assert code == 2 and "is not known here yet" in said


def test_no_ssh_here(home: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys) -> None:
    monkeypatch.setenv("PATH", str(tmp_path))
    code, said = refused(capsys, "ssh://box")
    assert code == 2 and "the program ssh is missing here" in said


def test_a_python_that_is_too_old_or_none(there: Sshd, capsys: pytest.CaptureFixture[str]) -> None:
    old = there.folder / "old"
    old.write_text("#!/bin/sh\necho 3.9\n")
    old.chmod(0o755)
    code, said = refused(capsys, there.url, "--python", str(old))
    assert code == 2 and f"{old} on 127.0.0.1 is Python 3.9, which is too old" in said
    code, said = refused(capsys, there.url, "--python", "/no/python")
    assert code == 2 and "/no/python on 127.0.0.1 is no Python that starts" in said


def test_a_machine_without_python(there: Sshd, capsys: pytest.CaptureFixture[str]) -> None:
    few = there.folder / "few"
    few.mkdir()
    for name in ("sh", "mkdir", "df", "awk", "rm"):
        (few / name).symlink_to(f"/bin/{name}")
    there.set_environment(PATH=str(few))
    there.stop()
    there.start()
    code, said = refused(capsys, there.url)
    assert code == 2 and "127.0.0.1 has no Python" in said and "--python" in said


def test_another_version_of_the_studio(there: Sshd, capsys: pytest.CaptureFixture[str]) -> None:
    other = there.folder / "site" / "studio" / "launch" / "ssh"
    other.mkdir(parents=True)
    for folder in (other, other.parent):
        (folder / "__init__.py").write_text("")
    (other.parent.parent / "__init__.py").write_text("__version__ = '9.9'\n")
    python = there.python(there.folder / "site", sys.executable)
    code, said = refused(capsys, there.url, "--python", str(python))
    assert code == 2 and "has version 9.9 of the studio, and this is" in said


def test_a_python_without_the_studio(there: Sshd, capsys: pytest.CaptureFixture[str]) -> None:
    bare = there.folder / "bare"
    bare.write_text(f'#!/bin/sh\nexec {sys.executable} -I -S "$@"\n')
    bare.chmod(0o755)
    code, said = refused(capsys, there.url, "--python", str(bare))
    assert code == 2 and f"{bare} on 127.0.0.1 has no studio" in said


def test_a_folder_that_cannot_be_written(there: Sshd, capsys: pytest.CaptureFixture[str]) -> None:
    (there.home / "file").write_text("in the way")
    code, said = refused(capsys, f"{there.url}/~/file/below")
    assert code == 2 and f"the folder {there.home}/file/below on 127.0.0.1 cannot be written" in said


def test_no_room_on_the_disk_there(there: Sshd) -> None:
    with Machine(parse_address(there.url)) as machine:
        found = probe(machine)
        assert found.free is not None and found.free > 0
        require_room(machine, found, found.free - SPARE_BYTES - 10_000_000)
        full = Found(found.folder, found.python, SPARE_BYTES + 5, found.rsync, found.gpu)
        with pytest.raises(StudioError, match=r"has 0\.5 GB free, and 0\.6 GB are needed"):
            require_room(machine, full, 100_000_000)


def test_options_of_the_machine_are_checked(there: Sshd, capsys: pytest.CaptureFixture[str]) -> None:
    code, said = refused(capsys, there.url, "--with", "checkpoints=some")
    assert code == 2 and "checkpoints" in said
    code, said = refused(capsys, there.url, "--with", "pol=3")
    assert code == 2 and "pol" in said


def test_a_file_that_is_not_here(there: Sshd, capsys: pytest.CaptureFixture[str]) -> None:
    code, said = refused(capsys, there.url, "--set", "data.train=[{path: /no/rows.jsonl}]")
    assert code == 2 and "/no/rows.jsonl" in said
