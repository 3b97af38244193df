"""Who may talk to the server, from where, and what its answers may do in a browser: one layer around the whole app."""

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

from app.uploads import Limits, Refused, too_large
from operators.errors import ReadError, RecipeError

SHORTEST_TOKEN = 16

HEADERS = {
    "content-security-policy": "default-src 'none'; frame-ancestors 'none'; base-uri 'none'; form-action 'none'; "
    "img-src data:; style-src 'unsafe-inline'; sandbox",
    "x-content-type-options": "nosniff",
    "x-frame-options": "DENY",
    "referrer-policy": "no-referrer",
    "cross-origin-resource-policy": "same-origin",
    "cross-origin-opener-policy": "same-origin",
    "permissions-policy": "camera=(), geolocation=(), microphone=()",
    "cache-control": "no-store",
}
"""On every answer. Nothing is cached: answers can be pictures of patients. Summaries may show their own pictures."""


class Guard:
    """Asks the questions below of every request before the app sees it, and puts HEADERS on every answer.

    Args:
        app: what is guarded.
        token: the bearer token; None lets everybody in.
        hosts: names that clients may call the server by, besides addresses and `localhost`.
        limits: of uploads.
    """

    def __init__(self, app: ASGIApp, *, token: str | None, hosts: Sequence[str], limits: Limits) -> None:
        self._app, self._limits = app, limits
        self._token = None if token is None else _digest(token.encode())
        self._hosts = frozenset(name.lower() for name in (*hosts, "localhost", socket.gethostname()))

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Pass a request on, or answer it with a sentence."""
        if scope["type"] == "lifespan":
            await self._app(scope, receive, send)
            return
        if scope["type"] != "http":  # no web sockets here
            await send({"type": "websocket.close", "code": 1008})
            return

        async def guarded(message: Message) -> None:
            if message["type"] == "http.response.start":
                given = {name.lower() for name, _ in message["headers"]}
                own = [(name.encode(), value.encode()) for name, value in HEADERS.items()]
                message["headers"] = [*message["headers"], *((n, v) for n, v in own if n not in given)]
            await send(message)

        try:
            self._check(scope)
        except Refused as refused:
            body = json.dumps({"detail": str(refused)}).encode()
            headers = [(b"content-type", b"application/json"), (b"content-length", str(len(body)).encode())]
            if refused.status == 401:
                headers.append((b"www-authenticate", b"Bearer"))
            await guarded({"type": "http.response.start", "status": refused.status, "headers": headers})
            await guarded({"type": "http.response.body", "body": body})
            return
        await self._app(scope, receive, guarded)

    def _check(self, scope: Scope) -> None:
        headers: dict[bytes, bytes] = {}
        for name, value in scope["headers"]:
            if name in (b"host", b"authorization", b"origin", b"content-length") and name in headers:
                raise Refused(400, "Expected each header once, got one twice; send it once.")
            headers[name] = value
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
        if scope["path"] != "/healthz" and not self._trusted(headers.get(b"authorization", b"")):
            raise Refused(401, "Expected the token of this server as 'Authorization: Bearer TOKEN'; add it.")
        length = headers.get(b"content-length", b"0")
        if length.isdigit() and int(length) > self._limits.bytes:
            raise too_large(self._limits)

    def _known(self, host: str) -> bool:
        try:
            name = urlsplit(f"//{host}").hostname or ""
        except ValueError:
            return False
        return name in self._hosts or _address(name) is not None

    def _trusted(self, header: bytes) -> bool:
        if self._token is None:
            return True
        scheme, _, given = header.partition(b" ")
        return scheme.lower() == b"bearer" and hmac.compare_digest(_digest(given.strip()), self._token)


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
