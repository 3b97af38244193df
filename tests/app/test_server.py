"""`preimage serve` as its users meet it: a process of its own, and HTTP."""

import datetime
import http.client
import io
import json
import os
import re
import signal
import socket
import subprocess
import sys
import threading
import time
import zipfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import httpx
import numpy as np
import pytest
import torch
from PIL import Image

from app.answers import Speed
from app.api import Desk, cancel
from app.batch import Workers
from app.cli import main
from app.jobs import DiskRefuses, Job, JobStore, Request, Status, put
from app.pictures import encode_png, read_picture
from app.uploads import LIMITS
from app.worker import SPEED, Dispatcher, _do, _speed
from restoration.assets import AssetStore
from restoration.pipeline import Pipeline
from restoration.recipe import Recipe, TrainedPrior
from tests.app.conftest import BLUR, smooth

WIENER: dict[str, Any] = {
    "operator": BLUR,
    "noise": {"kind": "gaussian", "sigma": 0.025},
    "model": {"kind": "none"},
    "method": {"kind": "wiener"},
}
LONG = WIENER | {
    "model": {"kind": "power-law"},
    "method": {"kind": "diffpir", "schedule": {"kind": "karras", "steps": 2000}},
}
TOKEN = "0123456789abcdef0123456789abcdef"
PATIENCE = 90  # seconds; the machine that runs the tests may be busy with something else
LIMIT = 1 << 20


def picture(side: int = 24, seed: int = 0) -> bytes:
    pixels = np.random.default_rng(seed).integers(0, 256, (side, side, 3), np.uint8)
    file = io.BytesIO()
    Image.fromarray(pixels).save(file, "png")
    return file.getvalue()


