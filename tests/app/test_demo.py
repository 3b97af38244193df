"""The demo on tiny pictures, with a closed-form prior and a few steps."""

import json
from collections.abc import Sequence
from dataclasses import replace
from html.parser import HTMLParser
from pathlib import Path

import cv2
import pytest

from app import cli
from app.cases import Row, Task, average
from app.classical import CLASSICAL
from app.demo import demo_tasks, run_demo, table
from operators.errors import PreimageError
from restoration.assets import AssetStore
from restoration.methods.tv import TV
from restoration.recipe import Recipe, preset_names


@pytest.fixture
def tasks() -> Sequence[Task]:
    """The demo's own damage to samplers, undone in three steps with the power-law prior."""
    quick = {
        "model": {"kind": "power-law"},
        "method": {"kind": "diffpir", "schedule": {"kind": "karras", "steps": 3}},
    }
    return [
        replace(
            task,
            recipe=Recipe.model_validate(task.recipe.model_dump() | quick),
            classical=(*task.classical[:1], TV(iterations=5)),
        )
        for task in demo_tasks()[:4]
    ]


def test_the_demo_runs_as_it_ships() -> None:
    """Nothing is wrong with its recipes and assets, and three of its rows are the bridge's."""
    assert [task.recipe.problems(AssetStore()) for task in demo_tasks()] == [[]] * 7
    assert [task.recipe.model.kind for task in demo_tasks()] == ["trained"] * 4 + ["bridge"] * 3


VOID = {"meta", "link", "img", "input", "br", "path"}


