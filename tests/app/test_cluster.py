import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest

from app.batch import BROKEN_OFF, DONE, INTERRUPTED, SOME_FAILED, Workers, new_job, run_batch, run_job
from app.cluster import queue_cluster, work
from app.inputs import Case
from app.jobs import Job
from app.options import Options
from app.work import Task
from app.work_pictures import PictureWork
from operators.errors import NeedError
from restoration.recipe import Recipe
from tests.app.inputs_of_all_kinds import RECIPE, hashes, nifti, picture, remains

distributed = pytest.importorskip("distributed", reason="Dask is not installed")

pytestmark = pytest.mark.filterwarnings("ignore")  # what Dask's own threads leave open


SLOWER = Recipe.model_validate(RECIPE.model_dump() | {"method": {"kind": "tv", "iterations": 800}})
"""About a second a case."""


def plain(tmp_path: Path, holder: str = "") -> tuple[str, str]:
    """A case and its run, as they travel."""
    (tmp_path / "job").mkdir()
    path = picture(tmp_path / "in" / "a.png", 1)
    case = Case(number=1, key="a", kind="picture", files=(str(path),), folder="results/a.png")
    task = Task(
        folder=str(tmp_path),
        recipe=RECIPE.model_dump_json(),
        options=Options(),
        created="2026-01-01T00:00:00+00:00",
        config="0" * 64,
        salt="x",
        holder=holder,
    )
    return case.model_dump_json(), task.model_dump_json()


def test_a_task_is_made_of_plain_values(tmp_path: Path) -> None:
    assert '"state": "done"' in work(*plain(tmp_path))
    assert (tmp_path / "results" / "a.png" / "restored.png").is_file()


def test_who_does_not_see_the_job_does_nothing(tmp_path: Path) -> None:
    with pytest.raises(NeedError, match="Expected workers that see the job's folder"):
        work(*plain(tmp_path, "somebody"))
    assert not (tmp_path / "results").exists()


