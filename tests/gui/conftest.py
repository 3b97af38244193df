"""A browser for the tests of the page, and widgets alone on an empty page without any server."""

import contextlib
import json
import mimetypes
import os
import shutil
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any
from urllib.parse import unquote, urlsplit

import pytest
from playwright.sync_api import Browser, BrowserContext, Page, Route, sync_playwright

import app.gui

STATIC = Path(app.gui.__file__).parent / "static"

FLAGS = [
    "--no-sandbox",
    "--disable-gpu",
    "--disable-quic",
    "--no-first-run",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-sync",
]


@pytest.fixture(scope="session")
def browser() -> Iterator[Browser]:
    found = shutil.which("chromium")
    if found is None:
        if os.environ.get("CI") == "true":
            pytest.fail("Expected Chromium in CI, found none; .ci/run installs it.")
        pytest.skip("no Chromium here; install Debian's package chromium")
    resolve = "--host-resolver-rules=MAP * ~NOTFOUND, EXCLUDE 127.0.0.1, EXCLUDE localhost"
    with sync_playwright() as playwright:
        opened = playwright.chromium.launch(executable_path=found, args=[*FLAGS, resolve])
        yield opened
        opened.close()


@contextlib.contextmanager
def person(browser: Browser, **options: Any) -> Iterator[BrowserContext]:
    """A person's browser: no cookies of others. Fails on requests elsewhere, page errors and console errors."""
    made = browser.new_context(accept_downloads=True, **options)
    made.set_default_timeout(15_000)
    faults: list[str] = []

    def watch(page: Page) -> None:
        page.on("pageerror", lambda error: faults.append(f"page error: {error}"))
        page.on("console", lambda message: faults.append(message.text) if message.type == "error" else None)

    def elsewhere(url: str) -> None:
        parts = urlsplit(url)
        if parts.scheme not in ("data", "blob") and parts.hostname not in ("127.0.0.1", "localhost"):
            faults.append(f"asked elsewhere: {url}")

    made.on("page", watch)
    made.on("request", lambda request: elsewhere(request.url))
    made.faults = faults  # type: ignore[attr-defined]  # tests that provoke a fault clear it
    yield made
    made.close()
    assert faults == []


@pytest.fixture
def context(browser: Browser) -> Iterator[BrowserContext]:
    with person(browser, viewport={"width": 1280, "height": 900}) as made:
        yield made


@pytest.fixture
def page(context: BrowserContext) -> Page:
    return context.new_page()


_HARNESS = """<!doctype html><html lang="en"><head><meta charset="utf-8"><title>widget</title><base href="/"></head>
<body><main><div id="w"></div></main><script type="module">
import {{ mount }} from "./static/{module}.js";
const watching = [];
window.heard = [];   // every event that the widget triggers: [name, data, value at that time]
window.uploads = []; // what it uploads: name and text or bytes
const props = {props};
window.props = props;
window.give = (changes) => {{   // as when Python updates props
  Object.assign(props, changes);
  for (const [names, f] of watching) if (names.some(n => n in changes)) f();
}};
const g = {{
  props,
  trigger: (name, data) => window.heard.push([name, data ?? null, JSON.parse(JSON.stringify(props.value ?? null))]),
  watch: (names, f) => watching.push([[].concat(names), f]),
  upload: async (file) => {{
    window.uploads.push([file.name, Array.from(new Uint8Array(await file.arrayBuffer()))]);
    return {{ path: `/cache/${{window.uploads.length}}/${{file.name}}`, url: "" }};
  }},
  signals: [],
}};
await mount(document.getElementById("w"), g);
window.mounted = true;
</script></body></html>"""

Answer = tuple[str, bytes] | Callable[[Route], None]


@pytest.fixture
def mounted(page: Page) -> Callable[..., Page]:
    """`mounted("painter", {"value": None, "source": ...}, {"/api/v1/...": ("image/png", b"...")})`: a page with it.

    In the page `window.heard`, `window.uploads`, `window.props` and `window.give({prop: value})` show the widget's
    dealings with Python. Answers of the API are given as (type, bytes), or as a function of Playwright's route.
    """

    def mount(module: str, props: dict[str, Any], answers: dict[str, Answer] | None = None) -> Page:
        html = _HARNESS.format(module=module, props=json.dumps(props))

        def serve(route: Route) -> None:
            path = unquote(urlsplit(route.request.url).path)
            answer = (answers or {}).get(path)
            if callable(answer):
                answer(route)
            elif answer is not None:
                route.fulfill(content_type=answer[0], body=answer[1])
            elif path == "/":
                route.fulfill(content_type="text/html", body=html)
            elif path.startswith("/static/") and (STATIC / path.removeprefix("/static/")).is_file():
                kind = mimetypes.guess_type(path)[0] or "application/octet-stream"
                route.fulfill(content_type=kind, body=(STATIC / path.removeprefix("/static/")).read_bytes())
            elif path == "/favicon.ico":
                route.fulfill(status=204)
            else:
                route.fulfill(status=404, content_type="application/json", body='{"detail": "nothing here"}')

        page.route("http://localhost/**", serve)
        page.goto("http://localhost/")
        page.wait_for_function("window.mounted === true")
        return page

    return mount
