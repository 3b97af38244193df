"""A server with a small page, in a process of its own: `python -m tests.app.page_server STORE TOKEN WORKER`.

Two ports lead to one app, the second asks for the token. It says the ports, and ends when its input does. WORKER is a
program in place of Python for the worker.
"""

import asyncio
import os
import socket
import sys
import tempfile
from pathlib import Path
from typing import TYPE_CHECKING

import uvicorn

from app import pages
from app.api import Desk, make_app
from app.guard import Guard
from app.jobs import JobStore
from app.uploads import Limits
from app.worker import Dispatcher
from restoration.assets import AssetStore

if TYPE_CHECKING:
    import gradio as gr

LIMITS = Limits(bytes=1 << 18, text=1 << 12)


def a_page(desk: Desk) -> "gr.Blocks":
    """A page that fails, and that gives files by their names."""
    import gradio as gr

    def broken(text: str) -> str:
        raise ValueError(f"{text} at {__file__}")

    def named(text: str) -> str:
        return text

    def read(path: str) -> str:
        return Path(path).read_text()

    with gr.Blocks(analytics_enabled=False) as page:
        text, told, file = gr.Textbox(), gr.Textbox(), gr.File()
        gr.Button("broken").click(broken, text, told, api_name="broken")
        gr.Button("named").click(named, text, file, api_name="named")
        gr.Button("read").click(read, file, told, api_name="read")
    return page


async def _serve(store: Path, token: str) -> None:
    dispatcher = Dispatcher(JobStore(store.absolute()))
    dispatcher.claim()
    app = make_app(dispatcher, AssetStore(), LIMITS, token=True)
    pages.prepare(store)
    pages.mount(app, a_page, {})
    listeners = [socket.create_server(("127.0.0.1", 0)) for _ in range(2)]
    servers = []
    for needed in (None, token):
        guarded = Guard(app, token=needed, hosts=(), limits=LIMITS, page=True)
        lifespan = "on" if needed is None else "off"
        config = uvicorn.Config(guarded, log_level="warning", ws="none", lifespan=lifespan, timeout_graceful_shutdown=1)
        servers.append(uvicorn.Server(config))
    sys.stdout.write(f"{' '.join(str(k.getsockname()[1]) for k in listeners)} {Path.cwd()} {tempfile.gettempdir()}\n")
    sys.stdout.flush()
    running = [asyncio.create_task(s.serve(sockets=[k])) for s, k in zip(servers, listeners, strict=True)]
    await asyncio.to_thread(sys.stdin.read)
    for server in servers:
        server.should_exit = True
    await asyncio.gather(*running)


if __name__ == "__main__":
    os.environ["GRADIO_ALLOWED_PATHS"] = "/etc"
    sys.executable = sys.argv[3]
    asyncio.run(_serve(Path(sys.argv[1]), sys.argv[2]))
