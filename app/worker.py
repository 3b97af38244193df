"""One job after the other, in a process of its own: what dies there leaves the server and the other jobs alone.

The server's side is `Dispatcher`; `python -m app.worker STORE WORKERS` is the other. A line to it is the identifier of
a job, a line from it says that this job has ended. When the server is gone, its pipe closes, and the worker stops its
job after the present step, as if asked to.
"""

import collections
import contextlib
import datetime
import fcntl
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
from typing import TextIO

from app.batch import Workers, run_job
from app.jobs import Busy, Job, JobStore, disk_refuses
from app.settings import Settings
from operators.errors import PreimageError, WriteError
from restoration.assets import AssetStore

PATIENCE = 10.0
"""Seconds that the worker has for a last step when the server ends, and a job for the end of an earlier holder."""


class Dispatcher:
    """Hands jobs to a worker process, the one that was queued first first.

    Args:
        store: of this server alone.
        workers: processes that share the cases of a job; 0 is the worker itself.
        keep: ended jobs are deleted after that long; None keeps them.
    """

    def __init__(self, store: JobStore, workers: int = 0, keep: datetime.timedelta | None = None) -> None:
        self.store, self._workers, self._keep = store, workers, keep
        self._changed = threading.Condition()
        self._waiting: collections.deque[str] = collections.deque()
        self._begun: str | None = None  # what the worker has
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
            if self._keep is not None and time.monotonic() >= due:
                due = time.monotonic() + 3600
                with contextlib.suppress(PreimageError, OSError):
                    self.store.prune(older_than=self._keep)
            with self._changed:
                if self._ending:
                    return
                self._begun = name = self._waiting.popleft() if self._waiting else None
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
        command = [sys.executable, "-m", "app.worker", str(self.store.root.absolute()), str(self._workers)]
        # a session of its own: Ctrl-C is for the server, which tells the worker
        return subprocess.Popen(
            command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True, start_new_session=True
        )


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
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    answers = os.fdopen(os.dup(1), "w")  # what anything else prints must not be taken for an answer
    os.dup2(2, 1)
    stop = threading.Event()
    names: queue.SimpleQueue[str | None] = queue.SimpleQueue()
    threading.Thread(target=_listen, args=(sys.stdin, names, stop), daemon=True).start()
    while (name := names.get()) is not None:
        _do(store, name, workers, assets, stop)
        with contextlib.suppress(OSError):
            answers.write(f"{name}\n")
            answers.flush()
    return 0


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
            run_job(job, workers=workers, store=assets, stop=stop.is_set)
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
