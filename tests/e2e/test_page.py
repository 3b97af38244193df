"""The page in a real browser over a real server with the shipped prior: what a person does, one test after the other.

Requests elsewhere, page errors and errors on the console fail every test (`tests.gui.conftest.context`).
"""

import io
import json
import re
import signal
import subprocess
import sys
import zipfile
from pathlib import Path
from typing import Any

import numpy as np
import pydicom
import pytest
import tifffile
from gradio_client import Client, handle_file
from gradio_client.exceptions import AppError
from PIL import Image
from playwright.sync_api import BrowserContext, Page, expect

from app.pictures import read_picture
from medical.dicom import find_series, read_series
from medical.phantoms import torso
from restoration.assets import AssetStore
from tests.e2e.conftest import Gui
from tests.medical.dicoms import even, new_errors, write_series

pytestmark = [pytest.mark.e2e, pytest.mark.weights]

LONG = 90_000  # milliseconds that a run of some seconds may take on a busy machine


def crop(side: int = 96, top: int = 30, left: int = 60) -> np.ndarray[Any, Any]:
    """A part of a bundled photograph, (side, side, 3) uint16."""
    store = AssetStore()
    pixels = read_picture(store.resolve(store.card("chelsea", "image"))).pixels
    part = pixels[:, top : top + side, left : left + side].permute(1, 2, 0).numpy()
    return np.round(part * 65535).astype(np.uint16)


def put_file(page: Page, path: Path, *, tab: str = "#file") -> None:
    page.locator(f"{tab} input[type=file]").set_input_files(str(path))


def choose(page: Page, problem: str) -> None:
    page.locator("#problem").get_by_role("radio", name=re.compile(f"^{problem}")).check(force=True)


def start(page: Page, quality: str = "") -> None:
    """Press Restore, as soon as everything is there for it."""
    if quality:
        page.locator("#quality").get_by_role("radio", name=re.compile(f"^{quality}")).check(force=True)
    expect(page.locator("#start")).to_be_enabled()
    page.locator("#start").click()


def wait_frames(page: Page, count: int) -> None:
    page.wait_for_function(
        "n => Number(document.querySelector('#result .pi-live')?.dataset.frames) >= n", arg=count, timeout=LONG
    )


def wait_done(page: Page, state: str = "done") -> None:
    page.locator(f"#result .pi-result[data-state={state}]").wait_for(timeout=LONG)


def job_of(page: Page) -> str:
    found = re.search(r"[?&]job=([0-9a-f]{16})", page.url)
    assert found, page.url
    return found[1]


def noisy_png(folder: Path, side: int = 96) -> Path:
    clean = crop(side).astype(np.float64) / 65535
    noise = np.random.default_rng(0).normal(0, 0.05, clean.shape)
    path = folder / "noisy.png"
    Image.fromarray(np.round(np.clip(clean + noise, 0, 1) * 255).astype(np.uint8)).save(path)
    return path


def test_t01_opens_offline_with_empty_states(opened: Page) -> None:
    assert opened.title() == "Preimage"
    assert [tab.inner_text() for tab in opened.get_by_role("tab").all()] == [
        "Restore",
        "Medical",
        "Compare",
        "Batch",
        "Jobs",
        "Help",
    ]
    expect(opened.locator("#result")).to_contain_text("Nothing here yet")
    expect(opened.locator("#start")).to_be_disabled()
    expect(opened.locator("#reason")).to_contain_text("Step 1 first")


def test_t02_the_example_in_one_click(opened: Page) -> None:
    opened.get_by_role("button", name="Run the built-in example").click()
    wait_frames(opened, 2)
    wait_done(opened)
    opened.locator("#result .pi-compare[data-state=ready]").wait_for()
    expect(opened.locator("#result")).to_contain_text(re.compile(r"Residual \d\.\d+ sigma"))
    assert opened.locator("#result img[alt], #result canvas[aria-label]").count() >= 1


