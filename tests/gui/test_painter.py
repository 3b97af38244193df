import base64
import math
import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest
import tifffile
from numpy.typing import NDArray
from PIL import Image
from playwright.sync_api import Page

from app.gui.painter import known, marked_equal, mask_file, shown
from app.gui.proxy import Shown, equal_pixels, mask_url, read_shown, restorable
from app.pictures import read_picture
from operators.errors import ReadError, ShapeError
from operators.masks import MaskFile
from operators.spec import DataRef

Mounted = Callable[..., Page]
Bools = NDArray[np.bool_]


def rng() -> np.random.Generator:
    return np.random.Generator(np.random.PCG64(7))


def source(width: int, height: int, name: str = "photo.png") -> dict[str, Any]:
    """A grey picture as Python gives it to the widget."""
    scale = min(1, 1024 / max(width, height))
    proxy = round(width * scale), round(height * scale)
    data = cv2.imencode(".png", np.full((proxy[1], proxy[0]), 128, np.uint8))[1].tobytes()
    url = f"data:image/png;base64,{base64.b64encode(data).decode()}"
    size = {"width": width, "height": height, "proxy_width": proxy[0], "proxy_height": proxy[1]}
    return {"url": url, "name": name, **size}


@pytest.fixture
def painter(mounted: Mounted) -> Callable[..., Page]:
    def mount(width: int = 640, height: int = 480, **more: Any) -> Page:
        return mounted("painter", {"value": None, "source": source(width, height), "known": None, **more})

    return mount


def uploaded(page: Page) -> bytes:
    """What was uploaded last; as text, because Playwright is slow with long lists."""
    return base64.b64decode(
        page.evaluate(
            """() => {
              let text = "";
              for (const byte of uploads.at(-1)[1]) text += String.fromCharCode(byte);
              return btoa(text);
            }"""
        )
    )


def settled(page: Page) -> Bools:
    """The mask that was uploaded last, True where missing, once everything is saved."""
    page.locator(".pi-painter").dispatch_event("pointerleave")  # who leaves need not wait for it
    page.wait_for_selector(".pi-painter:is([data-state=saved], [data-state=ready])")
    value = page.evaluate("props.value")
    assert value["saved"]
    assert page.evaluate("heard.at(-1)") == ["change", None, value]
    if value["mask"] is None:
        assert value["painted"] == 0
        return np.zeros((value["height"], value["width"]), np.bool_)
    assert value["mask"] == f"/cache/{page.evaluate('uploads.length')}/mask.png"
    image = cv2.imdecode(np.frombuffer(uploaded(page), np.uint8), cv2.IMREAD_UNCHANGED)
    assert image.shape == (value["height"], value["width"])
    assert set(np.unique(image)) <= {0, 255}
    missing: Bools = image == 0
    assert value["painted"] == pytest.approx(missing.mean())
    return missing


class Glass:
    """Where the pixels of the fitted picture are on the screen."""

    def __init__(self, page: Page, width: int, height: int) -> None:
        box = page.locator("canvas").bounding_box()
        assert box is not None
        self.scale = min(box["width"] / width, box["height"] / height)
        self.left = box["x"] + (box["width"] - width * self.scale) / 2
        self.top = box["y"] + (box["height"] - height * self.scale) / 2

    def at(self, x: float, y: float) -> tuple[int, int]:
        """Of the screen: whole pixels, as a mouse has them."""
        return round(self.left + x * self.scale), round(self.top + y * self.scale)

    def back(self, x: float, y: float) -> tuple[float, float]:
        return (x - self.left) / self.scale, (y - self.top) / self.scale


def brush(points: list[tuple[float, float]], radius: float, width: int, height: int) -> tuple[Bools, Bools]:
    """What a stroke must and may cover: pixels whose centre is nearer than the radius, with room for rounding."""
    y, x = np.mgrid[:height, :width] + 0.5
    least = np.full((height, width), np.inf)
    for (ax, ay), (bx, by) in zip(points, points[1:] or points, strict=False):
        length = (bx - ax) ** 2 + (by - ay) ** 2
        along = ((x - ax) * (bx - ax) + (y - ay) * (by - ay)) / (length or 1)
        t = along.clip(0, 1) if length else 0 * x
        least = np.minimum(least, np.hypot(x - ax - t * (bx - ax), y - ay - t * (by - ay)))
    return least < radius - 1e-3, least < radius + 1e-3


