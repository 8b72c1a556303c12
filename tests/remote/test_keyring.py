"""The key comes from the system's keyring: the package itself, with a keyring in a file.

The package is no part of the studio: tried where it is installed, or where STUDIO_KEYRING names a folder into which it
was (pip install --target FOLDER keyring keyrings.alt).
"""

from __future__ import annotations

import os
import subprocess
import sys
from importlib.util import find_spec
from pathlib import Path

import pytest

from studio.errors import InputError
from studio.processes import child_environment
from studio.remote.client import find_key
from studio.settings import Settings
from tests.remote.conftest import KEY
from tests.support.servers.openaiserver import OpenAI

EXTRA = os.environ.get("STUDIO_KEYRING", "")
IN_A_FILE = "keyrings.alt.file.PlaintextKeyring"
# Its backend says what a desktop's says before anybody has signed in.
LOCKED = """
import keyring
from keyring.errors import KeyringLocked
class Keyring(keyring.backend.KeyringBackend):
    priority = 1
    def get_password(self, service, username):
        raise KeyringLocked("Failed to unlock the collection!")
"""
ASK = """
import sys
sys.path.append(sys.argv[1])
from studio.errors import InputError
from studio.remote.client import address_of, connect
try:
    print(*[one.id for one in connect(address_of(None)).models.list()])
except InputError as error:
    print(error.sentence)
"""
needed = pytest.mark.skipif(
    not EXTRA and (find_spec("keyring") is None or find_spec("keyrings") is None),
    reason="keyring and keyrings.alt are not installed",
)


def said(backend: str, home: Path) -> str:
    """What a process without OPENAI_API_KEY is told: the models of the service, or why it cannot ask."""
    env = child_environment(PYTHON_KEYRING_BACKEND=backend, XDG_DATA_HOME=str(home), HOME=str(home))
    del env["OPENAI_API_KEY"]
    return subprocess.run(
        [sys.executable, "-c", ASK, EXTRA], env=env, capture_output=True, text=True, check=True, timeout=600,
        stdin=subprocess.DEVNULL, start_new_session=True,
    ).stdout.strip()  # fmt: skip


@needed
@pytest.mark.long
def test_a_key_that_was_put_there_by_the_documented_command_is_used(service: OpenAI, tmp_path: Path) -> None:
    before = said(IN_A_FILE, tmp_path)
    assert before.startswith("OPENAI_API_KEY: there is no key for the service.")
    assert "keyring set finetune-studio openai" in before
    command = before.partition("keyring: ")[2].rstrip(".").split()
    env = child_environment(PYTHON_KEYRING_BACKEND=IN_A_FILE, XDG_DATA_HOME=str(tmp_path), HOME=str(tmp_path))
    env["PYTHONPATH"] += os.pathsep + EXTRA
    subprocess.run([sys.executable, "-m", *command], input=f"{KEY}\n", env=env, text=True, check=True, timeout=600)
    assert said(IN_A_FILE, tmp_path).startswith("gpt-") and service.keys == {KEY}


@needed
@pytest.mark.long
def test_a_keyring_that_gives_no_key_is_a_sentence(service: OpenAI, tmp_path: Path) -> None:
    none = said("keyring.backends.fail.Keyring", tmp_path)
    assert none.startswith("OPENAI_API_KEY: there is no key") and "this system has no keyring" in none
    (tmp_path / "locked.py").write_text(LOCKED)
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("PYTHONPATH", str(tmp_path))
        locked = said("locked.Keyring", tmp_path)
    assert locked.startswith("OPENAI_API_KEY: the system's keyring is locked") and "Unlock it" in locked
    # One that needs PyCryptodome fails as soon as the package is imported, and one that is not there, too.
    broken = [said(name, tmp_path) for name in ("keyrings.alt.file.EncryptedKeyring", "nowhere.Keyring")]
    assert all("the system's keyring cannot be read (" in sentence for sentence in broken), broken
    for sentence in (none, locked, *broken):
        assert len(sentence.splitlines()) == 1 and sentence.count("OPENAI_API_KEY") >= 1, sentence


def test_without_the_package_the_variable_is_named(settings: Settings, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("OPENAI_API_KEY")
    monkeypatch.setitem(sys.modules, "keyring", None)
    with pytest.raises(InputError, match=r"there is no key.*Set OPENAI_API_KEY where the studio is started"):
        find_key()
