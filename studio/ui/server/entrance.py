"""Signing in and out, and which requests a session opens: the part of the gate that is there where a password is asked.

Cookie and key together open everything. The cookie alone opens files that are the same for everybody (scripts, styles,
fonts) and, with a code that the page asked for, one download. Everything else that a browser asks for by following an
address gets the sign-in page, whose script fetches with the key what was asked for. It knows nothing of hosts and
origins, which the gate looks at before.
"""

from __future__ import annotations

import asyncio
import re
import time
from urllib.parse import parse_qs

from starlette.requests import Request
from starlette.responses import HTMLResponse, PlainTextResponse, Response

from studio.settings import ASSETS, Settings
from studio.ui.routes.answers import NEVER_KEPT, Json
from studio.ui.server.login import GUESS_SECONDS, Guesses, Logins
from studio.ui.server.sessions import Downloads, Pair, Sessions

SIGN_IN_PATH, SIGN_OUT_PATH = "/sign-in", "/sign-out"
RENEW_PATH, LINK_PATH = "/session/renew", "/session/link"
KEY_HEADER = "x-studio-key"
CODE = "link"  # the parameter of a download's address
FORM_BYTES = 4096
WRONG_SECONDS = 1.0
NEEDED = "A password is required: open the page and sign in."
NEEDED_LINK = "A link is required: open the one that the studio printed, or get another with 'studio link'."
_WRONG, _WRONG_NAMED = "Wrong password.", "Wrong name or password."
_USED = "This link was used already or has expired: 'studio link' prints another."
_TOO_MANY = "Too many wrong passwords. Try again in a minute."
# Files of the studio's and gradio's packages.
_SAME_FOR_ALL = re.compile(
    r"/(studio|assets|static|svelte)/[^/].*|(/gradio_api)?/theme\.css|/(favicon\.ico|manifest\.json|robots\.txt)"
)
_DOWNLOADS = ("/api/", "/gradio_api/file=")

_PAGE = (
    (ASSETS / "session" / "signin.html").read_text(encoding="utf-8")
    .replace("[ICON]", (ASSETS / "core" / "icon.svg").read_text(encoding="utf-8").strip())
    .replace("[SCRIPT]", (ASSETS / "session" / "session.js").read_text(encoding="utf-8").strip())
)  # fmt: skip
_NAME_FIELD = """<label>Name <input name="name" autocomplete="username" autocapitalize="none" required></label>
"""
_PASSWORD_FIELD = """<label>Password
<input name="password" type="password" autocomplete="current-password" required></label>
"""
_LINK_FIELD = """<label>Link <input name="link" autocomplete="off" required></label>
"""


