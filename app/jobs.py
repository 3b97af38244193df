"""Jobs on disk: a folder that says what was asked for, how far it is and what is proven done, whatever dies meanwhile.

A job is a folder. `job/` in it belongs to the program, the rest is the person's:

    job/request.json    what was asked for, written once
    job/state.json      where it stands
    job/journal.jsonl   what happened, one JSON object a line, only ever appended to; what resuming relies on
    job/log.txt         the same for people; cases have numbers, never names
    job/plan.json       which files the cases are, with paths: for the owner alone
    job/preview.png     the last picture of the run
    job/live.jpg, job/trace.jsonl  clean estimate and residual on the way, where a server works on it
    job/views/          what a page shows of each case
    job/lock, job/stop  who works on it, and whether it should end
    job/scratch/        what is not finished; emptied when the job ends or is taken up again
    inputs/             uploaded files, where a server took them
    results/            what came out; and manifest.json, summary.csv, summary.html
"""

import contextlib
import datetime
import fcntl
import json
import os
import re
import secrets
import shutil
import socket
import time
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal, TypeVar

from pydantic import ValidationError

from operators.errors import PreimageError, ReadError, WriteError
from operators.spec import Spec

_S = TypeVar("_S", bound=Spec)

State = Literal["queued", "running", "stopping", "done", "failed", "interrupted"]
ENDED: frozenset[State] = frozenset({"done", "failed", "interrupted"})
"""States in which nobody works on a job. `interrupted` and `failed` jobs can be taken up again."""


class Busy(PreimageError):
    """Another process works on the job."""


class DiskRefuses(WriteError):
    """The disk is full, read-only or gone: nothing more can be written, whatever it is."""


class Request(Spec):
    """What was asked for. Paths are absolute, or relative to the job's folder where a server keeps uploads.

    `recipe` is a pinned recipe as JSON, `options` those of `app.batch.Options`, `created` UTC in ISO 8601.
    """

    version: Literal[1] = 1
    id: str
    created: str
    inputs: tuple[str, ...]
    recipe: dict[str, Any]
    options: dict[str, Any]

    @classmethod
    def new(cls, inputs: tuple[str, ...], recipe: Mapping[str, Any], options: Mapping[str, Any]) -> "Request":
        """A request with an identifier of its own; SOURCE_DATE_EPOCH, if set, is its time."""
        epoch = os.environ.get("SOURCE_DATE_EPOCH", "")
        seconds = int(epoch) if epoch.isdecimal() else time.time()
        when = datetime.datetime.fromtimestamp(seconds, datetime.UTC).isoformat(timespec="seconds")
        return cls(id=secrets.token_hex(8), created=when, inputs=inputs, recipe=dict(recipe), options=dict(options))


class Status(Spec):
    """Where a job stands: `done` and `failed` of `total` cases, and the step of the call under way.

    `message` is a sentence for people, without names or paths; empty while all is well.
    """

    state: State
    message: str = ""
    total: int = 0
    done: int = 0
    failed: int = 0
    step: int = 0
    steps: int = 0
    updated: str = ""


