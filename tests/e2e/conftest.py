"""The page as a person meets it: `preimage gui` in a process of its own, and Chromium."""

import contextlib
import os
import re
import signal
import subprocess
import sys
from collections.abc import Generator, Iterator
from pathlib import Path

import httpx
import pytest
from playwright.sync_api import Browser, BrowserContext, Page
from playwright.sync_api import Error as PlaywrightError

from tests.gui.conftest import browser, context, page, person  # noqa: F401  # fixtures

SHOTS = Path("out/e2e")
"""Screenshots of pages whose test failed."""


@pytest.hookimpl(wrapper=True)
def pytest_runtest_makereport(item: pytest.Item, call: pytest.CallInfo[None]) -> Generator[None, object, object]:
    report = yield
    if getattr(report, "failed", False) and isinstance(item, pytest.Function):
        for value in item.funcargs.values():
            for k, shown in enumerate(value.pages if isinstance(value, BrowserContext) else []):
                SHOTS.mkdir(parents=True, exist_ok=True)
                with contextlib.suppress(PlaywrightError):
                    shown.screenshot(path=SHOTS / f"{item.name}-{k}.png", full_page=True)
    return report


class Gui:
    """A running `preimage gui` on a free port."""

    def __init__(self, folder: Path) -> None:
        self.store, self.log = folder / "store", folder / "log.txt"
        self.process: subprocess.Popen[str] | None = None
        self.url = ""
        self.api = httpx.Client()

    def start(self, *options: str, port: int = 0) -> None:
        command = [sys.executable, "-m", "app", "gui", "--no-browser", "--port", str(port), "--store", str(self.store)]
        environ = os.environ | {"PYTHONPATH": os.getcwd()}
        with self.log.open("a") as log:
            self.process = subprocess.Popen(
                [*command, *options], stdout=subprocess.PIPE, stderr=log, text=True, env=environ
            )
        assert self.process.stdout is not None
        found = re.search(r"http://\S+:\d+", self.process.stdout.readline())
        assert found, self.log.read_text()
        self.url = found[0]
        self.api = httpx.Client(base_url=self.url, timeout=60)

    @property
    def port(self) -> int:
        return int(self.url.rpartition(":")[2])

    def end(self, how: signal.Signals = signal.SIGTERM) -> None:
        if self.process is not None:
            self.process.send_signal(how)
            self.process.wait(30)
            assert self.process.stdout is not None
            self.process.stdout.close()
            self.process = None
        self.api.close()


@pytest.fixture(scope="session")
def gui(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Gui]:
    """The server that most tests share; each leaves it without work."""
    served = Gui(tmp_path_factory.mktemp("gui"))
    served.start()
    yield served
    served.end()


@pytest.fixture
def own_gui(tmp_path: Path) -> Iterator[Gui]:
    """A server of this test alone, not started yet."""
    served = Gui(tmp_path)
    yield served
    if served.process is not None:
        served.end(signal.SIGKILL)


@pytest.fixture
def opened(gui: Gui, page: Page) -> Page:  # noqa: F811
    """The page, ready."""
    page.goto(gui.url)
    page.locator("#result [data-state]").first.wait_for()
    return page


@pytest.fixture
def phone(browser: Browser) -> Iterator[BrowserContext]:  # noqa: F811
    """A browser as wide as a phone, with a finger for a mouse."""
    with person(browser, viewport={"width": 390, "height": 844}, has_touch=True) as made:
        yield made