def test_t03_a_16_bit_tiff_is_painted_restored_and_downloaded(opened: Page, tmp_path: Path) -> None:
    pixels = crop()
    tifffile.imwrite(tmp_path / "photo.tif", pixels, photometric="rgb")
    put_file(opened, tmp_path / "photo.tif")
    expect(opened.locator("#facts")).to_contain_text("photo.tif · 96 × 96 · 16-bit colour")
    choose(opened, "Missing parts")
    opened.locator("#painter [data-state=ready]").wait_for()
    opened.locator("#painter details > summary").first.click()
    for label, value in (("x", 40), ("y", 30), ("Width", 20), ("Height", 10)):
        opened.locator("#painter").get_by_label(label, exact=True).fill(str(value))
    opened.locator("#painter").get_by_role("button", name="Mark rectangle").click()
    opened.locator("#painter [data-state=saved]").wait_for()
    expect(opened.locator("#painter")).to_contain_text("Painted: 2.2 % of the picture")
    noise = opened.locator("#problem").get_by_label(re.compile("^Noise level"))
    noise.first.fill("0.00001")
    noise.first.press("Tab")
    start(opened, "Quick look")
    wait_done(opened)
    with opened.expect_download() as waited:
        opened.locator("#result").get_by_role("link", name=re.compile("Download TIFF")).click()
    waited.value.save_as(tmp_path / "restored.tif")
    restored = tifffile.imread(tmp_path / "restored.tif")
    assert restored.dtype == np.uint16
    assert restored.shape == pixels.shape
    hole = np.zeros(pixels.shape[:2], bool)
    hole[30:40, 40:60] = True
    far = np.abs(restored[~hole].astype(int) - pixels[~hole].astype(int)).max()
    assert far <= 3  # noise of 0.00001 is 0.7 levels of 65535: what was measured stays
    assert np.abs(restored[hole].astype(float) - pixels[hole]).mean() < 0.1 * 65535


def test_t04_errors_say_what_to_do(opened: Page, tmp_path: Path) -> None:
    (tmp_path / "notes.txt").write_text("no picture")
    put_file(opened, tmp_path / "notes.txt")
    expect(opened.locator("body")).to_contain_text("notes.txt")
    (tmp_path / "broken.png").write_bytes(b"\x89PNG\r\n\x1a\n" + b"0" * 100)
    put_file(opened, tmp_path / "broken.png")
    expect(opened.locator("#facts .pi-fault")).to_contain_text("broken.png")
    Image.new("1", (9000, 9000)).save(tmp_path / "huge.png")
    put_file(opened, tmp_path / "huge.png")
    expect(opened.locator("#facts .pi-fault")).to_contain_text("at most 64 megapixels, got 9000 x 9000 = 81")
    expect(opened.locator("#start")).to_be_disabled()
    put_file(opened, noisy_png(tmp_path, 64))
    choose(opened, "Missing parts")
    opened.locator("#painter [data-state=ready]").wait_for()
    Image.new("L", (32, 48)).save(tmp_path / "mask.png")
    opened.locator("#painter input[type=file]").set_input_files(str(tmp_path / "mask.png"))
    expect(opened.locator("#painter")).to_contain_text("32 × 48")
    expect(opened.locator("#painter").get_by_role("button", name="Scale mask")).to_be_visible()
    expect(opened.locator("#start")).to_be_disabled()
    body = opened.inner_text("body")
    assert "Traceback" not in body
    assert str(tmp_path) not in body


def test_t05_stop_keeps_what_there_is_and_goes_on(opened: Page, gui: Gui, tmp_path: Path) -> None:
    put_file(opened, noisy_png(tmp_path, 64))
    choose(opened, "Noise only")
    start(opened, "Best")
    wait_frames(opened, 1)
    opened.locator("#result").get_by_role("button", name="Stop").click()
    wait_done(opened, "interrupted")
    expect(opened.locator("#result")).to_contain_text(re.compile(r"Stopped at step \d+"))
    job = job_of(opened)
    assert gui.api.get(f"/api/v1/jobs/{job}").json()["status"]["state"] == "interrupted"
    with opened.expect_download() as waited:
        opened.locator("#result").get_by_role("link", name=re.compile("Download PNG")).click()
    waited.value.save_as(tmp_path / "partial.png")
    assert read_picture(tmp_path / "partial.png").pixels.shape == (3, 64, 64)
    opened.locator("#result").get_by_role("button", name="Continue").click()
    wait_done(opened)


def test_t06_reload_attaches_to_the_same_run(opened: Page) -> None:
    opened.locator("#sample-noisy").click()
    start(opened, "Quick look")
    opened.locator("#result .pi-live:not([hidden])").wait_for(timeout=LONG)
    job = job_of(opened)
    opened.reload()
    wait_done(opened)
    assert job_of(opened) == job


