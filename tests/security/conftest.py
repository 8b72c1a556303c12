"""The real application, with every service, as the tests of this folder attack it."""

from __future__ import annotations

import json
from collections.abc import Iterator
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import httpx
import pytest
from fastapi import FastAPI
from fastapi.testclient import TestClient

from studio.settings import ASSETS, Settings, read_settings
from studio.ui.server.app import create_app
from studio.ui.server.entrance import KEY_HEADER

PASSWORD = "correct horse battery"
HERE = "http://127.0.0.1:7860"


@pytest.fixture(scope="module")
def page_settings(tmp_path_factory: pytest.TempPathFactory) -> Settings:
    """A home of a module's tests, with a password."""
    home = tmp_path_factory.mktemp("security") / "home"
    return replace(
        read_settings(), home=home, host="127.0.0.1", port=7860, roots=(home, ASSETS), password=PASSWORD,
        login_file=None,
    )  # fmt: skip


@pytest.fixture
def ours(settings: Settings) -> Settings:
    """A home with a folder of uploads; the demo data are a root too."""
    settings.uploads.mkdir(parents=True)
    return replace(settings, roots=(settings.home, ASSETS))


@pytest.fixture(scope="module")
def app(page_settings: Settings) -> Iterator[FastAPI]:
    """The page's application, as it is served."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("GRADIO_TEMP_DIR", "")  # create_app sets it; put back afterwards
        yield create_app(page_settings)


def browser(app: FastAPI) -> TestClient:
    """A client that has not signed in."""
    return TestClient(app, base_url=HERE, follow_redirects=False, raise_server_exceptions=False)


@pytest.fixture(scope="module")
def signed_in(app: FastAPI) -> Iterator[TestClient]:
    """A client that has signed in, with the application's life around it."""
    with browser(app) as client:
        answer = client.post("/sign-in", data={"password": PASSWORD})
        assert answer.status_code == 200
        client.headers[KEY_HEADER] = answer.json()["key"]
        yield client


@pytest.fixture(scope="module")
def outside(page_settings: Settings) -> Path:
    """A folder beside the home that nobody may read or write through the page."""
    folder = page_settings.home.parent / "outside"
    folder.mkdir()
    return folder


@dataclass(frozen=True)
class Handlers:
    """The page's event handlers, called as its scripts call them."""

    client: TestClient
    config: dict[str, Any]

    def call(self, name: str, *data: Any, event: Any = None) -> httpx.Response:
        """Call a handler by its name with a value for each of its inputs, and with what its event carries."""
        number = self._one(name)["id"]
        body = {"fn_index": number, "data": list(data), "session_hash": "tests", "event_data": event}
        headers = {"content-type": "application/json"}  # encoded here: a client of Python refuses half a character
        return self.client.post("/gradio_api/run/predict", content=json.dumps(body), headers=headers)

    def form(self, name: str, **changes: Any) -> httpx.Response:
        """Call a handler of the whole form; options are named as `data__train`, `meta` is the last input."""
        names, values = self._inputs(name)
        for option, value in changes.items():
            key = f"f-{option.replace('__', '-', 1)}"
            assert option == "meta" or key in names, f"there is no option {option}"
            values[-1 if option == "meta" else names.index(key)] = value
        return self.call(name, *values)

    def fields(self, name: str, changes: dict[str, Any]) -> httpx.Response:
        """Call a handler with what its fields show, but for those whose ids are given."""
        names, values = self._inputs(name)
        for field, value in changes.items():
            values[names.index(field)] = value
        return self.call(name, *values)

    def _inputs(self, name: str) -> tuple[list[str], list[Any]]:
        parts = {part["id"]: part["props"] for part in self.config["components"]}
        inputs = [parts[number] for number in self._one(name)["inputs"]]
        return [str(part.get("elem_id")) for part in inputs], [part.get("value") for part in inputs]

    def values_of(self, name: str, answer: httpx.Response) -> dict[str, Any]:
        """What a handler gave each component, by its id; what was left alone is an update without a value."""
        parts = {part["id"]: part["props"].get("elem_id") for part in self.config["components"]}
        given = zip(self._one(name)["outputs"], answer.json()["data"], strict=True)
        return {str(parts[number]): one.get("value") if isinstance(one, dict) else one for number, one in given}

    def _one(self, name: str) -> dict[str, Any]:
        return next(one for one in self.config["dependencies"] if one["api_name"] == name)


@pytest.fixture(scope="module")
def handlers(signed_in: TestClient) -> Handlers:
    """The handlers of the page, for who has signed in."""
    return Handlers(signed_in, signed_in.get("/config").json())
