"""The page over HTTP: who may see it, what it gives away, and what its pictures and numbers are."""

import os
import re
import subprocess
import sys
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import httpx
import pytest

from app import pages
from app.cli import main
from app.gui.login import COOKIE, TRIES, Login, inside
from app.jobs import JobStore, Request
from tests.app.page_server import LIMITS

TOKEN = "0123456789abcdef0123456789abcdef"
FORM = {"content-type": "application/x-www-form-urlencoded"}


@dataclass
class Served:
    """A running server: its store, its ports without and with a token, and its folders."""

    store: Path
    ports: tuple[int, int]
    folder: Path
    temporary: Path


@pytest.fixture(scope="module")
def served(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Served]:
    folder = tmp_path_factory.mktemp("page")
    worker = folder / "worker"  # does nothing
    worker.write_text("#!/bin/sh\nread job\n")
    worker.chmod(0o700)
    command = [sys.executable, "-m", "tests.app.page_server", str(folder / "jobs"), TOKEN, str(worker)]
    environ = os.environ | {"OMP_NUM_THREADS": "1", "PYTHONPATH": os.getcwd()}
    log = folder / "log"
    with log.open("w") as errors:
        process = subprocess.Popen(
            command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=errors, text=True, env=environ
        )
    assert process.stdin is not None
    assert process.stdout is not None
    words = process.stdout.readline().split()
    assert len(words) == 4, log.read_text()
    yield Served(folder / "jobs", (int(words[0]), int(words[1])), Path(words[2]), Path(words[3]))
    process.stdin.close()
    assert process.wait(60) == 0, log.read_text()
    process.stdout.close()


@pytest.fixture
def store(served: Served) -> Path:
    return served.store


@pytest.fixture
def page(served: Served) -> Iterator[httpx.Client]:
    with httpx.Client(base_url=f"http://127.0.0.1:{served.ports[0]}", timeout=60) as client:
        yield client


@pytest.fixture
def stranger(served: Served) -> Iterator[httpx.Client]:
    """A browser that has not signed in."""
    address = f"http://127.0.0.1:{served.ports[1]}"
    with httpx.Client(base_url=address, headers={"accept": "text/html,*/*"}, timeout=60) as client:
        yield client


# what the page gives away


def test_every_answer_has_its_headers(page: httpx.Client) -> None:
    first = page.get("/")
    assert first.status_code == 200
    assert first.headers["cache-control"] == "no-store"
    policy = first.headers["content-security-policy"]
    assert "default-src 'self'" in policy
    assert "frame-ancestors 'none'" in policy
    assert "http:" not in policy
    script = re.search(r'["\'](?:\./|/)?(assets/[^"\']+\.js)', first.text)
    assert script is not None
    asset = page.get("/" + script[1])
    assert asset.status_code == 200
    assert "immutable" in asset.headers["cache-control"]
    assert page.get("/assets/none.js").headers["cache-control"] == "no-store"
    api = page.get("/api/v1/jobs")
    assert api.headers["content-security-policy"].startswith("default-src 'none'")
    for answer in (first, asset, api, page.get("/gradio_api/info"), page.get("/static/api.js"), page.get("/nowhere")):
        assert answer.headers["x-content-type-options"] == "nosniff"
        assert answer.headers["x-frame-options"] == "DENY"
        assert answer.headers["referrer-policy"] in ("same-origin", "no-referrer")
        assert "access-control-allow-origin" not in answer.headers


def test_the_api_is_as_without_the_page(page: httpx.Client) -> None:
    assert page.get("/healthz").json()["status"] == "ok"
    assert "openapi.json" in page.get("/api/v1/nothing").json()["detail"]
    assert page.put("/api/v1/jobs").status_code == 405
    assert page.get("/api/v1/openapi.json").json()["paths"]["/api/v1/jobs/{job_id}/live"]
    assert page.get("/api/v1/speed").json() == {"seconds_per_call_megapixel": None, "device": "", "name": "cpu"}


def test_scripts_are_sent_once(page: httpx.Client) -> None:
    script = page.get("/static/api.js")
    assert script.headers["content-type"].startswith("text/javascript")
    again = page.get("/static/api.js", headers={"if-none-match": script.headers["etag"]})
    assert (again.status_code, again.content) == (304, b"")
    for name in ("..%2fwidget.py", "widget.py", "%2e%2e", ".hidden.js", "none.js", "api.js%00"):
        assert page.get(f"/static/{name}").status_code in (403, 404), name


