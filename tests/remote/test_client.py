"""The key goes to the asked address only, and errors are sentences."""

from __future__ import annotations

from dataclasses import replace

import pytest

from studio.errors import InputError, StudioError
from studio.reach import reading_for
from studio.remote.asking import delete, jobs_there
from studio.remote.client import OFFICIAL, address_of, connect, find_key, said_plainly
from studio.settings import Settings
from tests.remote.conftest import KEY
from tests.support.servers.openaiserver import BAD_KEY, OpenAI

OTHER = "https://models.example/v1"


@pytest.mark.parametrize(("given", "said"), [
    ("ftp://models.example/v1", "not the address"), ("nonsense", "not the address"), ("http://[", "not the address"),
    ("https://ada:secret@models.example/v1", "not the address"), ("http://models.example/v1", "unencrypted"),
])  # fmt: skip
def test_addresses_that_cannot_be_used(given: str, said: str) -> None:
    with pytest.raises(InputError, match=said):
        address_of(given)


def test_a_page_cannot_choose_where_the_key_goes(settings: Settings, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("OPENAI_BASE_URL", raising=False)
    assert address_of(None) == OFFICIAL and address_of(f"{OTHER}/") == OTHER
    with reading_for(replace(settings)):
        assert address_of(None) == OFFICIAL
        with pytest.raises(InputError, match="cannot be chosen in the page"):
            address_of(OTHER)
        monkeypatch.setenv("OPENAI_BASE_URL", OTHER)
        assert address_of(None) == address_of(OTHER) == OTHER


def test_no_key_is_said_with_where_to_put_it(settings: Settings, monkeypatch: pytest.MonkeyPatch) -> None:
    assert find_key() == KEY
    monkeypatch.delenv("OPENAI_API_KEY")
    with pytest.raises(InputError, match="OPENAI_API_KEY: there is no key for the service"):
        find_key()


def test_a_wrong_key_is_refused_without_a_part_of_it(service: OpenAI, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("OPENAI_API_KEY", BAD_KEY)
    with pytest.raises(InputError, match="could not list the jobs: the service refused the key") as caught:
        jobs_there(None)
    assert "sk-" not in caught.value.sentence.replace("OPENAI_API_KEY", "")


def test_errors_are_the_services_words(service: OpenAI, settings: Settings) -> None:
    client = connect(address_of(None))
    with pytest.raises(InputError, match="could not look: No such File object: file-x"), said_plainly("look"):
        client.files.retrieve("file-x")
    with pytest.raises(InputError, match="could not delete ft:a: The model `ft:a` does not exist"):
        delete("model", "ft:a", None, settings)
    service.faults.broken = 1
    with pytest.raises(StudioError, match="The server had an error") as caught, said_plainly("look"):
        client.files.retrieve("file-x")
    assert not isinstance(caught.value, InputError)
    service.faults.down = True
    with pytest.raises(StudioError, match="the service cannot be reached"), said_plainly("look"):
        client.files.retrieve("file-x")


def test_files_and_models_are_deleted(service: OpenAI, settings: Settings) -> None:
    kept = service.add_file("a.jsonl", "fine-tune", b"{}")
    delete("file", kept["id"], None, settings)
    assert service.files == {}
