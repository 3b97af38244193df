"""The result panel: from the queue to the pictures, whatever happens in between."""

import json
from collections.abc import Callable
from typing import Any

from playwright.sync_api import BrowserContext, Page, expect

from tests.gui.fake_jobs import ID, Fake, encoded, photo, state

Mounted = Callable[..., Page]

HEAR = """
window.sent = [];
for (const name of ["preimage:settings", "preimage:compare", "preimage:batch", "preimage:job"])
  window.addEventListener(name, (event) => window.sent.push([name, event.detail]));
"""


def opened(mounted: Mounted, fake: Fake) -> Page:
    return mounted("result", {"job": ID, "tab": "restore"}, fake.answers)


def sent(page: Page) -> list[Any]:
    found: list[Any] = page.evaluate("window.sent")
    return found


def test_empty(mounted: Mounted) -> None:
    page = mounted("result", {"job": "", "tab": "restore"})
    state(page, "empty")
    expect(page.get_by_text("Nothing here yet.")).to_be_visible()
    page.get_by_role("button", name="Run the built-in example").click()
    assert page.evaluate("window.heard") == [["example", None, None]]


def test_from_the_queue_to_the_pictures(mounted: Mounted) -> None:
    fake = Fake("queued")
    page = opened(mounted, fake)
    line = page.locator(".pi-live-line")
    expect(line).to_have_text("Waiting: 2 runs before this one, about 40 s")
    state(page, "queued")
    assert page.url.endswith(f"?job={ID}")
    fake.run(1, residual=30)
    fake.run(12, residual=3)
    expect(line).to_have_text("Step 12 of 40 · 2.8 s left")
    live = page.locator(".pi-live")
    expect(live).to_have_attribute("data-frames", "1")
    picture = page.get_by_role("img", name="Estimate so far, step 12, residual 3.00 sigma")
    first = picture.get_attribute("src")
    fake.run(20, residual=1.2)
    expect(live).to_have_attribute("data-frames", "2")
    assert page.locator(".pi-live-picture").get_attribute("src") != first
    expect(page.get_by_role("img", name="Residual over steps: Residual, sigma ends at 1.2 sigma.")).to_be_visible()
    page.get_by_text("Residual as a table").click()
    assert page.locator(".pi-live-curve tbody tr").all_inner_texts() == ["1\t30", "12\t3", "20\t1.2"]
    fake.status |= {"state": "done", "done": 1, "step": 0, "steps": 0}
    state(page, "done")
    expect(page.get_by_text("Done in 6.2 s")).to_be_visible()
    expect(page.locator(".pi-compare")).to_have_attribute("data-state", "ready")
    expect(page.locator(".pi-live")).to_be_hidden()
    expect(page.get_by_text("Fits the measurement: good", exact=True)).to_be_visible()
    expect(page.get_by_text("Residual 0.98 sigma (expected about 1).")).to_be_visible()
    expect(page.get_by_text("Most uncertain: upper left (see spread).")).to_be_visible()


def test_reduced_motion_shows_no_live_picture_unasked(mounted: Mounted, page: Page) -> None:
    page.emulate_media(reduced_motion="reduce")
    fake = Fake("running")
    opened(mounted, fake)
    expect(page.get_by_label("Live preview")).not_to_be_checked()
    fake.run(2)
    fake.run(3)
    page.get_by_role("img", name="Residual over steps").wait_for()
    assert "GET /live" not in fake.asked
    page.get_by_label("Live preview").check()
    fake.run(4)
    page.get_by_role("img", name="Estimate so far, step 4").wait_for()


def test_stop_continue_and_discard(mounted: Mounted) -> None:
    fake = Fake("running")
    fake.entries = [fake.entry(1, residual=4.0, state="partial")]
    fake.run(12)
    page = opened(mounted, fake)
    page.get_by_role("button", name="Stop").click()
    expect(page.get_by_text("Stopped at step 12. Partial result kept.")).to_be_visible(timeout=2000)
    state(page, "interrupted")
    expect(page.locator(".pi-verdict")).to_contain_text("Stopped early")
    expect(page.locator(".pi-compare")).to_have_attribute("data-state", "ready")
    page.get_by_role("button", name="Continue").click()
    state(page, "running")
    fake.run(13)
    page.locator(".pi-live").press("Escape")
    page.get_by_role("button", name="Stop").press("Escape")
    page.get_by_role("button", name="Discard").click()
    state(page, "gone")
    assert "DELETE " in fake.asked
    assert "job=" not in page.url


