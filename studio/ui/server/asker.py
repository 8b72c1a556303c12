"""Who asks: each request is marked with its session, so that the data workers are shared fairly (`data.worker.pool`).

It decides nothing about what anybody may do; that is `gate`'s.
"""

from __future__ import annotations

import hashlib

from starlette.requests import HTTPConnection
from starlette.types import ASGIApp, Receive, Scope, Send

from studio.data.worker.pool import asker


class Asker:
    """ASGI middleware that names the session of a request; one without cookies goes by address and browser."""

    def __init__(self, app: ASGIApp) -> None:
        self.app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Pass the request on."""
        if scope["type"] != "http":
            await self.app(scope, receive, send)
            return
        told = HTTPConnection(scope)
        host = told.client.host if told.client else ""
        # Not all cookies where there is a session: whoever sends another one beside it is the same person.
        session = scope.get("state", {}).get("session")
        said = session or told.headers.get("cookie") or f"{host} {told.headers.get('user-agent', '')}"
        mark = asker.set(hashlib.sha256(said.encode("utf-8", "surrogatepass")).hexdigest())
        try:
            await self.app(scope, receive, send)
        finally:
            asker.reset(mark)
