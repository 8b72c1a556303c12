"""A small application behind the gate, and a client that signs in as a browser does."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

from starlette.applications import Starlette
from starlette.middleware import Middleware
from starlette.requests import Request
from starlette.responses import PlainTextResponse, Response
from starlette.routing import Route
from starlette.testclient import TestClient

from studio.settings import Settings
from studio.ui.server.entrance import KEY_HEADER
from studio.ui.server.gate import Gate

PORT = 7860
HERE = f"http://127.0.0.1:{PORT}"
PASSWORD = "correct horse battery"


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


def sign_in(page: TestClient, password: str = PASSWORD, **more: str) -> Response:
    """Sign in; of a right one the client keeps both parts, as a browser does."""
    answer = page.post("/sign-in", data={"password": password, **more})
    if answer.status_code == 200:
        page.headers[KEY_HEADER] = answer.json()["key"]
    return answer


def parts(page: TestClient) -> dict[str, str]:
    """Both parts of a client's session, as headers."""
    return {"cookie": f"studio-{PORT}={page.cookies[f'studio-{PORT}']}", KEY_HEADER: page.headers[KEY_HEADER]}
