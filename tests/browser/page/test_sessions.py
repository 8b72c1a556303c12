"""Sessions in a real browser: other ports, two tabs, restarts, the end of a session, downloads, links."""

from __future__ import annotations

import json
import re
import subprocess
import sys
import threading
import urllib.error
import urllib.request
from collections.abc import Iterator
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import pytest
from playwright.sync_api import Browser, BrowserContext, Page, expect

from studio.ui.server.entrance import KEY_HEADER
from studio.ui.server.sessions import SessionFile
from tests.browser.made import serious
from tests.browser.setup.test_setup_tabs import PLANNED
from tests.conftest import Measured
from tests.support.prepared import link_model
from tests.ui.made_jobs import finish, made_run
from tests.ui.server.test_app import ROOT, free_port, start, wait_until_up

PASSWORD = "correct horse battery"
PATH = "#data-path :is(input, textarea)"


@pytest.fixture
def context(own_context: BrowserContext) -> BrowserContext:
    """Not shared: others may look into its cookies."""
    return own_context


@dataclass
class Closed:
    """A page with a password, which can be stopped and started again."""

    home: Path
    port: int
    env: dict[str, str]
    process: subprocess.Popen[str] | None = None
    printed: str = field(default="", init=False)

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.port}/"

    def start(self) -> None:
        self.process = start(self.home, self.port, **self.env)
        assert self.process.stdout is not None
        self.printed = self.process.stdout.readline().strip()
        wait_until_up(self.process, self.port)

    def stop(self) -> None:
        if self.process is not None:
            self.process.terminate()
            self.process.communicate(timeout=20)
            self.process = None


@pytest.fixture
def closed(tmp_path: Path, request: pytest.FixtureRequest, model_path: Path, measured: Measured) -> Iterator[Closed]:
    """A page whose plan does not wait for the model and the speed of this machine: a minute, where it is busy."""
    link_model(model_path, tmp_path / "home")
    measured.tell(tmp_path / "home")
    env = getattr(request, "param", {"STUDIO_PASSWORD": PASSWORD})
    server = Closed(tmp_path / "home", free_port(), env)
    server.start()
    yield server
    server.stop()


def sign_in(page: Page, password: str = PASSWORD) -> None:
    page.get_by_role("textbox", name="Password", exact=True).fill(password)
    page.get_by_role("button", name="Sign in", exact=True).click()


def ready(page: Page) -> None:
    expect(page.get_by_role("tab", name="Training", exact=True)).to_be_visible()
    expect(page.locator("#run-list")).to_be_visible()


def again(page: Page) -> None:
    """The dialog in which one signs in once more."""
    expect(page.get_by_role("dialog", name="Sign in again")).to_be_visible()


def typed(page: Page, text: str) -> None:
    page.get_by_role("tab", name="Data", exact=True).click()
    page.locator(PATH).fill(text)
    page.wait_for_function(PLANNED, timeout=120_000)


def refused(console: list[str]) -> bool:
    """Whether these are what a page that has no session any more is told: answers of 401, and a stream that ends."""
    return all("401" in line or "/heartbeat/" in line for line in console)


def still_typed(page: Page, text: str) -> None:
    expect(page.locator(PATH)).to_have_value(text)


def script_signs_in(closed: Closed) -> tuple[str, str]:
    """Cookie and key of a session that a script opened."""
    request = urllib.request.Request(f"{closed.url}sign-in", f"password={PASSWORD}".replace(" ", "+").encode())
    with urllib.request.urlopen(request, timeout=20) as answer:
        return answer.headers["set-cookie"].partition(";")[0], json.load(answer)["key"]


def status(url: str, cookie: str, key: str = "", method: str = "GET", accept: str = "*/*") -> tuple[int, str]:
    headers = {"cookie": cookie, "accept": accept, **({KEY_HEADER: key} if key else {})}
    request = urllib.request.Request(url, b"{}" if method == "POST" else None, headers, method=method)
    try:
        with urllib.request.urlopen(request, timeout=20) as answer:
            return answer.status, answer.read().decode()
    except urllib.error.HTTPError as error:
        return error.code, error.read().decode()


