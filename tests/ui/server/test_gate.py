"""The gate: who may talk to the page. Each refusal is tried against a small application behind it."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from starlette.responses import PlainTextResponse
from starlette.testclient import TestClient

from studio.errors import InputError
from studio.ui.server.gate import HEADERS, OTHERS, Gate, check_address, own_address
from studio.ui.server.login import hash_password, write_login
from tests.ui.server.gated import HERE, PASSWORD, PORT, client, settings_with, sign_in

pytestmark = pytest.mark.usefixtures("quick")

LINK = {"sec-fetch-site": "cross-site", "sec-fetch-mode": "navigate", "sec-fetch-dest": "document"}


@pytest.mark.parametrize("host", [f"127.0.0.1:{PORT}", f"localhost:{PORT}", f"[::1]:{PORT}", f"LOCALHOST:{PORT}"])
def test_own_names_pass(host: str) -> None:
    assert client().get("/", headers={"host": host}).status_code == 200


@pytest.mark.parametrize(
    "host",
    [
        "evil.example", f"evil.example:{PORT}", "127.0.0.1", "127.0.0.1:1", f"127.0.0.1.evil.example:{PORT}", "",
        f"127.0.0.1:{PORT}.evil",
    ],
)  # fmt: skip
def test_foreign_host_is_refused(host: str) -> None:
    for path in ("/", "/config", "/api/jobs", "/gradio_api/info"):
        answer = client().get(path, headers={"host": host})
        assert answer.status_code == 400
        assert "passed" not in answer.text


@pytest.mark.parametrize("method", ["GET", "POST", "PUT", "DELETE", "OPTIONS"])
@pytest.mark.parametrize(
    "headers",
    [
        {"origin": "https://evil.example"},
        {"origin": "http://127.0.0.1:9999"},
        {"origin": f"http://localhost:{PORT}"},  # another name of ours is another origin
        {"origin": "null"},
        {"origin": "http://["},  # not even an address
        {"origin": f"ftp://127.0.0.1:{PORT}"},
        {"origin": f"//127.0.0.1:{PORT}"},
        {"origin": f"chrome-extension://127.0.0.1:{PORT}"},
        {"origin": f"{HERE}/evil"},
        {"origin": ""},
        {"sec-fetch-site": "cross-site"},
        {"sec-fetch-site": "same-site"},  # another port of this machine
    ],
)
def test_other_origins_are_refused(method: str, headers: dict[str, str]) -> None:
    answer = client().request(method, "/gradio_api/component_server", headers=headers, content=b"x")
    assert answer.status_code == 403
    assert not any(name.startswith("access-control-") for name in answer.headers)


def test_two_origins_are_refused() -> None:
    for second in ("http://evil.example", "null"):
        pairs = [("origin", HERE), ("origin", second)]
        assert client().post("/api/x", headers=pairs).status_code == 403


def test_a_foreign_page_that_sends_no_origin_is_told_by_its_referer() -> None:
    for referer in ("http://evil.example/", f"http://evil.example/{HERE}", "x", ""):
        assert client().post("/api/x", headers={"referer": referer}).status_code == 403
    assert client().post("/api/x", headers={"referer": f"{HERE}/?a=b"}).status_code == 200
    assert client().get("/api/x", headers={"referer": "http://evil.example/"}).status_code == 200, (
        "a link that was followed"
    )


def test_same_origin_and_no_browser_pass() -> None:
    assert client().post("/api/x", headers={"origin": HERE, "sec-fetch-site": "same-origin"}).status_code == 200
    assert client().post("/api/x").status_code == 200


def test_a_link_from_elsewhere_may_open_the_page_only() -> None:
    assert client().get("/", headers=LINK).status_code == 200
    assert client().get("/api/jobs", headers=LINK).status_code == 403
    assert client().get("/", headers=LINK | {"sec-fetch-dest": "iframe"}).status_code == 403
    assert client().post("/", headers=LINK).status_code == 403


def test_every_answer_carries_the_headers(tmp_path: Path) -> None:
    """Also refusals, the answer to a bug of ours, and the sign-in page."""
    page, closed = client(), client(password=PASSWORD, home=tmp_path)
    form = closed.get("/", headers={"accept": "text/html"})
    answers = [
        (page.get("/"), 200), (page.get("/", headers={"host": "evil.example"}), 400),
        (page.post("/", headers={"origin": "null"}), 403), (page.get("/bug"), 500), (closed.get("/"), 401), (form, 401),
        (sign_in(closed, "wrong"), 401), (sign_in(closed), 200), (closed.post("/sign-out"), 200),
    ]  # fmt: skip
    for answer, status in answers:
        assert answer.status_code == status
        for name, value in HEADERS.items():
            assert answer.headers[name] == value
    assert page.get("/bug").text == "Internal Server Error"
    assert "frame-ancestors 'none'" in HEADERS["content-security-policy"]
    assert "default-src 'self'" in HEADERS["content-security-policy"]


class OfPeer:
    """A connection of which it is known whose it is."""

    def __init__(self, ours: bool) -> None:
        self.ours = ours

    def is_ours(self) -> bool:
        return self.ours


@pytest.mark.parametrize("ours", [True, False])
def test_another_user_of_the_machine_is_told_how_it_is_shared(tmp_path: Path, ours: bool) -> None:
    for settings, open_to_all in ((settings_with(), False), (settings_with(password=PASSWORD, home=tmp_path), True)):

        async def page(scope: Any, receive: Any, send: Any) -> None:
            await PlainTextResponse("passed")(scope, receive, send)

        gate = Gate(page, settings)

        async def served(scope: Any, receive: Any, send: Any, gate: Gate = gate) -> None:
            await gate({**scope, "state": {"peer": OfPeer(ours)}}, receive, send)

        answer = TestClient(served, base_url=HERE).get("/api/jobs")
        if open_to_all:  # whoever has the password may come in
            assert answer.status_code == 401
        elif ours:
            assert answer.text == "passed"
        else:
            assert answer.status_code == 403 and answer.text == OTHERS and answer.headers["connection"] == "close"
            assert "STUDIO_PASSWORD" in answer.text and "STUDIO_TOKEN=1" in answer.text


def test_an_open_address_needs_a_password(tmp_path: Path) -> None:
    write_login(tmp_path / "logins", "ada", hash_password(PASSWORD, cost=(16, 8, 1)))
    for host in ("0.0.0.0", "192.168.1.4", "::", "example.org"):
        with pytest.raises(InputError, match=r"no password is set.*Set STUDIO_PASSWORD"):
            check_address(settings_with(host=host))
        with pytest.raises(InputError, match="is too short"):
            check_address(settings_with(host=host, password="short"))
        check_address(settings_with(host=host, password=PASSWORD))
        check_address(settings_with(host=host, login_file=tmp_path / "logins"))
    for host in ("127.0.0.1", "localhost", "::1", "127.0.0.2"):
        check_address(settings_with(host=host))
        with pytest.raises(InputError, match="login file cannot be read"):
            check_address(settings_with(host=host, login_file=tmp_path / "absent"))


def test_any_host_name_only_behind_a_password(tmp_path: Path) -> None:
    page = client("http://studio.example:7860", host="0.0.0.0", password=PASSWORD, home=tmp_path)
    assert page.get("/").status_code == 401
    sign_in(page)
    assert page.get("/").status_code == 200
    assert page.post("/", headers={"origin": "http://evil.example"}).status_code == 403


def test_own_address() -> None:
    assert own_address(settings_with()) == f"{HERE}/"
    assert own_address(settings_with(host="0.0.0.0")) == f"{HERE}/"
    assert own_address(settings_with(host="::1")) == f"http://[::1]:{PORT}/"