@dataclass(frozen=True)
class Job:
    """A job in its folder; the value is only the place, everything else is read from disk when asked for."""

    folder: Path

    @classmethod
    def create(cls, folder: Path, request: Request) -> "Job":
        """Make the folder of a job, for its owner alone, in state `queued`; it exists with its request or not at all.

        Raises:
            DiskRefuses: the disk is full or read-only, or `folder` holds something.
        """
        job = cls(folder)
        try:
            folder.mkdir(parents=True, exist_ok=True)
            if any(folder.iterdir()):
                raise WriteError("Expected a new or empty folder for a job, got one with files; choose another name.")
            fresh = folder / f".job-{secrets.token_hex(4)}"
            fresh.mkdir(mode=0o700)
            try:
                put(fresh / "request.json", request.model_dump_json(indent=2).encode())
                put(fresh / "state.json", Status(state="queued", updated=now()).model_dump_json().encode())
                os.replace(fresh, job.private)
            except BaseException:
                shutil.rmtree(fresh, ignore_errors=True)
                raise
        except OSError as error:
            raise disk_refuses(error) from error
        return job

    @classmethod
    def open(cls, folder: Path) -> "Job":
        """The job in a folder.

        Raises:
            ReadError: there is none.
        """
        job = cls(folder)
        if not (job.private / "request.json").is_file():
            raise ReadError("Expected the folder of a job, got another; check its name.")
        return job

    @property
    def private(self) -> Path:
        """The program's own part of the folder."""
        return self.folder / "job"

    @property
    def scratch(self) -> Path:
        """For what is not finished; on the same disk as the results."""
        return self.private / "scratch"

    @property
    def request(self) -> Request:
        """What was asked for.

        Raises:
            ReadError: the file is damaged.
        """
        return _read(self.private / "request.json", Request)

    @property
    def created(self) -> str:
        """When it was asked for, UTC in ISO 8601; where the request is damaged, when the folder was last written to."""
        try:
            return self.request.created
        except ReadError:
            return _written(self).isoformat(timespec="seconds")

    # state

    def status(self) -> Status:
        """Where it stands; a job whose process has died, or whose state was lost, is `interrupted`.

        Raises:
            ReadError: the job is gone.
        """
        status = self._last()
        if status.state in ("running", "stopping") and not self.held():
            text = "The process that worked on it has ended; resume the job."
            return status.model_copy(update={"state": "interrupted", "message": text})
        if status.state == "running" and self.stop_wanted(after_case=True):
            return status.model_copy(update={"state": "stopping"})
        return status

    def _last(self) -> Status:
        """What its file says; `running` where a power cut took that, for then only the lock can tell."""
        try:
            return _read(self.private / "state.json", Status)
        except ReadError:
            if not (self.private / "request.json").exists():
                raise
            return Status(state="running")

    def set_status(self, status: Status) -> None:
        """Replace the state, whole or not at all; it may be lost in a power cut, the journal is not.

        Raises:
            DiskRefuses: the disk is full or read-only.
        """
        put(
            self.private / "state.json",
            status.model_copy(update={"updated": now()}).model_dump_json().encode(),
            durable=False,
        )

    def request_stop(self, *, after_case: bool = False) -> None:
        """Ask whoever works on the job to stop after the present step, or case, and to keep what there is.

        Raises:
            DiskRefuses: the disk is full or read-only.
        """
        put(self.private / "stop", b"case" if after_case else b"")

    def stop_wanted(self, *, after_case: bool = False) -> bool:
        """Whether somebody asked for that, now or after the case; cheap enough to be asked at every step."""
        path = self.private / "stop"
        if after_case or not path.exists():
            return path.exists()
        with contextlib.suppress(OSError):
            return path.read_bytes() != b"case"
        return False

    # lock

    @contextlib.contextmanager
    def hold(self) -> Iterator[None]:
        """Work on the job alone; what an earlier, dead process left is cleared away: lock, stop flag, scratch.

        A stop that was asked for while the job was still queued is kept.

        The kernel gives the lock back when the process dies in any way; the file says who has it, for other hosts.

        Raises:
            Busy: another process works on it.
            DiskRefuses: the disk is full or read-only.
        """
        path = self.private / "lock"
        try:
            handle = os.open(path, os.O_RDWR | os.O_CREAT, 0o600)
        except OSError as error:
            raise disk_refuses(error) from error
        try:
            try:
                fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
                current = os.stat(path).st_ino == os.fstat(handle).st_ino
            except OSError:
                current = False
            if not current:  # held, or just given back and removed by another
                raise Busy("Expected a job that nobody works on, got one under way; wait for it or stop it.")
            holder = self._holder()
            if holder is not None and holder["host"] != socket.gethostname():
                raise Busy(
                    f"Expected a job that nobody works on, got one that host {holder['host']} holds; "
                    "if that machine is down, remove job/lock and resume."
                )
            try:
                os.ftruncate(handle, 0)
                os.pwrite(handle, json.dumps(_myself()).encode(), 0)
                os.fsync(handle)
                if self._last().state != "queued":
                    (self.private / "stop").unlink(missing_ok=True)
                shutil.rmtree(self.scratch, ignore_errors=True)
            except OSError as error:
                raise disk_refuses(error) from error
            try:
                yield
            finally:
                shutil.rmtree(self.scratch, ignore_errors=True)
                with contextlib.suppress(OSError):
                    (self.private / "stop").unlink(missing_ok=True)
                    path.unlink(missing_ok=True)
        finally:
            os.close(handle)

    def holder(self) -> str:
        """Who works on it, as text to compare with: another each time that the job is held; empty for nobody."""
        try:
            return (self.private / "lock").read_text()
        except (OSError, UnicodeDecodeError):
            return ""

    def held(self) -> bool:
        """Whether a living process works on it; one on another host counts as living."""
        holder = self._holder()
        if holder is not None and holder["host"] != socket.gethostname():
            return True
        if holder is not None and _started(holder["pid"]) != holder.get("started"):
            return False
        # it lives, but a disk that has become read-only may keep the note of a lock that was given back; or the note
        # is damaged
        try:
            handle = os.open(self.private / "lock", os.O_RDONLY)
        except OSError:
            return False
        try:
            fcntl.flock(handle, fcntl.LOCK_SH | fcntl.LOCK_NB)
        except OSError:
            return True
        finally:
            os.close(handle)
        return False

    def _holder(self) -> dict[str, Any] | None:
        try:
            holder = json.loads(self.holder())
        except (ValueError, RecursionError):
            return None
        whole = isinstance(holder, dict) and isinstance(holder.get("host"), str) and type(holder.get("pid")) is int
        return holder if whole else None

    # journal

    def append(self, event: str, **facts: Any) -> None:
        """Add a line to the journal; it is on the disk when this returns. Only the holder of the job may.

        Raises:
            DiskRefuses: the disk is full or read-only. A line that was cut off is ignored by readers and removed by
                the next writer.
        """
        line = json.dumps({"event": event, "time": now(), **facts}, sort_keys=True).encode() + b"\n"
        try:
            handle = os.open(self.private / "journal.jsonl", os.O_RDWR | os.O_CREAT, 0o600)
            try:
                end = _whole_lines(handle)
                os.ftruncate(handle, end)
                while line:  # a full disk may take a part
                    written = os.pwrite(handle, line, end)
                    line, end = line[written:], end + written
                os.fsync(handle)
            finally:
                os.close(handle)
        except OSError as error:
            raise disk_refuses(error) from error

    def journal(self, after: int = 0) -> list[dict[str, Any]]:
        """The events from number `after` on (from 0); what a dying process cut off is left out."""
        try:
            lines = (self.private / "journal.jsonl").read_bytes().split(b"\n")[:-1]
        except FileNotFoundError:
            return []
        events = []
        for line in lines[after:]:
            try:
                event = json.loads(line)
            except (ValueError, RecursionError):
                event = {"event": "unreadable"}  # keeps the numbers of the others
            events.append(event if isinstance(event, dict) else {"event": "unreadable"})
        return events

    def log(self, sentence: str) -> None:
        """Add a line for people. No names, no identifiers, no paths: name cases by number. A full disk is no error."""
        with contextlib.suppress(OSError), (self.private / "log.txt").open("a", encoding="utf-8") as file:
            file.write(f"{now()} {' '.join(sentence.split())}\n")

    # pictures and files

    def write_preview(self, picture: bytes) -> None:
        """Replace the last picture of the run (PNG)."""
        put(self.private / "preview.png", picture, durable=False)

    def preview(self) -> bytes | None:
        """The last picture of the run (PNG), or None where there is none yet."""
        try:
            return (self.private / "preview.png").read_bytes()
        except FileNotFoundError:
            return None

    def pictured(self) -> bool:
        """Whether there is one."""
        return (self.private / "preview.png").exists()

    def files(self) -> list[Path]:
        """What came out, relative to the folder, sorted; neither inputs nor the program's own part. No links."""
        found = []
        for place, folders, names in os.walk(self.folder):
            root = Path(place)
            if root == self.folder:
                folders[:] = [name for name in folders if name not in ("job", "inputs")]
            found += [root / name for name in names if not (root / name).is_symlink()]
        return sorted(path.relative_to(self.folder) for path in found)

    def delete(self) -> None:
        """Remove the job and everything in its folder from the disk.

        Raises:
            Busy: somebody works on it.
            DiskRefuses: the disk is full or read-only.
        """
        if self.held():
            raise Busy("Expected a job that nobody works on, got one under way; stop it first.")
        try:
            # renamed first: a job that is half gone is none
            gone = self.folder.with_name(f".deleted-{secrets.token_hex(8)}")
            os.replace(self.folder, gone)
            shutil.rmtree(gone)
            sync(self.folder.parent)
        except OSError as error:
            raise disk_refuses(error) from error


