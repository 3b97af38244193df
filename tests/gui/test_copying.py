"""The texts that repeat a job are run as they stand, and come to the same bytes."""

import json
import os
import shutil
import subprocess
import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, HTTPServer
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from app.batch import run_job
from app.cli import main
from app.gui.begin import begin
from app.gui.copying import _FLAGS, commands
from app.intake import submit
from app.jobs import Job, JobStore
from app.options import Options
from app.uploads import LIMITS, Receiver
from restoration.assets import AssetStore
from restoration.recipe import Recipe

NAME = "-it's $HOME; a, photo.png"
RECIPE = {
    "title": "RECIPE\nRECIPE '''",
    "operator": {"kind": "inpainting", "mask": {"kind": "file", "file": {"path": "my mask.png"}}},
    "model": {"kind": "power-law"},
    "method": {"kind": "diffpir", "schedule": {"kind": "karras", "steps": 3}},
    "seeds": [5, 9],
}
OPTIONS = {"output_types": ["png", "npz"], "precision": "fp32", "views": True, "window": [-0.1, 900.0]}


class _Desk:
    """As much of a server's desk as `begin` needs."""

    def __init__(self, root: Path) -> None:
        self.dispatcher, self.assets, self.limits = self, AssetStore(), LIMITS
        self.store = JobStore(root)

    def check_room(self) -> None:
        """There is room."""

    def add(self, job: Job) -> None:
        """It is run by the test."""


@pytest.fixture
def there(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A person's folder with a picture and a mask."""
    rng = np.random.default_rng(0)
    Image.fromarray(rng.integers(0, 256, (20, 24, 3), np.uint8)).save(tmp_path / NAME)
    Image.fromarray((rng.random((20, 24)) > 0.3).astype(np.uint8) * 255).save(tmp_path / "my mask.png")
    monkeypatch.chdir(tmp_path)
    return tmp_path


@pytest.fixture
def job(there: Path) -> Job:
    desk = _Desk(there / "store")
    desk.store.root.mkdir()
    attached = {"my mask.png": there / "my mask.png"}
    name = begin(desk, [there / NAME], RECIPE, OPTIONS, attached)  # type: ignore[arg-type]  # nothing else is used
    made = desk.store.get(name)
    run_job(made)
    return made


def samples(folder: Path) -> bytes:
    (found,) = folder.rglob("samples.npz")
    return np.load(found)["samples"].tobytes()


def test_python(job: Job, there: Path, capsys: pytest.CaptureFixture[str]) -> None:
    exec(compile(commands(job, "http://here")["python"], "copied", "exec"), {})
    assert capsys.readouterr().out == "done, see result/results\n"
    assert samples(there / "result") == samples(job.folder)


def test_command_line(job: Job, there: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (there / "bin").mkdir()
    (there / "bin" / "preimage").write_text("#!/bin/sh\nprintf '%s\\0' \"$@\" > words\n")
    (there / "bin" / "preimage").chmod(0o755)
    monkeypatch.setenv("PATH", f"{there / 'bin'}:{os.environ['PATH']}")
    text = commands(job, "http://here")["cli"]
    assert subprocess.run(["sh"], input=text, text=True, check=True, capture_output=True).stderr == ""
    words = (there / "words").read_text().split("\0")[:-1]
    assert f"./{NAME}" in words
    assert main(words) == 0
    assert samples(there / "result") == samples(job.folder)


@pytest.fixture
def heard() -> Iterator[tuple[str, list[tuple[dict[str, str], bytes]]]]:
    """The address of a server that keeps what it is sent."""
    found: list[tuple[dict[str, str], bytes]] = []

    class Ear(BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            body = self.rfile.read(int(self.headers["content-length"]))
            found.append(({name.lower(): value for name, value in self.headers.items()} | {"path": self.path}, body))
            self.send_response(201)
            self.end_headers()

        def log_message(self, *args: object) -> None:
            """Quiet."""

    server = HTTPServer(("127.0.0.1", 0), Ear)
    thread = threading.Thread(target=server.serve_forever)
    thread.start()
    yield f"http://127.0.0.1:{server.server_port}/", found
    server.shutdown()
    thread.join()
    server.server_close()


def test_curl(job: Job, there: Path, heard: tuple[str, list[tuple[dict[str, str], bytes]]]) -> None:
    if shutil.which("curl") is None:
        pytest.skip("no curl here")
    address, found = heard
    text = commands(job, address, token=True)["curl"]
    environ = os.environ | {"PREIMAGE_TOKEN": "secret", "NO_PROXY": "*"}
    subprocess.run(["sh"], input=text, text=True, check=True, capture_output=True, env=environ)
    ((headers, body),) = found
    assert (headers["path"], headers["authorization"]) == ("/api/v1/jobs", "Bearer secret")
    receiver = Receiver(headers["content-type"], there / "staging", LIMITS)
    receiver.write(body)
    store = JobStore(there / "other")
    store.root.mkdir()
    again = submit(receiver.finish(), there / "staging", store, "0" * 16, AssetStore())
    receiver.close()
    assert again.request.recipe == job.request.recipe
    assert Options.model_validate(again.request.options).identity() == Options.model_validate(OPTIONS).identity()
    run_job(again)
    assert samples(again.folder) == samples(job.folder)


def test_run_file(job: Job, there: Path) -> None:
    text = json.dumps(commands(job, "http://here")["run_file"])
    found = json.loads(text)
    assert Recipe.model_validate(found["recipe"]).digest == found["recipe_digest"]
    assert found["recipe"]["operator"]["mask"]["file"]["path"] == "my mask.png"
    assert Options.model_validate(found["options"]) == Options.model_validate(OPTIONS)
    assert found["versions"]["torch"] == torch.__version__
    assert found["inputs"] == [NAME]
    assert len(found["input_sha256"]) == 1
    assert str(there) not in text


def test_no_path_of_this_machine(job: Job, there: Path) -> None:
    texts = commands(job, "http://here")
    assert not any(str(there) in texts[kind] or "inputs/" in texts[kind] for kind in ("python", "cli", "curl"))


def test_many_inputs_are_a_folder(job: Job, there: Path) -> None:
    for k in range(30):
        shutil.copy(there / NAME, job.folder / "inputs" / "images" / f"{k}.png")
    assert "-i inputs -o result" in commands(job, "http://here")["cli"]


def test_every_option_has_a_flag() -> None:
    assert set(_FLAGS) | {"views"} == set(Options.model_fields)
