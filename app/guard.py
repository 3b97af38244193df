"""Who may talk to the server, from where, and what its answers may do in a browser: one layer around the whole app."""

import gc
import hashlib
import hmac
import ipaddress
import json
import os
import socket
import stat
from collections.abc import Sequence
from pathlib import Path
from urllib.parse import urlsplit

from starlette.types import ASGIApp, Message, Receive, Scope, Send

from app.gui.login import SIGN_IN, SIGN_OUT, Login, answer, inside, sign, to_form
from app.uploads import Limits, Refused, too_large
from operators.errors import ReadError, RecipeError

SHORTEST_TOKEN = 16

_EVERYWHERE = {
    "x-content-type-options": "nosniff",
    "x-frame-options": "DENY",
    "cross-origin-resource-policy": "same-origin",
    "cross-origin-opener-policy": "same-origin",
    "permissions-policy": "camera=(), geolocation=(), microphone=()",
}

HEADERS = _EVERYWHERE | {
    "content-security-policy": "default-src 'none'; frame-ancestors 'none'; base-uri 'none'; form-action 'none'; "
    "img-src data:; style-src 'unsafe-inline'; sandbox",
    "referrer-policy": "no-referrer",
    "cache-control": "no-store",
}
"""On every answer of the API, and on Gradio's files. Nothing is cached: answers can be pictures of patients. Summaries
may show their own pictures."""

PAGE_HEADERS = _EVERYWHERE | {
    # Gradio writes its settings into the page as a script, and makes functions of what widgets say
    "content-security-policy": "default-src 'self'; script-src 'self' 'unsafe-inline' 'unsafe-eval'; "
    "style-src 'self' 'unsafe-inline'; img-src 'self' data: blob:; font-src 'self' data:; connect-src 'self'; "
    "worker-src 'self' blob:; frame-ancestors 'none'; base-uri 'self'; form-action 'self'",
    "referrer-policy": "same-origin",  # with none, browsers do not say where a form comes from
    "cache-control": "no-store",
}
"""On every answer of the page."""

ASSET_HEADERS = PAGE_HEADERS | {"cache-control": "private, max-age=31536000, immutable"}
"""On Gradio's own files, whose names change with what is in them."""