@dataclass(frozen=True)
class JobStore:
    """Jobs beside each other in a folder, each in one that has its identifier for a name."""

    root: Path

    def create(self, request: Request) -> Job:
        """A new job.

        Raises:
            DiskRefuses: the disk is full or read-only.
        """
        return Job.create(self.root / request.id, request)

    def get(self, identifier: str) -> Job:
        """The job of an identifier, 16 hexadecimal digits.

        Raises:
            ReadError: there is none; nothing but an identifier is ever looked up on the disk.
        """
        if not re.fullmatch(r"[0-9a-f]{16}", identifier) or (self.root / identifier).is_symlink():
            raise ReadError("Expected the identifier of a job, 16 hexadecimal digits, got something else; check it.")
        return Job.open(self.root / identifier)

    def list(self) -> "list[Job]":
        """All jobs, oldest first."""
        if not self.root.is_dir():
            return []
        jobs = []
        for name in os.listdir(self.root):
            with contextlib.suppress(ReadError):  # no job
                jobs.append(self.get(name))
        return sorted(jobs, key=lambda job: (job.created, job.folder.name))

    def prune(self, *, older_than: datetime.timedelta | None = None, keep_last: int | None = None) -> int:
        """Delete ended jobs that are older, or beyond the newest so many; how many it were.

        Remains of deletions that a crash cut short go as well.

        Raises:
            DiskRefuses: some could not be deleted; all others are.
        """
        for remains in self.root.glob(".deleted-*"):
            shutil.rmtree(remains, ignore_errors=True)
        ended = []
        for job in self.list():
            with contextlib.suppress(ReadError, OSError):  # deleted meanwhile
                status = job.status()
                if status.state in ENDED:
                    ended.append((job, _ended_at(job, status)))
        limit = None if older_than is None else datetime.datetime.now(datetime.UTC) - older_than
        surplus = 0 if keep_last is None else len(ended) - keep_last
        deleted, refused = 0, None
        for k, (job, at) in enumerate(ended):
            if k < surplus or (limit is not None and at < limit):
                try:
                    job.delete()
                    deleted += 1
                except Busy:  # taken up meanwhile
                    pass
                except DiskRefuses as error:
                    refused = error
        if refused is not None:
            raise refused
        return deleted