class Entrance:
    """Answers what has to do with signing in, and refuses what comes without a session."""

    def __init__(self, settings: Settings) -> None:
        # Cookies ignore ports, so each port has a name of its own.
        self.cookie = f"studio-{settings.port}"
        self.logins = Logins(settings)
        self.sessions = Sessions(settings, self.logins)
        self.downloads = Downloads()
        self.guesses = Guesses()
        self.needed = NEEDED_LINK if settings.link else NEEDED
        self._page = _page(self.logins, settings.link)

    async def answer(self, request: Request) -> Response | None:
        """What to answer; None when the request may pass.

        Of one that passes, the session's name stands in `scope["state"]["session"]`.
        """
        path, cookies = request.url.path, _cookies(request, self.cookie)
        if path == SIGN_IN_PATH and request.method == "POST":
            return await self._try(request)
        session = self.sessions.find(cookies, request.headers.get(KEY_HEADER, ""))
        if session is not None:
            request.scope.setdefault("state", {})["session"] = session
            return await self._own(request, session) if request.method == "POST" else None
        known = self.sessions.knows(cookies)
        if request.method in ("GET", "HEAD") and known is not None:
            if _SAME_FOR_ALL.fullmatch(path):
                return None
            if CODE in request.query_params and self._taken(request, known):
                request.scope.setdefault("state", {})["session"] = known
                return None
        if request.method == "GET" and "text/html" in request.headers.get("accept", ""):
            signed = "yes" if known is not None else "no"
            status = 401 if known is None else 200
            return HTMLResponse(self._page.replace("[SIGNED]", signed), status, NEVER_KEPT)
        return PlainTextResponse(self.needed, 401, NEVER_KEPT)

    async def _own(self, request: Request, session: str) -> Response | None:
        """What a signed-in person asks of the session itself; None for everything else."""
        path = request.url.path
        if path == SIGN_OUT_PATH:
            everywhere = (await _given(request)).get("everywhere", [""])[0] == "yes"
            await asyncio.to_thread(self.sessions.end, session, everywhere)
            answer = Json({})
            answer.delete_cookie(self.cookie, httponly=True, samesite="strict")
            return answer
        if path == RENEW_PATH:
            pair = await asyncio.to_thread(self.sessions.renew, session)
            return Json({}) if pair is None else self._opened(request, pair)
        if path == LINK_PATH:
            address = (await _given(request)).get("address", [""])[0]
            if not address.startswith(_DOWNLOADS):
                return Json({"error": "This is not a download."}, 400)
            code = self.downloads.make(session, address)
            return Json({"address": f"{address}{'&' if '?' in address else '?'}{CODE}={code}"})
        return None

    def _taken(self, request: Request, session: str) -> bool:
        """Whether the address carries a code that was given for it; what follows does not see the code."""
        query = request.scope["query_string"].decode("latin-1")
        before, _, code = query.rpartition(f"{CODE}=")
        address = request.scope["raw_path"].decode("latin-1").partition("?")[0]
        before = before.removesuffix("&")
        if not self.downloads.take(code, session, f"{address}?{before}" if before else address):
            return False
        request.scope["query_string"] = before.encode("latin-1")
        return True

    async def _try(self, request: Request) -> Response:
        guess = self.guesses.take(request.client.host if request.client else "")
        if guess is None:
            return Json({"error": _TOO_MANY}, 429, {"retry-after": f"{GUESS_SECONDS:.0f}"})
        given = await _given(request)
        name, password, link = (given.get(field, [""])[0] for field in ("name", "password", "link"))
        name = name if self.logins.named else ""
        if self.logins.by_link:
            right = await asyncio.to_thread(self.sessions.file.take_link, link.rpartition("=")[2].strip())
        else:
            right = await asyncio.to_thread(self.logins.check, name, password)
        if not right:
            await asyncio.sleep(WRONG_SECONDS)
            wrong = _USED if self.logins.by_link else _WRONG_NAMED if self.logins.named else _WRONG
            return Json({"error": wrong}, 401)
        self.guesses.right(guess)
        return self._opened(request, await asyncio.to_thread(self.sessions.begin, name))

    def _opened(self, request: Request, pair: Pair) -> Response:
        answer = Json({"key": pair.key, "until": pair.until})
        # Behind a proxy with TLS we see plain HTTP; the browser says what the page's own address is.
        secure = request.headers.get("origin", "").startswith("https:")
        answer.set_cookie(
            self.cookie, pair.cookie, int(pair.until - time.time()), httponly=True, samesite="strict", secure=secure
        )
        return answer


def _page(logins: Logins, by_link: bool) -> str:
    """The sign-in page; how it stands with the cookie is filled in for each answer."""
    said = "opens with a link" if by_link else "asks for a password"
    fields = _LINK_FIELD if by_link else (_NAME_FIELD if logins.named else "") + _PASSWORD_FIELD
    return _PAGE.replace("[SAID]", said).replace("[FIELDS]", fields)


def _cookies(request: Request, name: str) -> list[str]:
    """All values that were sent for a name: another port can add its own, for another path or beside ours."""
    pairs = (part.strip().partition("=") for line in request.headers.getlist("cookie") for part in line.split(";"))
    return [value.strip('"') for key, _, value in pairs if key == name]


async def _given(request: Request) -> dict[str, list[str]]:
    """Fields of the form; none of one that is larger than a name and a password."""
    body = b""
    async for chunk in request.stream():
        body += chunk
        if len(body) > FORM_BYTES:
            return {}
    return parse_qs(body.decode("utf-8", errors="replace"))