def draw(page: Page, screen: list[tuple[int, int]]) -> None:
    page.mouse.move(*screen[0])
    page.mouse.down()
    for point in screen[1:]:
        page.mouse.move(*point)
    page.mouse.up()


def assert_covers(missing: Bools, truth: tuple[Bools, Bools]) -> None:
    must, may = truth
    assert must.any()
    assert not (must & ~missing).any()
    assert not (missing & ~may).any()


def diameter(page: Page) -> float:
    return float(page.locator(".pi-painter-size output").inner_text().split()[0])


# Painting


def test_a_stroke_of_the_mouse_covers_exactly_its_pixels_and_reaches_the_operator(
    painter: Callable[..., Page], tmp_path: Path
) -> None:
    page = painter()
    glass = Glass(page, 640, 480)
    assert settled(page).sum() == 0
    screen = [glass.at(*point) for point in ((100.3, 80), (300, 200), (310, 350))]
    draw(page, screen)
    missing = settled(page)
    points = [glass.back(*point) for point in screen]
    assert_covers(missing, brush(points, diameter(page) / 2, 640, 480))
    page.get_by_text(f"Painted: {100 * missing.mean():.1f} % of the picture").wait_for(timeout=10_000)
    # through Python, as a job gets it
    (tmp_path / "cache").mkdir()
    (tmp_path / "cache" / "mask.png").write_bytes(uploaded(page))
    value = page.evaluate("props.value") | {"mask": str(tmp_path / "cache" / "mask.png")}
    written = mask_file(value, (480, 640), tmp_path, tmp_path / "cache")
    mask = MaskFile(file=DataRef(path=str(written))).build(480, 640)
    assert np.array_equal(mask.numpy(), ~missing)


def test_the_eraser_undo_redo_invert_and_clear(painter: Callable[..., Page]) -> None:
    page = painter(320, 240)
    glass = Glass(page, 320, 240)
    across = [glass.at(40, 120), glass.at(280, 120)]
    draw(page, across)
    whole = settled(page)
    page.get_by_role("button", name="Eraser").click()
    draw(page, [glass.at(160, 60), glass.at(160, 180)])
    cut = settled(page)
    assert 0 < cut.sum() < whole.sum()
    assert not cut[120, 160]
    assert not (cut & ~whole).any()
    page.keyboard.press("Control+z")
    assert np.array_equal(settled(page), whole)
    page.keyboard.press("Control+Shift+Z")
    assert np.array_equal(settled(page), cut)
    page.get_by_role("button", name="Invert").click()
    assert np.array_equal(settled(page), ~cut)
    page.get_by_role("button", name="Undo").click()
    assert np.array_equal(settled(page), cut)
    page.locator("canvas").press("x")
    assert settled(page).sum() == 0
    assert page.evaluate("props.value.mask") is None
    assert page.get_by_role("button", name="Clear").is_disabled()
    page.keyboard.press("Control+z")
    assert np.array_equal(settled(page), cut)
    for _ in range(2):
        page.keyboard.press("Control+z")
    assert settled(page).sum() == 0
    assert page.get_by_role("button", name="Undo").is_disabled()