def test_a_straggler_whose_job_is_held_by_another_writes_nothing(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    case, task = plain(tmp_path)
    answer = PictureWork.answer

    def slow(self: PictureWork, *arguments: Any) -> Any:
        found = answer(self, *arguments)
        (tmp_path / "job" / "lock").write_text("another session")
        return found

    monkeypatch.setattr(PictureWork, "answer", slow)
    assert '"state": "partial"' in work(case, task)
    assert sorted(path.name for path in tmp_path.iterdir()) == ["in", "job"]
    assert [path.name for path in (tmp_path / "job").iterdir()] == ["lock"]


@contextmanager
def by_hand(
    folder: Path, workers: int = 2, **environment: str
) -> Iterator[tuple[str, list["subprocess.Popen[bytes]"]]]:
    """A cluster of processes as somebody starts them in terminals: its address, the scheduler and the workers."""
    folder.mkdir()
    place = str(folder / "scheduler.json")
    settings = {**os.environ, **environment}
    dask, quiet = [sys.executable, "-m", "dask"], {"stderr": subprocess.DEVNULL, "env": settings, "cwd": Path.cwd()}
    hosts = ["--host", "127.0.0.1", "--scheduler-file", place]
    started = [subprocess.Popen([*dask, "scheduler", *hosts, "--port", "0", "--no-dashboard"], **quiet)]
    try:
        local = ["--nthreads", "1", "--no-dashboard", "--no-nanny", "--local-directory", str(folder)]
        local += ["--preload", "app.cluster"]  # importing is slow where the processor is busy, and looks like a hang
        while not Path(place).exists():
            time.sleep(0.1)
        started += [
            subprocess.Popen([*dask, "worker", *hosts, *local], **quiet, start_new_session=True) for _ in range(workers)
        ]
        with distributed.Client(scheduler_file=place) as client:
            address = client.scheduler.address
            if workers:
                client.wait_for_workers(workers)
        yield address, started
    finally:
        for process in started:
            process.kill()
            process.wait()


def cases_done(out: Path) -> list[int]:
    events = [event["outcome"] for event in Job.open(out).journal() if event["event"] == "case"]
    return sorted(event["number"] for event in events if event["state"] == "done")


@pytest.mark.slow
def test_two_killed_workers_change_nothing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("SOURCE_DATE_EPOCH", "1700000000")
    for k in range(8):
        picture(tmp_path / "in" / f"{k}.png", k)
    nifti(tmp_path / "in" / "v.nii.gz", 1)
    (tmp_path / "in" / "bad.png").write_bytes(b"")
    run_batch(RECIPE, [tmp_path / "in"], tmp_path / "here")
    killed: list[int] = []

    def kill(progress: Any) -> None:
        if progress.outcome is not None and progress.ended in (2, 5):
            living = distributed.default_client().run(os.getpid, on_error="ignore").values()
            killed.append(next(pid for pid in living if pid not in killed))
            os.kill(killed[-1], signal.SIGKILL)

    outcome = run_batch(RECIPE, [tmp_path / "in"], tmp_path / "there", workers=Workers(2), watch=kill)
    assert len(killed) == 2
    assert outcome.code == SOME_FAILED
    assert sorted(case.number for case in outcome.cases) == list(range(1, 11))
    assert hashes(tmp_path / "there") == hashes(tmp_path / "here")
    assert remains(tmp_path / "there") == []


@pytest.mark.slow
def test_a_lost_scheduler_is_a_sentence_and_the_job_resumes(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("SOURCE_DATE_EPOCH", "1700000000")
    for k in range(8):
        picture(tmp_path / "in" / f"{k}.png", k)
    nifti(tmp_path / "in" / "v.nii.gz", 1)
    run_batch(RECIPE, [tmp_path / "in"], tmp_path / "here")
    out = tmp_path / "there"
    with by_hand(tmp_path / "one") as (address, (scheduler, *_)):

        def kill(progress: Any) -> None:
            if progress.outcome is not None and progress.ended == 3:
                scheduler.kill()

        outcome = run_batch(RECIPE, [tmp_path / "in"], out, workers=Workers(0, address), watch=kill)
    assert outcome.code == BROKEN_OFF
    assert outcome.message.startswith("Expected a Dask scheduler until the end")
    assert 3 <= len(outcome.cases) < 9
    assert Job.open(out).status().state == "interrupted"
    assert remains(out) == []
    with by_hand(tmp_path / "two") as (address, _):
        outcome = run_batch(RECIPE, [tmp_path / "in"], out, workers=Workers(0, address), resume=True)
    assert outcome.code == DONE
    assert sum(case.proven for case in outcome.cases) >= 3
    assert cases_done(out) == list(range(1, 10))  # each once
    assert hashes(out) == hashes(tmp_path / "here")
    assert remains(out) == []


@pytest.mark.slow
def test_a_frozen_worker_neither_loses_nor_doubles_its_case(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("SOURCE_DATE_EPOCH", "1700000000")
    for k in range(6):
        picture(tmp_path / "in" / f"{k}.png", k)
    # short of Dask's 5 minutes, but long enough for workers that wait for a busy processor
    out, given_up = tmp_path / "out", {"DASK_DISTRIBUTED__SCHEDULER__WORKER_TTL": "15s"}
    with by_hand(tmp_path / "cluster", **given_up) as (address, (_, slow, other)):

        def freeze(progress: Any) -> None:
            if progress.outcome is not None and progress.ended == 2:
                slow.send_signal(signal.SIGSTOP)

        outcome = run_batch(SLOWER, [tmp_path / "in"], out, workers=Workers(0, address), watch=freeze)
        assert outcome.code == DONE
        before = hashes(out), {path: path.stat().st_mtime_ns for path in (out / "results").rglob("*")}
        slow.send_signal(signal.SIGCONT)  # it finishes its case, of a job that is done
        with pytest.raises(subprocess.TimeoutExpired):
            other.wait(4)
        assert before == (hashes(out), {path: path.stat().st_mtime_ns for path in (out / "results").rglob("*")})
    assert sorted(case.number for case in outcome.cases) == cases_done(out) == list(range(1, 7))
    assert remains(out) == []


@pytest.mark.slow
def test_stopping_without_workers_ends(tmp_path: Path) -> None:
    picture(tmp_path / "in" / "a.png", 1)
    job = new_job(RECIPE, [tmp_path / "in"], tmp_path / "out")
    with by_hand(tmp_path / "cluster", workers=0) as (address, _):
        began = time.monotonic()
        outcome = run_job(job, workers=Workers(0, address), stop=lambda: time.monotonic() > began + 1)
    assert (outcome.code, outcome.cases) == (INTERRUPTED, ())
    assert run_job(job).code == DONE


def test_a_file_describes_jobs_of_a_queue(tmp_path: Path) -> None:
    path = tmp_path / "slurm.yaml"
    path.write_text(
        "cluster: slurm\njobs: 3\nqueue: night\ncores: 2\nprocesses: 2\nmemory: 4GB\nwalltime: '01:00:00'\n"
    )
    cluster, jobs = queue_cluster(path)
    with cluster:
        script = cluster.job_script()
    assert jobs == 3
    assert "#SBATCH -p night" in script
    assert "-t 01:00:00" in script
    for wrong in (
        "",
        "cluster: slurm",
        "cluster: cloud\njobs: 1",
        "cluster: slurm\njobs: 0",
        "cluster: local\njobs: 1\nfoo: 2",
    ):
        path.write_text(wrong)
        with pytest.raises(NeedError, match="Expected a YAML file"):
            queue_cluster(path)
    with pytest.raises(NeedError, match="Expected a YAML file"):
        queue_cluster(tmp_path / "absent.yaml")


@pytest.mark.slow
def test_jobs_of_a_queue_give_the_same_bytes(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("SOURCE_DATE_EPOCH", "1700000000")
    described = tmp_path / "here.yaml"
    described.write_text("cluster: local\njobs: 1\ncores: 1\nprocesses: 1\nmemory: 2GB\n")
    for k in range(4):
        picture(tmp_path / "in" / f"{k}.png", k)
    run_batch(RECIPE, [tmp_path / "in"], tmp_path / "a")
    outcome = run_batch(RECIPE, [tmp_path / "in"], tmp_path / "b", workers=Workers(scheduler=str(described)))
    assert outcome.code == DONE
    assert hashes(tmp_path / "a") == hashes(tmp_path / "b")


@pytest.mark.slow
def test_a_scheduler_that_is_not_there_is_a_sentence(tmp_path: Path) -> None:
    picture(tmp_path / "in" / "a.png", 1)
    with pytest.raises(NeedError, match="Expected a Dask scheduler"):
        run_batch(RECIPE, [tmp_path / "in"], tmp_path / "out", workers=Workers(0, "tcp://127.0.0.1:9"))