@pytest.mark.parametrize("root", ["/gradio_api/file=", "/file="])
def test_no_file_of_this_machine_is_given(page: httpx.Client, store: Path, root: str) -> None:
    job = JobStore(store).create(Request.new(("inputs/images",), {}, {}))
    for path in (
        "/etc/passwd",
        "..%2f..%2f..%2f..%2fetc%2fpasswd",
        "%2e%2e/%2e%2e/.server",
        "file:///etc/passwd",
        "http://127.0.0.1:1/",
        f"http://127.0.0.1:{page.base_url.port}/healthz",
        __file__,
        str(job.private / "request.json"),
        str(store / ".server"),
        str(store / pages.FOLDER / "temporary"),
        "C:/Windows/win.ini",
        "~/.ssh/id_rsa",
    ):
        answer = page.get(f"{root}{path}")
        assert answer.status_code in (403, 404), (path, answer.status_code)
        assert b"root:" not in answer.content
        assert root == "/file=" or answer.status_code == 403 or ".." in str(answer.url), path
    assert page.get("/monitoring").status_code in (403, 404)
    for url in ("http://127.0.0.1:1/", "https://example.com/"):
        assert page.get(f"/gradio_api/proxy={url}").status_code in (400, 403, 404)


def called(page: httpx.Client, name: str, value: object) -> str:
    told = page.post(f"/gradio_api/call/{name}", json={"data": [value]}).json()["event_id"]
    return page.get(f"/gradio_api/call/{name}/{told}").text


def test_a_name_in_an_answer_does_not_make_a_file_public(page: httpx.Client, store: Path) -> None:
    for name in ("/etc/hostname", __file__, str(store / ".server"), "../../.server"):
        assert "event: error" in called(page, "named", name)
    assert not [path for path in (store / pages.FOLDER / "uploads").rglob("*") if path.name in ("hostname", ".server")]


def test_only_uploads_are_taken_for_uploads(page: httpx.Client, store: Path) -> None:
    def file(path: str, **more: str) -> dict[str, object]:
        return {"path": path, "meta": {"_type": "gradio.FileData"}, **more}

    sent = page.post("/gradio_api/upload", files=[("files", ("a.txt", b"hello"))]).json()[0]
    assert '["hello"]' in called(page, "read", file(sent))
    job = JobStore(store).create(Request.new(("inputs/images",), {}, {}))
    for path in ("/etc/hostname", __file__, f"{sent}/../../../../../.server", str(job.private / "request.json")):
        assert "event: error" in called(page, "read", file(path)), path
    for path in (f"{page.base_url}healthz", "https://example.com/", "file:///etc/hostname"):
        assert "event: error" in called(page, "read", file(path)), path
        assert "event: error" in called(page, "read", file(path, url=path)), path


def test_a_drawing_that_was_uploaded_runs_no_scripts(page: httpx.Client) -> None:
    drawing = b'<svg xmlns="http://www.w3.org/2000/svg"><script>alert(1)</script></svg>'
    sent = page.post("/gradio_api/upload", files=[("files", ("a.svg", drawing))]).json()[0]
    called(page, "named", sent)
    answer = page.get(f"/gradio_api/file={sent}")
    assert answer.headers["content-disposition"].startswith("attachment")
    assert "sandbox" in answer.headers["content-security-policy"]


def test_errors_have_no_traces(page: httpx.Client, store: Path) -> None:
    answers = [page.get(path).text for path in ("/nowhere", "/config", "/")]
    answers += [called(page, "broken", "x"), page.post("/gradio_api/queue/join", content=b"{").text]
    answers += [page.post("/gradio_api/run/none", json={}).text]
    # Gradio says of a file that is no upload where it looked for it
    answers += [
        called(page, "read", {"path": path, "meta": {"_type": "gradio.FileData"}}) for path in ("../x", "a" * 300)
    ]
    for text in answers:
        assert "Traceback" not in text
        assert str(store) not in text
        assert str(store.parent) not in text
        assert "/site-packages/" not in text
        assert "page_server.py" not in text


def test_what_no_widget_needs_is_not_there(page: httpx.Client) -> None:
    for path in ("deep_link?session_hash=x", "proxy=http://127.0.0.1/", "stream/x/1/1/playlist.m3u8"):
        assert page.get(f"/gradio_api/{path}").status_code in (400, 404), path
    for path in ("process_recording", "component_server", "stream/x"):
        assert page.post(f"/gradio_api/{path}", json={}).status_code in (404, 405), path


