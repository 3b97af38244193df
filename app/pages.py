"""The page beside the API, in one app: Gradio's part, with nothing of this machine to give away."""

import contextlib
import os
import re
import shutil
import tempfile
from collections.abc import AsyncIterator, Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any

from fastapi import FastAPI
from starlette.concurrency import run_in_threadpool
from starlette.routing import Mount
from starlette.types import Lifespan

from app.api import Desk
from app.jobs import disk_refuses

if TYPE_CHECKING:
    import gradio as gr

FOLDER = ".page"
"""In the store's folder: what the page keeps for a while. Emptied when a server starts, and when it ends in order."""

_UNUSED = r"gradio_api/(?:component_server|deep_link|process_recording|proxy=|stream/)"
_OURS = re.compile(rf"^/(?!api/|healthz$|sign-(?:in|out)$|{_UNUSED})(?P<path>.*)$")
"""What goes to Gradio, without what no widget of the page needs and that writes files or runs programs."""


def prepare(store: Path) -> None:
    """Before Gradio is imported: its settings, and a working folder with nothing in it.

    What a page's function returns from the working folder or the folder for temporary files, Gradio gives to
    everybody; so both are made for it, in the store, for the owner alone.

    Raises:
        DiskRefuses: the disk is full or read-only.
    """
    root = store.absolute() / FOLDER
    try:
        shutil.rmtree(root, ignore_errors=True)
        for name in ("uploads", "temporary", "nothing"):
            (root / name).mkdir(parents=True, mode=0o700)
        root.chmod(0o700)
        os.chdir(root / "nothing")
    except OSError as error:
        raise disk_refuses(error) from error
    for name in [
        name for name in os.environ if name.startswith("GRADIO_")
    ]:  # such as GRADIO_SHARE, GRADIO_ALLOWED_PATHS
        del os.environ[name]
    os.environ |= {
        "GRADIO_ANALYTICS_ENABLED": "False",
        "GRADIO_TEMP_DIR": str(root / "uploads"),
        "HF_HUB_OFFLINE": "1",
        "TMPDIR": str(root / "temporary"),
    }
    tempfile.tempdir = None  # so that it is looked for again


def mount(app: FastAPI, make: "Callable[[Desk], gr.Blocks]", looks: dict[str, Any]) -> None:
    """Give every address that is not the API's to the page.

    Args:
        app: with the API.
        make: the page over the jobs of a server.
        looks: theme, css and head of it.
    """
    import gradio
    import safehttpx  # type: ignore[import-untyped]  # comes with Gradio

    desk: Desk = app.state.desk
    page = make(desk)
    gradio.mount_gradio_app(
        app,
        page,
        path="/",
        server_name="127.0.0.1",
        footer_links=[],
        run_history=False,
        allowed_paths=[],
        show_error=False,  # but what we say ourselves: Gradio's own errors name paths
        max_file_size=desk.limits.bytes,
        ssr_mode=False,
        enable_monitoring=False,
        pwa=False,
        mcp_server=False,
        app_kwargs={"docs_url": None, "redoc_url": None, "openapi_url": None},
        **looks,
    )
    # What Gradio asks of files that come and go, it asks only of pages that were launched and run; a mounted one would
    # take any path of this machine for an upload, and give any file that a function names.
    page.has_launched = page.is_running = True
    safehttpx.async_validate_url = _nowhere  # all that Gradio fetches for a client goes through this
    app.router.lifespan_context = _emptied(app.router.lifespan_context, desk.dispatcher.store.root.absolute() / FOLDER)
    mounted = app.router.routes[-1]
    assert isinstance(mounted, Mount)
    mounted.path_regex = _OURS  # what the API does not know it says itself


def _emptied(inner: Lifespan[Any], root: Path) -> Lifespan[Any]:
    """The same lifespan, at whose end uploads and what was made of them are no longer on the disk."""

    @contextlib.asynccontextmanager
    async def lifespan(app: Any) -> AsyncIterator[Any]:
        async with inner(app) as state:
            yield state
        os.chdir(root.parent)
        await run_in_threadpool(shutil.rmtree, root, True)

    return lifespan


async def _nowhere(hostname: str) -> str:
    raise ValueError("Expected a file that was uploaded, got an address of another machine; upload the file.")
