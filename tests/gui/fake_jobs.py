"""A job store in the browser's eyes: answers of the HTTP API, changed by the test while the page is open."""

import io
import json
from typing import Any
from urllib.parse import urlsplit

import numpy as np
import torch
from PIL import Image
from playwright.sync_api import Page, Route

from app.view import heat

ID = "0123456789abcdef"


def encoded(pixels: np.ndarray, kind: str = "PNG") -> bytes:
    memory = io.BytesIO()
    Image.fromarray(pixels).save(memory, kind)
    return memory.getvalue()


def photo(seed: int, side: int = 48) -> np.ndarray:
    """Smooth colours with some noise."""
    rng = np.random.default_rng(seed)
    y, x = np.mgrid[:side, :side] / side
    waves = np.stack([np.sin(6 * x + seed), np.cos(5 * y), np.sin(4 * (x + y))], -1) * 80 + 128
    return (waves + rng.normal(0, 8, waves.shape)).clip(0, 255).astype(np.uint8)


def spread_map(side: int = 48) -> np.ndarray:
    """A heat map, bright at the upper left, with value x / side * 0.1 in the first third of its rows."""
    values = torch.full((side, side), 0.005)
    values[: side // 3, : side // 3] = 0.08
    return heat(values, 0.1)


class Fake:
    """One job; `answers` goes to `mounted`. Tests change `status`, `entries` and `up`."""

    def __init__(self, state: str = "done", *, name: str = ID, samples: int = 4, **status: Any) -> None:
        self.id = name
        self.up = True
        self.asked: list[str] = []
        self.wait = {"place": 2, "wait_seconds": 40.2} if state == "queued" else {"place": None, "wait_seconds": None}
        self.status: dict[str, Any] = {
            "state": state, "message": "", "total": 1, "done": int(state == "done"), "failed": 0,
            "step": 0, "steps": 40, "updated": "", **status,
        }  # fmt: skip
        self.recipe: dict[str, Any] = {
            "version": 1, "title": "Fill <b>holes</b>", "operator": {"kind": "inpainting"},
            "noise": {"kind": "gaussian"}, "model": {"kind": "trained", "name": "photo"},
            "method": {"kind": "diffpir"}, "seeds": list(range(7, 7 + samples)),
        }  # fmt: skip
        self.options = {"output_types": [], "device": "cpu", "views": True}
        self.trace: list[dict[str, Any]] = []
        self.frame = encoded(photo(1), "JPEG")
        self.pictures = {"before": photo(0), "mean": photo(1), "spread": spread_map(), "imagined": spread_map()}
        self.pictures |= {f"sample-{k + 1}": photo(k + 2) for k in range(samples)}
        self.entries: list[dict[str, Any]] = [self.entry(samples)]
        self.commands: dict[str, Any] = {"python": "print('python')\n", "cli": "preimage batch\n", "curl": "curl\n"}
        self.commands["run_file"] = {"recipe": self.recipe, "options": self.options}

    def entry(self, samples: int, residual: float = 0.98, state: str = "done") -> dict[str, Any]:
        names = ["before", "mean", *(f"sample-{k + 1}" for k in range(samples) if samples > 1)]
        names += ["spread"] * (samples > 1) + ["imagined"]
        titles = {"before": "Measurement", "mean": f"Restored image, mean of {samples} samples"}
        views = []
        for name in names:
            height, width = self.pictures[name].shape[:2]
            number = int(name.removeprefix("sample-")) if name.startswith("sample-") else None
            fit = {"mean": residual} if number is None else {name: residual + 0.01 * number}
            scale = {"low": 0.0, "high": 0.1, "unit": "of full range"} if name in ("spread", "imagined") else None
            views.append(
                {
                    "name": name, "title": titles.get(name, name.replace("-", " ").capitalize()), "alt": f"The {name}",
                    "file": f"{name}.png", "width": width, "height": height,
                    "seed": None if number is None else 6 + number,
                    "residual_sigma": fit.get(name), "scale": scale,
                }
            )  # fmt: skip
        return {
            "number": 1, "case": "0123456789ab", "kind": "picture", "state": state, "message": "",
            "folder": "results/photo.png", "outputs": ["restored.json", "restored.png", "std.png"],
            "figures": {"residual_sigma": residual, "seconds": 6.21, "nfe": 20, "imagined": 0.23},
            "notes": ["cropped <script>alert(1)</script>"], "facts": {"bits": 8, "width": 48, "height": 48},
            "views": views,
        }  # fmt: skip

    @property
    def job(self) -> dict[str, Any]:
        head = {"id": self.id, "created": "2026-11-21T17:45:25+00:00", "title": self.recipe["title"]}
        return {**head, **self.wait, "status": self.status, "recipe": self.recipe, "options": self.options}

    def run(self, step: int, *, residual: float = 2.0) -> None:
        """A step further."""
        self.status |= {"state": "running", "step": step}
        self.trace.append({"case": 1, "step": step, "steps": 40, "residual_sigma": residual, "seconds": 0.1 * step})
        self.frame = encoded(photo(step), "JPEG")

    @property
    def answers(self) -> dict[str, Any]:
        base = f"/api/v1/jobs/{self.id}"

        def gated(make: Any) -> Any:
            def answer(route: Route) -> None:
                self.asked.append(f"{route.request.method} {urlsplit(route.request.url).path.removeprefix(base)}")
                if not self.up:
                    return route.abort()
                kind, body = make(route)
                route.fulfill(content_type=kind, body=body)

            return answer

        def as_json(value: Any) -> tuple[str, bytes]:
            return "application/json", json.dumps(value).encode()

        def job(route: Route) -> tuple[str, bytes]:
            return as_json(self.job)  # also of one that was deleted: nobody asks again

        def stream(route: Route) -> tuple[str, bytes]:
            ended = self.status["state"] in ("done", "failed", "interrupted")
            text = f"retry: 100\nevent: status\ndata: {json.dumps(self.status)}\n\n"
            return "text/event-stream", (text + ("event: end\ndata: {}\n\n" if ended else "")).encode()

        def cancel(route: Route) -> tuple[str, bytes]:
            text = "Stopped on request with 1 cases left; resume to go on."
            self.status |= {"state": "interrupted", "message": text}
            return as_json(self.job)

        def resume(route: Route) -> tuple[str, bytes]:
            self.status |= {"state": "running", "message": ""}
            return as_json(self.job)

        fixed = {
            "": job, "/events": stream, "/cancel": cancel, "/resume": resume,
            "/trace": lambda route: as_json(self.trace), "/live": lambda route: ("image/jpeg", self.frame),
            "/views": lambda route: as_json(self.entries), "/commands": lambda route: as_json(self.commands),
            **{
                f"/views/0123456789ab/{name}.png": lambda route, p=pixels: ("image/png", encoded(p))
                for name, pixels in self.pictures.items()
            },
        }  # fmt: skip
        return {base + path: gated(make) for path, make in fixed.items()}


def state(page: Page, name: str) -> None:
    """Wait for a state of the result panel."""
    page.locator(f".pi-result[data-state={name}]").wait_for()