def test_lost_server_and_restart(mounted: Mounted, context: BrowserContext) -> None:
    fake = Fake("running")
    fake.run(12)
    page = opened(mounted, fake)
    page.locator(".pi-live-picture").wait_for()
    fake.up = False
    banner = page.get_by_role("alert").filter(has_text="Lost contact with the server.")
    expect(banner).to_have_text("Lost contact with the server. Your run continues; this page reconnects by itself.")
    expect(page.locator(".pi-live-picture")).to_be_visible()
    fake.run(14)
    fake.up = True
    expect(banner).to_be_hidden()
    expect(page.locator(".pi-live-line")).to_contain_text("Step 14 of 40")
    fake.up = False
    expect(banner).to_be_visible()
    text = "The process that worked on it has ended; resume the job."
    fake.status |= {"state": "interrupted", "message": text, "step": 0, "steps": 0}
    fake.entries = []
    fake.up = True
    words = "The server was restarted meanwhile, and the run stopped at step 14. What is done is kept."
    expect(page.get_by_text(words)).to_be_visible()
    expect(page.get_by_role("img", name="Last good frame.")).to_be_visible()
    page.get_by_role("button", name="Continue").click()
    state(page, "running")
    context.faults.clear()  # type: ignore[attr-defined]  # the console tells of the lost connections


def test_failed_keeps_the_last_frame(mounted: Mounted) -> None:
    fake = Fake("running")
    fake.run(31)
    page = opened(mounted, fake)
    page.locator(".pi-live-picture").wait_for()
    failed = fake.entry(1) | {
        "state": "failed",
        "views": [],
        "outputs": [],
        "message": "The result <i>stopped</i> fitting.",
    }
    fake.entries = [failed]
    fake.status |= {"state": "done", "failed": 1, "message": "1 of 1 cases failed; summary.csv says why."}
    state(page, "failed")
    expect(page.get_by_text("The result <i>stopped</i> fitting.")).to_be_visible()
    expect(page.get_by_text("Last good frame kept.")).to_be_visible()


def test_a_run_that_is_not_there(mounted: Mounted, context: BrowserContext) -> None:
    page = mounted("result", {"job": ID, "tab": "restore"}, {})
    state(page, "gone")
    expect(page.get_by_text("That run is no longer here.")).to_be_visible()
    assert "job=" not in page.url
    context.faults.clear()  # type: ignore[attr-defined]  # the console tells of the 404


def test_text_stays_text(mounted: Mounted) -> None:
    fake = Fake()
    bad = "<img src=x onerror=window.hurt=1>"
    fake.entries[0]["notes"] = [bad]
    fake.entries[0]["folder"] = f"results/{bad}.png"
    fake.recipe |= {"title": bad, "method": {"kind": bad}}
    for view in fake.entries[0]["views"]:
        view |= {"title": bad, "alt": bad}
    page = opened(mounted, fake)
    state(page, "done")
    expect(page.locator(".pi-notes li")).to_have_text(bad)
    assert page.locator("img[src=x]").count() == 0
    assert page.evaluate("window.hurt") is None


def test_maps_and_samples(mounted: Mounted) -> None:
    page = opened(mounted, Fake())
    page.set_viewport_size({"width": 390, "height": 800})
    state(page, "done")
    page.get_by_role("radio", name="Sample 2").check()
    expect(page.get_by_text("Residual 1 sigma (expected about 1).")).to_be_visible()
    page.evaluate(HEAR)
    page.get_by_role("button", name="Use this seed").click()
    assert sent(page)[0][1]["recipe"]["seeds"] == [8]
    page.get_by_role("button", name="see spread").click()
    words = "Where samples disagree. High: do not trust detail. Low does not prove correctness: all samples share"
    expect(page.get_by_text(words)).to_be_visible()
    expect(page.locator(".pi-scale")).to_have_text("00.1 of full range")
    expect(page.get_by_role("button", name="Hold for Mean of 4")).to_be_visible()
    canvas = page.locator(".pi-compare canvas")
    canvas.hover(position={"x": 5, "y": 5})
    expect(page.locator(".pi-compare-reading")).to_contain_text("Spread 0.08 of full range")
    page.get_by_role("radio", name="Imagined").check()
    expect(page.get_by_text("On average 23 % of the contrast is imagined.")).to_be_visible()
    assert page.evaluate("document.documentElement.scrollWidth") <= 390
    small = "[...document.querySelectorAll('button, a, select, summary')].filter(e => e.offsetParent)"
    assert page.evaluate(f"Math.min(...{small}.map(e => e.getBoundingClientRect().height))") >= 24