class Page(HTMLParser):
    """What a page holds; a tag that is closed out of order is an error."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.images: list[dict[str, str | None]] = []
        self.addresses: list[str] = []
        self.sliders: list[dict[str, str | None]] = []
        self.ids: set[str] = set()
        self._open: list[str] = []
        self.feed(text)
        assert self._open == []

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        values = dict(attrs)
        self.addresses += [str(values[key]) for key in ("src", "href") if key in values]
        self.ids |= {str(values["id"])} if "id" in values else set()
        if tag == "img":
            self.images.append(values)
        if tag == "input" and values["type"] == "range":
            self.sliders.append(values)
        if tag not in VOID:
            self._open.append(tag)

    def handle_startendtag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        pass

    def handle_endtag(self, tag: str) -> None:
        assert self._open.pop() == tag


def test_the_demo_writes_a_page_a_montage_and_a_report(tasks: Sequence[Task], assets: Path, tmp_path: Path) -> None:
    out, seen = tmp_path / "demo", []
    rows = run_demo(out, 2, store=AssetStore(assets), tasks=tasks, watch=lambda *told: seen.append(told))
    assert {p.name for p in out.iterdir()} == {"index.html", "montage.png", "report.json"}
    assert [(row.task, row.picture) for row in rows] == [(t.name, p) for t in tasks for p in ("wide", "tall")]

    done = [told[0] for told in seen]
    assert done == sorted(done)
    assert seen[-1][0] == seen[-1][1] == 800

    report = json.loads((out / "report.json").read_text())
    assert [entry["picture"] for entry in report] == [row.picture for row in rows]
    assert all(entry["nfe"] == 3 and entry["samples"] == 2 and entry["seeds"] == [0, 1] for entry in report)
    for row in rows:
        # what PSNR is made of, and the reason why a mean beats a sample
        assert row.error_rms > 0
        assert row.mean_psnr > row.sample_psnr - 1
        assert row.noise_sigma == 0.025

    montage = cv2.imread(str(out / "montage.png"))
    assert montage.shape[0] > 4 * 32
    assert montage.shape[1] > 6 * 40
    assert all(task.name in table(rows) for task in tasks)


def test_the_page_holds_all_it_needs(tasks: Sequence[Task], assets: Path, tmp_path: Path) -> None:
    out = tmp_path / "demo"
    rows = run_demo(out, 2, store=AssetStore(assets), tasks=tasks[2:], watch=None)
    text = (out / "index.html").read_text()
    page = Page(text)
    assert len(page.images) == 6 * len(rows)
    assert all(image["alt"] and str(image["src"]).startswith("data:image/") for image in page.images)
    assert len(page.sliders) == len(rows)
    assert all(slider["aria-label"] for slider in page.sliders)
    inside = {address[1:] for address in page.addresses if address.startswith("#")}
    assert inside == {task.name for task in tasks[2:]}
    assert inside <= page.ids
    assert all(address.startswith(("data:", "#")) for address in page.addresses)
    assert "url(" not in text
    assert "@import" not in text
    assert str(tmp_path) not in text
    assert f"{rows[0].mean_psnr:.2f}" in text


def test_the_table_has_the_similarity_of_all_three(tasks: Sequence[Task], assets: Path, tmp_path: Path) -> None:
    rows = run_demo(tmp_path / "demo", 2, store=AssetStore(assets), tasks=tasks[2:3])
    lines = table(rows).splitlines()
    assert max(map(len, lines)) <= 130
    assert lines[0].split() == ["PSNR,", "dB", "SSIM"]
    names, first = lines[1].split(), lines[2].split()
    assert names[3:6] == names[6:9] == ["best", "sample", "mean"]
    wanted = [rows[0].baseline_ssim, rows[0].sample_ssim, rows[0].mean_ssim]
    assert first[6:9] == [f"{ssim:.3f}" for ssim in wanted]
    assert lines[0].index("SSIM") == lines[1].rindex("best", 0, lines[1].rindex("sample")) - 2
    assert lines[2].endswith(rows[0].baseline)


def test_titles_cannot_break_the_page(tasks: Sequence[Task], assets: Path, tmp_path: Path) -> None:
    manifest = assets / "manifest.toml"
    manifest.write_text(manifest.read_text().replace("The wide one", "</style><b onload='x'>"))
    run_demo(tmp_path / "demo", 2, store=AssetStore(assets), tasks=tasks[2:3])
    Page((tmp_path / "demo" / "index.html").read_text())


def test_an_earlier_demo_is_replaced_and_anything_else_is_not(
    tasks: Sequence[Task], assets: Path, tmp_path: Path
) -> None:
    out, store = tmp_path / "demo", AssetStore(assets)
    run_demo(out, 2, store=store, tasks=tasks[2:3])
    first = (out / "report.json").read_text()
    run_demo(out, 3, store=store, tasks=tasks[2:3])
    assert (out / "report.json").read_text() != first
    assert sorted(p.name for p in tmp_path.iterdir()) == ["assets", "demo"]
    (tmp_path / "other").mkdir()
    (tmp_path / "other" / "report.json").write_text("not of the demo")
    with pytest.raises(PreimageError, match=r"report\.json"):
        run_demo(tmp_path / "other", 2, store=store, tasks=tasks[2:3])
    (out / "notes.txt").write_text("mine")
    with pytest.raises(PreimageError, match=r"notes\.txt"):
        run_demo(out, 2, store=store, tasks=tasks[2:3])
    assert (out / "notes.txt").read_text() == "mine"


def test_a_demo_that_fails_leaves_nothing(tasks: Sequence[Task], assets: Path, tmp_path: Path) -> None:
    (assets / "tall.png").write_bytes(b"damaged")
    with pytest.raises(PreimageError, match=r"tall\.png"):
        run_demo(tmp_path / "demo", 2, store=AssetStore(assets), tasks=tasks[:1])
    assert sorted(p.name for p in tmp_path.iterdir()) == ["assets"]


def test_a_size_takes_the_middle(tasks: Sequence[Task], assets: Path, tmp_path: Path) -> None:
    run_demo(tmp_path / "demo", 2, size=32, store=AssetStore(assets), tasks=tasks[3:])
    assert "aspect-ratio:32/32" in (tmp_path / "demo" / "index.html").read_text()


def test_the_command_prints_the_figures_and_where_the_page_is(
    tasks: Sequence[Task], assets: Path, tmp_path: Path, capsys, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("PREIMAGE_ASSETS", str(assets))
    monkeypatch.setattr("app.demo.demo_tasks", lambda: tasks[2:3])
    assert cli.main(["demo", "-o", str(tmp_path / "demo"), "--samples", "2"]) == 0
    printed = capsys.readouterr().out
    assert "sr-x4" in printed
    assert str(tmp_path / "demo" / "index.html") in printed


@pytest.mark.parametrize("words", [["--samples", "1"], ["--samples", "65"], ["--size", "8"]])
def test_a_demo_that_makes_no_sense_is_refused_in_a_sentence(words: list[str], tmp_path: Path, capsys) -> None:
    assert cli.main(["demo", "-o", str(tmp_path / "demo"), *words]) == 2
    assert capsys.readouterr().err.count("\n") == 1
    assert not (tmp_path / "demo").exists()


def test_every_preset_has_classical_methods_that_can_undo_it() -> None:
    assert set(CLASSICAL) == set(preset_names())
    assert {task.name for task in demo_tasks()} <= set(CLASSICAL)
    for task in demo_tasks():
        for method in task.classical:
            assert method.needs <= task.recipe.operator.offers | task.recipe.noise.offers


def test_an_average_is_over_the_given_rows(tasks: Sequence[Task], assets: Path, tmp_path: Path) -> None:
    rows: list[Row] = run_demo(tmp_path / "demo", 2, store=AssetStore(assets), tasks=tasks[2:3])
    assert average(rows, "mean_psnr") == pytest.approx((rows[0].mean_psnr + rows[1].mean_psnr) / 2)