def test_keys_alone_paint(painter: Callable[..., Page]) -> None:
    page = painter(200, 150)
    for _ in range(20):
        page.keyboard.press("Tab")
        if page.evaluate("document.activeElement.tagName") == "CANVAS":
            break
    size = diameter(page)
    page.keyboard.press("]")
    assert diameter(page) > size
    page.keyboard.press("[")
    page.keyboard.press("[")
    assert diameter(page) < size
    page.get_by_label("Size").fill("0")
    assert diameter(page) == 1
    page.locator("canvas").focus()
    page.keyboard.press("Enter")
    missing = settled(page)
    assert [tuple(place) for place in np.argwhere(missing)] == [(75, 100)]
    page.keyboard.press("Shift+ArrowRight")
    page.keyboard.press("Shift+ArrowDown")
    page.keyboard.press("Space")
    missing = settled(page)
    assert {tuple(place) for place in np.argwhere(missing).tolist()} == {(75, 100), (76, 101)}
    page.keyboard.press("e")
    page.keyboard.press("Enter")
    assert settled(page).sum() == 1
    page.keyboard.press("i")
    assert settled(page).sum() == 200 * 150 - 1


def test_letters_in_fields_are_no_commands(painter: Callable[..., Page]) -> None:
    page = painter(200, 150)
    page.locator("summary").click()
    page.get_by_label("Height").press("i")
    page.get_by_label("Height").press("x")
    page.get_by_label("Height").press("e")
    assert page.get_by_role("button", name="Brush").get_attribute("aria-pressed") == "true"
    assert settled(page).sum() == 0


def test_fingers_paint_and_two_of_them_zoom(painter: Callable[..., Page]) -> None:
    page = painter(320, 240)
    glass = Glass(page, 320, 240)
    touch = page.context.new_cdp_session(page)

    def fingers(kind: str, *places: tuple[float, float]) -> None:
        points = [{"x": x, "y": y, "id": k} for k, (x, y) in enumerate(places)]
        touch.send("Input.dispatchTouchEvent", {"type": kind, "touchPoints": points})

    start, end = glass.at(60, 60), glass.at(120, 60)
    fingers("touchStart", start)
    fingers("touchMove", end)
    assert page.locator(".pi-painter").get_attribute("data-state") == "painting"
    fingers("touchEnd")
    missing = settled(page)
    assert_covers(missing, brush([glass.back(*start), glass.back(*end)], diameter(page) / 2, 320, 240))
    before = page.get_by_label("Zoom", exact=True).locator("output").inner_text()
    a, b = glass.at(100, 120), glass.at(200, 120)
    fingers("touchStart", a)
    fingers("touchStart", a, b)
    fingers("touchMove", (a[0] - 60, a[1]), (b[0] + 60, b[1]))
    fingers("touchEnd")
    assert int(page.get_by_label("Zoom", exact=True).locator("output").inner_text()[:-2]) > int(before[:-2])
    assert np.array_equal(settled(page), missing)


def test_zoomed_and_moved_the_brush_still_hits_its_pixels(painter: Callable[..., Page]) -> None:
    page = painter(2000, 800)
    glass = Glass(page, 2000, 800)
    focus = glass.at(500, 350)
    page.locator("canvas").focus()
    page.mouse.move(*focus)
    for _ in range(14):
        page.mouse.wheel(0, -120)
    shift = (40, 25)
    page.keyboard.down("Space")
    draw(page, [focus, (focus[0] + shift[0], focus[1] + shift[1])])
    page.keyboard.up("Space")
    zoom = math.exp(14 * 0.24)
    assert page.get_by_label("Zoom", exact=True).locator("output").inner_text() == f"{100 * zoom * glass.scale:.0f} %"
    assert settled(page).sum() == 0  # moving does not paint
    page.get_by_label("Size").fill("30")
    # the point that was held has moved along; a place 90 screen pixels to the right of it is 90 / zoom pixels away
    place = focus[0] + shift[0] + 90, focus[1] + shift[1] - 30
    x, y = glass.back(*focus)
    page.mouse.move(*place)
    page.mouse.down()
    page.mouse.up()
    centre = x + 90 / zoom / glass.scale, y - 30 / zoom / glass.scale
    assert_covers(settled(page), brush([centre], diameter(page) / 2, 2000, 800))
    page.keyboard.press("0")
    shown_now = page.get_by_label("Zoom", exact=True).locator("output").inner_text()
    assert shown_now == f"{100 * glass.scale:.0f} %"


