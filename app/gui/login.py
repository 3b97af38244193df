"""How a browser shows that it knows the server's token: a form, and then a cookie that is not the token."""

import collections
import hashlib
import hmac
import html
import secrets
import threading
import time
from collections.abc import Mapping
from http.cookies import CookieError, SimpleCookie
from urllib.parse import parse_qs, quote

from starlette.types import Receive, Scope, Send

from app.uploads import Refused

COOKIE = "preimage"
SIGN_IN, SIGN_OUT = "/sign-in", "/sign-out"

LONGEST = 4096
"""Bytes of the form."""

TRIES = 10
"""Wrong tokens that an address may send in a minute."""

POLICY = "default-src 'none'; style-src 'unsafe-inline'; form-action 'self'; frame-ancestors 'none'; base-uri 'none'"
"""Content security policy of the form."""


class Login:
    """Signs browsers in and out.

    A cookie is a number of its own and an HMAC of it and the token under a key that is drawn when the server starts:
    it tells nothing of the token, is no good after a restart, and can be taken back alone.
    """

    def __init__(self, token: str) -> None:
        self._token, self._key = token.encode(), secrets.token_bytes(32)
        self._ended: collections.OrderedDict[str, None] = collections.OrderedDict()
        self._wrong: collections.OrderedDict[str, list[float]] = collections.OrderedDict()
        self._changing = threading.Lock()

    def knows(self, header: bytes) -> bool:
        """Whether a `Cookie` header has a cookie of ours."""
        number, _, mark = _cookie(header).partition(".")
        return hmac.compare_digest(self._mark(number), mark) and number not in self._ended

    def cookie(self, *, secure: bool) -> str:
        """A new cookie, as `Set-Cookie` has it; it ends with the browser."""
        number = secrets.token_hex(16)
        return (
            f"{COOKIE}={number}.{self._mark(number)}; Path=/; HttpOnly; SameSite=Strict{'; Secure' if secure else ''}"
        )

    def end(self, header: bytes) -> str:
        """Take the cookie of a `Cookie` header back; what `Set-Cookie` says then."""
        if self.knows(header):
            with self._changing:
                self._ended[_cookie(header).partition(".")[0]] = None
                while len(self._ended) > 10_000:
                    self._ended.popitem(last=False)
        return f"{COOKIE}=; Path=/; HttpOnly; SameSite=Strict; Max-Age=0"

    def may_try(self, address: str) -> bool:
        """Whether an address has not sent too many wrong tokens in the last minute."""
        since = time.monotonic() - 60
        with self._changing:
            return sum(at > since for at in self._wrong.get(address, ())) < TRIES

    def right(self, token: str, address: str) -> bool:
        """Whether this is the token; an address that is wrong is remembered."""
        given, own = (hashlib.sha256(text).digest() for text in (token.encode("utf-8", "replace"), self._token))
        if hmac.compare_digest(given, own):
            return True
        with self._changing:
            self._wrong[address] = [*self._wrong.pop(address, [])[1 - TRIES :], time.monotonic()]
            while len(self._wrong) > 1000:
                self._wrong.popitem(last=False)
        return False

    def _mark(self, number: str) -> str:
        said = number.encode("utf-8", "surrogatepass") + b"\0" + self._token
        return hmac.new(self._key, said, hashlib.sha256).hexdigest()


def _cookie(header: bytes) -> str:
    try:
        found = SimpleCookie(header.decode("latin-1")).get(COOKIE)
    except CookieError:
        return ""
    value = "" if found is None else found.value
    return value if value.isascii() else ""


async def sign(login: Login, scope: Scope, headers: Mapping[bytes, bytes], receive: Receive, send: Send) -> None:
    """Answer a request for `SIGN_IN` or `SIGN_OUT`.

    Raises:
        Refused: another method, or a form that is too long.
    """
    method, cookie = scope["method"], headers.get(b"cookie", b"")
    if scope["path"] == SIGN_OUT:
        if method != "POST":  # a link elsewhere must not do it
            raise Refused(405, "Expected POST for this address, got another method; use the button of the page.")
        await answer(send, 303, b"", {"location": SIGN_IN, "set-cookie": login.end(cookie)})
        return
    if method == "GET":
        place = inside(_values(scope["query_string"]).get("next", "/"))
        await (answer(send, 303, b"", {"location": place}) if login.knows(cookie) else _form(send, 200, place))
        return
    if method != "POST":
        raise Refused(405, "Expected GET or POST for this address, got another method; use a browser.")
    form = _values(await _body(receive))
    address, place = (scope.get("client") or ("",))[0], inside(form.get("next", "/"))
    if not login.may_try(address):
        await _form(send, 429, place, "Too many wrong tokens. Wait a minute, then try again.")
    elif not login.right(form.get("token", "").strip(), address):
        await _form(send, 403, place, "That is not the token of this server. Try again.")
    else:
        # a proxy before us may speak TLS where we do not; the browser says what it sees
        secure = scope["scheme"] == "https" or headers.get(b"origin", b"").startswith(b"https://")
        await answer(send, 303, b"", {"location": place, "set-cookie": login.cookie(secure=secure)})


