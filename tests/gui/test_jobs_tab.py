"""The Jobs tab and the banner of a run elsewhere, in a browser."""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from playwright.sync_api import Page, Route, expect

from app.gui.jobs_tab import titles
from operators import AnyOperator
from operators.spec import kinds

Mount = Callable[..., Page]

EVIL = "<img src=x onerror=window.hit=1>"
SVG = ("image/svg+xml", b'<svg xmlns="http://www.w3.org/2000/svg" width="9" height="9"></svg>')


def job(k: int, state: str = "done", **more: Any) -> dict[str, Any]:
    status = {"state": state, "message": "", "total": 1, "done": 1, "failed": 0, "step": 0, "steps": 0, "updated": "u"}
    recipe = {
        "operator": {"kind": "blur"},
        "method": {"kind": "diffpir", "schedule": {"steps": 20}},
        "model": {"kind": "trained"},
        "seeds": [k],
    }
    return {
        "id": f"{k:016x}", "created": "2026-11-20T14:02:00+00:00", "title": f"Run {k}", "place": None, "files": 1,
        "pictured": True, "wait_seconds": None, "recipe": recipe, "options": {"device": "cpu"},
        "status": status | more.pop("status", {}), **more,
    }  # fmt: skip


class Server:
    """The API of a server with some jobs; remembers what it was asked."""

    def __init__(self, *jobs: dict[str, Any]) -> None:
        self.jobs, self.asked = list(jobs), list[str]()

    def answers(self) -> dict[str, Any]:
        made: dict[str, Any] = {"/api/v1/jobs": self.list}
        for one in self.jobs:
            at = f"/api/v1/jobs/{one['id']}"
            made |= {at: self.one, f"{at}/preview": SVG, f"{at}/cancel": self.note, f"{at}/resume": self.note}
            made[f"{at}/commands"] = ("application/json", b'{"cli": "preimage run x"}')
            made[f"{at}/cases"] = ("application/json", json.dumps([{"number": 1, "kind": "picture"}]).encode())
        return made

    def list(self, route: Route) -> None:
        from urllib.parse import parse_qs, urlsplit

        query = parse_qs(urlsplit(route.request.url).query)
        states = query.get("state")
        found = [one for one in self.jobs if not states or one["status"]["state"] in states]
        offset, limit = int(query.get("offset", ["0"])[0]), int(query["limit"][0])
        body = {"jobs": found[offset : offset + limit], "total": len(found), "waiting": 0}
        route.fulfill(content_type="application/json", body=json.dumps(body))

    def note(self, route: Route) -> None:
        self.asked.append(f"{route.request.method} {route.request.url.removeprefix('http://localhost/api/v1/jobs/')}")
        route.fulfill(content_type="application/json", body="{}")

    def one(self, route: Route) -> None:
        self.note(route)
        self.jobs = [kept for kept in self.jobs if not route.request.url.endswith(kept["id"])]


def listed(mounted: Mount, server: Server, **props: Any) -> Page:
    page = mounted("jobs", {"value": None, "keep_days": None, "titles": titles(), **props}, server.answers())
    expect(page.locator(".pi-jobs")).to_have_attribute("data-state", "ready")
    return page


@pytest.mark.parametrize(
    ("days", "said"),
    [(None, "until you delete them."), (7, "for 7 days."), (1, "for one day."), (0.5, "for 0.5 days.")],
)
def test_an_empty_list_says_how_long_runs_are_kept(days: float | None, said: str, mounted: Mount) -> None:
    page = listed(mounted, Server(), keep_days=days)
    expect(page.get_by_text(f"No runs yet. Runs made here are kept on this machine {said}")).to_be_visible()


def test_runs_say_what_they_are_and_names_are_text(mounted: Mount) -> None:
    running = {"step": 12, "steps": 40, "total": 3, "done": 1}
    server = Server(
        job(1, title=EVIL),
        job(2, "running", status=running, title="", files=3),
        job(3, "failed", status={"message": "No room."}),
    )
    page = listed(mounted, server)
    rows = page.locator(".pi-jobs-row")
    expect(rows).to_have_count(3)
    expect(rows.nth(0).get_by_role("heading")).to_have_text(EVIL)
    assert page.evaluate("window.hit") is None
    expect(rows.nth(0)).to_contain_text(f"{titles()['method']['diffpir']} · 20 steps · seed 1")
    expect(rows.nth(1).get_by_role("heading")).to_have_text(titles()["operator"]["blur"])
    expect(rows.nth(1)).to_contain_text("Running · 1 of 3 files · step 12 of 40")
    expect(rows.nth(2)).to_contain_text("Failed · No room.")
    for k, names in enumerate([{"Open", "Delete"}, {"Stop"}, {"Continue", "Delete"}]):
        shown = set(rows.nth(k).get_by_role("button").all_inner_texts())
        assert names <= shown
    expect(rows.nth(1).get_by_role("button", name="Delete")).to_be_disabled()
    expect(rows.nth(0).get_by_role("button", name="Stop")).to_be_hidden()