def test_nothing_is_sent_while_somebody_paints(painter: Callable[..., Page]) -> None:
    page = painter(200, 150)
    glass = Glass(page, 200, 150)
    settled(page)
    page.mouse.move(*glass.at(50, 50))
    page.mouse.down()
    page.mouse.move(*glass.at(60, 50))
    assert page.locator(".pi-painter").get_attribute("data-state") == "painting"
    assert page.evaluate("uploads.length") == 0
    page.mouse.up()
    assert page.locator(".pi-painter").get_attribute("data-state") == "saving"
    assert page.evaluate("props.value.saved") is False
    page.wait_for_selector("[data-state=saved]")
    assert page.evaluate("uploads.length") == 1
    assert settled(page).any()


def test_an_upload_that_fails_is_said_and_tried_again(painter: Callable[..., Page]) -> None:
    page = painter(200, 150)
    settled(page)
    page.evaluate(
        """() => {
          const upload = Blob.prototype.arrayBuffer;
          let first = true;
          File.prototype.arrayBuffer = function () {
            if (first) { first = false; return Promise.reject(new Error("no network")); }
            return upload.call(this);
          };
        }"""
    )
    page.locator("canvas").press("i")
    said = page.get_by_text("The mask did not reach the server. Trying again in 2 s; what you painted is still here.")
    said.wait_for()
    assert page.locator(".pi-painter").get_attribute("data-state") == "saving"
    assert settled(page).all()
    assert said.is_hidden()


# Numbers and files


def test_a_rectangle_by_numbers_is_exact_in_the_full_picture(painter: Callable[..., Page]) -> None:
    page = painter(4000, 3000)
    assert page.get_by_text("Editing view 1024 px; result full size 4000 × 3000").is_visible()
    page.locator("summary").click()
    for label, number in (("x", 1001), ("y", 7), ("Width", 333), ("Height", 2)):
        page.get_by_label(label, exact=True).fill(str(number))
    page.get_by_role("button", name="Mark rectangle").click()
    truth = np.zeros((3000, 4000), np.bool_)
    truth[7:9, 1001:1334] = True
    assert np.array_equal(settled(page), truth)
    assert page.get_by_text("Marked the rectangle.").is_visible()
    assert page.get_by_text("Painted: less than 0.1 % of the picture").is_visible()
    page.get_by_label("Width", exact=True).fill("1")
    page.get_by_role("button", name="Erase rectangle").click()
    truth[7:9, 1001] = False
    assert np.array_equal(settled(page), truth)
    page.get_by_label("x", exact=True).fill("4000")
    page.get_by_role("button", name="Mark rectangle").click()
    assert page.get_by_text(
        "Give whole numbers: x from 0 to 3999, y from 0 to 2999, a width and a height."
    ).is_visible()


def test_mask_files_come_and_go_without_a_change(painter: Callable[..., Page], tmp_path: Path) -> None:
    page = painter(1500, 120, source=source(1500, 120, "old photo.tif"))
    missing = rng().random((120, 1500)) < 0.3
    given = tmp_path / "holes.png"
    Image.fromarray(~missing).save(given)
    page.locator("input[type=file]").set_input_files(given)
    page.get_by_text(
        f'Loaded "holes.png": {100 * missing.mean():.1f} % of it is black and taken as missing.'
    ).wait_for()
    assert np.array_equal(settled(page), missing)
    with page.expect_download() as download:
        page.get_by_role("button", name="Save mask").click()
    assert download.value.suggested_filename == "old photo-mask.png"
    saved = MaskFile(file=DataRef(path=str(download.value.path()))).build(120, 1500)
    assert np.array_equal(saved.numpy(), ~missing)
    # grey levels are cut where MaskFile cuts them
    levels = rng().integers(0, 256, (120, 1500, 3), dtype=np.uint8)
    Image.fromarray(levels).save(given)
    page.locator("input[type=file]").set_input_files(given)
    page.get_by_text("Loaded").wait_for()
    page.wait_for_function("Math.abs(props.value.painted - 0.5) < 0.01")
    assert np.array_equal(settled(page), ~MaskFile(file=DataRef(path=str(given))).build(120, 1500).numpy())