class Neighbour(BaseHTTPRequestHandler):
    """A server on another port: keeps the cookies that browsers send, and sets one of its own."""

    seen: list[str]
    sets: str = ""

    def do_GET(self) -> None:
        type(self).seen.append(self.headers.get("cookie", ""))
        self.send_response(200)
        if self.sets:
            self.send_header("set-cookie", f"{self.sets}; Path=/; HttpOnly")
        self.send_header("content-type", "text/html")
        self.end_headers()
        self.wfile.write(b"<title>neighbour</title>")

    def log_message(self, *_: object) -> None: ...


@pytest.fixture
def neighbour() -> Iterator[tuple[str, type[Neighbour]]]:
    handler = type("OneNeighbour", (Neighbour,), {"seen": []})
    server = ThreadingHTTPServer(("127.0.0.1", 0), handler)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    yield f"http://127.0.0.1:{server.server_address[1]}/", handler
    server.shutdown()
    server.server_close()


@pytest.mark.long
def test_what_another_port_gets_opens_nothing(
    closed: Closed, page: Page, neighbour: tuple[str, type[Neighbour]], console: list[str]
) -> None:
    """It gets the cookie, for browsers ignore ports; and it can put another session's into its place."""
    address, server = neighbour
    page.goto(closed.url)
    sign_in(page)
    ready(page)
    other = page.context.new_page()
    other.goto(address)
    stolen = next(text for text in server.seen if text)
    assert f"studio-{closed.port}=" in stolen
    assert other.evaluate("localStorage.getItem('studio.session')") is None
    for path in ("api/jobs", "config", "gradio_api/info", "api/device", "gradio_api/heartbeat/x"):
        assert status(closed.url + path, stolen)[0] == 401, path
    for path in ("api/jobs/x/stop", "api/removal", "gradio_api/queue/join", "gradio_api/upload", "sign-out"):
        assert status(closed.url + path, stolen, method="POST")[0] == 401, path
    code, text = status(closed.url, stolen, accept="text/html")
    assert code == 200 and "gradio_config" not in text and "studio.session" in text, "a page that holds nothing"
    cookie, key = script_signs_in(closed)
    assert status(f"{closed.url}api/jobs", stolen, key)[0] == 401, "nor with the key of another session"
    # Its own, valid session instead of ours: that signs out, and nobody is in that session without a word.
    typed(page, "half a path")
    server.sets = cookie
    other.goto(address)
    again(page)
    still_typed(page, "half a path")
    other.goto(closed.url)
    expect(other.get_by_label("Password")).to_be_visible()
    sign_in(page)
    expect(page.get_by_role("dialog")).to_have_count(0)
    still_typed(page, "half a path")
    other.close()
    assert refused(console)
    console.clear()


@pytest.mark.long
def test_a_session_ends_under_a_half_filled_form(closed: Closed, page: Page, console: list[str]) -> None:
    page.goto(closed.url)
    sign_in(page)
    ready(page)
    typed(page, "half a path")
    assert SessionFile(closed.home).end_all() == 1  # as its time would
    again(page)
    assert serious(page) == []
    sign_in(page, "wrong password")
    expect(page.get_by_role("alert").filter(visible=True)).to_have_text("Wrong password.")
    sign_in(page)
    expect(page.get_by_role("dialog")).to_have_count(0)
    still_typed(page, "half a path")
    page.locator("#data-add").click()  # gradio's requests carry the new key
    expect(page.locator("#data-problem")).to_contain_text("half a path")
    assert refused(console)
    console.clear()


