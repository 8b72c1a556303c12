"""The gate: who may talk to the page. Each refusal is tried against a small application behind it."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest
from starlette.applications import Starlette
from starlette.middleware import Middleware
from starlette.requests import Request
from starlette.responses import PlainTextResponse, Response
from starlette.routing import Route
from starlette.testclient import TestClient

from studio.errors import InputError
from studio.settings import Settings
from studio.ui import gate
from studio.ui.gate import HEADERS, Gate, check_address, own_address
from studio.ui.login import GUESSES_EACH, hash_password, write_login

PORT = 7860
HERE = f"http://127.0.0.1:{PORT}"
PASSWORD = "correct horse battery"
LINK = {"sec-fetch-site": "cross-site", "sec-fetch-mode": "navigate", "sec-fetch-dest": "document"}


def settings_with(**changes: object) -> Settings:
    base = Settings(
        home=Path("/nowhere"), host="127.0.0.1", port=PORT, roots=(), password=None, chat_idle_seconds=600.0
    )  # fmt: skip
    return replace(base, **changes)


def client(base: str = HERE, address: str = "10.0.0.1", **changes: object) -> TestClient:
    async def echo(request: Request) -> PlainTextResponse:
        if request.url.path == "/bug":
            raise RuntimeError("a bug of ours")
        return PlainTextResponse(f"passed {request.method} {request.url.path}")

    routes = [Route("/{path:path}", echo, methods=["GET", "POST", "PUT", "DELETE", "OPTIONS", "HEAD"])]
    middleware = [Middleware(Gate, settings=settings_with(**changes))]
    app = Starlette(routes=routes, middleware=middleware)
    return TestClient(
        app, base_url=base, follow_redirects=False, raise_server_exceptions=False, client=(address, 50000)
    )  # fmt: skip


@pytest.fixture(autouse=True)
def quick(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(gate, "WRONG_SECONDS", 0.0)


def sign_in(page: TestClient, password: str = PASSWORD, **more: str) -> Response:
    return page.post("/sign-in", data={"password": password, **more})


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
        (sign_in(closed, "wrong"), 401), (sign_in(closed), 303), (closed.post("/sign-out"), 303),
    ]  # fmt: skip
    for answer, status in answers:
        assert answer.status_code == status
        for name, value in HEADERS.items():
            assert answer.headers[name] == value
    assert page.get("/bug").text == "Internal Server Error"
    assert "frame-ancestors 'none'" in HEADERS["content-security-policy"]
    assert "default-src 'self'" in HEADERS["content-security-policy"]


def test_password_is_asked_for(tmp_path: Path) -> None:
    page = client(password=PASSWORD, home=tmp_path)
    for path in ("/", "/api/jobs", "/config", "/studio/look.css", f"/?token={PASSWORD}", f"/?password={PASSWORD}"):
        assert page.get(path).status_code == 401
    form = page.get("/", headers={"accept": "text/html"})
    assert form.status_code == 401 and "<form" in form.text and PASSWORD not in form.text
    assert form.headers["cache-control"] == "no-store"
    wrong = sign_in(page, "wörng")
    assert wrong.status_code == 401 and "not right" in wrong.text and "wörng" not in wrong.text
    assert page.get("/api/jobs", headers={"cookie": f"studio-{PORT}={PASSWORD}"}).status_code == 401


def test_sign_in_and_out(tmp_path: Path) -> None:
    page = client(password=PASSWORD, home=tmp_path)
    answer = sign_in(page)
    assert (answer.status_code, answer.headers["location"]) == (303, "/")
    cookie = answer.headers["set-cookie"]
    assert "HttpOnly" in cookie and "SameSite=strict" in cookie and "Path=/" in cookie and PASSWORD not in cookie
    assert "Max-Age=604800" in cookie and "Secure" not in cookie
    assert page.get("/api/jobs").text == "passed GET /api/jobs"
    assert page.get("/sign-in").headers["location"] == "/"
    copied = page.cookies[f"studio-{PORT}"]
    assert page.get("/sign-out").text == "passed GET /sign-out"  # a link or an image signs nobody out
    assert page.post("/sign-out", headers={"origin": "http://evil.example"}).status_code == 403
    assert page.get("/api/jobs").status_code == 200
    out = page.post("/sign-out")
    assert (out.status_code, out.headers["location"]) == (303, "/sign-in")
    assert page.get("/api/jobs").status_code == 401
    for again in (page, client(password=PASSWORD, home=tmp_path)):  # also where it was copied to, and after a restart
        assert again.get("/api/jobs", headers={"cookie": f"studio-{PORT}={copied}"}).status_code == 401


def test_a_session_outlives_a_restart_and_is_not_another_ports(tmp_path: Path) -> None:
    page = client(password=PASSWORD, home=tmp_path)
    sign_in(page)
    value = page.cookies[f"studio-{PORT}"]
    again = client(password=PASSWORD, home=tmp_path)
    assert again.get("/", headers={"cookie": f"studio-{PORT}={value}"}).status_code == 200
    assert again.get("/", headers={"cookie": f"studio-1={value}"}).status_code == 401


def test_the_cookie_is_for_tls_only_where_the_page_is(tmp_path: Path) -> None:
    page = client("http://studio.example", host="0.0.0.0", password=PASSWORD, home=tmp_path)
    answer = page.post("/sign-in", data={"password": PASSWORD}, headers={"origin": "https://studio.example"})
    assert answer.status_code == 303 and "Secure" in answer.headers["set-cookie"]


def test_sign_in_by_name(tmp_path: Path) -> None:
    file = tmp_path / "logins"
    write_login(file, "ada", hash_password(PASSWORD, cost=(16, 8, 1)))
    page = client(login_file=file, home=tmp_path)
    form = page.get("/", headers={"accept": "text/html"}).text
    assert 'name="name"' in form
    assert sign_in(page).status_code == 401
    assert sign_in(page, name="bob").status_code == 401
    assert sign_in(page, "wrong", name="ada").status_code == 401
    assert sign_in(page, name="ada").status_code == 303
    assert page.get("/").status_code == 200


def test_guesses_are_limited_for_each_address(tmp_path: Path) -> None:
    page = client(password=PASSWORD, home=tmp_path)
    answers = [sign_in(page, f"guess{number}").status_code for number in range(GUESSES_EACH + 1)]
    assert answers == [401] * GUESSES_EACH + [429]
    refused = sign_in(page)  # the right one too: otherwise it would show itself
    assert refused.status_code == 429 and refused.headers["retry-after"] == "60"
    assert page.get("/api/jobs").status_code == 401


def test_a_long_form_is_a_wrong_one(tmp_path: Path) -> None:
    page = client(password=PASSWORD, home=tmp_path)
    assert sign_in(page, name="x" * 5000).status_code == 401


def test_an_open_address_needs_a_password(tmp_path: Path) -> None:
    write_login(tmp_path / "logins", "ada", hash_password(PASSWORD, cost=(16, 8, 1)))
    for host in ("0.0.0.0", "192.168.1.4", "::", "example.org"):
        with pytest.raises(InputError, match=r"no password is set.*Set STUDIO_PASSWORD"):
            check_address(settings_with(host=host))
        with pytest.raises(InputError, match="can be guessed"):
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