def test_a_mask_of_another_size_is_scaled_on_demand(painter: Callable[..., Page], tmp_path: Path) -> None:
    page = painter(64, 48)
    small = rng().random((24, 32)) < 0.5
    given = tmp_path / "holes.png"
    Image.fromarray(~small).save(given)
    page.locator("input[type=file]").set_input_files(given)
    page.get_by_text("Mask is 32 × 24, image is 64 × 48.").wait_for()
    assert settled(page).sum() == 0
    with page.expect_file_chooser():
        page.get_by_role("button", name="Choose another").click()
    page.locator("input[type=file]").set_input_files(given)
    page.get_by_role("button", name="Scale mask").click()
    assert np.array_equal(settled(page), small.repeat(2, 0).repeat(2, 1))
    (tmp_path / "notes.txt").write_text("no mask")
    page.locator("input[type=file]").set_input_files(tmp_path / "notes.txt")
    page.get_by_text('"notes.txt" is not an image I can read.').wait_for()


def test_masks_stay_with_pictures_of_the_same_size_only(painter: Callable[..., Page]) -> None:
    page = painter(64, 48)
    page.locator("canvas").press("i")
    assert settled(page).all()
    page.evaluate("s => give({source: s})", source(64, 48, "another.png"))
    page.wait_for_function("document.querySelector('canvas').getAttribute('aria-label').startsWith('another.png')")
    assert settled(page).all()
    page.evaluate("give({source: null})")
    page.wait_for_selector("[data-state=empty]")
    assert page.get_by_text("Add a picture in step 1.").is_visible()
    assert page.locator("canvas").is_hidden()
    page.evaluate("s => give({source: s})", source(48, 64, "upright.png"))
    page.get_by_text("The mask was dropped: it belonged to a picture of another size.").wait_for()
    assert settled(page).shape == (64, 48)
    assert not settled(page).any()


def test_what_the_file_marks_as_missing_is_painted_already(painter: Callable[..., Page]) -> None:
    missing = rng().random((48, 64)) < 0.2
    page = painter(64, 48, known=known(missing, "Transparent pixels are missing."))
    page.get_by_text("Transparent pixels are missing.").wait_for()
    assert np.array_equal(settled(page), missing)
    page.keyboard.press("Control+z")  # not here: nothing of the widget is in focus
    assert np.array_equal(settled(page), missing)
    page.locator("summary").click()
    page.get_by_label("Value in the file").fill("255")
    page.get_by_role("button", name="Mark these pixels").click()
    assert page.evaluate("heard.at(-1)[0]") == "equal"
    assert page.evaluate("heard.at(-1)[2].equal") == 255
    more = rng().random((48, 64)) > 0.9
    page.evaluate("k => give({known: k})", known(more, "Marked them.", add=True))
    page.get_by_text("Marked them.").wait_for()
    assert np.array_equal(settled(page), missing | more)
    page.evaluate("k => give({known: k})", known(~missing, "Turned about."))
    page.get_by_text("Turned about.").wait_for()
    assert np.array_equal(settled(page), ~missing)
    page.get_by_role("button", name="Undo").click()
    assert np.array_equal(settled(page), missing | more)
    page.get_by_role("button", name="Undo").click()
    assert np.array_equal(settled(page), missing)


def test_every_control_has_a_name_and_a_narrow_page_does_not_scroll_sideways(painter: Callable[..., Page]) -> None:
    page = painter(640, 480)
    page.set_viewport_size({"width": 390, "height": 844})
    page.locator("summary").click()
    nameless = page.evaluate(
        """() => [...document.querySelectorAll("button, input, select, canvas")].filter(e =>
             !(e.getAttribute("aria-label") || e.textContent.trim() || e.labels?.length)).map(e => e.outerHTML)"""
    )
    assert nameless == []
    small = page.evaluate(
        """() => [...document.querySelectorAll("button, input:not([hidden]), select, summary")].filter(e => {
             const b = e.getBoundingClientRect(); return b.width && (b.width < 24 || b.height < 24); })
           .map(e => e.outerHTML)"""
    )
    assert small == []
    assert page.evaluate("document.documentElement.scrollWidth") <= 390
    width = page.evaluate("document.querySelector('canvas').clientWidth")
    page.wait_for_function(f"document.querySelector('canvas').width === {width}")  # drawn for the new size