def test_t09_page_client_and_command_line_give_the_same_bytes(opened: Page, gui: Gui, tmp_path: Path) -> None:
    source = noisy_png(tmp_path, 64)
    recipe = {"preset": "denoise", "steps": 4, "seed": 7}
    client = Client(gui.url, verbose=False, download_files=str(tmp_path / "client"))
    restored, report = client.predict(handle_file(str(source)), None, "", "denoise", 4, 7, 1, api_name="/restore")
    from_client = Path(restored).read_bytes()
    job = json.loads(report)
    assert job["state"] == "done"
    newest = gui.api.get("/api/v1/jobs?limit=1").json()["jobs"][0]["id"]
    described = gui.api.get(f"/api/v1/jobs/{newest}").json()["recipe"]
    (tmp_path / "run.json").write_text(json.dumps(described))
    command = [sys.executable, "-m", "app", "batch", "-i", str(source), "-o", str(tmp_path / "cli")]
    subprocess.run([*command, "--recipe", str(tmp_path / "run.json")], check=True, capture_output=True)
    (from_cli,) = (tmp_path / "cli").rglob("restored.png")
    assert from_cli.read_bytes() == from_client
    put_file(opened, tmp_path / "run.json")  # a run file on the page brings its settings
    expect(opened.locator("#facts")).to_contain_text("Settings of an earlier run")
    opened.locator("#file input[type=file]").wait_for(state="attached")  # the run file is taken away by itself
    put_file(opened, source)
    expect(opened.locator("#facts")).to_contain_text("64 × 64")
    start(opened)
    wait_done(opened)
    on_page = gui.api.get(f"/api/v1/jobs/{job_of(opened)}/files").json()
    (path,) = [file["path"] for file in on_page if file["path"].endswith("restored.png")]
    assert gui.api.get(f"/api/v1/jobs/{job_of(opened)}/files/{path}").content == from_client
    assert recipe["seed"] == described["seeds"][0]


def test_the_other_endpoints_answer_programs(gui: Gui, tmp_path: Path) -> None:
    client = Client(gui.url, verbose=False, download_files=str(tmp_path / "client"))
    assert client.predict("", "denoise", 192, 128, api_name="/estimate") == {
        "calls": 20,
        "vjps": 0,
        "megapixels": 0.024576,
    }
    found = {kind["kind"] for kind in client.predict(api_name="/operators")}
    assert {"blur", "inpainting", "ct", "mri"} <= found
    noisy = noisy_png(tmp_path, 64)
    Image.fromarray((crop(64) >> 8).astype(np.uint8)).save(tmp_path / "clean.png")
    files = handle_file(str(noisy)), handle_file(str(tmp_path / "clean.png"))
    scores = client.predict(*files, api_name="/metrics")
    # noise of 0.05 has 26 dB; clipping takes a little of it away
    assert 25.5 < scores["psnr"] < 27.5
    assert 0 < scores["ssim"] < 1
    with pytest.raises(AppError, match="Expected a preset out of"):
        client.predict(files[0], None, "", "nothing", 0, 0, 1, api_name="/restore")


def test_t10_two_people_wait_for_each_other_and_see_only_their_own(
    gui: Gui, context: BrowserContext, tmp_path: Path
) -> None:
    first, second = context.new_page(), context.new_page()
    for who in (first, second):
        who.goto(gui.url)
        who.locator("#result [data-state]").first.wait_for()
    put_file(first, noisy_png(tmp_path, 64))
    choose(first, "Noise only")
    start(first, "Best")
    first.locator("#result .pi-live:not([hidden])").wait_for(timeout=LONG)
    expect(second.locator("#result")).to_contain_text("Nothing here yet")
    expect(second.locator("#facts")).to_contain_text("No file?")
    second.locator("#sample-small").click()
    start(second, "Quick look")
    expect(second.locator("#result")).to_contain_text(re.compile("Waiting: next in line"), timeout=LONG)
    first.locator("#result").get_by_role("button", name="Stop").click()
    wait_done(first, "interrupted")
    wait_done(second)
    assert job_of(first) != job_of(second)


def test_t14_a_killed_server_is_told_and_the_run_goes_on(own_gui: Gui, context: BrowserContext, tmp_path: Path) -> None:
    own_gui.start()
    page = context.new_page()
    page.goto(own_gui.url)
    put_file(page, noisy_png(tmp_path, 64))
    choose(page, "Noise only")
    start(page, "Best")
    wait_frames(page, 1)
    port = own_gui.port
    own_gui.end(signal.SIGKILL)
    expect(page.locator("#result")).to_contain_text("Lost contact with the server", timeout=LONG)
    context.faults.clear()  # type: ignore[attr-defined]  # the browser tells of connections that were refused
    own_gui.start(port=port)
    wait_done(page, "interrupted")
    page.locator("#result").get_by_role("button", name="Continue").click()
    wait_done(page)
    context.faults.clear()  # type: ignore[attr-defined]


def test_t12_a_narrow_screen_has_no_sideways_scroll_and_a_tap_paints(
    gui: Gui, phone: BrowserContext, tmp_path: Path
) -> None:
    page = phone.new_page()
    page.goto(gui.url)
    page.locator("#result [data-state]").first.wait_for()
    for name in ("Restore", "Medical", "Compare", "Batch", "Jobs", "Help"):
        page.evaluate("name => window.preimage.show(name)", name)  # Gradio folds tabs that do not fit
        page.locator(f"#{name.lower()}-tab").wait_for()
        wide = page.evaluate("document.documentElement.scrollWidth - document.documentElement.clientWidth")
        assert wide <= 0, name
    page.evaluate("window.preimage.show('Restore')")
    put_file(page, noisy_png(tmp_path, 64))
    choose(page, "Missing parts")
    page.locator("#painter [data-state=ready]").wait_for()
    page.locator("#painter canvas").first.tap()
    page.locator("#painter [data-state=saved]").wait_for()
    expect(page.locator("#painter")).to_contain_text(re.compile(r"Painted: (less than )?\d+(\.\d+)? % of the picture"))
    start(page, "Quick look")
    wait_done(page)


