"""No route is forgotten: every one of ours and of gradio's is behind the same checks, whatever a version adds."""

from __future__ import annotations

import pytest
from fastapi import FastAPI
from fastapi.testclient import TestClient

from studio.ui.server.entrance import KEY_HEADER
from studio.ui.server.gate import HEADERS
from tests.security.conftest import PASSWORD, browser
from tests.security.routes import READS, walk

FOREIGN = [
    {"origin": "https://evil.example"},
    {"origin": "http://127.0.0.1:9999"},
    {"origin": "null"},
    {"sec-fetch-site": "cross-site"},
    {"sec-fetch-site": "same-site"},
]
# Some that must be among those found, so that a walk that finds nothing cannot pass.
KNOWN = {
    ("GET", "/api/jobs"), ("POST", "/api/jobs/x/stop"), ("POST", "/api/jobs/x/resume"), ("GET", "/api/jobs/x/files/x"),
    ("GET", "/studio/x"), ("GET", "/"), ("GET", "/config"), ("GET", "/theme.css"), ("GET", "/static/x"),
    ("GET", "/assets/x"), ("GET", "/monitoring"), ("POST", "/login"), ("POST", "/gradio_api/queue/join"),
    ("GET", "/gradio_api/queue/data"), ("POST", "/gradio_api/upload"), ("GET", "/gradio_api/upload_progress"),
    ("GET", "/gradio_api/file=x"), ("GET", "/gradio_api/file/x"), ("POST", "/gradio_api/run/x"),
    ("POST", "/gradio_api/call/x"), ("POST", "/gradio_api/component_server"), ("GET", "/gradio_api/heartbeat/x"),
    ("GET", "/gradio_api/info"), ("POST", "/gradio_api/cancel"), ("POST", "/gradio_api/reset"),
    ("GET", "/gradio_api/proxy=x"),
}  # fmt: skip


@pytest.fixture(scope="module")
def routes(app: FastAPI) -> list[tuple[str, str]]:
    return sorted(set(walk(app)))


def test_the_walk_finds_them(routes: list[tuple[str, str]]) -> None:
    assert set(routes) >= KNOWN, sorted(KNOWN - set(routes))
    assert len(routes) > 60


def test_none_answers_without_a_session(app: FastAPI, routes: list[tuple[str, str]]) -> None:
    client = browser(app)
    for method, address in [*routes, ("GET", "/nowhere"), ("POST", "/"), ("DELETE", "/api/jobs"), ("PUT", "/config")]:
        answer = client.request(method, address)
        assert answer.status_code == 401, (method, address, answer.status_code)
        if method != "HEAD":
            assert answer.text == "A password is required: open the page and sign in."
        assert {name: answer.headers.get(name) for name in HEADERS} == HEADERS, (method, address)
        assert not [name for name in answer.headers if name.startswith("access-control-")]


def test_none_answers_the_cookie_without_the_key(app: FastAPI, routes: list[tuple[str, str]]) -> None:
    """What a server on another port gets of a session: the cookie. It opens files of the packages and nothing else."""
    client = browser(app)
    key = client.post("/sign-in", data={"password": PASSWORD}).json()["key"]
    other = browser(app).post("/sign-in", data={"password": PASSWORD}).json()["key"]
    same_for_all = {"/studio/x", "/assets/x", "/static/x", "/svelte/x", "/theme.css", "/gradio_api/theme.css"}
    same_for_all |= {"/favicon.ico", "/manifest.json", "/robots.txt"}
    ours = [("POST", "/sign-out"), ("POST", "/session/renew"), ("POST", "/session/link"), ("GET", "/nowhere")]
    for method, address in [*routes, *ours]:
        if address in same_for_all:
            assert method in READS and client.request(method, address).status_code != 401, address
            continue
        for headers in ({}, {KEY_HEADER: ""}, {KEY_HEADER: other}, {KEY_HEADER: key + "x"}):
            answer = client.request(method, address, headers=headers)
            assert answer.status_code == 401, (method, address, headers)
        page = client.get(address, headers={"accept": "text/html"})
        assert "<form" in page.text and "gradio_config" not in page.text, address
    # Nor does the key without its cookie, and both of them still do.
    assert browser(app).get("/api/jobs", headers={KEY_HEADER: key}).status_code == 401
    assert client.get("/api/jobs", headers={KEY_HEADER: key}).status_code == 200


def test_a_session_opens_them(signed_in: TestClient) -> None:
    for address in ("/api/jobs", "/config", "/theme.css", "/studio/core/look.css", "/gradio_api/info", "/"):
        assert signed_in.get(address).status_code == 200, address


def test_none_changes_anything_for_another_origin_or_host(
    signed_in: TestClient, routes: list[tuple[str, str]]
) -> None:  # fmt: skip
    changing = [(method, address) for method, address in routes if method not in READS]
    assert len(changing) >= 15
    for method, address in changing:
        for headers in FOREIGN:
            answer = signed_in.request(method, address, headers=headers, content=b"{}")
            assert answer.status_code == 403, (method, address, headers)
            assert not [name for name in answer.headers if name.startswith("access-control-")]
        answer = signed_in.request(method, address, headers={"host": "evil.example"}, content=b"{}")
        assert answer.status_code == 400, (method, address)


def test_none_can_be_read_from_another_origin(signed_in: TestClient, routes: list[tuple[str, str]]) -> None:
    for method, address in routes:
        if method in READS:
            answer = signed_in.request(method, address, headers={"origin": "https://evil.example"})
            assert answer.status_code == 403, (method, address)
    preflight = {"origin": "https://evil.example", "access-control-request-method": "POST"}
    answer = signed_in.options("/gradio_api/queue/join", headers=preflight)
    assert answer.status_code == 403 and not [name for name in answer.headers if name.startswith("access-control-")]


def test_answers_of_gradio_carry_the_headers(signed_in: TestClient) -> None:
    """Also those that gradio or starlette refuse, and what they answer to a body that is not theirs."""
    answers = [
        signed_in.get("/"), signed_in.get("/config"), signed_in.get("/nowhere"), signed_in.get("/gradio_api/file=/x"),
        signed_in.post("/gradio_api/queue/join", content=b"no json"), signed_in.post("/api/jobs/none/stop", json={}),
        signed_in.put("/api/jobs"),
    ]  # fmt: skip
    assert {answer.status_code for answer in answers} >= {200, 403, 404, 422}
    for answer in answers:
        for name, value in HEADERS.items():
            assert answer.headers.get_list(name) == [value], answer.url