# What Python believes


def write_mask(place: Path, missing: Bools) -> Path:
    Image.fromarray(~missing).save(place)
    return place


@pytest.fixture
def cache(tmp_path: Path) -> Path:
    made = tmp_path / "cache"
    made.mkdir()
    write_mask(made / "mask.png", np.eye(20, 30, dtype=np.bool_))
    write_mask(tmp_path / "outside.png", np.eye(20, 30, dtype=np.bool_))
    os.symlink(tmp_path / "outside.png", made / "link.png")
    os.mkfifo(made / "pipe.png")
    (made / "text.png").write_text("not a picture at all, but long enough to look like one")
    (made / "cut.png").write_bytes((made / "mask.png").read_bytes()[:60])
    Image.new("RGBA", (30, 20)).save(made / "colour.png")
    write_mask(made / "none.png", np.zeros((20, 30), np.bool_))
    write_mask(made / "all.png", np.ones((20, 30), np.bool_))
    return made


def value(cache: Path, name: str = "mask.png", **more: Any) -> dict[str, Any]:
    return {"mask": str(cache / name), "width": 30, "height": 20, "painted": 0.1, "revision": 3, "saved": True, **more}


def test_a_saved_mask_is_written_for_the_operator(cache: Path, tmp_path: Path) -> None:
    written = mask_file(value(cache), (20, 30), tmp_path, cache)
    assert written == tmp_path / "mask.png"
    assert np.array_equal(MaskFile(file=DataRef(path=str(written))).build(20, 30).numpy(), ~np.eye(20, 30, dtype=bool))


@pytest.mark.parametrize(
    "name",
    ["../outside.png", "link.png", "pipe.png", "text.png", "cut.png", "colour.png", "gone.png", "", "a\0b", "x" * 5000],
)
def test_other_files_are_not_opened(name: str, cache: Path, tmp_path: Path) -> None:
    with pytest.raises(ReadError, match=r"^The painted mask did not arrive as it should\.") as refused:
        mask_file(value(cache, name), (20, 30), tmp_path, cache)
    assert str(tmp_path) not in str(refused.value)
    assert not (tmp_path / "mask.png").exists()


@pytest.mark.parametrize(
    "more",
    [
        {"mask": "/etc/passwd"},
        {"mask": "cache/mask.png"},
        {"mask": {"path": "/etc/passwd"}},
        {"mask": ["a"]},
        {"width": -1},
        {"width": "30; rm"},
        {"painted": float("nan")},
        {"more": 1},
    ],
)
def test_invented_values_are_refused(more: dict[str, Any], cache: Path, tmp_path: Path) -> None:
    with pytest.raises(ReadError, match="did not arrive"):
        mask_file(value(cache, **more), (20, 30), tmp_path, cache)


@pytest.mark.parametrize("whole", ["text", 5, ["a"]])
def test_values_that_are_no_objects_are_refused(whole: Any, cache: Path, tmp_path: Path) -> None:
    with pytest.raises(ReadError, match="did not arrive"):
        mask_file(whole, (20, 30), tmp_path, cache)


def test_masks_that_cannot_be_used_are_explained(cache: Path, tmp_path: Path) -> None:
    nothing = r"^Nothing is painted\. Paint the missing area, or choose another problem type\.$"
    for empty in (None, value(cache) | {"mask": None}, value(cache, "none.png")):
        with pytest.raises(ReadError, match=nothing):
            mask_file(empty, (20, 30), tmp_path, cache)
    with pytest.raises(ReadError, match="still being saved"):
        mask_file(value(cache, saved=False), (20, 30), tmp_path, cache)
    with pytest.raises(ShapeError, match=r"^The whole picture is painted"):
        mask_file(value(cache, "all.png"), (20, 30), tmp_path, cache)
    with pytest.raises(ShapeError, match=r"^Mask is 30 × 20, image is 2048 × 1536\."):
        mask_file(value(cache), (1536, 2048), tmp_path, cache)
    with pytest.raises(ShapeError, match=r"^Mask is 30 × 20, image is 31 × 20\."):  # declared well, but another
        mask_file(value(cache, width=31), (20, 31), tmp_path, cache)


