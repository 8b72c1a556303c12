"""Who may talk to the page: one ASGI layer before our routes and before gradio's.

It checks the Host header (DNS rebinding), refuses requests that another site or another port of this machine
makes, asks for a session where a password is set (`entrance`) and otherwise for a connection of our own user, and adds
the security headers. Gradio's own CORS layer and `auth=` do none of this for all routes (docs/security.md). It does not
limit what a signed-in person may do.
"""

from __future__ import annotations

import ipaddress

from starlette.requests import ClientDisconnect, Request
from starlette.responses import PlainTextResponse, Response
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from studio.errors import InputError
from studio.settings import Settings
from studio.ui.server.confined import fetches
from studio.ui.server.entrance import Entrance
from studio.ui.server.login import read_logins, require_strong

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
OTHERS = (
    "This page is served to the user who started it, and this connection is another user's, or one whose user the "
    "system does not tell. To share it, start the studio with STUDIO_PASSWORD (or STUDIO_TOKEN=1, which prints a link)."
)


# What is no upload is read into memory whole; rows and forms have some kilobytes.
MOST_BODY = 16 * 1024**2
_UPLOADS = ("/gradio_api/upload", "/upload")


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
        self.entrance = Entrance(settings) if settings.asks else None

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
            self._cut_ended(scope, message)
            await with_headers(message)

        with_headers = _with_headers(send)
        try:
            answer = self.refuse(request) or self._others(scope) or _too_large(request)
            if answer is None and self.entrance is not None:
                answer = await self.entrance.answer(request)
            if answer is None and fetches(request.url.path):
                answer = PlainTextResponse("Only paths of this page are served.", 403)
            await (answer or self.app)(scope, _bounded(request, receive), noted)
        except ClientDisconnect:
            return  # it went away, or was too slow, while it sent its body: nobody is there to be answered
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

    def _others(self, scope: Scope) -> Response | None:
        """Refuse other users of this machine, where nobody has to sign in; None when the request may pass.

        Which user a connection is of stands in `scope["state"]["peer"]` (`connections`).
        """
        peer = scope.get("state", {}).get("peer")
        if self.entrance is not None or peer is None or peer.is_ours():
            return None
        # Closed, so that a crowd of them holds no places.
        return PlainTextResponse(OTHERS, 403, {"connection": "close"})

    def _cut_ended(self, scope: Scope, message: Message) -> None:
        """Signing out ends answers that are still being sent: streams live for hours."""
        state = scope.get("state", {})
        session, peer = state.get("session"), state.get("peer")
        if self.entrance is None or session is None or peer is None or not message.get("more_body"):
            return
        if not self.entrance.sessions.lives(session):
            peer.cut()


def _too_large(request: Request) -> Response | None:
    """Refuse a body that says it is too large; None when it may come."""
    said = request.headers.get("content-length", "0")
    if request.url.path in _UPLOADS or not said.isdecimal() or int(said[:20]) <= MOST_BODY:
        return None
    text = f"Requests are limited to {MOST_BODY / 1024**2:.0f} MB. Upload the file instead."
    return PlainTextResponse(text, 413, {"connection": "close"})


def _bounded(request: Request, receive: Receive) -> Receive:
    """The body up to its bound: one that does not say its length and goes on beyond it is cut off."""
    if request.url.path in _UPLOADS:
        return receive
    got = 0

    async def wrapped() -> Message:
        nonlocal got
        message = await receive()
        got += len(message.get("body", b""))
        if got <= MOST_BODY:
            return message
        if (peer := request.scope.get("state", {}).get("peer")) is not None:
            peer.cut()
        return {"type": "http.disconnect"}

    return wrapped


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