class Guard:
    """Asks the questions below of every request before the app sees it, and puts headers on every answer.

    Args:
        app: what is guarded.
        token: the bearer token; None lets everybody in.
        hosts: names that clients may call the server by, besides addresses and `localhost`.
        limits: of uploads.
        page: whether the app has a page, to which browsers may sign in with the token.
    """

    def __init__(
        self, app: ASGIApp, *, token: str | None, hosts: Sequence[str], limits: Limits, page: bool = False
    ) -> None:
        self._app, self._limits, self._page = app, limits, page
        self._token = None if token is None else _digest(token.encode())
        self._login = Login(token) if page and token is not None else None
        self._hosts = frozenset(name.lower() for name in (*hosts, "localhost", socket.gethostname()))

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Pass a request on, or answer it with a sentence."""
        if scope["type"] == "lifespan":
            await self._app(scope, receive, send)
            return
        if scope["type"] != "http":  # no web sockets here
            await send({"type": "websocket.close", "code": 1008})
            return
        given = self._headers_for(scope["path"])

        async def guarded(message: Message) -> None:
            if message["type"] == "http.response.start":
                message["headers"] = _with(message["headers"], given, ok=message["status"] < 400)
            await send(message)

        try:
            headers = self._check(scope)
            if self._login is not None and scope["path"] in (SIGN_IN, SIGN_OUT):
                await sign(self._login, scope, headers, receive, guarded)
                return
            if not self._trusted(scope["path"], headers):
                if self._login is not None and _is_page(scope, headers):
                    place = f"{scope['path']}?{scope['query_string'].decode('latin-1')}".rstrip("?")
                    await answer(guarded, 303, b"", {"location": to_form(inside(place))})
                    return
                raise Refused(
                    401,
                    "Expected the token of this server as 'Authorization: Bearer TOKEN', or a browser that signed in; "
                    "add it, or reload the page.",
                )
            await self._pass_on(scope, receive, guarded)
        except Refused as refused:
            more = {"www-authenticate": "Bearer"} if refused.status == 401 else {}
            body = json.dumps({"detail": str(refused)})
            if scope["path"].startswith("/gradio_api/"):  # Gradio shows the person what it gets
                body, more["content-type"] = str(refused), "text/plain; charset=utf-8"
            await answer(guarded, refused.status, body.encode(), more)

    def _headers_for(self, path: str) -> dict[str, str]:
        if not self._page or path.startswith(("/api/", "/gradio_api/")) or path == "/healthz":
            return HEADERS
        return ASSET_HEADERS if path.startswith("/assets/") else PAGE_HEADERS

    async def _pass_on(self, scope: Scope, receive: Receive, send: Send) -> None:
        """To the app, with an end to what it is sent: the API counts for itself, Gradio does not."""
        if scope["path"].startswith("/api/"):
            await self._app(scope, receive, send)
            return
        limits = self._limits
        most = limits.bytes if scope["path"].rstrip("/") == "/gradio_api/upload" else limits.text
        received, begun, over = 0, False, False

        async def counted() -> Message:
            nonlocal received, over
            message = await receive()
            received += len(message.get("body", b""))
            if over or received > most:
                over = True
                return {"type": "http.disconnect"}
            return message

        async def sent(message: Message) -> None:
            nonlocal begun
            if not over or begun:
                begun = True
                await send(message)

        try:
            await self._app(scope, counted, sent)
        except Exception:
            if not over:
                raise
        if over and most == limits.bytes:
            gc.collect()  # Gradio's parser sits in a cycle, and what it has written goes when it goes
        if over and not begun:
            small = f"Expected at most {limits.text >> 10} KiB of settings, got more; send files as files."
            raise too_large(limits) if most == limits.bytes else Refused(413, small)

    def _check(self, scope: Scope) -> dict[bytes, bytes]:
        headers: dict[bytes, bytes] = {}
        for name, value in scope["headers"]:
            if name in (b"host", b"authorization", b"origin", b"content-length") and name in headers:
                raise Refused(400, "Expected each header once, got one twice; send it once.")
            # HTTP/2 allows several of these, and so may a proxy
            headers[name] = headers[name] + b"; " + value if name == b"cookie" and name in headers else value
        host = headers.get(b"host", b"").decode("latin-1").lower()
        if not self._known(host):
            # A page elsewhere can give its own name our address (DNS rebinding); its requests then carry that name.
            raise Refused(
                421, "Expected to be called by an address or a name of this server, got another; see --allow-host."
            )
        origin = headers.get(b"origin", b"").decode("latin-1").lower()
        foreign = b"origin" in headers and origin not in (f"http://{host}", f"https://{host}")
        followed = scope["method"] == "GET" and headers.get(b"sec-fetch-mode") == b"navigate"  # a link to us
        if foreign or (headers.get(b"sec-fetch-site") in (b"cross-site", b"same-site") and not followed):
            # A page elsewhere may send forms here without asking, and only not read the answer.
            raise Refused(403, "Expected a request that no other web page makes, got one from a page; use a program.")
        length = headers.get(b"content-length", b"0")
        if length.isdigit() and int(length) > self._limits.bytes:
            raise too_large(self._limits)
        return headers

    def _known(self, host: str) -> bool:
        try:
            name = urlsplit(f"//{host}").hostname or ""
        except ValueError:
            return False
        return name in self._hosts or _address(name) is not None

    def _trusted(self, path: str, headers: dict[bytes, bytes]) -> bool:
        if self._token is None or path == "/healthz":
            return True
        scheme, _, given = headers.get(b"authorization", b"").partition(b" ")
        if scheme.lower() == b"bearer" and hmac.compare_digest(_digest(given.strip()), self._token):
            return True
        return self._login is not None and self._login.knows(headers.get(b"cookie", b""))


def _with(headers: list[tuple[bytes, bytes]], own: dict[str, str], *, ok: bool) -> list[tuple[bytes, bytes]]:
    """Headers of an answer and ours, unless it has some of the same names; mistakes are not kept."""
    given = {name.lower() for name, _ in headers}
    more = [(name.encode(), value.encode()) for name, value in own.items() if name.encode() not in given]
    return [*headers, *((n, b"no-store" if n == b"cache-control" and not ok else v) for n, v in more)]


def _is_page(scope: Scope, headers: dict[bytes, bytes]) -> bool:
    """Whether a person looks at the answer."""
    path, wanted = scope["path"], headers.get(b"accept", b"")
    return scope["method"] == "GET" and not path.startswith(("/api/", "/gradio_api/")) and b"text/html" in wanted


def check_bind(host: str, token: str | None) -> None:
    """Without a token, only programs on this machine may reach the server.

    Raises:
        RecipeError: `host` is another address than loopback, and there is no token.
    """
    address = _address(host)
    local = host == "localhost" or (address is not None and address.is_loopback)
    if not local and token is None:
        raise RecipeError(
            f"Expected a token for a server that other machines can reach, got --host {host} without; "
            "give --auth-file FILE or set PREIMAGE_TOKEN, or leave --host out."
        )


def read_token(file: Path | None, environment: str) -> str | None:
    """The token of a file or, without one, of the environment; None where there is neither.

    Raises:
        ReadError: the file cannot be read, or others than its owner can.
        RecipeError: the token is too short, or is no word of printable ASCII.
    """
    token = environment
    if file is not None:
        try:
            with file.open("rb") as opened:
                mode = os.fstat(opened.fileno()).st_mode
                token = opened.read(4096).decode("utf-8", "replace").strip()
        except OSError as error:
            raise ReadError(f"Expected a file with a token, got: {error.strerror}; look at --auth-file.") from error
        if stat.S_IMODE(mode) & 0o077:
            raise ReadError("Expected a token file that only its owner can read, got one for others too; chmod 600 it.")
    elif not token:
        return None
    if len(token) < SHORTEST_TOKEN or not token.isascii() or not token.isprintable() or " " in token:
        raise RecipeError(
            f"Expected a token of at least {SHORTEST_TOKEN} letters, digits and signs, got another; "
            "make one with: openssl rand -hex 32."
        )
    return token


def _digest(secret: bytes) -> bytes:
    # of one length, so that comparing tells nothing of the token's
    return hashlib.sha256(secret).digest()


def _address(name: str) -> ipaddress.IPv4Address | ipaddress.IPv6Address | None:
    try:
        return ipaddress.ip_address(name)
    except ValueError:
        return None