# Proxies


def proxy(picture: Shown) -> NDArray[np.uint8]:
    data = base64.b64decode(picture.url.split(",")[1])
    decoded = cv2.imdecode(np.frombuffer(data, np.uint8), cv2.IMREAD_UNCHANGED)
    assert decoded.shape[:2] == (picture.proxy_height, picture.proxy_width)
    return np.asarray(decoded[..., ::-1] if decoded.ndim == 3 else decoded)


def smooth(height: int, width: int) -> NDArray[np.uint8]:
    return cv2.resize(rng().integers(0, 256, (5, 7, 3), dtype=np.uint8), (width, height), interpolation=cv2.INTER_CUBIC)


@pytest.mark.parametrize("orientation", range(1, 9))
def test_cameras_held_askew_are_turned_as_the_job_turns_them(orientation: int, tmp_path: Path) -> None:
    exif = Image.Exif()
    exif[274] = orientation
    path = tmp_path / "camera.jpg"
    Image.fromarray(smooth(1536, 2304)).save(path, exif=exif, quality=95)
    picture = read_shown(path)
    truth = read_picture(path).pixels.numpy()
    assert (picture.height, picture.width) == truth.shape[1:]
    size = picture.proxy_width, picture.proxy_height
    small = cv2.resize(np.moveaxis(truth, 0, -1), size, interpolation=cv2.INTER_AREA) * 255
    assert np.abs(proxy(picture) - small).mean() < 2
    assert picture.facts == f"camera.jpg · {picture.width} × {picture.height} · 8-bit colour"
    assert picture.source()["proxy_width"] == picture.proxy_width


