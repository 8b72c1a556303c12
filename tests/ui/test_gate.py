"""The gate: who may talk to the page. Each refusal is tried against a small application behind it."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import httpx
import pytest
from starlette.applications import Starlette
from starlette.middleware import Middleware
from starlette.requests import Request
from starlette.responses import PlainTextResponse, Response
from starlette.routing import Route
from starlette.testclient import TestClient

from studio.errors import InputError
from studio.settings import Settings
from studio.ui.server import entrance
from studio.ui.server.entrance import KEY_HEADER
from studio.ui.server.gate import HEADERS, OTHERS, Gate, check_address, own_address
from studio.ui.server.login import GUESSES_EACH, hash_password, write_login
from studio.ui.server.sessions import SessionFile

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
    monkeypatch.setattr(entrance, "WRONG_SECONDS", 0.0)


def sign_in(page: TestClient, password: str = PASSWORD, **more: str) -> Response:
    """Sign in; of a right one the client keeps both parts, as a browser does."""
    answer = page.post("/sign-in", data={"password": password, **more})
    if answer.status_code == 200:
        page.headers[KEY_HEADER] = answer.json()["key"]
    return answer


def parts(page: TestClient) -> dict[str, str]:
    """Both parts of a client's session, as headers."""
    return {"cookie": f"studio-{PORT}={page.cookies[f'studio-{PORT}']}", KEY_HEADER: page.headers[KEY_HEADER]}


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


def test_password_is_asked_for(tmp_path: Path) -> None:
    page = client(password=PASSWORD, home=tmp_path)
    for path in ("/", "/api/jobs", "/config", "/studio/core/look.css", f"/?token={PASSWORD}", f"/?password={PASSWORD}"):
        assert page.get(path).status_code == 401
    form = page.get("/", headers={"accept": "text/html"})
    assert form.status_code == 401 and "<form" in form.text and PASSWORD not in form.text
    assert form.headers["cache-control"] == "no-store"
    wrong = sign_in(page, "wörng")
    assert wrong.status_code == 401 and "Wrong" in wrong.json()["error"] and "wörng" not in wrong.text
    assert page.get("/api/jobs", headers={"cookie": f"studio-{PORT}={PASSWORD}"}).status_code == 401


def test_sign_in_and_out(tmp_path: Path) -> None:
    page = client(password=PASSWORD, home=tmp_path)
    answer = sign_in(page)
    cookie = answer.headers["set-cookie"]
    assert "HttpOnly" in cookie and "SameSite=strict" in cookie and "Path=/" in cookie and PASSWORD not in cookie
    assert 43190 <= int(cookie.partition("Max-Age=")[2].partition(";")[0]) <= 43200 and "Secure" not in cookie
    assert answer.json()["key"] not in cookie and answer.headers["cache-control"] == "no-store"
    assert page.get("/api/jobs").text == "passed GET /api/jobs"
    copied = parts(page)
    assert page.get("/sign-out").text == "passed GET /sign-out"  # a link or an image signs nobody out
    assert page.post("/sign-out", headers={"origin": "http://evil.example"}).status_code == 403
    assert page.post("/sign-out", headers={KEY_HEADER: ""}).status_code == 401  # nor does the cookie alone
    assert page.get("/api/jobs").status_code == 200
    assert page.post("/sign-out").status_code == 200
    assert page.get("/api/jobs").status_code == 401
    for again in (page, client(password=PASSWORD, home=tmp_path)):  # also where it was copied to, and after a restart
        assert again.get("/api/jobs", headers=copied).status_code == 401


def test_signing_out_everywhere_ends_all_sessions_of_a_name(tmp_path: Path) -> None:
    for name in ("ada", "bob"):
        write_login(tmp_path / "logins", name, hash_password(PASSWORD, cost=(16, 8, 1)))
    first, second, other = (client(login_file=tmp_path / "logins", home=tmp_path) for _ in range(3))
    for page, name in ((first, "ada"), (second, "ada"), (other, "bob")):
        assert sign_in(page, name=name).status_code == 200
    assert first.post("/sign-out", data={"everywhere": "yes"}).status_code == 200
    assert [page.get("/").status_code for page in (first, second, other)] == [401, 401, 200]


