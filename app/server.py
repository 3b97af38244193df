"""`preimage serve` and `preimage gui`: the HTTP API of `app.api` on an address, with guard and worker, and the page."""

import contextlib
import datetime
import logging
import socket
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path

import uvicorn
from fastapi import FastAPI

from app import pages
from app.api import make_app
from app.guard import Guard, check_bind
from app.jobs import JobStore
from app.uploads import LIMITS, Limits
from app.worker import Dispatcher
from operators.errors import RecipeError
from restoration.assets import AssetStore


@dataclass(frozen=True)
class Setup:
    """How to serve.

    Attributes:
        folder: of the jobs; of this server alone.
        host: address to listen on.
        port: 0 takes a free one.
        token: bearer token; None where only this machine can reach the server.
        hosts: further names that clients may call it by.
        workers: processes that share the cases of a job.
        keep_days: ended jobs are deleted after so many days; 0 keeps them.
        limits: of an upload.
        page: whether there is the page, too.
        prior: that the worker loads and tries before the first job; empty for none.
    """

    folder: Path
    host: str = "127.0.0.1"
    port: int = 8765
    token: str | None = field(default=None, repr=False)
    hosts: tuple[str, ...] = ()
    workers: int = 0
    keep_days: float = 0.0
    limits: Limits = LIMITS
    page: bool = False
    prior: str = ""


def serve(setup: Setup, assets: AssetStore, ready: Callable[[str], None]) -> None:
    """Serve until the process is asked to end; `ready` is told the address.

    Raises:
        RecipeError: the address cannot be had, or would be open to others without a token.
        Busy, WriteError: the folder cannot be had.
    """
    check_bind(setup.host, setup.token)
    with _listening(setup.host, setup.port) as listener:
        keep = datetime.timedelta(days=setup.keep_days) if setup.keep_days else None
        dispatcher = Dispatcher(JobStore(setup.folder.absolute()), setup.workers, keep, setup.prior)
        dispatcher.claim()
        app = make_app(dispatcher, assets, setup.limits, token=setup.token is not None)
        if setup.page:
            _add_page(app, setup.folder)
        guarded = Guard(app, token=setup.token, hosts=(setup.host, *setup.hosts), limits=setup.limits, page=setup.page)
        config = uvicorn.Config(
            guarded,
            log_level="warning",
            access_log=False,
            server_header=False,
            proxy_headers=False,
            ws="none",
            lifespan="on",
            timeout_graceful_shutdown=2,
        )
        logging.getLogger("python_multipart").setLevel(logging.ERROR)  # what clients send is no business of the log
        name, port = listener.getsockname()[:2]
        ready(f"http://{f'[{name}]' if ':' in name else name}:{port}")
        with contextlib.suppress(KeyboardInterrupt):  # uvicorn raises it again after an orderly end
            uvicorn.Server(config).run(sockets=[listener])


def _add_page(app: FastAPI, folder: Path) -> None:
    pages.prepare(folder)
    # only now: Gradio looks at its settings when it is imported
    from app.gui.shell import make_page
    from app.gui.theme import CSS, HEAD, THEME

    pages.mount(app, make_page, {"theme": THEME, "css": CSS, "head": HEAD})


def _listening(host: str, port: int) -> socket.socket:
    if not 0 <= port <= 65535:
        raise RecipeError(f"Expected a port from 0 to 65535, got {port}; change --port.")
    try:
        family = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)[0][0]
        return socket.create_server((host, port), family=family, backlog=256)
    except (OSError, UnicodeError) as error:
        reason = getattr(error, "strerror", None) or str(error)
        raise RecipeError(
            f"Expected an address and a port that can be had, got: {reason}; change --host or --port."
        ) from error