def test_words_on_fit(mounted: Mounted) -> None:
    fake = Fake(samples=1)
    fake.entries[0]["figures"]["residual_sigma"] = 6.2
    for view in fake.entries[0]["views"]:
        view["residual_sigma"] = None
    page = opened(mounted, fake)
    state(page, "done")
    words = "Residual 6.2 sigma: the described blur or damage probably is not the real one."
    expect(page.locator(".pi-verdict")).to_contain_text(words)
    expect(page.get_by_text("Seed 7")).to_be_visible()
    page.get_by_role("button", name="4 samples for a spread map").click()
    assert page.evaluate("window.heard") == [["more", {"job": ID}, None]]
    said = page.evaluate(
        """async () => {
          const { figure, fit } = await import("./static/result_words.js");
          return [0.3, 0.5, 2, "inf", null].map((value) => fit(figure(value))).map(({ grade, text }) => [grade, text]);
        }"""
    )
    assert said == [
        ["poor", "Residual 0.3 sigma: the noise level is probably too high."],
        ["good", "Residual 0.5 sigma (expected about 1)."],
        ["poor", "Residual 2 sigma (expected about 1). More steps may help, or the noise level is too low."],
        ["unknown", "The residual of this picture is not a number."],
        ["unknown", "The residual of this picture is not a number."],
    ]


def test_taking_it_away(mounted: Mounted, context: BrowserContext) -> None:
    context.grant_permissions(["clipboard-read", "clipboard-write"], origin="http://localhost")
    fake = Fake()
    page = opened(mounted, fake)
    state(page, "done")
    main = page.get_by_role("link", name="Download PNG")
    assert main.get_attribute("href") == f"http://localhost/api/v1/jobs/{ID}/files/results/photo.png/restored.png"
    assert main.get_attribute("download") == "photo-restored.png"
    assert page.get_by_role("link", name="Download all .zip").get_attribute("href").endswith("/archive")
    page.get_by_role("button", name="Copy as Python").click()
    expect(page.get_by_text("Copied: Python.")).to_be_visible()
    assert page.evaluate("navigator.clipboard.readText()") == "print('python')\n"
    page.evaluate("navigator.clipboard.writeText = () => Promise.reject(); document.execCommand = () => false")
    page.get_by_role("button", name="curl").click()
    expect(page.get_by_label("Text to copy")).to_have_value("curl\n")
    assert page.evaluate("document.activeElement.selectionEnd") == 5
    with page.expect_download() as download:
        page.get_by_role("button", name="Save run file").click()
    assert json.loads(download.value.path().read_text()) == fake.commands["run_file"]
    page.evaluate(HEAR)
    page.get_by_role("button", name="Send to Batch").click()
    page.get_by_role("button", name="Open in Compare").click()
    batch, compare = sent(page)
    assert batch == ["preimage:batch", {"recipe": fake.recipe, "options": fake.options, "job": ID}]
    assert compare == ["preimage:compare", {"id": ID}]


def test_keys(mounted: Mounted) -> None:
    page = opened(mounted, Fake())
    state(page, "done")
    page.evaluate(
        """document.addEventListener("click", (event) => {
          const link = event.target.closest("a");
          if (!link) return;
          event.preventDefault();
          window.took = link.download;
        })"""
    )
    page.get_by_role("radio", name="Mean of 4").press("d")
    assert page.evaluate("window.took") == "photo-restored.png"
    page.get_by_role("radio", name="Mean of 4").press("?")
    expect(page.get_by_role("dialog", name="Keyboard")).to_be_visible()


def test_another_run_by_prop_and_by_event(mounted: Mounted) -> None:
    fake, other = Fake(), Fake("running", name="b" * 16)
    page = mounted("result", {"job": ID, "tab": "restore"}, fake.answers | other.answers)
    state(page, "done")
    page.evaluate(f"window.give({{job: '{'b' * 16}'}})")
    state(page, "running")
    expect(page.locator(".pi-done")).to_be_hidden()
    detail = f"{{detail: {{id: '{ID}', tab: 'restore'}}}}"
    page.evaluate(f"window.dispatchEvent(new CustomEvent('preimage:job', {detail}))")
    state(page, "done")
    assert page.url.endswith(f"?job={ID}")
    page.evaluate(f"window.dispatchEvent(new CustomEvent('preimage:job', {detail.replace('restore', 'medical')}))")
    state(page, "done")


def test_a_run_without_views_shows_its_file(mounted: Mounted) -> None:
    fake = Fake()
    fake.entries[0]["views"] = []
    path = f"/api/v1/jobs/{ID}/files/results/photo.png/restored.png"
    page = mounted("result", {"job": ID, "tab": "restore"}, fake.answers | {path: ("image/png", encoded(photo(1)))})
    state(page, "done")
    expect(page.locator(".pi-compare")).to_have_attribute("data-state", "ready")
