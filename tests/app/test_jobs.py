import datetime
import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from app.jobs import Busy, DiskRefuses, Job, JobStore, Request, Status, put
from operators.errors import ReadError, WriteError


def request(**changes: str) -> Request:
    made = Request.new(("in",), {"a": 1}, {"b": 2})
    return made.model_copy(update=changes)


@pytest.fixture
def job(tmp_path: Path) -> Job:
    return Job.create(tmp_path / "run", request())


def test_a_new_job_is_queued_and_private(job: Job) -> None:
    assert job.status().state == "queued"
    assert job.request.recipe == {"a": 1}
    assert job.private.stat().st_mode & 0o077 == 0
    assert Job.open(job.folder) == job


def test_a_job_is_not_made_among_other_files(tmp_path: Path) -> None:
    (tmp_path / "mine.txt").write_text("mine")
    with pytest.raises(WriteError, match="Expected a new or empty folder"):
        Job.create(tmp_path, request())
    assert [path.name for path in tmp_path.iterdir()] == ["mine.txt"]


def test_other_folders_are_no_jobs(tmp_path: Path) -> None:
    with pytest.raises(ReadError, match="Expected the folder of a job"):
        Job.open(tmp_path)


def test_a_damaged_request_is_a_sentence(job: Job) -> None:
    (job.private / "request.json").write_text('{"id": 3}')
    with pytest.raises(ReadError, match=r"Expected a whole request\.json"):
        _ = job.request


def test_only_one_works_on_a_job_and_leaves_nothing(job: Job) -> None:
    with job.hold():
        job.scratch.mkdir()
        job.set_status(Status(state="running"))
        assert job.held()
        with pytest.raises(Busy, match="one under way"), job.hold():
            pass
        with pytest.raises(Busy, match="stop it first"):
            job.delete()
    assert not job.held()
    assert sorted(path.name for path in job.private.iterdir()) == ["request.json", "state.json"]


def test_a_stop_shows_and_is_forgotten_at_the_end(job: Job) -> None:
    with job.hold():
        job.set_status(Status(state="running"))
        job.request_stop()
        assert job.stop_wanted()
        assert job.status().state == "stopping"
    assert not job.stop_wanted()


def test_a_stop_of_a_queued_job_is_kept_until_somebody_works_on_it(job: Job) -> None:
    job.request_stop()
    with job.hold():
        assert job.stop_wanted()


_HOLDS = """
import sys, time
from pathlib import Path
from app.jobs import Job, Status
job = Job(Path(sys.argv[1]))
with job.hold():
    job.set_status(Status(state="running", total=3))
    job.scratch.mkdir()
    (job.scratch / "half").write_text("half")
    job.request_stop()
    print("held", flush=True)
    time.sleep(60)
"""


def test_a_job_whose_process_was_killed_is_interrupted_and_can_be_taken_up(job: Job) -> None:
    holder = subprocess.Popen([sys.executable, "-c", _HOLDS, str(job.folder)], stdout=subprocess.PIPE, text=True)
    assert holder.stdout is not None
    assert holder.stdout.readline() == "held\n"
    assert job.held()
    assert job.status().state == "stopping"
    with pytest.raises(Busy), job.hold():
        pass
    holder.send_signal(signal.SIGKILL)
    holder.wait()
    holder.stdout.close()
    assert not job.held()
    assert job.status().state == "interrupted"
    assert job.status().total == 3
    with job.hold():
        assert not job.scratch.exists()
        assert not job.stop_wanted()


def test_a_process_of_the_same_number_is_another(job: Job) -> None:
    other = {"pid": os.getpid(), "host": os.uname().nodename, "started": "another boot:1"}
    (job.private / "lock").write_text(json.dumps(other))
    assert not job.held()


def test_a_job_that_another_host_holds_is_left_alone(job: Job) -> None:
    (job.private / "lock").write_text(json.dumps({"pid": 1, "host": "elsewhere", "started": "x"}))
    assert job.held()
    with pytest.raises(Busy, match="host elsewhere"), job.hold():
        pass


def test_the_journal_keeps_what_was_written_whole(job: Job) -> None:
    for k in range(3):
        job.append("case", number=k)
    path = job.private / "journal.jsonl"
    path.write_bytes(path.read_bytes() + b'{"event": "case", "numb')  # what a crash leaves
    assert [event["number"] for event in job.journal()] == [0, 1, 2]
    job.append("case", number=3)
    assert [event["number"] for event in job.journal(2)] == [2, 3]
    assert path.read_bytes().count(b"\n") == 4