def test_t07_the_viewer_shows_what_numpy_computes(opened: Page) -> None:
    opened.get_by_role("tab", name="Medical").click()
    expect(opened.locator("#research")).to_contain_text("RESEARCH USE ONLY")
    opened.locator("#phantom-ct").click()
    viewer = opened.locator("#slices .pi-sl[data-ready]")
    viewer.wait_for(timeout=LONG)
    opened.locator("#slices .pi-sl-stage").first.focus()
    opened.keyboard.press("2")
    expect(viewer).to_have_attribute("data-window", "1500")
    expect(viewer).to_have_attribute("data-level", "-600")
    before = viewer.get_attribute("data-slice") or ""
    opened.keyboard.press("ArrowUp")
    expect(viewer).not_to_have_attribute("data-slice", before)
    opened.locator("#slices .pi-sl-panel").first.hover()
    opened.mouse.wheel(0, 120)
    expect(viewer).to_have_attribute("data-slice", before)
    opened.keyboard.press("Home")
    expect(viewer).to_have_attribute("data-slice", "1")
    opened.keyboard.press("ArrowDown")
    expect(viewer).to_have_attribute("data-slice", "2")
    k = int(viewer.get_attribute("data-slice") or "")
    shown = opened.evaluate(
        """() => {
            const canvas = document.querySelector("canvas.pi-sl-image[data-image=before][data-plane=axial]");
            const data = canvas.getContext("2d").getImageData(0, 0, canvas.width, canvas.height).data;
            return [canvas.width, canvas.height, Array.from(data.filter((_, i) => i % 4 === 0))];
        }"""
    )
    volume = np.asarray(torso().array, np.float64)[:, :, k - 1].T
    expected = np.floor(255 * np.clip((volume - (-600 - 750)) / 1500, 0, 1) + 0.5)
    assert (shown[1], shown[0]) == volume.shape
    assert np.array_equal(np.reshape(shown[2], volume.shape), expected)


def test_a_dicom_series_is_restored_on_the_page_and_can_go_back(opened: Page, gui: Gui, tmp_path: Path) -> None:
    source = write_series(tmp_path / "in", even(3), shape=(40, 48), names=lambda k: f"{k}.dcm")
    opened.get_by_role("tab", name="Medical").click()
    opened.locator("#medical-file input[type=file]").set_input_files(sorted(source.iterdir()))
    opened.locator("#slices .pi-sl[data-ready]").wait_for(timeout=LONG)
    expect(opened.locator("#medical-facts")).to_contain_text("48 × 40 × 3")
    opened.locator("#medical-method").get_by_label("Total variation (classical)").check()
    expect(opened.locator("#medical-start")).to_be_enabled()
    opened.locator("#medical-start").click()
    opened.locator("#slices .pi-sl-report[data-state=done]").wait_for(timeout=LONG)
    job = job_of(opened)
    paths = [file["path"] for file in gui.api.get(f"/api/v1/jobs/{job}/files").json()]
    derived = sorted(path for path in paths if path.endswith(".dcm") and "std" not in path)
    assert len(derived) == 3
    (tmp_path / "out").mkdir()
    for k, path in enumerate(derived):
        (tmp_path / "out" / f"{k}.dcm").write_bytes(gui.api.get(f"/api/v1/jobs/{job}/files/{path}").content)
    before, after = (read_series(find_series(folder).series[0]) for folder in (source, tmp_path / "out"))
    assert np.allclose(before.affine, after.affine)
    assert before.array.shape == after.array.shape
    given, made = (pydicom.dcmread(folder / "0.dcm") for folder in (source, tmp_path / "out"))
    assert made.ImageType[0] == "DERIVED"
    assert made.SeriesInstanceUID != given.SeriesInstanceUID
    assert made.StudyInstanceUID == given.StudyInstanceUID
    assert new_errors(tmp_path / "out" / "0.dcm", source / "0.dcm") == set()


def test_archives_hold_what_came_out(gui: Gui, opened: Page) -> None:
    opened.locator("#sample-noisy").click()
    start(opened, "Quick look")
    wait_done(opened)
    answer = gui.api.get(f"/api/v1/jobs/{job_of(opened)}/archive")
    names = zipfile.ZipFile(io.BytesIO(answer.content)).namelist()
    assert any(name.endswith("restored.png") for name in names)
