"""Who asks, as the data workers count it: one session is one person, whatever else its browser sends."""

from __future__ import annotations

import asyncio
from concurrent.futures import ThreadPoolExecutor
from typing import Any

from starlette.types import Message, Scope

from studio.data.worker.pool import asker
from studio.ui.server.asker import Asker


def asked(cookie: str, session: str | None = None) -> str:
    found: list[str] = []

    async def app(scope: Scope, receive: Any, send: Any) -> None:
        found.append(asker.get())

    async def receive() -> Message:
        return {"type": "http.request"}

    async def send(message: Message) -> None:
        return None

    scope: Scope = {"type": "http", "headers": [(b"cookie", cookie.encode())], "client": ("127.0.0.1", 1)}
    scope |= {"state": {"session": session} if session else {}}
    with ThreadPoolExecutor(1) as thread:  # Playwright's tests leave a loop behind in this one
        thread.submit(asyncio.run, Asker(app)(scope, receive, send)).result()
    return found[0]


def test_another_cookie_beside_a_session_makes_no_other_person() -> None:
    assert len({asked(f"studio-7860=a; x={number}", "one") for number in range(5)}) == 1
    assert asked("studio-7860=a", "one") != asked("studio-7860=a", "other")


def test_without_sessions_browsers_are_told_apart() -> None:
    assert asked("a=1") != asked("a=2")
