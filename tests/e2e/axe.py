"""Faults of accessibility that axe-core finds on a page as it stands."""

import json
from importlib import resources
from typing import Any

from playwright.sync_api import Page

SERIOUS = ("serious", "critical")


def faults(page: Page, allowed: dict[str, tuple[str, ...]]) -> list[str]:
    """Serious and critical faults, one line each.

    `allowed` names, by rule, selectors of elements of other people's making whose fault is known.
    """
    if not page.evaluate("'axe' in window"):
        # of the package only the script is used; it is under the MPL-2.0 and therefore no part of this repository
        page.evaluate(resources.files("axe_playwright_python").joinpath("axe.min.js").read_text(encoding="utf-8"))
    run = "async () => JSON.stringify((await axe.run(document, {resultTypes: ['violations']})).violations)"
    found: list[dict[str, Any]] = json.loads(page.evaluate(run))
    lines = []
    for rule in found:
        if rule["impact"] not in SERIOUS:
            continue
        for node in rule["nodes"]:
            where = " ".join(str(part) for part in node["target"])
            known = ", ".join(allowed.get(rule["id"], ()))
            if known and page.evaluate("([at, known]) => !!document.querySelector(at)?.closest(known)", [where, known]):
                continue
            why = " ".join((node.get("failureSummary") or "").split())[:200]
            lines.append(f"{rule['impact']} {rule['id']}: {where} | {node['html'][:160]} | {why}")
    return lines
