"""The cases of a batch on a Dask cluster: tasks of plain values, done again elsewhere where a worker dies."""

import json
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack
from pathlib import Path

from app.inputs import Case
from app.jobs import Job
from app.options import Outcome
from app.restore import Task, digest_of, restore_cases
from operators.errors import NeedError


def restore_on_cluster(
    cases: Sequence[Case], task: Task, workers: int, scheduler: str, stop: Callable[[], bool]
) -> Iterator[Outcome]:
    """Outcomes in the order in which cases end. Workers write the outputs, and must see the same folders.

    A task is one case. Its bytes do not depend on where or how often it is done, so that a case whose worker died, or
    that two workers did, has one result. Each worker loads the model once.

    Args:
        cases: what is left to do.
        task: the run's.
        workers: processes of a cluster on this machine, or 0 where `scheduler` names one.
        scheduler: address of a running cluster, or empty.
        stop: asked after every case; workers ask for the job's own stop flag at every step.

    Raises:
        NeedError: Dask is not installed, or there is no scheduler at the address.
    """
    try:
        from distributed import Client, LocalCluster, as_completed
    except ImportError as error:
        raise NeedError(
            "Expected Dask for --workers and --scheduler, got an installation without it; install preimage[dask]."
        ) from error
    with ExitStack() as stack:
        if scheduler:
            try:
                client = stack.enter_context(Client(scheduler, timeout="20s"))
            except (OSError, ValueError) as error:
                raise NeedError(f"Expected a Dask scheduler at {scheduler}, found none; check it.") from error
        else:
            local = LocalCluster(n_workers=workers, threads_per_worker=1, processes=True, dashboard_address=None)
            client = stack.enter_context(Client(stack.enter_context(local)))
        text = task.model_dump_json()
        futures = {client.submit(work, case.model_dump_json(), text, pure=False): case for case in cases}
        asked = False
        for future in as_completed(futures, raise_errors=False):
            case = futures[future]
            if future.status == "finished":
                yield from (Outcome.model_validate(values) for values in json.loads(future.result()))
            elif future.status == "error":
                yield _lost(case, task, future.exception())
            if not asked and stop():
                asked = True
                Job(Path(task.folder)).request_stop()  # the workers stop by themselves and say how far they came


def work(case: str, task: str) -> str:
    """Outcomes of one case, from JSON to JSON: one, or none if the job is to stop."""
    described = Task.model_validate_json(task)
    job = Job(Path(described.folder))
    outcomes = restore_cases([Case.model_validate_json(case)], described, None, job.stop_wanted)
    return json.dumps([outcome.model_dump(mode="json") for outcome in outcomes])


def _lost(case: Case, task: Task, error: BaseException | None) -> Outcome:
    """A case over which Dask gave up: its workers died time after time, or the task failed outside a case."""
    return Outcome(
        number=case.number,
        case=digest_of(case, task),
        kind=case.kind,
        state="failed",
        message=f"Expected a worker that lives until the case is done, got {type(error).__name__}; try it alone.",
    )
