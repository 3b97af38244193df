"""One job after the other, in a process of its own: what dies there leaves the server and the other jobs alone.

The server's side is `Dispatcher`; `python -m app.worker STORE WORKERS` is the other. A line to it is the identifier of
a job, a line from it says that this job has ended. When the server is gone, its pipe closes, and the worker stops its
job after the present step, as if asked to.
"""

import collections
import contextlib
import datetime
import fcntl
import json
import os
import queue
import shutil
import signal
import subprocess
import sys
import threading
import time
import traceback
from pathlib import Path
from typing import Any, TextIO

import torch

from app.batch import Workers, run_job
from app.jobs import Busy, Job, JobStore, disk_refuses, put
from app.restore import prior_of
from app.settings import Settings
from operators.errors import PreimageError, WriteError
from restoration.allocator import return_freed_memory
from restoration.assets import AssetStore
from restoration.prior import Cost, Denoiser, Prior
from restoration.recipe import TrainedPrior

PATIENCE = 10.0
"""Seconds that the worker has for a last step when the server ends, and a job for the end of an earlier holder."""


_TRIED = 192  # pixels a side

RENEWED = 60.0
"""Seconds for which the measured speed holds; it is measured again after a job, if none waits."""

SPEED = ".speed.json"
"""File in the store's folder: what the worker measured when it started."""


