"""The gate: who may talk to the page. Each refusal is tried against a small application behind it."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest
from starlette.applications import Starlette
from starlette.middleware import Middleware
from starlette.requests import Request
from starlette.responses import PlainTextResponse
from starlette.routing import Route
from starlette.testclient import TestClient

from studio.errors import InputError
from studio.settings import Settings
from studio.ui import gate
from studio.ui.gate import HEADERS, Gate, check_address, own_address

PORT = 7860
HERE = f"http://127.0.0.1:{PORT}"
TOKEN = "correct horse battery"
LINK = {"sec-fetch-site": "cross-site", "sec-fetch-mode": "navigate", "sec-fetch-dest": "document"}


def settings_with(**changes: object) -> Settings:
    base = Settings(
        home=Path("/nowhere"), host="127.0.0.1", port=PORT, roots=(), token=None, chat_idle_seconds=600.0
    )  # fmt: skip
    return replace(base, **changes)


def client(base: str = HERE, **changes: object) -> TestClient:
    async def echo(request: Request) -> PlainTextResponse:
        return PlainTextResponse(f"passed {request.method} {request.url.path}")

    routes = [Route("/{path:path}", echo, methods=["GET", "POST", "PUT", "DELETE", "OPTIONS", "HEAD"])]
    middleware = [Middleware(Gate, settings=settings_with(**changes))]
    return TestClient(Starlette(routes=routes, middleware=middleware), base_url=base, follow_redirects=False)


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
        {"sec-fetch-site": "cross-site"},
        {"sec-fetch-site": "same-site"},  # another port of this machine
    ],
)
def test_other_origins_are_refused(method: str, headers: dict[str, str]) -> None:
    answer = client().request(method, "/gradio_api/component_server", headers=headers, content=b"x")
    assert answer.status_code == 403
    assert not any(name.startswith("access-control-") for name in answer.headers)


def test_same_origin_and_no_browser_pass() -> None:
    assert client().post("/api/x", headers={"origin": HERE, "sec-fetch-site": "same-origin"}).status_code == 200
    assert client().post("/api/x").status_code == 200


def test_a_link_from_elsewhere_may_open_the_page_only() -> None:
    assert client().get("/", headers=LINK).status_code == 200
    assert client().get("/api/jobs", headers=LINK).status_code == 403
    assert client().get("/", headers=LINK | {"sec-fetch-dest": "iframe"}).status_code == 403
    assert client().post("/", headers=LINK).status_code == 403


def test_every_answer_carries_the_headers() -> None:
    for answer in (client().get("/"), client().get("/", headers={"host": "evil.example"})):
        for name, value in HEADERS.items():
            assert answer.headers[name] == value
    assert "frame-ancestors 'none'" in HEADERS["content-security-policy"]


def test_password_is_asked_for(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(gate, "WRONG_SECONDS", 0.0)
    page = client(token=TOKEN)
    for path in ("/", "/api/jobs", "/config", "/studio/look.css"):
        assert page.get(path).status_code == 401
    form = page.get("/", headers={"accept": "text/html"})
    assert form.status_code == 401 and "<form" in form.text and TOKEN not in form.text
    assert page.get("/?token=wrong").status_code == 401
    assert page.post("/sign-in", data={"token": "wörng"}).status_code == 401
    assert page.get("/api/jobs", headers={"cookie": f"studio-{PORT}={TOKEN}"}).status_code == 401


def test_sign_in_by_link_and_by_form() -> None:
    by_link = lambda page: page.get(f"/?token={TOKEN}&a=b")  # noqa: E731
    by_form = lambda page: page.post("/sign-in", data={"token": TOKEN})  # noqa: E731
    for sign_in in (by_link, by_form):
        page = client(token=TOKEN)
        answer = sign_in(page)
        assert answer.status_code == 303
        assert TOKEN not in answer.headers["location"] and answer.headers["location"].startswith("/")
        cookie = answer.headers["set-cookie"]
        assert "HttpOnly" in cookie and "SameSite=strict" in cookie and TOKEN not in cookie
        assert page.get("/api/jobs").text == "passed GET /api/jobs"


def test_sign_in_leads_to_our_own_pages_only() -> None:
    answer = client(token=TOKEN).get(f"//evil.example/?token={TOKEN}")
    assert not answer.headers.get("location", "/").startswith("//")


def test_guessing_is_slow_and_then_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(gate, "WRONG_SECONDS", 0.0)
    page = client(token=TOKEN)
    answers = [page.get(f"/?token=guess{number}").status_code for number in range(gate.WRONG_PER_MINUTE + 1)]
    assert answers[-1] == 429 and answers[0] == 401


def test_an_open_address_needs_a_password() -> None:
    for host in ("0.0.0.0", "192.168.1.4", "::", "example.org"):
        with pytest.raises(InputError, match=r"no password is set.*Set STUDIO_TOKEN"):
            check_address(settings_with(host=host))
        with pytest.raises(InputError, match="can be guessed"):
            check_address(settings_with(host=host, token="short"))
        check_address(settings_with(host=host, token=TOKEN))
    for host in ("127.0.0.1", "localhost", "::1", "127.0.0.2"):
        check_address(settings_with(host=host))


def test_any_host_name_only_behind_a_password() -> None:
    page = client("http://studio.example:7860", host="0.0.0.0", token=TOKEN)
    assert page.get("/").status_code == 401
    page.get(f"/?token={TOKEN}")
    assert page.get("/").status_code == 200
    assert page.post("/", headers={"origin": "http://evil.example"}).status_code == 403


def test_own_address() -> None:
    assert own_address(settings_with()) == f"{HERE}/"
    assert own_address(settings_with(host="0.0.0.0")) == f"{HERE}/"
    assert own_address(settings_with(host="::1")) == f"http://[::1]:{PORT}/"
