"""The slice viewer: what is on its canvases is what numpy says, and hands and keys move all panels together."""

import gzip
import json
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray
from playwright.sync_api import Page

SHAPE = (20, 16, 12)
RAS = np.diag([2.0, 3.0, 4.0, 1.0])
RAS[:3, 3] = (-19, -22, -22)
LPS = np.diag([-2.0, -3.0, 4.0, 1.0])
LPS[:3, 3] = (19, 22, -22)

Mount = Callable[..., Page]


def drawn(low: int, high: int, seed: int = 0, shape: tuple[int, ...] = SHAPE) -> NDArray[np.int16]:
    return np.random.Generator(np.random.PCG64DXSM(seed)).integers(low, high, shape).astype(np.int16)


def view(name: str, affine: NDArray[Any] = RAS, unit: str = "HU", shape: tuple[int, ...] = SHAPE) -> dict[str, Any]:
    scales = {"spread": (0.5, 20.0), "imagined": (0.25, 0.0)}
    slope, intercept = scales.get(name, (1.0, 0.0))
    return {
        "name": name,
        "title": {"before": "Measurement", "mean": "Restored (mean of 4)"}.get(name, name),
        "alt": name,
        "file": f"{name}.raw.gz",
        "url": f"files/{name}.raw.gz",
        "shape": list(shape),
        "affine": affine.tolist(),
        "dtype": "int16",
        "slope": slope,
        "intercept": intercept,
        "unit": unit,
        "window": None,
        "role": "overlay" if name in scales or name == "labels" else "image",
        "per_slice": None,
    }


def raw(voxels: NDArray[np.int16]) -> bytes:
    return voxels.astype("<i2").tobytes(order="F")


VOLUMES = {
    "before": drawn(-1000, 1500),
    "mean": drawn(-1000, 1500, 1),
    "spread": drawn(0, 200, 2),
    "labels": drawn(0, 4, 3),
}


def shown(
    mounted: Mount,
    names: tuple[str, ...] = ("before",),
    affine: NDArray[Any] = RAS,
    unit: str = "HU",
    volumes: dict[str, NDArray[np.int16]] = VOLUMES,
) -> Page:
    views = [view(name, affine, unit, volumes[name].shape) for name in names]
    answers = {f"/files/{name}.raw.gz": ("application/gzip", gzip.compress(raw(volumes[name]))) for name in names}
    page = mounted("slices", {"value": None, "source": {"views": views}, "job": ""}, answers)
    page.wait_for_selector(".pi-sl[data-slice][data-maps=ready]")
    return page


def state(page: Page, name: str) -> str:
    return str(page.get_attribute(".pi-sl", f"data-{name}"))


def wait_for(page: Page, **data: object) -> None:
    page.wait_for_selector(".pi-sl" + "".join(f'[data-{name}="{value}"]' for name, value in data.items()))


def canvas(page: Page, image: str = "before", plane: str = "axial", kind: str = "image") -> NDArray[np.uint8]:
    """What is on a canvas, (rows, columns, 4)."""
    found = page.evaluate(
        """([image, plane, kind]) => {
            const c = document.querySelector(`canvas.pi-sl-${kind}[data-image=${image}][data-plane=${plane}]`);
            return [c.height, c.width, Array.from(c.getContext("2d").getImageData(0, 0, c.width, c.height).data)];
        }""",
        [image, plane, kind],
    )
    return np.array(found[2], np.uint8).reshape(found[0], found[1], 4)


def greys(values: NDArray[Any], width: float, level: float) -> NDArray[np.uint8]:
    """The formula of `slices_paint.js`."""
    share = np.clip((values.astype(np.float64) - (level - width / 2)) / width, 0, 1)
    return np.floor(255 * share + 0.5).astype(np.uint8)


def key(page: Page, name: str) -> None:
    page.focus(".pi-sl-stage")
    page.keyboard.press(name)


# what is shown