# files


def put(path: Path, content: bytes, *, durable: bool = True, mode: int = 0o600) -> None:
    """Write a file, whole or not at all; if `durable`, it is on the disk when this returns.

    Raises:
        DiskRefuses: the disk is full or read-only.
    """
    part = path.with_name(f".{path.name}.part-{secrets.token_hex(4)}")
    try:
        handle = os.open(part, os.O_WRONLY | os.O_CREAT | os.O_EXCL, mode)
        try:
            with os.fdopen(handle, "wb") as file:
                file.write(content)
                file.flush()
                if durable:
                    os.fsync(file.fileno())
            os.replace(part, path)
        except BaseException:
            part.unlink(missing_ok=True)
            raise
        if durable:
            sync(path.parent)
    except OSError as error:
        raise disk_refuses(error) from error


def sync(path: Path) -> None:
    """Wait until a file, or the list of a folder, is on the disk."""
    handle = os.open(path, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)


def now() -> str:
    """UTC, in ISO 8601."""
    return datetime.datetime.now(datetime.UTC).isoformat(timespec="milliseconds")


def disk_refuses(error: OSError) -> DiskRefuses:
    """The sentence for a disk that is full, read-only or gone; paths stay out of it."""
    reason = error.strerror or type(error).__name__
    return DiskRefuses(
        f"Expected a disk that can be written to, got: {reason}; make room or allow writing, and resume."
    )


def _read(path: Path, kind: type[_S]) -> _S:
    try:
        return kind.model_validate_json(path.read_bytes())
    except (OSError, ValidationError) as error:
        raise ReadError(f"Expected a whole {path.name} of a job, got a damaged or missing one; start again.") from error


def _ended_at(job: Job, status: Status) -> datetime.datetime:
    """When a job ended; where its state was lost, when its folder was last written to."""
    try:
        at = datetime.datetime.fromisoformat(status.updated)
    except ValueError:
        return _written(job)
    return at if at.tzinfo else at.replace(tzinfo=datetime.UTC)


def _written(job: Job) -> datetime.datetime:
    try:
        return datetime.datetime.fromtimestamp(job.private.stat().st_mtime, datetime.UTC)
    except OSError:  # deleted meanwhile
        return datetime.datetime.now(datetime.UTC)


def _whole_lines(handle: int) -> int:
    """Where the last complete line of a file ends."""
    end = os.fstat(handle).st_size
    while end > 0:
        start = max(0, end - 4096)
        at = os.pread(handle, end - start, start).rfind(b"\n")
        if at >= 0:
            return start + at + 1
        end = start
    return 0


def _myself() -> dict[str, Any]:
    mine = {"pid": os.getpid(), "host": socket.gethostname(), "started": _started(os.getpid())}
    return mine | {"session": secrets.token_hex(8)}  # a process may hold a job several times


def _started(pid: int) -> str:
    """What tells a process from a later one of the same number; empty where there is no such process.

    Source: proc(5): field 22 of /proc/PID/stat, the start in clock ticks since boot; 'Z' is a process that has ended.
    """
    try:
        after_name = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
        boot = Path("/proc/sys/kernel/random/boot_id").read_text().strip()
    except OSError:
        if os.path.isdir("/proc/self") or pid <= 0:
            return ""
        try:
            os.kill(pid, 0)  # elsewhere only whether there is one can be told
        except OSError:
            return ""
        return "alive"
    return "" if after_name[0] == "Z" else f"{boot}:{after_name[19]}"