@pytest.mark.long
def test_two_tabs_share_a_session_and_sign_out_of_all(
    closed: Closed, page: Page, browser: Browser, console: list[str]
) -> None:
    page.goto(closed.url)
    sign_in(page)
    ready(page)
    second = page.context.new_page()
    second.goto(closed.url)
    ready(second)
    elsewhere = browser.new_context()
    third = elsewhere.new_page()
    third.goto(closed.url)
    sign_in(third)
    ready(third)
    typed(second, "half a path")
    page.get_by_role("button", name="Sign out everywhere", exact=True).click()
    expect(page.get_by_label("Password")).to_be_visible()
    again(second)
    again(third)
    sign_in(page)
    ready(page)
    expect(second.get_by_role("dialog")).to_have_count(0)  # it has the key of the first tab
    still_typed(second, "half a path")
    again(third)
    elsewhere.close()
    assert refused(console)
    console.clear()


@pytest.mark.long
def test_a_session_goes_on_after_a_restart_and_with_a_new_key(closed: Closed, page: Page, console: list[str]) -> None:
    page.goto(closed.url)
    sign_in(page)
    ready(page)
    typed(page, "half a path")
    older = page.evaluate("localStorage.getItem('studio.session')"), page.context.cookies()[0]["value"]
    closed.stop()
    closed.start()
    expect(page.locator("#run-list")).to_be_visible()
    still_typed(page, "half a path")
    page.reload()
    ready(page)
    # Another hour, as the server and the page see it.
    file = SessionFile(closed.home)
    file.change(lambda sessions, _: [one.update(renewed=0) for one in sessions.values()] and None)
    page.evaluate("localStorage.setItem('studio.session.renewed', '0'); window.studioSession.renew()")
    page.wait_for_function("key => localStorage.getItem('studio.session') !== key", arg=older[0])
    assert page.context.cookies()[0]["value"] != older[1]
    page.reload()
    ready(page)
    console.clear()  # that it did not answer for a while


@pytest.mark.long
def test_downloads_and_addresses_that_are_followed(
    closed: Closed, page: Page, console: list[str]
) -> None:  # fmt: skip
    (closed.home / "jobs").mkdir(parents=True, exist_ok=True)
    run = made_run(closed.home / "jobs", "whole")
    run.log_path.write_text("12:00:00  one line\n")
    page.goto(f"{closed.url}#job={run.id}&tab=training")
    sign_in(page)
    ready(page)
    link = page.locator('[data-part="log-link"]')
    expect(link).to_have_attribute("href", re.compile(re.escape(run.id)))
    for _ in range(2):  # a link opens once, so each click gets its own
        with page.expect_download() as got:
            link.click()
        assert Path(got.value.path()).read_text() == run.log_path.read_text()
    other = page.context.new_page()
    with other.expect_download() as got:  # typed, or opened in a tab of its own
        other.goto(f"{closed.url}api/jobs/{run.id}/files/log.txt")
    assert Path(got.value.path()).read_text() == run.log_path.read_text()
    finish(run)
    console.clear()


@pytest.mark.long
@pytest.mark.parametrize("closed", [{"STUDIO_TOKEN": "1"}], indirect=True)
def test_a_printed_link_opens_one_session(closed: Closed, page: Page, browser: Browser, console: list[str]) -> None:
    link = closed.printed.removeprefix("Finetune Studio: ")
    assert re.fullmatch(re.escape(closed.url) + r"#link=[\w-]{32}", link)
    page.goto(closed.url)
    expect(page.get_by_label("Link")).to_be_visible()
    page.goto("about:blank")
    page.goto(link)
    ready(page)
    assert "link=" not in page.url
    page.reload()
    ready(page)
    context = browser.new_context()
    other = context.new_page()
    other.goto(link)
    expect(other.get_by_role("alert")).to_contain_text("studio link")
    command = [sys.executable, "-m", "studio", "link"]
    env = {"STUDIO_HOME": str(closed.home), "PATH": "/usr/bin:/bin"}
    fresh = subprocess.run(command, cwd=ROOT, env=env, capture_output=True, text=True, check=True).stdout.strip()
    assert fresh.startswith(f"{closed.url}#link=") and fresh != link
    other.get_by_label("Link").fill(fresh)
    other.get_by_role("button", name="Sign in", exact=True).click()
    ready(other)
    context.close()
    console.clear()