def test_uploads_end_at_the_limit(page: httpx.Client, store: Path) -> None:
    def sent(size: int) -> httpx.Response:
        return page.post("/gradio_api/upload", files=[("files", ("a.png", bytes(size)))])

    assert sent(LIMITS.bytes - 1000).status_code == 200
    refused = sent(LIMITS.bytes + 1)
    assert refused.status_code == 413
    assert refused.text.startswith("Expected an upload of at most ")

    head = b'--x\r\nContent-Disposition: form-data; name="files"; filename="a.png"\r\n\r\n'

    def pieces(size: int) -> Iterator[bytes]:
        yield head
        for _ in range(size // 4096):
            yield bytes(4096)
        yield b"\r\n--x--\r\n"

    kind = {"content-type": "multipart/form-data; boundary=x"}
    assert page.post("/gradio_api/upload", content=pieces(LIMITS.bytes // 2), headers=kind).status_code == 200
    try:
        chunked = page.post("/gradio_api/upload", content=pieces(LIMITS.bytes + 8192), headers=kind)
        assert chunked.status_code == 413
        assert chunked.text.startswith("Expected an upload of at most ")
    except httpx.TransportError:  # the server may hang up before all is sent
        pass
    settings = page.post("/gradio_api/call/broken", json={"data": ["x" * LIMITS.text]})
    assert settings.status_code == 413

    def kept() -> int:
        return sum(path.stat().st_size for path in (store / pages.FOLDER / "uploads").rglob("*") if path.is_file())

    until = time.monotonic() + 30  # what was refused is removed once its connection is closed
    while kept() >= 2 * LIMITS.bytes and time.monotonic() < until:
        time.sleep(0.1)
    assert kept() < 2 * LIMITS.bytes


def test_other_web_pages_are_refused(page: httpx.Client) -> None:
    own = str(page.base_url).rstrip("/")
    for path in ("/gradio_api/call/broken", "/api/v1/jobs", "/gradio_api/upload"):
        for headers in ({"origin": "http://evil.example"}, {"origin": "null"}, {"sec-fetch-site": "cross-site"}):
            assert page.post(path, json={"data": ["x"]}, headers=headers).status_code == 403
    assert page.get("/", headers={"host": "evil.example"}).status_code == 421
    same = {"origin": own, "sec-fetch-site": "same-origin"}
    assert page.post("/gradio_api/call/broken", json={"data": ["x"]}, headers=same).status_code == 200
    link = {"sec-fetch-site": "cross-site", "sec-fetch-mode": "navigate"}
    assert page.get("/", headers=link).status_code == 200


def test_the_page_has_a_folder_of_its_own(page: httpx.Client, served: Served) -> None:
    root = served.store / pages.FOLDER
    assert served.folder == root / "nothing"
    assert not list(served.folder.iterdir())
    assert all(place.stat().st_mode & 0o777 == 0o700 for place in (root, *root.iterdir()))
    assert served.temporary == root / "temporary"
    config = page.get("/config").json()
    assert not config.get("enable_monitoring")
    assert config.get("run_history") in (False, None)
    assert not any("share" in str(component.get("props", {}).get("buttons")) for component in config["components"])


# signing in


def test_without_a_token_nobody_signs_in(page: httpx.Client) -> None:
    assert page.get("/", headers={"accept": "text/html"}).status_code == 200
    assert page.get("/sign-in", follow_redirects=True).status_code == 404


def test_a_browser_signs_in_and_out(stranger: httpx.Client) -> None:
    sent = stranger.get("/?job=0123456789abcdef")
    assert (sent.status_code, sent.headers["location"]) == (303, "/sign-in?next=%2F%3Fjob%3D0123456789abcdef")
    form = stranger.get(sent.headers["location"])
    assert form.status_code == 200
    assert 'value="/?job=0123456789abcdef"' in form.text
    assert "script" not in form.headers["content-security-policy"].replace("default-src", "")
    assert 'type="password"' in form.text

    own = {"origin": str(stranger.base_url).rstrip("/"), "sec-fetch-site": "same-origin"}
    wrong = stranger.post("/sign-in", data={"token": TOKEN[:-1], "next": "/"}, headers=own)
    assert (wrong.status_code, "set-cookie" in wrong.headers) == (403, False)
    assert "not the token" in wrong.text

    right = stranger.post("/sign-in", data={"token": f" {TOKEN}\n", "next": "/?job=0123456789abcdef"}, headers=own)
    assert (right.status_code, right.headers["location"]) == (303, "/?job=0123456789abcdef")
    cookie = right.headers["set-cookie"]
    assert {"HttpOnly", "SameSite=Strict", "Path=/"} <= set(cookie.split("; "))
    assert "Secure" not in cookie
    assert TOKEN not in cookie
    assert stranger.get("/").status_code == 200
    assert stranger.get("/api/v1/jobs").status_code == 200
    assert stranger.get("/gradio_api/info").status_code == 200
    assert stranger.get("/sign-in").headers["location"] == "/"

    value = stranger.cookies[COOKIE]
    assert stranger.get("/sign-out").status_code == 405  # no link elsewhere signs anybody out
    gone = stranger.post("/sign-out", headers=own)
    assert "Max-Age=0" in gone.headers["set-cookie"]
    assert COOKIE not in stranger.cookies
    assert stranger.get("/api/v1/jobs", headers={"cookie": f"{COOKIE}={value}"}).status_code == 401


def test_behind_tls_the_cookie_is_for_tls_alone(stranger: httpx.Client) -> None:
    own = {"origin": f"https://127.0.0.1:{stranger.base_url.port}"}
    right = stranger.post("/sign-in", data={"token": TOKEN}, headers=own)
    assert "Secure" in right.headers["set-cookie"]


def test_a_token_or_a_cookie_is_asked_for_everywhere(stranger: httpx.Client) -> None:
    number = "0" * 32
    other = Login(TOKEN).cookie(secure=False).split(";")[0]  # of another start
    forged = [f"{COOKIE}={TOKEN}", f"{COOKIE}={number}.{'0' * 64}", other, f"{COOKIE}=", "x", f'{COOKIE}="\\377.1"']
    for cookie in ("", *forged):
        headers = {"cookie": cookie, "accept": "*/*"} if cookie else {"accept": "*/*"}
        for path in (
            "/",
            "/api/v1/jobs",
            "/static/api.js",
            "/gradio_api/info",
            "/config",
            "/gradio_api/file=/etc/passwd",
        ):
            answer = stranger.get(path, headers=headers)
            assert answer.status_code == 401, (cookie, path)
            assert "token" in answer.text
        assert stranger.post("/gradio_api/upload", files=[("files", ("a", b"x"))], headers=headers).status_code == 401
    assert stranger.get("/healthz").status_code == 200
    bearer = {"authorization": f"Bearer {TOKEN}"}
    assert stranger.get("/config", headers=bearer).status_code == 200
    assert stranger.get(f"/?token={TOKEN}").status_code == 303  # tokens do not belong into addresses


def test_other_web_pages_cannot_sign_in(stranger: httpx.Client) -> None:
    for headers in ({"origin": "http://evil.example"}, {"sec-fetch-site": "cross-site"}):
        answer = stranger.post("/sign-in", data={"token": TOKEN}, headers=headers)
        assert (answer.status_code, "set-cookie" in answer.headers) == (403, False)


def test_forms_are_short_and_places_are_here(stranger: httpx.Client) -> None:
    assert stranger.post("/sign-in", content=b"token=" + b"x" * 9999, headers=FORM).status_code == 413
    assert stranger.post("/sign-in", content=b"&".join([b"a=b"] * 99), headers=FORM).status_code == 403
    assert stranger.put("/sign-in").status_code == 405
    for place in ("http://evil.example", "//evil.example", "/\\evil.example", "/a\r\nset-cookie: x", '/"><b>', ""):
        right = stranger.post("/sign-in", data={"token": TOKEN, "next": place})
        assert right.headers["location"] == "/", place
        assert inside(place) == "/"


def test_guessing_is_slow(monkeypatch: pytest.MonkeyPatch) -> None:
    login = Login(TOKEN)
    for _ in range(TRIES):
        assert login.may_try("1.2.3.4")
        assert not login.right("wrong" * 4, "1.2.3.4")
    assert not login.may_try("1.2.3.4")
    assert login.may_try("1.2.3.5")
    now = time.monotonic()
    monkeypatch.setattr("app.gui.login.time.monotonic", lambda: now + 61)
    assert login.may_try("1.2.3.4")
    assert login.right(TOKEN, "1.2.3.4")


# the command


@pytest.mark.parametrize("host", ["0.0.0.0", "::", "example.com"])
def test_no_page_for_others_without_a_token(host: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["gui", "--port", "0", "--host", host, "--store", str(tmp_path), "--no-browser"]) == 2
    assert "token" in capsys.readouterr().err
