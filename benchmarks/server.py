"""The HTTP API under load: many clients at once, small jobs, one server process with its worker.

python -m benchmarks.server [--jobs 200] [--clients 8]

None may be lost, none overtaken, memory may not grow, and status calls have to be answered while the worker works.
"""

import argparse
import io
import json
import os
import re
import statistics
import subprocess
import sys
import tempfile
import threading
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import httpx
import numpy as np
from PIL import Image

RECIPE = {
    "operator": {"kind": "blur", "kernel": {"kind": "gaussian", "size": 7, "std": 1.5}, "boundary": "circular"},
    "model": {"kind": "none"},
    "method": {"kind": "wiener"},
}


def picture(side: int) -> bytes:
    """A PNG of noise."""
    file = io.BytesIO()
    Image.fromarray(np.random.default_rng(0).integers(0, 256, (side, side, 3), np.uint8)).save(file, "png")
    return file.getvalue()


def resident(pid: int) -> float:
    """MiB of a process and of its children. Source: proc(5)."""
    kib = int(re.findall(r"VmRSS:\s+(\d+)", Path(f"/proc/{pid}/status").read_text())[0])
    below = " ".join(path.read_text() for path in Path(f"/proc/{pid}/task").glob("*/children")).split()
    return kib / 1024 + sum(resident(int(child)) for child in below)


def ask(client: httpx.Client, content: bytes, count: int, taken: list[tuple[float, str]]) -> None:
    """Make some jobs, one after the other, and note when each was accepted."""
    for _ in range(count):
        answer = client.post("/api/v1/jobs", data={"recipe": json.dumps(RECIPE)}, files={"files": ("a.png", content)})
        answer.raise_for_status()
        taken.append((time.time(), answer.json()["id"]))


def look(client: httpx.Client, names: list[tuple[float, str]], ended: threading.Event, times: list[float]) -> None:
    """Ask for one job after the other, four times a second, and note how long each answer takes."""
    k = 0
    while not ended.is_set():
        if names:
            began = time.perf_counter()
            client.get(f"/api/v1/jobs/{names[k % len(names)][1]}").raise_for_status()
            times.append(time.perf_counter() - began)
            k += 1
        time.sleep(0.25)


def load(client: httpx.Client, pid: int, jobs: int, clients: int) -> dict[str, float]:
    """Make `jobs` from `clients` at once, look at them meanwhile, and wait for the last."""
    content = picture(32)
    taken: list[tuple[float, str]] = []
    times: list[float] = []
    ended = threading.Event()
    before, began = resident(pid), time.perf_counter()
    with ThreadPoolExecutor(2 * clients) as pool:
        watching = [pool.submit(look, client, taken, ended, times) for _ in range(clients)]
        for asked in [pool.submit(ask, client, content, jobs // clients, taken) for _ in range(clients)]:
            asked.result()
        posted = time.perf_counter() - began
        while client.get("/api/v1/jobs", params={"limit": 1}).json()["waiting"]:
            time.sleep(0.2)
        every = {name: client.get(f"/api/v1/jobs/{name}").json()["status"] for _, name in taken}
        while any(status["state"] in ("queued", "running") for status in every.values()):
            time.sleep(0.1)
            every = {name: client.get(f"/api/v1/jobs/{name}").json()["status"] for _, name in taken}
        seconds = time.perf_counter() - began
        ended.set()
        for watched in watching:
            watched.result()
    # The order of acceptance is known to a client only as the answer arrives; place by place is what can be compared.
    by_end = sorted(every, key=lambda name: every[name]["updated"])
    place = {name: k for k, name in enumerate(by_end)}
    moved = [abs(place[name] - k) for k, (_, name) in enumerate(sorted(taken))]
    cuts = statistics.quantiles(times, n=100)
    return {
        "jobs": len(every),
        "done": sum(status["state"] == "done" for status in every.values()),
        "most places out of order": max(moved),
        "seconds to queue all": posted,
        "seconds to do all": seconds,
        "status calls": len(times),
        "status median ms": 1e3 * cuts[49],
        "status p95 ms": 1e3 * cuts[94],
        "status p99 ms": 1e3 * cuts[98],
        "MiB before": before,
        "MiB after": resident(pid),
    }


def main() -> int:
    """Print a table: a column for each round of the same load on the same server."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    parser.add_argument("--jobs", type=int, default=200)
    parser.add_argument("--clients", type=int, default=8)
    parser.add_argument("--rounds", type=int, default=3)
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        command = [sys.executable, "-m", "app", "serve", "--port", "0", "--store", f"{folder}/jobs"]
        with subprocess.Popen(command, stdout=subprocess.PIPE, text=True, env=os.environ) as server:
            try:
                assert server.stdout is not None
                address = re.findall(r"http://\S+:\d+", server.stdout.readline())[0]
                limits = httpx.Limits(max_connections=4 * options.clients)
                with httpx.Client(base_url=address, timeout=300, limits=limits) as client:
                    load(client, server.pid, options.clients, options.clients)  # imports, caches, thread pools
                    rounds = [load(client, server.pid, options.jobs, options.clients) for _ in range(options.rounds)]
            finally:
                server.terminate()
    for name in rounds[0]:
        print(f"| {name} | " + " | ".join(f"{found[name]:.4g}" for found in rounds) + " |")
    return 0


if __name__ == "__main__":
    sys.exit(main())
