"""Who may talk to the page: one ASGI layer before our routes and before gradio's.

It checks the Host header (DNS rebinding), refuses requests that another site or another port of this machine
makes, asks for the password where one is set, and adds the security headers. Gradio's own CORS layer and
`auth=` do none of this for all routes (docs/security.md). It does not limit what a signed-in person may do.
"""

from __future__ import annotations

import asyncio
import hashlib
import hmac
import ipaddress
import time
from urllib.parse import parse_qs, urlencode, urlsplit

from starlette.requests import Request
from starlette.responses import HTMLResponse, PlainTextResponse, RedirectResponse, Response
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from studio.errors import InputError
from studio.settings import Settings

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
LEAST_TOKEN = 8
SIGN_IN_PATH = "/sign-in"
FORM_BYTES = 4096
WRONG_SECONDS = 1.0
WRONG_PER_MINUTE = 20

SIGN_IN_PAGE = """<!doctype html><html lang="en"><head><meta charset="utf-8"><title>Finetune Studio</title>
<meta name="viewport" content="width=device-width,initial-scale=1"><style>
:root{color-scheme:light dark}body{font:16px/1.5 system-ui,sans-serif;display:grid;place-items:center;min-height:90vh}
form{display:grid;gap:12px;min-width:280px}h1{font-size:20px;margin:0}input,button{font:inherit;padding:8px 12px}
</style></head><body><main><form method="post" action="/sign-in"><h1>Finetune Studio</h1>
<label for="t">Password (STUDIO_TOKEN)</label>
<input id="t" name="token" type="password" autocomplete="current-password" autofocus required>
<button>Sign in</button></form></main></body></html>"""


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
        InputError: the address is not a loopback address and STUDIO_TOKEN is missing or short.
    """
    if is_loopback(settings.host):
        return
    if settings.token is None:
        raise InputError(
            f"'{settings.host}' can be reached from other machines, and no password is set",
            where="STUDIO_HOST",
            fix="Set STUDIO_TOKEN to a long secret, or listen on 127.0.0.1",
        )
    if len(settings.token) < LEAST_TOKEN:
        raise InputError(
            f"a password of {len(settings.token)} characters can be guessed",
            where="STUDIO_TOKEN",
            fix=f"Use at least {LEAST_TOKEN} characters",
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
    if settings.token is not None and not is_loopback(settings.host):
        return None
    names = {"127.0.0.1", "localhost", "[::1]", f"[{settings.host}]" if ":" in settings.host else settings.host}
    return frozenset(f"{name}:{settings.port}" for name in names) | (names if settings.port == 80 else frozenset())


class Gate:
    """ASGI middleware that lets through only what the module's head says."""

    def __init__(self, app: ASGIApp, settings: Settings) -> None:
        self.app = app
        self.hosts = allowed_hosts(settings)
        self.token = settings.token.encode() if settings.token else None
        # Cookies ignore ports, so each port has a name of its own; the value is derived, never the password.
        self.cookie = f"studio-{settings.port}"
        self.pass_value = _pass_value(self.token) if self.token else ""
        self._wrong: list[float] = []

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answer a request ourselves, or pass it on; either way the headers are added."""
        if scope["type"] == "lifespan":
            return await self.app(scope, receive, send)
        if scope["type"] != "http":  # nothing here speaks websocket
            return await send({"type": "websocket.close", "code": 1008})
        request = Request(scope, receive)
        answer = self.refuse(request) or await self.sign_in(request)
        await (answer or self.app)(scope, receive, _with_headers(send))

    def refuse(self, request: Request) -> Response | None:
        """Refuse a foreign Host with 400 and what another origin sends with 403; None when it may pass."""
        headers = request.headers
        host = headers.get("host", "").lower()
        if len(request.headers.getlist("host")) != 1 or (self.hosts is not None and host not in self.hosts):
            return PlainTextResponse("This Host is not served here. Open the address that the studio printed.", 400)
        origin = headers.get("origin")
        foreign = origin is not None and urlsplit(origin).netloc.lower() != host
        foreign = foreign or headers.get("sec-fetch-site", "none") not in ("same-origin", "none")
        if not foreign:
            return None
        # Following a link to the page is the one thing that another site may do.
        follows_link = headers.get("sec-fetch-mode") == "navigate" and headers.get("sec-fetch-dest") == "document"
        if request.method == "GET" and follows_link and request.url.path == "/":
            return None
        return PlainTextResponse("Requests from another site or port are refused.", 403)

    async def sign_in(self, request: Request) -> Response | None:
        """Ask for the password where one is set; None when the request carries it."""
        if self.token is None or hmac.compare_digest(
            request.cookies.get(self.cookie, "").encode(), self.pass_value.encode()
        ):
            return None
        given = await _given_token(request)
        if given is not None:
            if self._too_many():
                return PlainTextResponse("Too many wrong passwords. Wait a minute.", 429)
            if hmac.compare_digest(given, self.token):
                return self._welcome(request)
            self._wrong.append(time.monotonic())
            await asyncio.sleep(WRONG_SECONDS)
        if "text/html" in request.headers.get("accept", ""):
            return HTMLResponse(SIGN_IN_PAGE, 401)
        return PlainTextResponse("The password is needed: open the page and sign in.", 401)

    def _too_many(self) -> bool:
        self._wrong = [at for at in self._wrong if time.monotonic() - at < 60]
        return len(self._wrong) >= WRONG_PER_MINUTE

    def _welcome(self, request: Request) -> Response:
        rest = [(key, value) for key, value in request.query_params.multi_items() if key != "token"]
        path = "/" if request.url.path == SIGN_IN_PATH else request.url.path
        answer = RedirectResponse("/" + path.lstrip("/") + (f"?{urlencode(rest)}" if rest else ""), 303)
        answer.set_cookie(
            self.cookie, self.pass_value, httponly=True, samesite="strict", secure=request.url.scheme == "https"
        )
        return answer


def _pass_value(token: bytes) -> str:
    return hmac.new(token, b"finetune-studio page", hashlib.sha256).hexdigest()


async def _given_token(request: Request) -> bytes | None:
    if request.method == "POST" and request.url.path == SIGN_IN_PATH:
        body = b""
        async for chunk in request.stream():
            body += chunk
            if len(body) > FORM_BYTES:
                return b""
        return parse_qs(body.decode("utf-8", errors="replace")).get("token", [""])[0].encode()
    token = request.query_params.get("token") if request.method == "GET" else None
    return None if token is None else token.encode()


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
