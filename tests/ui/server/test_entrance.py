"""The entrance: signing in and out, the two parts of a session, and links that are used once."""

from __future__ import annotations

from pathlib import Path

import httpx
import pytest

from studio.ui.server import entrance
from studio.ui.server.entrance import KEY_HEADER
from studio.ui.server.login import GUESSES_EACH, hash_password, write_login
from studio.ui.server.sessions import SessionFile
from tests.ui.server.gated import PASSWORD, PORT, client, parts, sign_in

pytestmark = pytest.mark.usefixtures("quick")


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