@given(st.integers(0, 400), st.binary(max_size=30))
def test_a_journal_cut_anywhere_gives_a_prefix(tmp_path_factory: pytest.TempPathFactory, cut: int, tail: bytes) -> None:
    job = Job.create(tmp_path_factory.mktemp("journal") / "run", request())
    for k in range(4):
        job.append("case", number=k)
    path = job.private / "journal.jsonl"
    path.write_bytes(path.read_bytes()[:cut] + tail.replace(b"\n", b""))
    job.append("case", number=9)
    numbers = [event["number"] for event in job.journal() if event["event"] == "case"]
    assert numbers[-1] == 9
    assert numbers[:-1] == list(range(len(numbers) - 1))


def test_a_full_disk_is_a_sentence_and_a_cut_line_is_ignored(job: Job, monkeypatch: pytest.MonkeyPatch) -> None:
    job.append("case", number=0)
    limited = """
import resource, signal, sys
from pathlib import Path
from app.jobs import DiskRefuses, Job
job = Job(Path(sys.argv[1]))
size = (job.private / "journal.jsonl").stat().st_size
signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
resource.setrlimit(resource.RLIMIT_FSIZE, (size + 20, size + 20))
try:
    job.append("case", number=1)
except DiskRefuses as error:
    print(error)
"""
    run = subprocess.run([sys.executable, "-c", limited, str(job.folder)], capture_output=True, text=True, check=True)
    assert run.stdout.startswith("Expected a disk that can be written to, got: File too large;")
    assert [event["number"] for event in job.journal()] == [0]
    job.append("case", number=2)
    assert [event["number"] for event in job.journal()] == [0, 2]