class Server:
    """A running `preimage serve` on a free port."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.log = folder.with_suffix(".log")
        self.process: subprocess.Popen[str] | None = None
        self.client = httpx.Client()

    def start(self, *options: str) -> None:
        command = [sys.executable, "-m", "app", "serve", "--port", "0", "--store", str(self.folder), *options]
        environ = os.environ | {"OMP_NUM_THREADS": "1", "PYTHONPATH": os.getcwd()}
        with self.log.open("a") as log:
            self.process = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=log, text=True, env=environ)
        assert self.process.stdout is not None
        found = re.search(r"http://\S+:(\d+)", self.process.stdout.readline())
        assert found, self.log.read_text()
        self.port = int(found[1])
        headers = {"authorization": f"Bearer {TOKEN}"} if "--auth-file" in options else {}
        self.client = httpx.Client(base_url=f"http://127.0.0.1:{self.port}", headers=headers, timeout=PATIENCE)

    def end(self, how: signal.Signals) -> int:
        assert self.process is not None
        assert self.process.stdout is not None
        self.process.send_signal(how)
        code = self.process.wait(PATIENCE)
        self.process.stdout.close()
        self.client.close()
        return code

    def post(self, files: list[tuple[str, tuple[str, bytes]]], **fields: Any) -> httpx.Response:
        data = {name: value if isinstance(value, str) else json.dumps(value) for name, value in fields.items()}
        return self.client.post("/api/v1/jobs", data=data, files=files)

    def create(self, *names: str, recipe: dict[str, Any] = WIENER, side: int = 24) -> str:
        answer = self.post([("files", (name, picture(side, i))) for i, name in enumerate(names)], recipe=recipe)
        assert answer.status_code == 201, answer.text
        assert answer.headers["location"] == f"/api/v1/jobs/{answer.json()['id']}"
        return str(answer.json()["id"])

    def status(self, job: str) -> dict[str, Any]:
        found: dict[str, Any] = self.client.get(f"/api/v1/jobs/{job}").json()["status"]
        return found

    def wait(self, job: str, *states: str) -> dict[str, Any]:
        until = time.monotonic() + PATIENCE
        while (status := self.status(job))["state"] not in states:
            assert time.monotonic() < until, status
            time.sleep(0.05)
        return status

    def events(self, job: str, after: int = 0) -> list[tuple[str, int, dict[str, Any]]]:
        with self.client.stream("GET", f"/api/v1/jobs/{job}/events", headers={"last-event-id": str(after)}) as answer:
            assert answer.headers["content-type"].startswith("text/event-stream")
            blocks = "".join(answer.iter_text()).strip().split("\n\n")
        found = []
        for block in blocks:
            lines = dict(line.split(": ", 1) for line in block.splitlines() if not line.startswith(":"))
            if lines:
                found.append((lines["event"], int(lines.get("id", -1)), json.loads(lines["data"])))
        return found

    def raw(self, method: str, path: str, **headers: str) -> tuple[int, str]:
        """A request that is sent exactly as it is written."""
        connection = http.client.HTTPConnection("127.0.0.1", self.port, timeout=PATIENCE)
        connection.putrequest(method, path, skip_host="Host" in headers)
        for name, value in headers.items():
            connection.putheader(name.replace("_", "-"), value)
        connection.endheaders()
        answer = connection.getresponse()
        text = answer.read().decode()
        connection.close()
        return answer.status, text


def sentence(answer: httpx.Response, status: int) -> str:
    assert answer.status_code == status, answer.text
    assert list(answer.json()) == ["detail"]
    text = str(answer.json()["detail"])
    assert text.startswith(("Expected ", "The method needs "))
    assert text.endswith(".")
    assert "\n" not in text
    assert "Traceback" not in text
    return text


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    made = Server(tmp_path_factory.mktemp("server") / "jobs")
    made.start("--max-upload", "1", "--max-files", "6", "--allow-host", "preimage.example")
    yield made
    assert made.end(signal.SIGTERM) == -signal.SIGTERM
    assert "Traceback" not in made.log.read_text()


def test_a_job_from_upload_to_deletion(server: Server) -> None:
    job = server.create("a.png", "b.png")
    events = server.events(job)
    assert events[-1][0] == "end"
    journal = [(number, facts["event"]) for kind, number, facts in events if kind == "journal"]
    assert journal == [(1, "start"), (2, "case"), (3, "case"), (4, "end")]
    assert [facts["state"] for kind, _, facts in events if kind == "status"][-1] == "done"

    files = {entry["path"]: entry["bytes"] for entry in server.client.get(f"/api/v1/jobs/{job}/files").json()}
    assert {"manifest.json", "summary.csv", "results/a.png/restored.png", "results/b.png/restored.png"} <= set(files)
    for path, size in files.items():
        answer = server.client.get(f"/api/v1/jobs/{job}/files/{path}")
        assert answer.status_code == 200
        assert len(answer.content) == size
        assert answer.headers["content-disposition"] == "attachment"
        assert str(server.folder).encode() not in answer.content
    assert server.client.get(f"/api/v1/jobs/{job}/preview").content.startswith(b"\x89PNG")

    listed = server.client.get("/api/v1/jobs", params={"limit": 1}).json()
    assert listed["jobs"][0]["id"] == job  # the newest
    again = server.client.get(f"/api/v1/jobs/{job}").json()
    assert again["recipe"]["method"]["kind"] == "wiener"
    assert again["place"] is None
    assert "already" not in sentence(server.client.post(f"/api/v1/jobs/{job}/cancel"), 409)
    assert "done" in sentence(server.client.post(f"/api/v1/jobs/{job}/resume"), 409)
    assert server.client.delete(f"/api/v1/jobs/{job}").status_code == 204
    assert not (server.folder / job).exists()
    sentence(server.client.get(f"/api/v1/jobs/{job}"), 404)


def test_what_a_page_shows_of_a_job(server: Server) -> None:
    recipe = LONG | {"method": {"kind": "diffpir", "schedule": {"kind": "karras", "steps": 30}}, "seeds": [3, 5]}
    options = {"views": True, "output_types": ["tiff"]}
    answer = server.post([("files", ("a.png", picture()))], recipe=recipe, options=options)
    root = answer.headers["location"]
    assert server.client.get(f"{root}/live").status_code in (200, 204)
    server.wait(answer.json()["id"], "done")
    live = server.client.get(f"{root}/live")
    assert (live.headers["content-type"], live.content[:2]) == ("image/jpeg", b"\xff\xd8")
    points = server.client.get(f"{root}/trace").json()
    assert points[-1]["step"] == points[-1]["steps"] == 30
    assert points[-1]["residual_sigma"] > 0
    assert [point["seconds"] for point in points] == sorted(point["seconds"] for point in points)

    (case,) = server.client.get(f"{root}/views").json()
    assert {"restored.tif", "std.png"} <= set(case["outputs"])
    assert [view["name"] for view in case["views"]][:4] == ["before", "mean", "sample-1", "sample-2"]
    for view in case["views"]:
        file = server.client.get(f"{root}/views/{case['case']}/{view['file']}")
        assert file.headers["content-type"] == "image/png"
        assert file.headers["cache-control"].startswith("private")
        assert Image.open(io.BytesIO(file.content)).size == (view["width"], view["height"])
    for path in ("views.json", "..%2fviews.json", "none.png", "%2e%2e%2f%2e%2e%2frequest.json"):
        sentence(server.client.get(f"{root}/views/{case['case']}/{path}"), 404)
    assert server.client.get(f"{root}/cases").json() == [
        {"number": 1, "name": "a.png", "kind": "picture", "folder": case["folder"], "bytes": len(picture())}
    ]

    packed = server.client.get(f"{root}/archive")
    assert packed.headers["content-type"] == "application/zip"
    assert packed.headers["content-disposition"].startswith("attachment")
    listed = [entry["path"] for entry in server.client.get(f"{root}/files").json()]
    with zipfile.ZipFile(io.BytesIO(packed.content)) as file:
        assert (file.testzip(), sorted(file.namelist())) == (None, sorted(listed))
        with server.client.stream("GET", f"{root}/files/{case['folder']}/restored.tif") as answer:
            assert answer.headers["content-type"] == "image/tiff"
            assert file.read(f"{case['folder']}/restored.tif") == answer.read()
    assert server.client.get("/api/v1/speed").json()["seconds_per_call_megapixel"] is None  # not asked to try


def test_jobs_are_listed_by_state(server: Server) -> None:
    job = server.create("a.png")
    server.wait(job, "done")
    found = server.client.get("/api/v1/jobs", params={"state": ["done", "failed"], "limit": 1}).json()
    assert found["jobs"][0]["id"] == job
    assert found["total"] >= 1
    first = found["jobs"][0]
    assert (first["files"], first["pictured"], first["wait_seconds"]) == (1, True, None)
    assert first["recipe"]["method"]["kind"] == "wiener"
    assert not first["options"]["views"]
    assert server.client.get("/api/v1/jobs", params={"state": "stopping"}).json() == {
        "jobs": [], "total": 0, "waiting": 0,
    }  # fmt: skip
    assert "state" in sentence(server.client.get("/api/v1/jobs", params={"state": "asleep"}), 422)
    sentence(server.client.get(f"/api/v1/jobs/{'0' * 16}/archive"), 404)


def test_who_comes_back_gets_what_is_new(server: Server) -> None:
    job = server.create("a.png")
    server.wait(job, "done")
    assert [number for kind, number, _ in server.events(job, after=1) if kind == "journal"] == [2, 3]
    answer = server.client.get(f"/api/v1/jobs/{job}/events", headers={"last-event-id": "3"})
    assert answer.status_code == 204  # tells an EventSource to stop
    answer = server.client.get(f"/api/v1/jobs/{job}/events", headers={"last-event-id": "first"})
    assert "last-event-id" in sentence(answer, 422)


def test_bytes_are_those_of_the_command_line_and_of_python(server: Server, tmp_path: Path) -> None:
    recipe = WIENER | {"model": {"kind": "power-law"}, "method": {"kind": "diffpir"}, "seeds": [3, 5]}
    content = encode_png(smooth(), 8)
    (tmp_path / "in.png").write_bytes(content)
    (tmp_path / "recipe.json").write_text(json.dumps(recipe))

    answer = server.post([("files", ("in.png", content))], recipe=recipe, options={"precision": "fp32"})
    job = str(answer.json()["id"])
    server.wait(job, "done")
    by_http = server.client.get(f"/api/v1/jobs/{job}/files/results/in.png/restored.png").content

    arguments = ["run", str(tmp_path / "recipe.json"), str(tmp_path / "in.png"), "--precision", "fp32"]
    assert main([*arguments, "-o", str(tmp_path / "run")]) == 0
    arguments = ["batch", "--recipe", str(tmp_path / "recipe.json"), "-i", str(tmp_path / "in.png")]
    assert main([*arguments, "-o", str(tmp_path / "batch"), "--precision", "fp32"]) == 0

    pipeline = Pipeline.load(Recipe.model_validate(recipe), AssetStore(), precision="fp32")
    result = pipeline.run(pipeline.observe(read_picture(tmp_path / "in.png").pixels))

    assert by_http == (tmp_path / "run" / "mean.png").read_bytes()
    assert by_http == (tmp_path / "batch" / "results" / "in.png" / "restored.png").read_bytes()
    assert by_http == encode_png(result.mean, 8)


def test_jobs_are_taken_in_order_and_cancelled_waiting_or_running(server: Server) -> None:
    long = server.create("long.png", recipe=LONG, side=256)
    first, second, third = (server.create(f"{i}.png") for i in range(3))
    until = time.monotonic() + PATIENCE
    while server.status(long)["step"] == 0:
        assert time.monotonic() < until
        time.sleep(0.05)
    assert server.status(long)["state"] == "running"
    places = [server.client.get(f"/api/v1/jobs/{job}").json()["place"] for job in (long, first, second, third)]
    assert places == [None, 0, 1, 2]

    assert server.client.post(f"/api/v1/jobs/{second}/cancel").json()["status"]["state"] == "interrupted"
    assert "cancel it first" in sentence(server.client.delete(f"/api/v1/jobs/{long}"), 409)
    assert server.client.delete(f"/api/v1/jobs/{third}").status_code == 204
    asked = time.monotonic()
    answer = server.client.post(f"/api/v1/jobs/{long}/cancel")
    assert answer.status_code == 202
    assert answer.json()["status"]["state"] in ("stopping", "interrupted")
    server.wait(long, "interrupted")
    assert time.monotonic() - asked < 2
    assert any(
        "partial/restored.png" in entry["path"] for entry in server.client.get(f"/api/v1/jobs/{long}/files").json()
    )

    server.wait(first, "done")
    assert server.status(second)["state"] == "interrupted"
    assert server.client.post(f"/api/v1/jobs/{second}/resume").status_code == 202
    server.wait(second, "done")
    assert server.client.delete(f"/api/v1/jobs/{long}").status_code == 204


def test_bad_files_fail_alone_with_a_sentence(server: Server) -> None:
    files = [("good.png", picture()), ("empty.png", b""), ("cut.png", picture()[:60]), ("text.png", b"hello")]
    job = str(server.post([("files", file) for file in files], recipe=WIENER).json()["id"])
    status = server.wait(job, "done")
    assert (status["done"], status["failed"]) == (1, 3)
    cases = server.client.get(f"/api/v1/jobs/{job}/files/manifest.json").json()["cases"]
    assert all(case["message"].startswith("Expected ") for case in cases if case["state"] == "failed")

    job = str(server.post([("files", ("notes.txt", b"hello"))], recipe=WIENER).json()["id"])
    assert "found none" in server.wait(job, "failed")["message"]


@pytest.mark.parametrize(
    ("given", "kept"),
    [
        ("../../etc/passwd.png", "passwd.png"),
        ("..\\..\\windows.png", "windows.png"),
        ("/etc/shadow.png", "shadow.png"),
        (".hidden.png", "hidden.png"),
        ("..", "file"),
        ("a\u202egnp.png", "a_gnp.png"),
        ("a:b|c?.png", "a_b_c_.png"),
        ("x" * 300 + ".png", "x" * 116 + ".png"),
        ("e\u0301.png", "\u00e9.png"),
    ],
)
def test_names_of_uploads_are_made_harmless(server: Server, given: str, kept: str) -> None:
    before = sorted(server.folder.parent.iterdir())
    job = str(server.post([("files", (given, picture()))] * 2, recipe=WIENER).json()["id"])
    start, dot, ending = kept.partition(".")
    inputs = server.folder / job / "inputs"
    assert {path.name for path in (inputs / "images").iterdir()} == {kept, f"{start}-2{dot}{ending}"}
    assert sorted(path.name for path in inputs.iterdir()) == ["images", "recipe"]
    assert sorted(server.folder.parent.iterdir()) == before
    server.client.post(f"/api/v1/jobs/{job}/cancel")


def test_no_path_leads_out_of_what_came_out(server: Server) -> None:
    job = server.create("a.png")
    server.wait(job, "done")
    results = server.folder / job / "results"
    (results / "link.png").symlink_to("/etc/hostname")
    (results / "away").symlink_to("/etc")
    os.mkfifo(results / "pipe")
    with open(os.fsencode(results) + b"/\xff.png", "wb"):
        pass
    listed = [entry["path"] for entry in server.client.get(f"/api/v1/jobs/{job}/files").json()]
    assert "results/link.png" not in listed
    assert "results/a.png/restored.png" in listed
    (server.folder / ("1" * 16)).symlink_to(server.folder / job)
    assert "1" * 16 not in server.client.get("/api/v1/jobs").text
    assert server.client.delete(f"/api/v1/jobs/{'1' * 16}").status_code == 404
    (server.folder / ("1" * 16)).unlink()
    root = f"/api/v1/jobs/{job}/files"
    for path in (
        "job/request.json",
        "inputs/images/a.png",
        "results/../job/request.json",
        "%2e%2e/%2e%2e/etc/passwd",
        "..%2f..%2f..%2fetc/passwd",
        "/etc/passwd",
        "%2fetc%2fpasswd",
        "results/link.png",
        "results/away/hostname",
        "results/pipe",
        "results",
        "results//a.png/restored.png",
        "results/%00.png",
        "./summary.csv",
    ):
        status, text = server.raw("GET", f"{root}/{path}")
        assert status == 404, path
        assert json.loads(text)["detail"].startswith("Expected ")
    for name in ("../" + job, "0" * 16, "%2e%2e", "job"):
        assert server.raw("GET", f"/api/v1/jobs/{name}/preview")[0] == 404


def test_files_of_a_recipe_come_with_the_job(server: Server) -> None:
    mask = io.BytesIO()
    Image.fromarray(np.pad(np.zeros((4, 4), np.uint8), 10, constant_values=255)).save(mask, "png")
    recipe: dict[str, Any] = {
        "operator": {"kind": "inpainting", "mask": {"kind": "file", "file": {"path": "mask.png"}}}
    }
    recipe = WIENER | recipe
    files = [("files", ("a.png", picture())), ("attachments", ("mask.png", mask.getvalue()))]
    answer = server.post(files, recipe=recipe)
    assert answer.status_code == 201, answer.text
    assert server.wait(answer.json()["id"], "done", "failed")["done"] == 1
    detail = server.client.get(f"/api/v1/jobs/{answer.json()['id']}").json()
    assert detail["recipe"]["operator"]["mask"]["file"]["path"] == "inputs/recipe/mask.png"

    root = f"/api/v1/jobs/{answer.json()['id']}/files"
    for entry in server.client.get(root).json():
        assert str(server.folder).encode() not in server.client.get(f"{root}/{entry['path']}").content, entry

    assert "attach it" in sentence(server.post(files[:1], recipe=recipe), 422)
    for path in ("/etc/hostname.png", "../mask.png", str(server.folder / "x.png")):
        recipe["operator"]["mask"]["file"]["path"] = path
        assert "attach it" in sentence(server.post(files, recipe=recipe), 422)
    answer = server.post([*files[:1], ("attachments", ("../mask.png", mask.getvalue()))], recipe=WIENER)
    assert "plain names" in sentence(answer, 422)
    for kind, method in {"checkpoint": "diffpir", "i2sb-checkpoint": "cddb"}.items():
        model = {"kind": kind, "path": "mask.png"}
        answer = server.post(files, recipe=WIENER | {"model": model, "method": {"kind": method}})
        assert "NumPy" in sentence(answer, 422)


@pytest.mark.parametrize(
    ("fields", "words"),
    [
        ({}, "a recipe or the name of a preset"),
        ({"recipe": WIENER, "preset": "denoise"}, "not both"),
        ({"recipe": "{"}, "recipe"),
        ({"recipe": "[" * 5000}, "recipe"),
        ({"recipe": WIENER | {"method": {"kind": "magic"}}}, "method"),
        ({"recipe": WIENER | {"noise": {"kind": "gaussian", "sigma": -1}}}, "sigma"),
        ({"recipe": WIENER | {"method": {"kind": "dps"}}}, "prior"),
        ({"preset": "/etc/passwd"}, "preset"),
        ({"preset": "nonsense"}, "denoise"),
        ({"recipe": WIENER, "options": {"device": "cuda"}}, "CUDA"),
        ({"recipe": WIENER, "options": {"magic": 1}}, "magic"),
        ({"recipe": WIENER, "options": {"window": [1, 0]}}, "window"),
        ({"recipe": WIENER, "samples": "0"}, "samples"),
        ({"recipe": WIENER, "samples": "many"}, "samples"),
        ({"recipe": WIENER, "seed": "-1"}, "seed"),
        ({"recipe": WIENER, "colour": "red"}, "colour"),
    ],
)
def test_what_cannot_be_done_is_refused_before_it_is_queued(server: Server, fields: Any, words: str) -> None:
    before = set(server.folder.iterdir())
    said = sentence(server.post([("files", ("a.png", picture()))], **fields), 422)
    assert words in said
    assert str(server.folder.parent) not in said
    assert set(server.folder.iterdir()) == before


def test_uploads_are_bounded_and_leave_nothing_when_refused(server: Server) -> None:
    before = set(server.folder.iterdir())
    big = b"x" * (LIMIT + 1)
    assert "1 MiB" in sentence(server.post([("files", ("a.png", big))], recipe=WIENER), 413)

    def pieces() -> Iterator[bytes]:  # without a length that could be looked at first
        yield b'--b\r\nContent-Disposition: form-data; name="files"; filename="a.png"\r\n\r\n'
        for _ in range(20):
            yield big[: LIMIT // 16]

    kind = {"content-type": "multipart/form-data; boundary=b"}
    assert "1 MiB" in sentence(server.client.post("/api/v1/jobs", content=pieces(), headers=kind), 413)
    assert "at most 6" in sentence(server.post([("files", ("a.png", b"x"))] * 7, recipe=WIENER), 413)
    assert "form-data" in sentence(server.client.post("/api/v1/jobs", json={}), 415)
    assert "form-data" in sentence(server.client.post("/api/v1/jobs"), 415)
    cut = b'--b\r\nContent-Disposition: form-data; name="files"; filename="a.png"\r\n\r\nabc'
    for body in (cut, b"nonsense", b"", b"--b\r\n\r\n\r\n--b--"):
        answer = server.client.post("/api/v1/jobs", content=body, headers=kind)
        assert answer.status_code in (400, 422)
        sentence(answer, answer.status_code)
    assert "files" in sentence(server.client.post("/api/v1/jobs", files={"recipe": json.dumps(WIENER)}), 422)
    with socket.create_connection(("127.0.0.1", server.port)) as half:  # a client that goes away
        half.sendall(
            b"POST /api/v1/jobs HTTP/1.1\r\nHost: localhost\r\nContent-Length: 5000\r\n"
            b"Content-Type: multipart/form-data; boundary=b\r\n\r\n" + cut
        )
    until = time.monotonic() + 10
    while set(server.folder.iterdir()) != before:
        assert time.monotonic() < until, set(server.folder.iterdir()) - before
        time.sleep(0.05)


def test_requests_that_other_pages_make_are_refused(server: Server) -> None:
    address = f"127.0.0.1:{server.port}"
    for host, status in {
        address: 200,
        "localhost": 200,
        "[::1]:80": 200,
        "preimage.example": 200,
        "evil.example": 421,
        f"127.0.0.1.evil.example:{server.port}": 421,
        "": 421,
        "a@[": 421,
    }.items():
        assert server.raw("GET", "/healthz", Host=host)[0] == status, host
    assert server.raw("GET", "/healthz", Host=address, Origin=f"http://{address}")[0] == 200
    for headers in (
        {"Origin": "http://evil.example"},
        {"Origin": "null"},
        {"Origin": "http://["},
        {"Sec_Fetch_Site": "cross-site"},
    ):
        status, text = server.raw("POST", "/api/v1/jobs", Host=address, **headers)
        assert status == 403
        assert "page" in text
    link = {"Sec_Fetch_Site": "cross-site", "Sec_Fetch_Mode": "navigate"}
    assert server.raw("GET", "/healthz", Host=address, **link)[0] == 200
    preflight = {"Origin": "http://evil.example", "Access_Control_Request_Method": "POST"}
    status, _ = server.raw("OPTIONS", "/api/v1/jobs", Host=address, **preflight)
    assert status == 403


def test_every_answer_has_the_headers_that_keep_browsers_careful(server: Server) -> None:
    for path, status in {"/healthz": 200, "/api/v1/presets": 200, "/nowhere": 404, "/docs": 404}.items():
        answer = server.client.get(path)
        assert answer.status_code == status
        headers = answer.headers
        assert "default-src 'none'" in headers["content-security-policy"]
        assert "frame-ancestors 'none'" in headers["content-security-policy"]
        assert headers["x-content-type-options"] == "nosniff"
        assert headers["x-frame-options"] == "DENY"
        assert headers["referrer-policy"] == "no-referrer"
        assert "access-control-allow-origin" not in headers
        assert "server" not in headers
    assert "see /api/v1/openapi.json" in sentence(server.client.get("/nowhere"), 404)
    sentence(server.client.put("/api/v1/jobs"), 405)
    assert "limit" in sentence(server.client.get("/api/v1/jobs", params={"limit": 0}), 422)


def test_registries_and_the_openapi_document_are_whole(server: Server) -> None:
    for what, kind in {"operators": "blur", "noises": "poisson", "methods": "tv"}.items():
        found = {entry["kind"]: entry for entry in server.client.get(f"/api/v1/{what}").json()}
        assert found[kind]["fields"]["properties"]
        assert all(entry["title"] and entry["description"] for entry in found.values())
    models = server.client.get("/api/v1/models").json()
    files = {"checkpoint", "i2sb-checkpoint", "resfusion-checkpoint", "ir-sde-checkpoint", "resshift-checkpoint"}
    assert not files & {entry["kind"] for entry in models["kinds"]}
    assert "photo" in [entry["name"] for entry in models["trained"]]
    presets = server.client.get("/api/v1/presets").json()
    assert all(Recipe.model_validate(entry["recipe"]).title == entry["title"] for entry in presets)

    document = server.client.get("/api/v1/openapi.json").json()
    schemas = document["components"]["schemas"]
    for name in re.findall(r'"#/components/schemas/([^"]+)"', json.dumps(document)):
        assert name in schemas, name
    assert set(schemas["NewJob"]["properties"]) == {
        "recipe", "preset", "options", "samples", "seed", "files", "attachments",
    }  # fmt: skip
    for path, methods in document["paths"].items():
        for method, operation in methods.items():
            assert operation["description"] or operation["summary"], (path, method)
            for code, answer in operation["responses"].items():
                assert answer["description"], (path, method, code)
                if code >= "400":
                    schema = answer["content"]["application/json"]["schema"]
                    assert schema == {"$ref": "#/components/schemas/Problem"}, (path, method, code)


def test_a_killed_server_loses_nothing_and_a_token_is_asked_for(server: Server, tmp_path: Path) -> None:
    long = server.create("long.png", recipe=LONG, side=256)
    waiting = [server.create(f"{i}.png") for i in range(3)]
    until = time.monotonic() + PATIENCE
    while server.status(long)["step"] == 0:
        assert time.monotonic() < until
        time.sleep(0.05)
    cancelled = waiting.pop(1)
    server.client.post(f"/api/v1/jobs/{cancelled}/cancel")
    (server.folder / ".upload-0123").mkdir()  # as an upload under way would leave it
    assert server.end(signal.SIGKILL) == -signal.SIGKILL

    secret = tmp_path / "token"
    secret.write_text(f"{TOKEN}\n")
    secret.chmod(0o600)
    server.start("--auth-file", str(secret), "--host", "0.0.0.0")
    assert not (server.folder / ".upload-0123").exists()
    assert main(["serve", "--port", "0", "--store", str(server.folder)]) == 2  # the folder is in use

    server.wait(long, "interrupted")
    for job in waiting:
        server.wait(job, "done")
    ended = [JobStore(server.folder).get(job).status().updated for job in waiting]
    assert ended == sorted(ended)  # in the order in which they were queued
    assert server.status(cancelled)["state"] == "interrupted"
    assert server.client.post(f"/api/v1/jobs/{long}/resume").status_code == 202
    server.wait(long, "running")

    for given in ({}, {"authorization": f"Bearer {TOKEN[:-1]}"}, {"authorization": TOKEN}):
        with httpx.Client(base_url=server.client.base_url, headers=given) as stranger:
            for path in ("/api/v1/jobs", "/api/v1/openapi.json", f"/api/v1/jobs/{long}/files", "/nowhere"):
                answer = stranger.get(path)
                assert "token" in sentence(answer, 401)
                assert answer.headers["www-authenticate"] == "Bearer"
            assert "token" in sentence(stranger.delete(f"/api/v1/jobs/{long}"), 401)
            assert stranger.get("/healthz").status_code == 200
    server.client.post(f"/api/v1/jobs/{long}/cancel")
    server.wait(long, "interrupted")


def test_a_worker_that_dies_is_replaced_and_its_job_not_tried_again(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    worker = tmp_path / "worker"  # dies over the first job, and says of every other that it has ended
    worker.write_text(
        '#!/bin/sh\nread job\n[ -e "$0.died" ] || { touch "$0.died"; kill -9 $$; }\necho "$job"; read job\n'
    )
    worker.chmod(0o700)
    monkeypatch.setattr("app.worker.sys.executable", str(worker))
    store = JobStore(tmp_path / "jobs")
    jobs = [store.create(Request.new(("inputs/images",), WIENER, {})) for _ in range(2)]
    dispatcher = Dispatcher(store)
    dispatcher.claim()
    assert dispatcher.waiting == 2
    dispatcher.start()
    until = time.monotonic() + PATIENCE
    while dispatcher.waiting or jobs[0].status().state == "queued":
        assert time.monotonic() < until
        time.sleep(0.01)
    dispatcher.stop()
    assert [job.status().state for job in jobs] == ["interrupted", "queued"]  # this worker does nothing
    assert "signal 9" in jobs[0].status().message


def test_damaged_jobs_are_shown_resumed_and_deleted(server: Server) -> None:
    whole, no_state, no_request, no_lock = (server.create("a.png") for _ in range(4))
    for job in (whole, no_state, no_request, no_lock):
        server.wait(job, "done")
    (server.folder / no_state / "job" / "state.json").write_bytes(b"")
    (server.folder / no_request / "job" / "request.json").write_bytes(b"\0" * 99)
    (server.folder / no_lock / "job" / "state.json").write_text('{"state": "running"}')
    (server.folder / no_lock / "job" / "lock").write_text('{"host": 1, "pid": "x"}')

    listed = {job["id"]: job for job in server.client.get("/api/v1/jobs?limit=1000").json()["jobs"]}
    assert [listed[job]["status"]["state"] for job in (whole, no_state, no_request, no_lock)] == [
        "done", "interrupted", "done", "interrupted",
    ]  # fmt: skip
    assert "request.json" in listed[no_request]["status"]["message"]
    assert server.client.get(f"/api/v1/jobs/{no_request}").json()["recipe"] == {}
    assert server.client.get(f"/api/v1/jobs/{no_request}/files").json()
    for job in (no_state, no_lock):
        assert server.client.post(f"/api/v1/jobs/{job}/resume").status_code == 202
        assert server.wait(job, "done", "failed")["done"] == 1
    (server.folder / no_state / "job" / "state.json").write_bytes(b"{")
    for job in (whole, no_state, no_request, no_lock):
        assert server.client.delete(f"/api/v1/jobs/{job}").status_code == 204
        assert not (server.folder / job).exists()


def test_a_method_that_an_address_does_not_take_is_answered_with_those_it_takes(server: Server) -> None:
    for method in ("HEAD", "OPTIONS", "PUT"):
        answer = server.client.request(method, "/healthz")
        assert (answer.status_code, answer.headers["allow"]) == (405, "GET")


def test_a_server_that_starts_clears_away_what_was_being_deleted(tmp_path: Path) -> None:
    (tmp_path / ".deleted-0123" / "inputs").mkdir(parents=True)
    (tmp_path / ".deleted-0123" / "inputs" / "patient.dcm").write_text("x")
    dispatcher = Dispatcher(JobStore(tmp_path))
    dispatcher.claim()
    assert [path.name for path in tmp_path.iterdir()] == [".server"]


def test_old_jobs_are_deleted_however_many_wait(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    worker = tmp_path / "worker"
    worker.write_text("#!/bin/sh\nread job; read job\n")  # is never ready
    worker.chmod(0o700)
    monkeypatch.setattr("app.worker.sys.executable", str(worker))
    store = JobStore(tmp_path / "jobs")
    old, *_ = [store.create(Request.new(("inputs/images",), WIENER, {})) for _ in range(3)]
    put(old.private / "state.json", b'{"state": "done", "updated": "2026-01-01T00:00:00+00:00"}')
    dispatcher = Dispatcher(store, keep=datetime.timedelta(days=1))
    dispatcher.claim()
    dispatcher.start()
    until = time.monotonic() + 20
    while old.folder.exists():
        assert time.monotonic() < until
        time.sleep(0.01)
    dispatcher.stop()


def test_waiting_times_are_guessed_from_what_was_seen(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    now = [100.0]
    monkeypatch.setattr("app.worker.time.monotonic", lambda: now[0])
    store = JobStore(tmp_path)
    under_way, *waiting = [store.create(Request.new(("inputs/images",), WIENER, {})) for _ in range(3)]
    dispatcher = Dispatcher(store)
    desk = Desk(dispatcher, AssetStore(), LIMITS)
    for job in waiting:
        dispatcher.add(job)

    def waits() -> list[float | None]:
        return [desk.info(job).wait_seconds for job in (under_way, *waiting)]

    assert waits() == [None, 0.0, None]  # nothing was ever done here
    dispatcher._begun, dispatcher._since = under_way.folder.name, 90.0
    assert waits() == [None, None, None]
    with under_way.hold():
        under_way.set_status(Status(state="running", total=2, done=0, step=10, steps=20))
        assert waits() == [None, 30.0, 70.0]  # 10 s for a quarter
        dispatcher._took.extend([4.0, 8.0])
        assert waits() == [None, 30.0, 36.0]
        under_way.set_status(Status(state="running"))
        assert waits() == [None, 0.0, 6.0]
        now[0] = 92.0
        assert waits() == [None, 4.0, 10.0]


def test_the_worker_tries_the_prior_and_the_server_tells(tmp_path: Path, assets: Path) -> None:
    model = TrainedPrior(name="tiny").load(AssetStore(assets), torch.device("cpu"), "fp32")
    found = _speed(model, torch.device("cpu"))
    assert found["seconds_per_call_megapixel"] > 0
    assert found["device"].startswith("CPU, ")
    dispatcher = Dispatcher(JobStore(tmp_path / "jobs"), prior="tiny")
    assert dispatcher.speed() == {}
    dispatcher.claim()
    put(tmp_path / "jobs" / SPEED, json.dumps(found).encode())
    assert Speed(**dispatcher.speed()).name == "cpu"
    (tmp_path / "jobs" / SPEED).write_bytes(b"[")
    assert dispatcher.speed() == {}
    put(tmp_path / "jobs" / SPEED, json.dumps(found).encode())
    os.close(dispatcher._lock)
    Dispatcher(JobStore(tmp_path / "jobs")).claim()
    assert dispatcher.speed() == {}  # of another start, maybe of another machine


def test_a_queued_job_that_the_queue_does_not_have_can_be_withdrawn(tmp_path: Path) -> None:
    store = JobStore(tmp_path)
    job = store.create(Request.new(("inputs/images",), WIENER, {}))
    dispatcher = Dispatcher(store)
    assert dispatcher.withdraw(job)  # what the disk refused to begin, or to delete
    dispatcher.add(job)
    assert dispatcher.withdraw(job)
    assert dispatcher.waiting == 0


def test_a_job_that_the_disk_does_not_let_be_cancelled_still_waits(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    store = JobStore(tmp_path)
    job = store.create(Request.new(("inputs/images",), WIENER, {}))
    dispatcher = Dispatcher(store)
    dispatcher.add(job)

    def refuse(*_: object) -> None:
        raise DiskRefuses("full")

    monkeypatch.setattr(Job, "set_status", refuse)
    with pytest.raises(DiskRefuses):
        cancel(job.folder.name, Desk(dispatcher, AssetStore(), LIMITS))
    assert dispatcher.place(job.folder.name) == 0


def test_a_job_that_another_machine_holds_does_not_stay_queued(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("app.worker.PATIENCE", 0.0)
    store = JobStore(tmp_path)
    job = store.create(Request.new(("inputs/images",), WIENER, {}))
    (job.private / "lock").write_text('{"host": "elsewhere", "pid": 1, "started": "x"}')
    _do(store, job.folder.name, Workers(), AssetStore(), threading.Event())
    assert job.status().state == "interrupted"
    assert "elsewhere" in job.status().message
    running = Status(state="running")
    job.set_status(running)
    _do(store, job.folder.name, Workers(), AssetStore(), threading.Event())
    assert job.status().state == "running"  # the other's


@pytest.mark.slow
def test_a_worker_that_dies_costs_one_job(server: Server) -> None:
    long = server.create("long.png", recipe=LONG, side=256)
    after = server.create("after.png")
    server.wait(long, "running")
    holder = json.loads((server.folder / long / "job" / "lock").read_text())
    os.kill(holder["pid"], signal.SIGKILL)
    assert "signal 9" in server.wait(long, "interrupted")["message"] or "has ended" in server.status(long)["message"]
    server.wait(after, "done")


@pytest.mark.parametrize(
    ("options", "words"),
    [
        (["--host", "0.0.0.0"], "token"),
        (["--host", "::"], "token"),
        (["--host", ""], "token"),
        (["--host", "example.com"], "token"),
        (["--host", "127.0.0.1", "--port", "99999"], "port"),
        (["--max-upload", "0"], "limits"),
        (["--auth-file", "/nowhere/token"], "auth-file"),
        (["--store", "/proc/nowhere"], "disk"),
    ],
)
def test_what_would_be_unsafe_does_not_start(
    options: list[str], words: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["serve", "--port", "0", "--store", str(tmp_path / "jobs"), *options]) == 2
    said = capsys.readouterr().err
    assert words in said
    assert said.count("\n") == 1


@pytest.mark.parametrize(("text", "mode"), [("short", 0o600), (TOKEN, 0o644), ("two words of a token", 0o600)])
def test_weak_tokens_are_refused(
    text: str, mode: int, tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    file = tmp_path / "token"
    file.write_text(text)
    file.chmod(mode)
    assert main(["serve", "--port", "0", "--store", str(tmp_path / "jobs"), "--auth-file", str(file)]) == 2
    assert "token" in capsys.readouterr().err
    if mode == 0o600:
        monkeypatch.setenv("PREIMAGE_TOKEN", text)
        assert main(["serve", "--port", "0", "--store", str(tmp_path / "jobs")]) == 2
        assert text not in capsys.readouterr().err
