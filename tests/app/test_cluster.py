import os
import signal
from pathlib import Path
from typing import Any

import pytest

from app.batch import SOME_FAILED, Workers, run_batch
from app.cluster import work
from app.inputs import Case
from app.options import Options
from app.restore import Task
from operators.errors import NeedError
from tests.app.inputs_of_all_kinds import RECIPE, hashes, nifti, picture, remains

distributed = pytest.importorskip("distributed", reason="Dask is not installed")

pytestmark = pytest.mark.filterwarnings("ignore")  # what Dask's own threads leave open


def test_a_task_is_made_of_plain_values(tmp_path: Path) -> None:
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
    )
    assert '"state": "done"' in work(case.model_dump_json(), task.model_dump_json())
    assert (tmp_path / "results" / "a.png" / "restored.png").is_file()


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
            workers = distributed.default_client().run(os.getpid)
            killed.append(next(iter(workers.values())))
            os.kill(killed[-1], signal.SIGKILL)

    outcome = run_batch(RECIPE, [tmp_path / "in"], tmp_path / "there", workers=Workers(2), watch=kill)
    assert len(killed) == 2
    assert outcome.code == SOME_FAILED
    assert sorted(case.number for case in outcome.cases) == list(range(1, 11))
    assert hashes(tmp_path / "there") == hashes(tmp_path / "here")
    assert remains(tmp_path / "there") == []


@pytest.mark.slow
def test_a_scheduler_that_is_not_there_is_a_sentence(tmp_path: Path) -> None:
    picture(tmp_path / "in" / "a.png", 1)
    with pytest.raises(NeedError, match="Expected a Dask scheduler"):
        run_batch(RECIPE, [tmp_path / "in"], tmp_path / "out", workers=Workers(0, "tcp://127.0.0.1:9"))