def test_depths_are_told_and_dark_ones_are_brightened(tmp_path: Path) -> None:
    grey = rng().integers(0, 65536, (40, 50), dtype=np.uint16)
    tifffile.imwrite(tmp_path / "deep.tif", grey)
    picture = read_shown(tmp_path / "deep.tif")
    assert picture.facts == "deep.tif · 50 × 40 · 16-bit grey"
    assert np.abs(proxy(picture).astype(float) - grey / 257).max() <= 0.51  # tiny: a PNG
    tifffile.imwrite(tmp_path / "dark.tif", grey // 16)
    dark = read_shown(tmp_path / "dark.tif")
    assert 15.9 < dark.brighter < 16.2
    assert dark.facts.endswith(" times brighter than stored")
    assert proxy(dark).max() == 255
    assert read_shown(tmp_path / "deep.tif", "../../evil\n<b>.tif").name == "evil__b_.tif"


def test_files_that_the_job_would_refuse_are_refused_without_folders(tmp_path: Path) -> None:
    (tmp_path / "notes.txt").write_text("hello, this is a text")
    Image.new("CMYK", (40, 40)).save(tmp_path / "print.jpg")
    Image.fromarray(smooth(100, 100)).save(tmp_path / "ok.png")
    (tmp_path / "cut.png").write_bytes((tmp_path / "ok.png").read_bytes()[:3000])
    np.save(tmp_path / "array.npy", np.zeros((40, 40)))
    (tmp_path / "scan.nii.gz").write_bytes(b"\x1f\x8b" + bytes(400))
    readable = r"is not an image I can read\. Use PNG, JPEG, TIFF, BMP or WebP\.$"
    for name, sentence in {
        "notes.txt": f'^"notes.txt" {readable}',
        "array.npy": f'^"array.npy" {readable}',
        "print.jpg": '^"print.jpg" cannot be used: expected RGB or grey pixels, got colour mode CMYK; convert',
        "cut.png": '^"cut.png" cannot be used: expected a complete picture, got damaged',
        "scan.nii.gz": r'^"scan.nii.gz" is a medical file; open it on the Medical tab\.$',
        "gone.png": r'^"gone.png" is no longer here; add it again\.$',
    }.items():
        with pytest.raises(ReadError, match=sentence) as refused:
            read_shown(tmp_path / name)
        assert str(tmp_path) not in str(refused.value)
    with pytest.raises(ReadError, match=r'^"ok.png" is .* MB; the limit here is 0\.000954 MB \(set by --max-upload\)'):
        read_shown(tmp_path / "ok.png", max_bytes=1000)
    with pytest.raises(ReadError, match=r"at most 0\.005 megapixels, got 100 x 100 = 0\.01; crop"):
        read_shown(tmp_path / "ok.png", max_pixels=5000)


@pytest.mark.parametrize("deep", [False, True])
def test_transparent_pixels_are_missing_and_the_rest_is_restorable(deep: bool, tmp_path: Path) -> None:
    top, kind = (65535, np.uint16) if deep else (255, np.uint8)
    colours = rng().integers(0, top, (30, 40, 3)).astype(kind)
    opacity = np.where(rng().random((30, 40)) < 0.3, rng().integers(0, top, (30, 40)), top).astype(kind)
    path = tmp_path / "cut out.png"
    cv2.imwrite(str(path), np.dstack([colours[..., ::-1], opacity]))
    picture = read_shown(path)
    assert picture.missing is not None
    assert np.array_equal(picture.missing, opacity < top)
    assert picture.facts.endswith(f"{100 * picture.missing.mean():.1f} % of it transparent or without a value")
    update = shown(picture)
    assert update.constructor_args["known"]["url"] == mask_url(picture.missing)
    opaque = restorable(path, (tmp_path / "made").mkdir() or tmp_path / "made")
    read = read_picture(opaque)
    assert read.bits == (16 if deep else 8)
    truth = np.where(picture.missing[..., None], 0, colours)
    assert np.array_equal(np.rint(read.pixels.numpy() * top), np.moveaxis(truth, -1, 0))
    # opaque all over: nothing is missing
    cv2.imwrite(str(path), np.dstack([colours, np.full_like(opacity, top)]))
    assert read_shown(path).missing is None


def test_not_a_number_is_missing(tmp_path: Path) -> None:
    values = rng().random((30, 40)).astype(np.float32)
    missing = rng().random((30, 40)) < 0.1
    tifffile.imwrite(tmp_path / "float.tif", np.where(missing, np.nan, values).astype(np.float32))
    picture = read_shown(tmp_path / "float.tif")
    assert picture.missing is not None
    assert np.array_equal(picture.missing, missing)
    (tmp_path / "made").mkdir()
    made = restorable(tmp_path / "float.tif", tmp_path / "made")
    assert made.name == "float.tif"
    assert np.array_equal(read_picture(made).pixels[0].numpy(), np.where(missing, 0, values))
    tifffile.imwrite(tmp_path / "plain.tif", values)
    assert restorable(tmp_path / "plain.tif", tmp_path / "made") == tmp_path / "plain.tif"


def test_pixels_of_one_value_are_found_exactly(tmp_path: Path) -> None:
    colours = rng().integers(0, 4, (30, 40, 3), dtype=np.uint16) * 1000
    cv2.imwrite(str(tmp_path / "deep.png"), colours)
    assert np.array_equal(equal_pixels(tmp_path / "deep.png", 3000), (colours == 3000).all(-1))
    update = marked_equal({"equal": 3000}, tmp_path / "deep.png").constructor_args["known"]
    assert update["url"] == mask_url((colours == 3000).all(-1))
    with pytest.raises(ReadError, match=r"^No pixel is exactly 7 in every channel; .* from 0 to 65535\.$"):
        marked_equal({"equal": 7}, tmp_path / "deep.png")
    with pytest.raises(ReadError, match="did not arrive"):
        marked_equal({"equal": "1e999"}, tmp_path / "deep.png")
