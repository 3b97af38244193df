"""t08: three files of which one is bad, from the Batch tab to the zip."""

import io
import json
import re
import zipfile
from pathlib import Path

import pytest
from PIL import Image
from playwright.sync_api import Page, expect

from tests.e2e.conftest import Gui

pytestmark = pytest.mark.e2e

RECIPE = {"operator": {"kind": "identity"}, "model": {"kind": "none"}, "method": {"kind": "tv", "iterations": 20}}


def test_t08_a_batch_with_a_bad_file(gui: Gui, page: Page, tmp_path: Path) -> None:
    for name in ("a.png", "c.png"):
        Image.effect_noise((64, 48), 40).save(tmp_path / name)
    (tmp_path / "b.png").write_bytes(b"\x89PNG\r\n\x1a\nno picture")
    (tmp_path / "notes.txt").write_text("hello")
    (tmp_path / "run.json").write_text(json.dumps({"recipe": RECIPE, "options": {}}))
    page.goto(gui.url)
    page.get_by_role("tab", name="Batch", exact=True).click()
    expect(page.get_by_text("Step 1 first: choose a preset")).to_be_visible()
    expect(page.get_by_role("button", name="Start batch")).to_be_disabled()
    page.locator("#batch-tab input[type=file][accept='.json']").set_input_files(tmp_path / "run.json")
    expect(page.get_by_text("Step 2 first: add files.")).to_be_visible()
    page.locator("#batch-files input[type=file]").set_input_files(
        [tmp_path / name for name in ("a.png", "b.png", "c.png", "notes.txt")]
    )
    expect(page.get_by_text("3 files · 1 skipped (no picture or volume): notes.txt")).to_be_visible()
    page.get_by_role("button", name="Try first file").click()
    expect(page.locator(".pi-batch-line")).to_have_text("1 of 1 done", timeout=60_000)
    page.get_by_role("button", name="Start batch").click()
    expect(page.locator(".pi-batch-line")).to_have_text("2 of 3 done · 1 failed", timeout=60_000)
    expect(page.locator("[data-number='2']")).to_contain_text("failed: Expected a complete picture")
    assert "tab=batch" in page.url
    with page.expect_download() as waiting:
        page.get_by_role("link", name="Download finished .zip").click()
    names = zipfile.ZipFile(io.BytesIO(Path(waiting.value.path()).read_bytes())).namelist()
    assert [name for name in names if name.endswith("restored.png")] == [
        "results/a.png/restored.png",
        "results/c.png/restored.png",
    ]
    assert "manifest.json" in names
    page.reload()
    page.locator(".pi-batch[data-state=done]").wait_for()
    page.get_by_role("tab", name="Jobs", exact=True).click()
    job = re.search(r"job=([0-9a-f]{16})", page.url)
    assert job
    row = page.locator(f"[data-job='{job[1]}']")
    row.get_by_role("button", name="Delete").click()
    page.get_by_role("dialog").get_by_role("button", name="Delete").click()
    expect(row).to_have_count(0)
    assert not (gui.store / job[1]).exists()