def test_neither_part_is_of_use_with_anothers(tmp_path: Path) -> None:
    """What another port can do: send the cookie that it got, and set one that it was given itself."""
    mine, theirs = (client(password=PASSWORD, home=tmp_path) for _ in range(2))
    sign_in(mine), sign_in(theirs)
    ours, foreign = parts(mine), parts(theirs)
    fresh = client(password=PASSWORD, home=tmp_path)
    for headers in (
        {"cookie": ours["cookie"]}, {KEY_HEADER: ours[KEY_HEADER]}, ours | {KEY_HEADER: foreign[KEY_HEADER]},
        foreign | {KEY_HEADER: ours[KEY_HEADER]},
    ):  # fmt: skip
        for method, path in (("GET", "/api/jobs"), ("POST", "/api/jobs/x/stop"), ("POST", "/sign-out")):
            assert fresh.request(method, path, headers=headers).status_code == 401
    # A second cookie of the name, for a longer path or before ours, neither opens another's session nor hides ours.
    both = f"{foreign['cookie']}; {ours['cookie']}"
    assert fresh.get("/api/jobs", headers={"cookie": both, KEY_HEADER: ours[KEY_HEADER]}).status_code == 200
    assert fresh.get("/api/jobs", headers={"cookie": both, KEY_HEADER: ""}).status_code == 401
    assert mine.get("/api/jobs").status_code == theirs.get("/api/jobs").status_code == 200


def test_signing_in_begins_a_session_of_its_own(tmp_path: Path) -> None:
    page, theirs = (client(password=PASSWORD, home=tmp_path) for _ in range(2))
    sign_in(theirs)
    planted = theirs.cookies[f"studio-{PORT}"]
    answer = page.post("/sign-in", data={"password": PASSWORD}, headers={"cookie": f"studio-{PORT}={planted}"})
    assert planted not in answer.headers["set-cookie"]
    assert answer.json()["key"].partition(".")[0] != planted.partition(".")[0]


