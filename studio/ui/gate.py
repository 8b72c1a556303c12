"""Who may talk to the page: one ASGI layer before our routes and before gradio's.

It checks the Host header (DNS rebinding), refuses requests that another site or another port of this machine
makes, asks for the password where one is set (`login` knows it), and adds the security headers. Gradio's own CORS
layer and `auth=` do none of this for all routes (docs/security.md). It does not limit what a signed-in person may do.
"""

from __future__ import annotations

import asyncio
import ipaddress
from urllib.parse import parse_qs

from starlette.requests import Request
from starlette.responses import HTMLResponse, PlainTextResponse, RedirectResponse, Response
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from studio.errors import InputError
from studio.settings import ASSETS, Settings
from studio.ui.confined import fetches
from studio.ui.login import GUESS_SECONDS, SESSION_SECONDS, Guesses, Logins, Sessions, read_logins, require_strong

# 'unsafe-inline' and 'unsafe-eval': gradio writes its configuration into an inline script and compiles the
# templates of gr.HTML. The rest still keeps anything from being loaded from, or sent to, another host.
HEADERS: dict[str, str] = {
    "content-security-policy": (
        "default-src 'self'; script-src 'self' 'unsafe-inline' 'unsafe-eval' blob:; style-src 'self' 'unsafe-inline'; "
        "img-src 'self' data: blob:; media-src 'self' data: blob:; font-src 'self' data:; connect-src 'self'; "
        "worker-src 'self' blob:; object-src 'none'; base-uri 'self'; form-action 'self'; frame-ancestors 'none'"
    ),
    "x-frame-options": "DENY",
    "x-content-type-options": "nosniff",
    "referrer-policy": "same-origin",
    "cross-origin-opener-policy": "same-origin",
    "cross-origin-resource-policy": "same-origin",
    "permissions-policy": "camera=(), microphone=(), geolocation=()",
}
SIGN_IN_PATH, SIGN_OUT_PATH = "/sign-in", "/sign-out"
FORM_BYTES = 4096
WRONG_SECONDS = 1.0
# Answers to whoever is not signed in, and to signing out, must not come back from a cache or by the Back button.
_NOT_KEPT = {"cache-control": "no-store"}
_WRONG = "This is not right."
_TOO_MANY = "Too many wrong passwords. Wait a minute."

SIGN_IN_PAGE = (
    (ASSETS / "signin.html").read_text(encoding="utf-8")
    .replace("[ICON]", (ASSETS / "icon.svg").read_text(encoding="utf-8").strip())
)  # fmt: skip
NAME_FIELD = """<label>Name <input name="name" autocomplete="username" autocapitalize="none" required></label>
"""


def is_loopback(host: str) -> bool:
    """True when only this machine can reach `host`."""
    if host == "localhost":
        return True
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return False


def check_address(settings: Settings) -> None:
    """Refuse to listen where others can reach us without a password.

    Raises:
        InputError: the password is short, or missing where the address is not a loopback address; or the login
            file cannot be used.
    """
    if settings.password is not None:
        require_strong(settings.password, "STUDIO_PASSWORD")  # other users of this machine can guess, too
    if settings.login_file is not None:
        read_logins(settings.login_file)  # what is wrong with it is said now, and not at the first request
    if is_loopback(settings.host):
        return
    if not settings.asks:
        raise InputError(
            f"'{settings.host}' can be reached from other machines, and no password is set",
            where="STUDIO_HOST",
            fix="Set STUDIO_PASSWORD to a long secret (or STUDIO_LOGIN_FILE), or listen on 127.0.0.1",
        )


def own_address(settings: Settings) -> str:
    """The address to open in a browser on this machine."""
    host = "127.0.0.1" if settings.host in ("0.0.0.0", "::") else settings.host
    return f"http://{f'[{host}]' if ':' in host else host}:{settings.port}/"


def allowed_hosts(settings: Settings) -> frozenset[str] | None:
    """Host headers that are ours; None means any.

    Any is right only where a password is asked for: a page that points its own name at this address has no
    cookie for that name, so the password stops it.
    """
    if settings.asks and not is_loopback(settings.host):
        return None
    names = {"127.0.0.1", "localhost", "[::1]", f"[{settings.host}]" if ":" in settings.host else settings.host}
    return frozenset(f"{name}:{settings.port}" for name in names) | (names if settings.port == 80 else frozenset())