def test_pixels_are_those_of_numpy_in_every_plane_and_window(mounted: Mount) -> None:
    page = shown(mounted)
    voxels = VOLUMES["before"]
    for name, width, level in (("1", 400, 40), ("2", 1500, -600), ("3", 1800, 400), ("4", 80, 40)):
        key(page, name)
        wait_for(page, window=width, level=level)
        k = int(state(page, "slice")) - 1
        # RAS is stored from left to right and from back to front: pictures run the other way
        expected = greys(voxels[::-1, ::-1, k].T, width, level)
        np.testing.assert_array_equal(canvas(page)[..., 0], expected)
        assert (canvas(page)[..., 3] == 255).all()
    page.get_by_text("All three").click()
    wait_for(page, plane="all")
    coronal = greys(voxels[::-1, SHAPE[1] // 2, ::-1].T, 80, 40)
    sagittal = greys(voxels[SHAPE[0] // 2, ::-1, ::-1].T, 80, 40)
    np.testing.assert_array_equal(canvas(page, plane="coronal")[..., 1], coronal)
    np.testing.assert_array_equal(canvas(page, plane="sagittal")[..., 2], sagittal)


def test_numbers_under_the_cursor_have_slope_spread_and_millimetres(mounted: Mount) -> None:
    page = shown(mounted, ("before", "mean", "spread"))
    page.mouse.move(0, 0)
    at = tuple(n // 2 for n in SHAPE)
    spread = 0.5 * VOLUMES["spread"][at] + 20
    mean = f"restored {VOLUMES['mean'][at]} ± {spread:.0f} HU".replace("-", "−")
    before = f"measurement {VOLUMES['before'][at]} HU".replace("-", "−")
    assert page.inner_text(".pi-sl-values") == f"{before} · {mean}"
    x, y, z = (RAS @ (*at, 1))[:3]
    assert page.inner_text(".pi-sl-where") == f"x {x:.1f}  y {y:.1f}  z {z:.1f} mm".replace("-", "−")
    # the picture is 40 mm wide and 48 mm high in a square: the patient's right upper corner is voxel (19, 15)
    box = page.locator(".pi-sl-panel[data-image=before]").bounding_box()
    assert box is not None
    scale = min(box["width"] / 40, box["height"] / 48)
    left, top = (box["width"] - 40 * scale) / 2, (box["height"] - 48 * scale) / 2
    page.mouse.move(box["x"] + left + scale, box["y"] + top + scale)  # 1 mm into the picture
    mm = " ".join(f"{v:.1f}".replace("-", "−") for v in (RAS @ (19, 15, at[2], 1))[:3])
    page.wait_for_function(
        "mm => document.querySelector('.pi-sl-where').textContent.replace(/[xyz] /g, '').replace(/  /g, ' ') === mm",
        arg=f"{mm} mm",
    )
    assert page.locator(".pi-sl-panel[data-image=mean] .pi-sl-ghost").is_visible()
    assert page.locator(".pi-sl-panel[data-image=before] .pi-sl-ghost").is_hidden()


def test_presets_auto_and_full(mounted: Mount) -> None:
    page = shown(mounted)
    values = np.sort(VOLUMES["before"].ravel().astype(float))
    p1, p99 = (values[int(np.ceil(p * values.size)) - 1] for p in (0.01, 0.99))
    assert float(state(page, "window")) == round(p99 - p1)
    key(page, "5")
    wait_for(page, window=int(values[-1] - values[0]))
    key(page, "2")
    wait_for(page, window=1500, level=-600)
    assert page.get_attribute("button[data-preset='2']", "aria-pressed") == "true"
    page.fill("input[id$='-W']", "300")
    page.press("input[id$='-W']", "Enter")
    wait_for(page, window=300, level=-600)


def test_numbers_without_a_unit_have_no_windows_of_ct(mounted: Mount) -> None:
    page = shown(mounted, unit="a.u.")
    assert page.locator("button[data-preset]").all_inner_texts() == ["5 Full", "6 Auto p1–p99"]
    before = state(page, "window")
    key(page, "2")
    key(page, "ArrowDown")
    wait_for(page, slice=SHAPE[2] // 2 + 2)
    assert state(page, "window") == before


# hands and keys


def test_wheel_keys_and_slider_scroll_all_panels(mounted: Mount) -> None:
    page = shown(mounted, ("before", "mean"))
    start = SHAPE[2] // 2 + 1
    wait_for(page, slice=start)
    page.locator(".pi-sl-panel[data-image=mean]").hover()
    page.mouse.wheel(0, 100)
    wait_for(page, slice=start + 1)
    page.mouse.wheel(0, -100)
    wait_for(page, slice=start)
    for name, expected in (("ArrowDown", start + 1), ("PageUp", start - 4), ("Home", 1), ("End", SHAPE[2])):
        key(page, name)
        wait_for(page, slice=expected)
    page.locator("input[id$='-slice']").fill("3")
    wait_for(page, slice=3)
    for image in ("before", "mean"):
        width, level = float(state(page, "window")), float(state(page, "level"))
        expected = greys(VOLUMES[image][::-1, ::-1, 2].T, width, level)
        np.testing.assert_array_equal(canvas(page, image)[..., 0], expected)
    page.evaluate("document.activeElement.blur()")
    page.keyboard.press("End")  # nothing has the focus
    key(page, "ArrowDown")
    wait_for(page, slice=4)


def test_left_drag_sets_the_window_or_the_cross(mounted: Mount) -> None:
    page = shown(mounted, ("before", "mean"))
    key(page, "1")
    box = page.locator(".pi-sl-panel[data-image=before]").bounding_box()
    assert box is not None
    x, y = box["x"] + box["width"] / 2, box["y"] + box["height"] / 2
    page.mouse.move(x, y)
    page.mouse.down()
    page.mouse.move(x + 100, y + 30, steps=4)
    page.mouse.up()
    wait_for(page, window=round(400 * np.exp(0.5)), level=80)
    key(page, "x")
    page.get_by_text("All three").click()
    wait_for(page, plane="all")
    assert page.locator(".pi-sl-panel").count() == 6
    axial = page.locator(".pi-sl-panel[data-image=before][data-plane=axial]").bounding_box()
    assert axial is not None
    page.mouse.click(axial["x"] + axial["width"] / 2 + 2, axial["y"] + 4)  # front
    sagittal = ".pi-sl-panel[data-image=mean][data-plane=coronal] .pi-sl-slice"
    page.wait_for_function("s => document.querySelector(s).textContent.startsWith('16 / 16')", arg=sagittal)


def test_zoom_is_shared_and_fingers_scroll(mounted: Mount) -> None:
    page = shown(mounted, ("before", "mean"))
    for _ in range(4):
        key(page, "+")
    page.wait_for_function("Number(document.querySelector('.pi-sl').dataset.zoom) > 2.4")
    sizes = page.eval_on_selector_all(".pi-sl-film", "films => films.map(f => f.style.width + f.style.left)")
    assert sizes[0] == sizes[1]
    key(page, "0")
    wait_for(page, zoom=1)
    page.evaluate(
        """() => {
            const panel = document.querySelector(".pi-sl-panel");
            panel.setPointerCapture = () => {};
            const at = (type, y) => panel.dispatchEvent(new PointerEvent(type,
                {pointerId: 7, pointerType: "touch", clientX: 100, clientY: y, bubbles: true, cancelable: true}));
            at("pointerdown", 200); at("pointermove", 236); at("pointerup", 236);
        }"""
    )
    wait_for(page, slice=SHAPE[2] // 2 + 1 + 4)


# places


@pytest.mark.parametrize("affine", [RAS, LPS], ids=["RAS", "LPS"])
def test_right_is_left_and_the_front_is_up(mounted: Mount, affine: NDArray[Any]) -> None:
    page = shown(mounted, affine=affine)
    letters = [page.inner_text(f".pi-sl-{side}") for side in ("left", "right", "top", "bottom")]
    assert letters == ["R", "L", "A", "P"]
    assert "patient right" in page.inner_text(".pi-sl-words")
    k = int(state(page, "slice")) - 1
    width, level = float(state(page, "window")), float(state(page, "level"))
    plane = VOLUMES["before"][:, :, k].T
    expected = greys(plane[::-1, ::-1] if affine is RAS else plane, width, level)
    np.testing.assert_array_equal(canvas(page)[..., 0], expected)


def test_oblique_axes_are_named_and_said(mounted: Mount) -> None:
    turn = np.deg2rad(25)
    spin = np.array([[1, 0, 0], [0, np.cos(turn), -np.sin(turn)], [0, np.sin(turn), np.cos(turn)]])
    affine = np.eye(4)
    affine[:3, :3] = spin @ np.diag([2, 3, 4])
    page = shown(mounted, affine=affine)
    assert [page.inner_text(f".pi-sl-{side}") for side in ("left", "top", "bottom")] == ["R", "AS", "PI"]
    assert "along the stored axes, up to 25°" in page.inner_text(".pi-sl-words")


def test_a_sagittal_series_opens_sagittal(mounted: Mount) -> None:
    affine = np.zeros((4, 4))  # stored: front to back, head to feet, left to right by 5 mm
    affine[1, 0], affine[2, 1], affine[0, 2], affine[3, 3] = -1, -1, 5, 1
    page = shown(mounted, affine=affine)
    assert state(page, "plane") == "sagittal"
    assert [page.inner_text(f".pi-sl-{side}") for side in ("left", "right", "top")] == ["A", "P", "S"]
    width, level = float(state(page, "window")), float(state(page, "level"))
    expected = greys(VOLUMES["before"][:, :, SHAPE[2] // 2].T, width, level)
    np.testing.assert_array_equal(canvas(page, plane="sagittal")[..., 0], expected)


# overlays


def test_overlays_are_coloured_hidden_and_explained(mounted: Mount) -> None:
    page = shown(mounted, ("before", "mean", "spread", "labels"))
    overlay = page.locator("select[id$='-overlay']")
    assert overlay.evaluate("s => [...s.options].map(o => o.value)") == ["none", "spread", "difference", "labels"]
    overlay.select_option("spread")
    wait_for(page, overlay="spread")
    k = SHAPE[2] // 2
    values = 0.5 * VOLUMES["spread"][::-1, ::-1, k].T + 20
    high = float(page.input_value("input[id$='-most']"))
    assert high == 150  # the largest are 119.5, on all slices
    alpha = canvas(page, "mean", kind="over")[..., 3]
    np.testing.assert_array_equal(alpha, np.floor(255 * np.minimum(1, values / high / 0.2) + 0.5))
    assert not canvas(page, "before", kind="over").any()
    assert page.inner_text(".pi-sl-colours").split() == ["0", "75", "150", "HU"]
    assert "Low does not prove correctness" in page.inner_text(".pi-sl-meaning")
    page.focus(".pi-sl-stage")
    page.keyboard.down("h")
    wait_for(page, overlay="hidden")
    assert page.locator("canvas.pi-sl-over[data-image=mean]").is_hidden()
    page.keyboard.up("h")
    wait_for(page, overlay="spread")
    overlay.select_option("difference")
    wait_for(page, overlay="difference")
    change = (VOLUMES["mean"].astype(float) - VOLUMES["before"])[::-1, ::-1, k].T
    colour = canvas(page, "mean", kind="over").astype(int)
    strong = np.abs(change) > 0.5 * float(page.input_value("input[id$='-most']"))
    more = colour[..., 0] > colour[..., 2]  # orange is more, blue is less
    np.testing.assert_array_equal(more[strong], change[strong] > 0)
    overlay.select_option("labels")
    wait_for(page, overlay="labels")
    found = canvas(page, "before", kind="over")[..., 3] > 0
    np.testing.assert_array_equal(found, VOLUMES["labels"][::-1, ::-1, k].T > 0)
    assert page.inner_text(".pi-sl-names").split() == ["1", "2", "3"]


def test_slices_that_stand_out_are_named_and_gone_to(mounted: Mount) -> None:
    spread = drawn(0, 20, 5)
    spread[:, :, (3, 9)] += 150
    page = shown(mounted, ("before", "mean", "spread"), volumes={**VOLUMES, "spread": spread})
    assert page.inner_text(".pi-sl-high") == "Slices with high spread: 4 10 (click to go)"
    page.get_by_role("button", name="10", exact=True).click()
    wait_for(page, slice=10)


def test_holding_c_shows_the_measurement(mounted: Mount) -> None:
    page = shown(mounted, ("before", "mean"))
    page.focus(".pi-sl-stage")
    page.keyboard.down("c")
    title = ".pi-sl-panel[data-image=mean] .pi-sl-title"
    page.wait_for_function("t => document.querySelector(t).textContent.includes('C held')", arg=title)
    np.testing.assert_array_equal(canvas(page, "mean"), canvas(page, "before"))
    page.keyboard.up("c")
    page.wait_for_function("t => document.querySelector(t).textContent.includes('mean of 4')", arg=title)
    page.get_by_role("button", name="Measurement", exact=True).click()
    page.wait_for_selector(".pi-sl-panel[data-image=before]", state="detached")


# what can go wrong


def test_empty_failed_and_short_voxels_are_said(mounted: Mount) -> None:
    page = mounted(
        "slices",
        {"value": None, "source": None, "job": ""},
        {"/files/before.raw.gz": ("application/gzip", gzip.compress(raw(VOLUMES["before"])[:-2]))},
    )
    assert "No volume yet" in page.inner_text(".pi-sl-status")
    page.evaluate("view => window.give({source: {views: [view]}})", view("before"))
    page.wait_for_selector(".pi-sl[data-state=failed]")
    assert "another size" in page.inner_text(".pi-sl-status")
    key_on_nothing = page.locator(".pi-sl-stage")
    assert key_on_nothing.is_hidden()


def test_a_narrow_page_has_no_horizontal_scroll(mounted: Mount, page: Page) -> None:
    page.set_viewport_size({"width": 390, "height": 844})
    shown(mounted, ("before", "mean", "spread"))
    assert page.evaluate("document.documentElement.scrollWidth") <= 390
    boxes = page.eval_on_selector_all(".pi-sl-panel", "all => all.map(p => p.getBoundingClientRect().width)")
    assert min(boxes) > 330
    small = page.eval_on_selector_all(
        ".pi-sl button, .pi-sl select, .pi-sl input[type=range]",
        "all => all.filter(b => b.offsetParent && b.getBoundingClientRect().height < 24).map(b => b.outerHTML)",
    )
    assert small == []


def test_a_job_is_followed_and_its_volume_shown(mounted: Mount) -> None:
    names = ("before", "mean", "spread")
    status = {"state": "done", "message": "", "total": 1, "done": 1, "failed": 0, "step": 4, "steps": 4, "updated": ""}
    recipe = {"model": {"kind": "trained", "name": "photo"}, "method": {"kind": "diffpir"}, "seeds": [0, 1]}
    job = {"id": "j", "created": "2024-01-01T00:00:00", "title": "", "place": None, "status": status, "recipe": recipe}
    views = [view(name) for name in names]
    case = {
        "number": 1,
        "case": "abc",
        "kind": "nifti",
        "state": "done",
        "message": "",
        "folder": "results/v.nii.gz",
        "outputs": ["restored.nii.gz", "std.nii.gz", "restored.json"],
        "figures": {"residual_sigma": 1.02, "seconds": 3.0},
        "notes": ["the prior was trained on photographs, not on medical images"],
        "facts": {},
        "views": views,
    }
    files = {
        f"/api/v1/jobs/j/views/abc/{name}.raw.gz": ("application/gzip", gzip.compress(raw(VOLUMES[name])))
        for name in names
    }
    answers = {
        "/api/v1/jobs/j": ("application/json", json.dumps({**job, "options": {}}).encode()),
        "/api/v1/models": (
            "application/json",
            b'{"kinds": [], "trained": [{"name": "photo", "title": "Photographs"}]}',
        ),
        "/api/v1/jobs/j/views": ("application/json", json.dumps([case]).encode()),
        **files,
    }
    page = mounted("slices", {"value": None, "source": None, "job": ""}, answers)
    page.evaluate("window.give({job: 'j'})")
    page.wait_for_selector(".pi-sl[data-ready][data-maps=ready]")
    page.wait_for_selector(".pi-sl-report[data-state=done]")
    said = page.inner_text(".pi-sl-report")
    assert "Data consistency 1.02 sigma" in said
    assert "photo (Photographs)" in said
    links = page.eval_on_selector_all(".pi-sl-link", "all => all.map(a => new URL(a.href).pathname)")
    assert links[0] == "/api/v1/jobs/j/files/results/v.nii.gz/restored.nii.gz"
    assert links[-1] == "/api/v1/jobs/j/archive"
    assert "job=j" in page.url
    assert page.locator(".pi-sl-panel").count() == 2
