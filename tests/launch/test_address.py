"""Addresses of machines: what is taken, and what is refused in a sentence before any program sees it."""

from __future__ import annotations

from urllib.parse import unquote

import pytest

from studio.errors import InputError
from studio.launch.ssh.address import FOLDER, Address, parse_address
from studio.launch.ssh.machine import BrokenError, explained


@pytest.mark.parametrize(
    "text, wanted",
    [
        ("ssh://box", Address("box")),
        ("ssh://Box.Example", Address("Box.Example")),
        ("ssh://ada@box:2222/data/runs", Address("box", "ada", 2222, "/data/runs")),
        ("ssh://box/~/runs", Address("box", folder="runs")),
        ("ssh://box/", Address("box")),
        ("ssh://[::1]:22/my%20runs", Address("::1", port=22, folder="/my runs")),
        ("ssh://box/a%23b%3Fc%2541", Address("box", folder="/a#b?c%41")),
        ("ssh://ada@[fe80::1%eth0]", Address("fe80::1%eth0", "ada")),
    ],
)
def test_an_address_is_taken_apart_and_put_together(text: str, wanted: Address) -> None:
    assert parse_address(text) == wanted
    assert parse_address(wanted.text) == wanted
    assert wanted.folder == FOLDER or wanted.folder.lstrip("/") in unquote(wanted.text)


@pytest.mark.parametrize(
    "text, said",
    [
        ("box", "is not the address of a machine"),
        ("ssh://", "is not the address of a machine"),
        ("ssh://-oProxyCommand=touch", "is not the address of a machine"),
        ("ssh://-l@box", "is not the address of a machine"),
        ("ssh://box:99999", "is not the address of a machine"),
        ("ssh://box?x=1", "is not the address of a machine"),
        ("ssh://a b", "is not the address of a machine"),
        ("ssh://ada:secret@box", "holds a password, which the studio never uses"),
        ("ssh://box/a/../../etc", "is not a folder's path"),
        ("ssh://box/a%0Ab", "is not a folder's path"),
    ],
)
def test_what_is_no_address_is_refused(text: str, said: str) -> None:
    with pytest.raises(InputError, match=said) as caught:
        parse_address(text)
    assert caught.value.where == "--to" and caught.value.fix


def test_a_password_is_never_repeated() -> None:
    with pytest.raises(InputError) as caught:
        parse_address("ssh://ada:secret@box")
    assert "secret" not in caught.value.sentence


@pytest.mark.parametrize(
    "written, said, later",
    [
        ("ssh: Could not resolve hostname box: Name or service not known", "there is no host 'box'", False),
        ("ada@box: Permission denied (publickey).", "box refused your key for ada", False),
        ("@@@ WARNING: REMOTE HOST IDENTIFICATION HAS CHANGED! @@@\nHost key verification failed.",
         "the host key of box is not the one that is known", False),
        ("No ED25519 host key is known for box and you have requested strict checking.\nHost key verification failed.",
         "the host key of box is not known here yet", False),
        ("ssh: connect to host box port 22: Connection refused", "ada@box cannot be reached", True),
        ("client_loop: send disconnect: Broken pipe", "ada@box cannot be reached (client_loop: send", True),
        ("", "ada@box cannot be reached (the connection ended)", True),
    ],
)  # fmt: skip
def test_what_ssh_writes_becomes_a_sentence(written: str, said: str, later: bool) -> None:
    error = explained(written, Address("box", "ada"))
    assert error.what.startswith(said) and error.fix
    assert isinstance(error, BrokenError) is later
