"""The cases of a batch on a Dask cluster: tasks of plain values, done again elsewhere where a worker dies."""

import importlib
import json
import logging
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Any

from app import remote
from app.inputs import Case
from app.jobs import Job
from app.options import Outcome
from app.restore import restore_cases
from app.work import Task, digest_of
from operators.errors import NeedError, PreimageError

_EVERY = 0.05  # seconds between looks at what has ended


class ClusterLost(PreimageError):
    """The scheduler is gone: what has not been told of cannot be known, and is done again when the job is resumed."""


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
        scheduler: address of a running cluster, or a YAML file that describes jobs of a queue, or empty.
        stop: asked all the time; workers ask for the job's own stop flag at every step.

    Raises:
        NeedError: Dask is not installed, there is no scheduler at the address, or the recipe cannot be loaded there.
        ClusterLost: the connection to the scheduler broke.
        DiskRefuses: a worker can write nothing more.
    """
    try:
        from distributed import Client, as_completed
    except ImportError as error:
        raise NeedError(
            "Expected Dask for --workers and --scheduler, got an installation without it; install preimage[dask]."
        ) from error
    with ExitStack() as stack:
        spoken = logging.getLogger("distributed.client")  # of a lost connection, in a page; a sentence says it
        stack.callback(spoken.setLevel, spoken.level)
        spoken.setLevel(logging.CRITICAL)
        if scheduler.endswith((".yaml", ".yml")):
            cluster, jobs = queue_cluster(Path(scheduler))
            client = stack.enter_context(Client(stack.enter_context(cluster)))
            cluster.scale(jobs=jobs)
        elif scheduler:
            try:
                client = stack.enter_context(Client(scheduler, timeout="20s"))
            except (OSError, ValueError) as error:
                raise NeedError(f"Expected a Dask scheduler at {scheduler}, found none; check it.") from error
        else:
            client = stack.enter_context(Client(stack.enter_context(local_cluster(workers))))
        text = task.model_dump_json()
        futures = {client.submit(remote.work, case.model_dump_json(), text, pure=False): case for case in cases}
        ended, asked = as_completed(futures, raise_errors=False), False
        while futures:
            for future in ended.next_batch(block=False):
                yield from _outcomes(future, futures.pop(future), task)
            if not asked and stop():
                asked = True
                Job(Path(task.folder)).request_stop()  # the workers stop by themselves and say how far they came
            if asked and not client.nthreads():
                break  # nobody is there to do so
            time.sleep(_EVERY)


@contextmanager
def local_cluster(workers: int) -> Iterator[Any]:
    """A Dask cluster of so many processes of one thread on this machine."""
    import dask
    from distributed import LocalCluster

    # Dask has workers give freed memory back at once; every new tensor then begins with page faults, and a network
    # takes twice as long
    with dask.config.set({"distributed.nanny.pre-spawn-environ.MALLOC_TRIM_THRESHOLD_": None}):
        # without a port of its own it would warn where another cluster has Dask's
        web = "127.0.0.1:0"
        with LocalCluster(n_workers=workers, threads_per_worker=1, processes=True, dashboard_address=web) as cluster:
            yield cluster


_QUEUES = {
    "slurm": "SLURMCluster",
    "pbs": "PBSCluster",
    "sge": "SGECluster",
    "lsf": "LSFCluster",
    "htcondor": "HTCondorCluster",
    "local": "local.LocalCluster",
}
"""Names in a file and classes of dask-jobqueue; `local` runs its jobs on this machine, without a queue."""


def queue_cluster(path: Path) -> tuple[Any, int]:
    """A cluster whose workers are to be jobs of a queue, and how many jobs the file asks for; none is started yet.

    The file has `cluster` (slurm, pbs, sge, lsf, htcondor, local), `jobs`, and the fields of that class of
    dask-jobqueue: `queue`, `cores`, `processes`, `memory`, `walltime` and so on.

    Raises:
        NeedError: dask-jobqueue is not installed, or the file does not describe such a cluster.
    """
    try:
        import dask_jobqueue  # noqa: F401  # is it there?
        import yaml
    except ImportError as error:
        raise NeedError(
            "Expected dask-jobqueue for a --scheduler file, got an installation without it; install preimage[queue]."
        ) from error
    try:
        fields = yaml.safe_load(path.read_text(encoding="utf-8"))
        kind, jobs = fields.pop("cluster"), fields.pop("jobs")
        module, _, name = f"dask_jobqueue.{_QUEUES[kind]}".rpartition(".")
        if type(jobs) is not int or jobs < 1:
            raise ValueError(f"jobs {jobs}")
        return getattr(importlib.import_module(module), name)(**fields), jobs
    except (OSError, ValueError, KeyError, TypeError, AttributeError, yaml.YAMLError) as error:
        first = str(error).partition("\n")[0] or type(error).__name__
        raise NeedError(
            f"Expected a YAML file with cluster ({', '.join(_QUEUES)}), jobs and the fields of that cluster, "
            f"got {first}; see docs/batch.md."
        ) from error


def _outcomes(future: Any, case: Case, task: Task) -> Iterator[Outcome]:
    from distributed import CancelledError
    from distributed.comm.core import CommClosedError

    try:
        yield from (Outcome.model_validate(values) for values in json.loads(future.result()))
    except PreimageError:
        raise  # of the recipe or of the disk, not of the case
    except (CancelledError, CommClosedError) as error:
        raise ClusterLost(
            "Expected a Dask scheduler until the end, lost the connection to it; start it again and resume."
        ) from error
    except Exception as error:
        yield _lost(case, task, error)


def work(case: str, task: str) -> str:
    """Outcomes of one case, from JSON to JSON: one, or none if the job is to stop.

    Raises:
        NeedError: this machine does not see the job as the process that holds it does.
    """
    described = Task.model_validate_json(task)
    job = Job(Path(described.folder))
    if job.holder() != described.holder:
        raise NeedError("Expected workers that see the job's folder, got one that does not; use a shared folder.")

    def stop() -> bool:
        return job.stop_wanted() or job.holder() != described.holder

    outcomes = restore_cases([Case.model_validate_json(case)], described, None, stop)
    return json.dumps([outcome.model_dump(mode="json") for outcome in outcomes])


def _lost(case: Case, task: Task, error: Exception) -> Outcome:
    """A case over which Dask gave up: its workers died time after time, or the task failed outside a case."""
    return Outcome(
        number=case.number,
        case=digest_of(case, task.salt),
        kind=case.kind,
        state="failed",
        message=f"Expected a worker that lives until the case is done, got {type(error).__name__}; try it alone.",
    )