class Gate:
    """ASGI middleware that lets through only what the module's head says."""

    def __init__(self, app: ASGIApp, settings: Settings) -> None:
        self.app = app
        self.hosts = allowed_hosts(settings)
        # Cookies ignore ports, so each port has a name of its own.
        self.cookie = f"studio-{settings.port}"
        self.logins = Logins(settings) if settings.asks else None
        self.sessions = Sessions(settings, self.logins) if self.logins is not None else None
        self.guesses = Guesses()

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answer a request ourselves, or pass it on; either way the headers are added."""
        if scope["type"] == "lifespan":
            return await self.app(scope, receive, send)
        if scope["type"] != "http":  # nothing here speaks websocket
            return await send({"type": "websocket.close", "code": 1008})
        request = Request(scope, receive)
        begun = False

        async def noted(message: Message) -> None:
            nonlocal begun
            begun = True
            await with_headers(message)

        with_headers = _with_headers(send)
        try:
            answer = self.refuse(request) or await self.sign_in(request)
            if answer is None and fetches(request.url.path):
                answer = PlainTextResponse("Nothing is fetched from another address.", 403)
            await (answer or self.app)(scope, receive, noted)
        except Exception:
            if not begun:  # starlette's own answer to a bug of ours would carry no headers; it still logs the error
                await PlainTextResponse("Internal Server Error", 500)(scope, receive, with_headers)
            raise

    def refuse(self, request: Request) -> Response | None:
        """Refuse a foreign Host with 400 and what another origin sends with 403; None when it may pass."""
        headers = request.headers
        host = headers.get("host", "").lower()
        if len(request.headers.getlist("host")) != 1 or (self.hosts is not None and host not in self.hosts):
            return PlainTextResponse("This Host is not served here. Open the address that the studio printed.", 400)
        # https too: behind a proxy with TLS we see plain HTTP.
        own = {f"{scheme}://{host}" for scheme in ("http", "https")}
        origins = {origin.lower() for origin in headers.getlist("origin")}
        if not origins and request.method not in ("GET", "HEAD") and "referer" in headers:
            origins = {"/".join(headers["referer"].lower().split("/")[:3])}
        foreign = not origins <= own or headers.get("sec-fetch-site", "none") not in ("same-origin", "none")
        if not foreign:
            return None
        # Following a link to the page is the one thing that another site may do.
        follows_link = headers.get("sec-fetch-mode") == "navigate" and headers.get("sec-fetch-dest") == "document"
        if request.method == "GET" and follows_link and request.url.path == "/":
            return None
        return PlainTextResponse("Requests from another site or port are refused.", 403)

    async def sign_in(self, request: Request) -> Response | None:
        """Ask for the password where one is set; None when the request comes from who has signed in."""
        if self.logins is None or self.sessions is None:
            return None
        cookie, path = request.cookies.get(self.cookie, ""), request.url.path
        if path == SIGN_OUT_PATH and request.method == "POST":
            self.sessions.end(cookie)
            answer = RedirectResponse(SIGN_IN_PATH, 303, _NOT_KEPT)
            answer.delete_cookie(self.cookie, httponly=True, samesite="strict")
            return answer
        if path == SIGN_IN_PATH and request.method == "POST":
            return await self._try(request, self.logins, self.sessions)
        if self.sessions.holds(cookie):
            return RedirectResponse("/", 303) if path == SIGN_IN_PATH else None
        if "text/html" in request.headers.get("accept", ""):
            return self._form(self.logins, 401)
        return PlainTextResponse("The password is needed: open the page and sign in.", 401, _NOT_KEPT)

    async def _try(self, request: Request, logins: Logins, sessions: Sessions) -> Response:
        guess = self.guesses.take(request.client.host if request.client else "")
        if guess is None:
            return self._form(logins, 429, _TOO_MANY, {"retry-after": f"{GUESS_SECONDS:.0f}"})
        given = await _given(request)
        name, password = given.get("name", [""])[0], given.get("password", [""])[0]
        name = name if logins.named else ""
        if not await asyncio.to_thread(logins.check, name, password):
            await asyncio.sleep(WRONG_SECONDS)
            return self._form(logins, 401, _WRONG)
        self.guesses.right(guess)
        answer = RedirectResponse("/", 303, _NOT_KEPT)
        # Behind a proxy with TLS we see plain HTTP; the browser says what the page's own address is.
        secure = request.headers.get("origin", "").startswith("https:")
        answer.set_cookie(
            self.cookie, sessions.begin(name), int(SESSION_SECONDS), httponly=True, samesite="strict", secure=secure
        )
        return answer

    def _form(self, logins: Logins, status: int, problem: str = "", headers: dict[str, str] | None = None) -> Response:
        said = f'<p role="alert">{problem}</p>' if problem else ""
        page = SIGN_IN_PAGE.replace("[NAME]", NAME_FIELD if logins.named else "").replace("[PROBLEM]", said)
        return HTMLResponse(page, status, _NOT_KEPT | (headers or {}))


async def _given(request: Request) -> dict[str, list[str]]:
    """Fields of the form; none of one that is larger than a name and a password."""
    body = b""
    async for chunk in request.stream():
        body += chunk
        if len(body) > FORM_BYTES:
            return {}
    return parse_qs(body.decode("utf-8", errors="replace"))


def _with_headers(send: Send) -> Send:
    async def wrapped(message: Message) -> None:
        if message["type"] == "http.response.start":
            ours = [(name.encode(), value.encode()) for name, value in HEADERS.items()]
            kept = [
                (name, value) for name, value in message.get("headers", [])
                if name.decode("latin-1").lower() not in HEADERS and not name.lower().startswith(b"access-control-")
            ]  # fmt: skip
            message = {**message, "headers": kept + ours}
        await send(message)

    return wrapped