def test_the_page_gets_new_parts(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    page = client(password=PASSWORD, home=tmp_path)
    until = sign_in(page).json()["until"]
    older = parts(page)
    assert page.post("/session/renew").json() == {}  # it has just been made
    later = entrance.time.time() + 3600
    monkeypatch.setattr(entrance.time, "time", lambda: later)
    answer = page.post("/session/renew")
    assert answer.json()["until"] == until  # a working day is not made longer
    assert 39580 <= int(answer.headers["set-cookie"].partition("Max-Age=")[2].partition(";")[0]) <= 39600
    page.headers[KEY_HEADER] = answer.json()["key"]
    newer = parts(page)
    assert older["cookie"] != newer["cookie"] and older[KEY_HEADER] != newer[KEY_HEADER]
    fresh = client(password=PASSWORD, home=tmp_path)
    # The answer may be lost, so the older ones count until the newer were seen, and a minute more.
    assert fresh.get("/api/jobs", headers=older).status_code == 200
    assert fresh.get("/api/jobs", headers=newer).status_code == 200
    assert fresh.get("/api/jobs", headers=older).status_code == 200
    monkeypatch.setattr(entrance.time, "time", lambda: later + 61)
    assert fresh.get("/api/jobs", headers=older).status_code == 401
    assert fresh.get("/api/jobs", headers=newer).status_code == 200
    monkeypatch.setattr(entrance.time, "time", lambda: until + 1)
    assert fresh.get("/api/jobs", headers=newer).status_code == 401


def test_a_session_lasts_as_long_as_the_setting_says(tmp_path: Path) -> None:
    answer = sign_in(client(password=PASSWORD, home=tmp_path, session_hours=0.5))
    assert 1790 <= answer.json()["until"] - entrance.time.time() <= 1800


def test_a_download_is_opened_once_by_its_link(tmp_path: Path) -> None:
    page, other = (client(password=PASSWORD, home=tmp_path) for _ in range(2))
    sign_in(page), sign_in(other)
    cookie_only = {KEY_HEADER: ""}

    def link(address: str) -> str:
        return str(page.post("/session/link", data={"address": address}).json()["address"])

    for address in ("/api/jobs/x/files/log.txt", "/api/compare?form=csv&ids=a%2Cb", "/gradio_api/file=/tmp/a%20b.txt"):
        made = link(address)
        assert made.startswith(address) and page.get(address, headers=cookie_only).status_code == 401
        assert page.get(made, headers=cookie_only).text == f"passed GET {httpx.URL(address).path}"
        assert page.get(made, headers=cookie_only).status_code == 401, "once"
    made = link("/api/jobs/x/files/log.txt")
    assert page.get(made.replace("log", "run"), headers=cookie_only).status_code == 401, "for this address"
    assert page.get(made, headers=cookie_only).status_code == 401, "a try uses it up"
    made = link("/api/jobs/x/files/log.txt")
    assert other.get(made, headers=cookie_only).status_code == 401, "for this session"
    made = link("/api/jobs/x/stop")
    assert page.post(made, headers=cookie_only).status_code == 401, "for reading"
    for address in ("/", "/config", "http://evil.example/api/", "//evil.example/api/", ""):
        assert page.post("/session/link", data={"address": address}).status_code == 400
    assert page.post("/session/link", data={"address": "/api/x"}, headers=cookie_only).status_code == 401


def test_a_link_that_was_not_used_in_time_opens_nothing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    page = client(password=PASSWORD, home=tmp_path)
    sign_in(page)
    made = page.post("/session/link", data={"address": "/api/x"}).json()["address"]
    now = entrance.time.monotonic()
    monkeypatch.setattr(entrance.time, "monotonic", lambda: now + 61)
    assert page.get(made, headers={KEY_HEADER: ""}).status_code == 401


def test_a_link_of_the_start_opens_one_session(tmp_path: Path) -> None:
    page = client(link=True, home=tmp_path)
    assert page.get("/").status_code == 401 and page.post("/sign-in", data={"password": ""}).status_code == 401
    file = SessionFile(tmp_path)
    first, second = file.new_link(), file.new_link()
    assert sign_in(page, link="x" + first).status_code == 401
    assert sign_in(page, link=f"http://127.0.0.1:{PORT}/#link={first}").status_code == 200
    assert page.get("/api/jobs").status_code == 200
    other = client(link=True, home=tmp_path)
    assert sign_in(other, link=first).status_code == 401 and sign_in(other, link=second).status_code == 200
    older = file.new_link()
    file.new_link(alone=True)  # the studio starts again
    assert sign_in(client(link=True, home=tmp_path), link=older).status_code == 401
    assert page.get("/api/jobs").status_code == 200


def test_a_session_outlives_a_restart_and_is_not_another_ports(tmp_path: Path) -> None:
    page = client(password=PASSWORD, home=tmp_path)
    sign_in(page)
    ours = parts(page)
    again = client(password=PASSWORD, home=tmp_path)
    assert again.get("/", headers=ours).status_code == 200
    assert again.get("/", headers=ours | {"cookie": ours["cookie"].replace(str(PORT), "1")}).status_code == 401


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


def test_the_cookie_is_for_tls_only_where_the_page_is(tmp_path: Path) -> None:
    page = client("http://studio.example", host="0.0.0.0", password=PASSWORD, home=tmp_path)
    answer = page.post("/sign-in", data={"password": PASSWORD}, headers={"origin": "https://studio.example"})
    assert answer.status_code == 200 and "Secure" in answer.headers["set-cookie"]


def test_sign_in_by_name(tmp_path: Path) -> None:
    file = tmp_path / "logins"
    write_login(file, "ada", hash_password(PASSWORD, cost=(16, 8, 1)))
    page = client(login_file=file, home=tmp_path)
    form = page.get("/", headers={"accept": "text/html"}).text
    assert 'name="name"' in form
    assert sign_in(page).status_code == 401
    assert sign_in(page, name="bob").status_code == 401
    assert sign_in(page, "wrong", name="ada").status_code == 401
    assert sign_in(page, name="ada").status_code == 200
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