class Dispatcher:
    """Hands jobs to a worker process, the one that was queued first first.

    Args:
        store: of this server alone.
        workers: processes that share the cases of a job; 0 is the worker itself.
        keep: ended jobs are deleted after that long; None keeps them.
        prior: name of the trained prior that the worker loads and tries before the first job; empty for none.
    """

    def __init__(
        self,
        store: JobStore,
        workers: int = 0,
        keep: datetime.timedelta | None = None,
        prior: str = "",
    ) -> None:
        self.store, self.keep, self._workers, self._prior = store, keep, workers, prior
        self._changed = threading.Condition()
        self._waiting: collections.deque[str] = collections.deque()
        self._begun: str | None = None  # what the worker has
        self._since = 0.0  # when it was given that
        self._took: collections.deque[float] = collections.deque(maxlen=20)  # seconds of the last jobs
        self._ending = False
        self._process: subprocess.Popen[str] | None = None
        self._thread = threading.Thread(target=self._work, name="dispatcher", daemon=True)
        self._lock = -1

    def claim(self) -> None:
        """Make the store's folder, take it for this process, clear away what a crash left, take up what is queued.

        Raises:
            Busy: another server has it.
            WriteError: the disk refuses.
        """
        root = self.store.root
        try:
            root.mkdir(parents=True, exist_ok=True, mode=0o700)
            self._lock = os.open(root / ".server", os.O_RDWR | os.O_CREAT, 0o600)
            fcntl.flock(self._lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
            (root / SPEED).unlink(missing_ok=True)
            for pattern in (".upload-*", ".new-*", ".deleted-*"):
                for remains in root.glob(pattern):
                    shutil.rmtree(remains, ignore_errors=True)
        except BlockingIOError as error:
            raise Busy(
                "Expected a folder of jobs that no server uses, got one in use; choose another --store."
            ) from error
        except OSError as error:
            raise disk_refuses(error) from error
        queued = []
        for name in os.listdir(root):
            with contextlib.suppress(PreimageError):  # no job, or a damaged one
                status = self.store.get(name).status()
                if status.state == "queued":
                    queued.append((status.updated, name))
        self._waiting.extend(name for _, name in sorted(queued))

    def start(self) -> None:
        """Begin to work."""
        self._thread.start()

    def add(self, job: Job) -> None:
        """Put a queued job at the end."""
        with self._changed:
            self._waiting.append(job.folder.name)
            self._changed.notify()

    def withdraw(self, job: Job) -> bool:
        """Take a job out of the queue, if it is there; False where the worker has it already."""
        with self._changed:
            with contextlib.suppress(ValueError):
                self._waiting.remove(job.folder.name)
            return job.folder.name != self._begun

    def place(self, name: str) -> int | None:
        """How many jobs are begun before this one; None for a job that does not wait."""
        with self._changed:
            try:
                return self._waiting.index(name)
            except ValueError:
                return None

    @property
    def begun(self) -> tuple[str, float] | None:
        """The job that the worker has, and for how many seconds."""
        with self._changed:
            return None if self._begun is None else (self._begun, time.monotonic() - self._since)

    @property
    def usual(self) -> float | None:
        """Seconds that a job took in the mean, of the last ones; None before the first."""
        with self._changed:
            return sum(self._took) / len(self._took) if self._took else None

    def speed(self) -> dict[str, Any]:
        """What the worker measured last, as `Speed` says; empty before that."""
        with contextlib.suppress(OSError, ValueError):
            found = json.loads((self.store.root / SPEED).read_bytes())
            return found if isinstance(found, dict) else {}
        return {}

    @property
    def waiting(self) -> int:
        """How many jobs wait."""
        return len(self._waiting)

    def stop(self) -> None:
        """End: the job under way stops after its step and can be resumed; queued ones stay queued."""
        with self._changed:
            self._ending = True
            self._changed.notify()
        process = self._process
        if process is not None:
            assert process.stdin is not None
            with contextlib.suppress(OSError):
                process.stdin.close()
            try:
                process.wait(PATIENCE)
            except subprocess.TimeoutExpired:
                process.kill()
                process.wait()
        self._thread.join(PATIENCE)  # it reads from the process until there is no more
        if process is not None:
            _close(process)
        if self._lock >= 0:
            os.close(self._lock)

    # the dispatcher's thread

    def _work(self) -> None:
        due = time.monotonic()  # deletion of old jobs, every hour, however many wait
        with contextlib.suppress(OSError):
            self._process = self._started()  # it needs seconds to begin
        while True:
            with self._changed:
                self._changed.wait_for(lambda: self._ending or bool(self._waiting), timeout=60)
            if self.keep is not None and time.monotonic() >= due:
                due = time.monotonic() + 3600
                with contextlib.suppress(PreimageError, OSError):
                    self.store.prune(older_than=self.keep)
            with self._changed:
                if self._ending:
                    return
                self._begun = name = self._waiting.popleft() if self._waiting else None
                self._since = time.monotonic()
            if name is None:
                continue
            try:
                self._hand_over(name)
            except OSError:  # no process can be started now
                with self._changed:
                    self._waiting.appendleft(name)
                time.sleep(1)
            with self._changed:
                self._begun = None
                self._took.append(time.monotonic() - self._since)

    def _hand_over(self, name: str) -> None:
        """Wait until the worker has ended a job; one that dies over it is replaced, and the job not tried again."""
        with self._changed:
            if self._ending:
                return
            if self._process is None or self._process.poll() is not None:
                if self._process is not None:
                    _close(self._process)
                self._process = self._started()
            process = self._process
        assert process.stdin is not None
        assert process.stdout is not None
        answer = ""
        with contextlib.suppress(OSError, ValueError):  # it died, or `stop` closed the pipe
            process.stdin.write(f"{name}\n")
            process.stdin.flush()
            answer = process.stdout.readline()
        if answer or self._ending:
            return
        code = process.wait()
        _close(process)
        cause = f"signal {-code}" if code < 0 else f"exit code {code}"
        with contextlib.suppress(PreimageError):
            job = self.store.get(name)
            status = job.status()
            if status.state in ("queued", "interrupted"):
                text = f"Expected the worker to finish, got its end by {cause}; resume the job."
                job.set_status(status.model_copy(update={"state": "interrupted", "message": text}))

    def _started(self) -> "subprocess.Popen[str]":
        command = [sys.executable, "-m", "app.worker", str(self.store.root.absolute()), str(self._workers), self._prior]
        # a session of its own: Ctrl-C is for the server, which tells the worker
        return subprocess.Popen(
            command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True, start_new_session=True, env=_environ()
        )


def _environ() -> dict[str, str]:
    """With the place of this package, which need not be installed, nor the working folder be where it was."""
    places = [str(Path(__file__).parent.parent), os.environ.get("PYTHONPATH", "")]
    return os.environ | {"PYTHONPATH": os.pathsep.join(place for place in places if place)}


def _close(process: "subprocess.Popen[str]") -> None:
    for pipe in (process.stdin, process.stdout):
        with contextlib.suppress(OSError):
            if pipe is not None:
                pipe.close()


# the worker's process


def main(argv: list[str]) -> int:
    """Work on jobs whose identifiers come in, until the pipe closes."""
    store, workers = JobStore(Path(argv[0])), Workers(int(argv[1]))
    assets = Settings.from_env().store()
    prior = argv[2] if len(argv) > 2 else ""
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    answers = os.fdopen(os.dup(1), "w")  # what anything else prints must not be taken for an answer
    os.dup2(2, 1)
    stop = threading.Event()
    names: queue.SimpleQueue[str | None] = queue.SimpleQueue()
    threading.Thread(target=_listen, args=(sys.stdin, names, stop), daemon=True).start()
    device, model = "cuda" if torch.cuda.is_available() else "cpu", None
    if prior in assets.cards:  # else the first job would wait for all that a first call does
        model = prior_of(TrainedPrior(name=prior), device, "auto", str(assets.folder))
    if isinstance(model, Denoiser):
        _call(model, torch.device(device), 64)
    due = 0.0
    while True:
        if isinstance(model, Denoiser) and names.empty() and time.monotonic() >= due:
            with contextlib.suppress(PreimageError):  # a disk that refuses refuses jobs, too, with sentences
                put(store.root / SPEED, json.dumps(_speed(model, torch.device(device))).encode(), durable=False)
            due = time.monotonic() + RENEWED
        if (name := names.get()) is None:
            return 0
        _do(store, name, workers, assets, stop)
        return_freed_memory()
        with contextlib.suppress(OSError):
            answers.write(f"{name}\n")
            answers.flush()


def _speed(model: Denoiser, device: torch.device) -> dict[str, Any]:
    """How fast a prior is, as `/api/v1/speed` says."""
    seconds = min(_call(model, device, _TRIED) for _ in range(2))
    cores = torch.get_num_threads()
    name = f"CPU, {cores} core{'s'[: cores != 1]}" if device.type == "cpu" else torch.cuda.get_device_name(device)
    return {
        "seconds_per_call_megapixel": round(1e6 * seconds / _TRIED**2, 4),
        "device": name,
        "name": device.type,
    }


def _call(model: Denoiser, device: torch.device, side: int) -> float:
    """Seconds of a call for a picture of so many pixels a side."""
    cost = Cost()
    Prior(model, cost).denoise(torch.full((1, 3, side, side), 0.5, device=device), 0.1)
    return cost.seconds


def _listen(orders: TextIO, names: "queue.SimpleQueue[str | None]", stop: threading.Event) -> None:
    for line in orders:
        names.put(line.strip())
    stop.set()
    names.put(None)


def _do(store: JobStore, name: str, workers: Workers, assets: AssetStore, stop: threading.Event) -> None:
    try:
        job = store.get(name)
    except PreimageError:
        return  # deleted meanwhile
    until = time.monotonic() + PATIENCE
    while not stop.is_set():
        try:
            run_job(job, workers=workers, store=assets, stop=stop.is_set, live=True)
        except Busy as error:  # a worker of a server that was killed does its last step
            if time.monotonic() < until:
                time.sleep(0.1)
                continue
            _end(job, "interrupted", str(error))
        except WriteError as error:
            _end(job, "interrupted", str(error))
        except PreimageError as error:
            _end(job, "failed", str(error))
        except Exception as error:
            traceback.print_exc()
            _end(job, "failed", f"Expected to run the job, got an unforeseen {type(error).__name__}; report it.")
        return


def _end(job: Job, state: str, message: str) -> None:
    with contextlib.suppress(PreimageError):
        status = job.status()
        if status.state in ("queued", "interrupted"):  # not what has ended, nor what another works on
            job.set_status(status.model_copy(update={"state": state, "message": message}))


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
