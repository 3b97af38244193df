"""What a Dask scheduler has to import: nothing but this, so that it stays small and answers its workers."""


def work(case: str, task: str) -> str:
    """See `app.cluster.work`, which runs in the workers alone."""
    from app.cluster import work as done

    return done(case, task)
