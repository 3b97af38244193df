"""The Help tab: one page that needs no documents, and a report of the machine for whoever is asked for help."""

import os
import platform
import shutil
import sys
from importlib.metadata import PackageMetadata, PackageNotFoundError, distribution, version
from typing import Any

import torch

from app.api import Desk
from app.gui.faults import as_sentence
from app.gui.form import CARDS, groups
from app.gui.widget import Widget

# pictures of static/, drawn by docs/make_help.py, and what is to be seen on them
_PICTURES = {
    "missing": "A cat behind black scribbles; the same cat without them.",
    "blur": "A portrait out of focus and grainy; the same portrait, sharp.",
    "small": "A portrait of coarse blocks; the same portrait with smooth edges.",
    "noise": "A grainy cup of coffee; the same cup without grain.",
    "jpeg": "A cat with blocky edges; the same cat with smooth fur.",
}
_MORE: tuple[dict[str, str], ...] = (
    {
        "id": "ct",
        "title": "CT",
        "help": "An image seen as line integrals from too few sides, or with too few photons.",
        "alt": "A head phantom with grain and streaks; the same phantom without them.",
    },
    {
        "id": "mri",
        "title": "MRI",
        "help": "Only part of k-space was measured, to save time.",
        "alt": "A head phantom with ghosts of itself beside it; the same phantom with faint ghosts.",
    },
)
_USED = ("gradio", "torch", "numpy", "scipy", "pydantic", "fastapi", "pydicom", "nibabel", "scikit-image", "pillow")


class HelpPage(Widget):
    """The page. Props: `problems`, `groups`, `versions`, `licences`, `token`; `report` after its value has changed."""

    module = "help"


def build(desk: Desk) -> None:
    """Fill the tab."""
    page = HelpPage(
        problems=problems(),
        groups=groups(),
        versions=versions(),
        licences=licences(desk),
        token=desk.token,
        report=None,
        elem_id="help-page",
    )

    def report(value: Any) -> HelpPage:
        with as_sentence():
            return HelpPage(report=diagnostics(desk))

    page.change(report, [page], [page], api_visibility="private", show_progress="hidden")


def problems() -> list[dict[str, str]]:
    """What can be wrong with a picture: title, words, and a picture of it with its description where there is one."""
    cards = [{key: card[key] for key in ("id", "title", "help")} for card in CARDS if card["id"] != "other"]
    found = []
    for card in [*cards, *_MORE]:
        shown = {"title": card["title"], "help": card["help"]}
        if alt := card.get("alt") or _PICTURES.get(card["id"]):
            shown |= {"image": f"help-{card['id']}.jpg", "alt": alt}
        found.append(shown)
    return found


def versions() -> list[tuple[str, str, str]]:
    """Name, version and licence of this program and of the larger ones that it uses."""
    found = [("preimage", version("preimage"), "Apache-2.0"), ("python", platform.python_version(), "PSF-2.0")]
    for name in _USED:
        try:
            about = distribution(name)
        except PackageNotFoundError:
            continue
        found.append((name, about.version, _licence(about.metadata)))
    return found


def _licence(about: PackageMetadata) -> str:
    """What a package says of itself, as far as it is short."""
    said = next((about[key] for key in ("License-Expression", "License") if key in about), "")
    if len(said) > 60 or not said.isprintable():
        said = ""
    kinds = [
        line.split("::")[-1].strip() for line in about.get_all("Classifier") or [] if line.startswith("License ::")
    ]
    return said or ", ".join(kinds) or "see its own pages"


def licences(desk: Desk) -> list[dict[str, str]]:
    """Weights and pictures that are here, from their cards."""
    keys = ("name", "role", "title", "licence", "source")
    return [{key: str(getattr(card, key)) for key in keys} for card in desk.assets.cards.values()]


def diagnostics(desk: Desk) -> str:
    """Versions, device and free memory as text: nothing of anybody's data, no names and no folders."""
    root = desk.dispatcher.store.root
    lines = [f"{name} {number}" for name, number, _ in versions()]
    lines += [f"system {platform.system()} {platform.release()} {platform.machine()}", f"cores {os.cpu_count()}"]
    lines.append(f"threads {torch.get_num_threads()}")
    lines += [f"memory free {free / 2**30:.1f} GiB" for free in [_free_memory()] if free]
    if torch.cuda.is_available():
        for k in range(torch.cuda.device_count()):
            free, total = torch.cuda.mem_get_info(k)
            name = torch.cuda.get_device_name(k)
            lines.append(f"cuda:{k} {name}, {free / 2**30:.1f} of {total / 2**30:.1f} GiB free")
    else:
        lines.append("no CUDA device")
    lines.append(f"disk free {shutil.disk_usage(root).free / 2**30:.1f} GiB")
    lines.append(f"runs waiting {desk.dispatcher.waiting}")
    return "\n".join(lines)


def _free_memory() -> int:
    """Bytes that programs can have; 0 where the system does not say."""
    if not sys.platform.startswith("linux"):
        return 0
    try:
        with open("/proc/meminfo", encoding="ascii") as file:
            found = dict(line.split(":", 1) for line in file)
        return int(found["MemAvailable"].split()[0]) * 1024
    except (OSError, ValueError, KeyError):
        return 0