async def answer(send: Send, status: int, body: bytes, headers: Mapping[str, str]) -> None:
    """Send an answer, of JSON unless `headers` say otherwise."""
    usual = {"content-type": "application/json", "content-length": str(len(body))}
    both = [(name.encode(), value.encode("latin-1")) for name, value in (usual | dict(headers)).items()]
    await send({"type": "http.response.start", "status": status, "headers": both})
    await send({"type": "http.response.body", "body": body})


async def _body(receive: Receive) -> bytes:
    body: bytes = b""
    while True:
        message = await receive()
        body += bytes(message.get("body", b""))
        if len(body) > LONGEST:
            raise Refused(413, "Expected a form with a token, got more; send the token alone.")
        if not message.get("more_body", False):
            return body


async def _form(send: Send, status: int, place: str, problem: str = "") -> None:
    headers = {"content-type": "text/html; charset=utf-8", "content-security-policy": POLICY}
    await answer(send, status, _page(place, problem), headers)


def _values(text: bytes) -> dict[str, str]:
    try:
        return {
            name: values[0] for name, values in parse_qs(text.decode("utf-8", "replace"), max_num_fields=10).items()
        }
    except ValueError:  # more than that
        return {}


def inside(place: str) -> str:
    """A place on this server, whatever was asked for."""
    plain = place.isascii() and place.isprintable() and not any(sign in place for sign in '\\"<> ')
    return place if plain and place.startswith("/") and not place.startswith("//") else "/"


def to_form(place: str) -> str:
    """Address of the form for somebody who wanted to go to a place."""
    return SIGN_IN if place == "/" else f"{SIGN_IN}?next={quote(place, safe='')}"


def _page(place: str, problem: str = "") -> bytes:
    """The form; `problem` says what was wrong with the last try."""
    said = f'<p class="problem" role="alert">{html.escape(problem)}</p>' if problem else ""
    text = f"""<!doctype html>
<html lang="en">
<meta charset="utf-8">
<meta name="viewport" content="width=device-width, initial-scale=1">
<title>Preimage: sign in</title>
<style>
:root {{ color-scheme: light dark }}
body {{ font: 16px/1.5 system-ui, sans-serif; margin: 0; min-height: 100vh; display: grid; place-items: center;
  background: light-dark(#f5f6f8, #15171a); color: light-dark(#1c1e21, #eceef1) }}
main {{ box-sizing: border-box; width: min(26rem, 100vw); padding: 2rem }}
h1 {{ font-size: 1.5rem; margin: 0 0 1rem }}
label {{ display: block; font-weight: 600 }}
input, button {{ box-sizing: border-box; width: 100%; font: inherit; padding: .6rem .7rem; border-radius: 6px;
  margin-top: .4rem }}
input {{ border: 1px solid light-dark(#767b85, #8d939e); background: light-dark(#fff, #202328); color: inherit }}
button {{ border: 0; background: light-dark(#1d4f91, #9cc3f5); color: light-dark(#fff, #10233c); font-weight: 600;
  margin-top: 1rem; cursor: pointer }}
:focus-visible {{ outline: 3px solid light-dark(#1d4f91, #9cc3f5); outline-offset: 2px }}
.problem {{ color: light-dark(#a11212, #ffb4ab) }}
small {{ color: light-dark(#555b65, #b4bac4) }}
</style>
<main>
<h1>Preimage</h1>
{said}
<form method="post" action="{SIGN_IN}">
<label for="token">Token of this server</label>
<input id="token" name="token" type="password" autocomplete="current-password" required autofocus>
<input type="hidden" name="next" value="{html.escape(place)}">
<button type="submit">Sign in</button>
</form>
<p><small>Whoever started the server gave it a token, with --auth-file or PREIMAGE_TOKEN. Research use only.</small></p>
</main>
</html>
"""
    return text.encode()