def test_running_ones_are_looked_at_again(mounted: Mount) -> None:
    server = Server(job(1, "running", status={"step": 1, "steps": 9, "done": 0}))
    page = listed(mounted, server)
    expect(page.get_by_text("Running · step 1 of 9")).to_be_visible()
    server.jobs = [job(1)]
    expect(page.locator(".pi-jobs-row")).to_have_attribute("data-state", "done")


def test_delete_asks_first(mounted: Mount) -> None:
    server = Server(job(1), job(2))
    page = listed(mounted, server)
    page.get_by_role("button", name="Delete: Run 1").click()
    page.keyboard.press("Escape")
    expect(page.get_by_role("dialog")).to_have_count(0)
    assert server.asked == []
    page.get_by_role("button", name="Delete: Run 1").click()
    page.get_by_role("dialog").get_by_role("button", name="Delete").click()
    expect(page.get_by_text("Deleted, with all its files.")).to_be_visible()
    expect(page.locator(".pi-jobs-row")).to_have_count(1)
    assert server.asked == [f"DELETE {1:016x}"]


def test_buttons_reach_the_server_and_the_other_tabs(mounted: Mount) -> None:
    server = Server(job(1), job(2, "running"), job(3, "interrupted"))
    page = listed(mounted, server)
    page.evaluate(
        "for (const n of ['job', 'settings']) addEventListener(`preimage:${n}`, (e) => heard.push([n, e.detail]))"
    )
    page.get_by_role("button", name="Open: Run 1").click()
    page.wait_for_function("heard.length === 1")
    page.get_by_role("button", name="Use settings: Run 1").click()
    heard = page.evaluate("heard")
    assert heard[0] == ["job", {"id": f"{1:016x}", "tab": "restore"}]
    assert heard[1][1]["recipe"]["seeds"] == [1]
    page.get_by_role("button", name="Copy command: Run 1").click()
    expect(page.get_by_role("status")).to_have_text("The command line is copied.")
    page.get_by_role("button", name="Stop: Run 2").click()
    page.get_by_role("button", name="Continue: Run 3").click()
    expect.set_options(timeout=5000)
    page.wait_for_timeout(0)
    while len(server.asked) < 2:
        page.wait_for_timeout(20)
    assert server.asked == [f"POST {2:016x}/cancel", f"POST {3:016x}/resume"]


def test_many_runs_come_in_pages_and_can_be_filtered(mounted: Mount) -> None:
    page = listed(mounted, Server(*(job(k) for k in range(1, 61)), job(99, "failed")))
    expect(page.locator(".pi-jobs-row")).to_have_count(50)
    expect(page.get_by_text("1 to 50 of 61")).to_be_visible()
    page.get_by_role("button", name="Older").click()
    expect(page.locator(".pi-jobs-row")).to_have_count(11)
    expect(page.get_by_role("button", name="Older")).to_be_disabled()
    page.get_by_label("Show").select_option("failed")
    expect(page.locator(".pi-jobs-row")).to_have_count(1)
    page.get_by_label("Show").select_option("interrupted")
    expect(page.get_by_text("No such runs.")).to_be_visible()


def test_a_narrow_page_does_not_scroll_sideways(mounted: Mount) -> None:
    page = listed(mounted, Server(job(1, title="A" * 90), job(2, "running")))
    page.set_viewport_size({"width": 390, "height": 844})
    page.add_style_tag(content="body, main { display: flex } #w { flex-grow: 1 }")  # as in Gradio
    assert page.evaluate("document.documentElement.scrollWidth") <= 390


BANNER = """import('/static/running.js').then((module) => {
  document.body.prepend(document.createElement('div'));
  return module.mountRunning(document.body.firstChild);
})"""


def test_a_run_elsewhere_is_told(mounted: Mount) -> None:
    page = mounted("jobs", {"value": None}, Server(job(1, "running"), job(2, "queued")).answers())
    page.evaluate(BANNER)
    expect(page.get_by_text("is still going, 1 more wait or run.")).to_be_visible()
    page.evaluate("addEventListener('preimage:job', (e) => heard.push(e.detail))")
    page.get_by_role("button", name="Show", exact=True).click()
    page.wait_for_function("heard.length === 1")
    assert page.evaluate("heard") == [{"id": f"{1:016x}", "tab": "restore"}]


def test_nothing_is_told_of_the_run_that_is_shown(mounted: Mount) -> None:
    page = mounted("jobs", {"value": None}, Server(job(1, "running")).answers())
    page.evaluate(f"history.replaceState(null, '', '?job={1:016x}')")
    page.evaluate(BANNER)
    assert page.locator(".pi-running").inner_text() == ""


def test_kinds_have_titles(tmp_path: Path) -> None:
    assert set(titles()["operator"]) == set(kinds(AnyOperator))
    assert all(title for part in titles().values() for title in part.values())