def test_put_leaves_the_old_file_when_it_fails(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "state"
    put(path, b"old")

    def refuse(*_: object) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(os, "replace", refuse)
    with pytest.raises(DiskRefuses, match="No space left on device"):
        put(path, b"new")
    assert path.read_bytes() == b"old"
    assert [p.name for p in tmp_path.iterdir()] == ["state"]


def test_a_store_finds_jobs_by_identifier_alone(tmp_path: Path) -> None:
    store = JobStore(tmp_path / "store")
    assert store.list() == []
    first, second = store.create(request(created="2026-01-01T00:00:00+00:00")), store.create(request())
    assert store.list() == [first, second]
    assert store.get(first.request.id) == first
    (tmp_path / "store" / ("1" * 16)).symlink_to(first.folder)  # deleting a link would not delete a job
    (tmp_path / "store" / ("2" * 16) / "job" / "request.json").mkdir(parents=True)
    assert store.list() == [first, second]
    for name in ("..", "../store", "", "A" * 16, first.request.id + "/../x", "0" * 16, "1" * 16, "2" * 16):
        with pytest.raises(ReadError):
            store.get(name)


def test_files_of_a_job_are_its_results_alone(job: Job) -> None:
    (job.folder / "inputs").mkdir()
    (job.folder / "inputs" / "x.png").write_bytes(b"x")
    (job.folder / "results" / "x").mkdir(parents=True)
    (job.folder / "results" / "x" / "restored.png").write_bytes(b"x")
    (job.folder / "results" / "out").symlink_to("/etc/hostname")
    (job.folder / "summary.csv").write_text("")
    assert [path.as_posix() for path in job.files()] == ["results/x/restored.png", "summary.csv"]


def test_pruning_deletes_old_jobs_really(tmp_path: Path) -> None:
    store = JobStore(tmp_path)
    jobs = [store.create(request(created=f"2026-01-0{k}T00:00:00+00:00")) for k in range(1, 5)]
    for job in jobs[:3]:
        put(
            job.private / "state.json",
            Status(state="done", updated="2026-02-01T00:00:00+00:00").model_dump_json().encode(),
        )
    (tmp_path / ".deleted-0000").mkdir()
    (tmp_path / ".deleted-0000" / "patient").write_text("x")
    assert store.prune(keep_last=2) == 1
    assert store.list() == jobs[1:]
    assert store.prune(older_than=datetime.timedelta(days=1)) == 2
    assert store.list() == jobs[3:]  # still queued
    assert [path.name for path in tmp_path.iterdir()] == [jobs[3].folder.name]


def test_deleting_does_not_follow_links(tmp_path: Path) -> None:
    (tmp_path / "precious").mkdir()
    (tmp_path / "precious" / "file").write_text("x")
    job = JobStore(tmp_path / "store").create(request())
    (job.folder / "results").mkdir()
    (job.folder / "results" / "link").symlink_to(tmp_path / "precious")
    job.delete()
    assert (tmp_path / "precious" / "file").exists()
    assert list((tmp_path / "store").iterdir()) == []


def test_asking_for_a_stop_is_cheap(job: Job) -> None:
    began = time.perf_counter()
    for _ in range(1000):
        job.stop_wanted()
    assert time.perf_counter() - began < 1  # a step of a sampler takes a hundred times as long


def test_a_state_that_a_power_cut_took_does_not_stop_a_job(job: Job) -> None:
    for remains in (b"", b"\0" * 90, b'{"state":"runn', b'{"state":"gone"}', None):
        (job.private / "state.json").unlink(missing_ok=True)
        if remains is not None:
            (job.private / "state.json").write_bytes(remains)
        assert job.status().state == "interrupted"
        with job.hold():
            assert job.status().state == "running"
    job.set_status(Status(state="queued"))
    assert job.status().state == "queued"
    job.delete()
    with pytest.raises(ReadError):
        job.status()


@pytest.mark.parametrize(
    "note",
    ["", "{}", "[]", "{", '{"host": "HERE", "pid": "x"}', '{"host": "HERE", "pid": 1e999}', '{"pid": 1}', "[" * 9999],
)
def test_a_damaged_note_of_a_lock_holds_nobody_up(job: Job, note: str) -> None:
    job.set_status(Status(state="running"))
    (job.private / "lock").write_text(note.replace("HERE", os.uname().nodename))
    assert not job.held()
    assert job.status().state == "interrupted"
    with job.hold():
        (job.private / "lock").write_text(note)
        assert job.held()  # the kernel knows
    assert not (job.private / "lock").exists()


def test_a_damaged_job_neither_hides_nor_holds_up_the_others(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    store = JobStore(tmp_path)
    jobs = [store.create(request(created=f"2026-01-0{k}T00:00:00+00:00")) for k in range(1, 8)]
    no_request, no_state, no_date, no_zone, no_number, stuck, whole = jobs
    old = Status(state="done", updated="2026-02-01T00:00:00+00:00")
    for job in jobs:
        put(job.private / "state.json", old.model_dump_json().encode())
    (no_request.private / "request.json").write_bytes(b"")
    (no_state.private / "state.json").write_bytes(b"")
    for job, updated in {no_date: "", no_zone: "2026-02-01", no_number: "2026-99-99T00:00:00+00:00"}.items():
        put(job.private / "state.json", old.model_copy(update={"updated": updated}).model_dump_json().encode())
    for job in (no_state, no_date, no_number):  # without a date of their own it is that of their folder
        os.utime(job.private, (0, 0))
    assert {job.folder for job in store.list()} == {job.folder for job in jobs}

    def refuse(self: Job) -> None:
        if self == stuck:
            raise DiskRefuses("stuck")
        delete(self)

    delete = Job.delete
    monkeypatch.setattr(Job, "delete", refuse)
    with pytest.raises(DiskRefuses, match="stuck"):
        store.prune(older_than=datetime.timedelta(days=1))
    assert store.list() == [stuck]
    assert not whole.folder.exists()


def test_a_line_that_the_disk_takes_in_parts_is_whole(job: Job, monkeypatch: pytest.MonkeyPatch) -> None:
    pwrite = os.pwrite
    monkeypatch.setattr(os, "pwrite", lambda handle, content, at: pwrite(handle, content[:7], at))
    job.append("case", number=0)
    job.append("case", number=1)
    assert [event["number"] for event in job.journal()] == [0, 1]


def test_damaged_lines_of_a_journal_keep_the_numbers_of_the_others(job: Job) -> None:
    job.append("case", number=0)
    with (job.private / "journal.jsonl").open("ab") as file:
        file.write(b"\xff\0\n\n[]\n" + b"[" * 100_000 + b"\n")
    job.append("case", number=1)
    assert [event["event"] for event in job.journal()] == ["case", *["unreadable"] * 4, "case"]
