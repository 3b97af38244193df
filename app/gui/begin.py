"""A job from files that the page has taken in: the same road as a job of the HTTP API."""

import contextlib
import json
import os
import secrets
import shutil
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from app.desk import Desk
from app.intake import ATTACHED, IMAGES, by_name, submit
from app.jobs import disk_refuses
from app.uploads import FILES, Form, Refused, plain_name
from operators.errors import ReadError
from restoration.pipeline import with_seeds
from restoration.recipe import Recipe


def begin(
    desk: Desk,
    files: Sequence[Path],
    recipe: Mapping[str, Any],
    options: Mapping[str, Any],
    attachments: Mapping[str, Path] | None = None,
) -> str:
    """Queue a job and return its identifier.

    Args:
        desk: of the server.
        files: what is to be restored; they stay where they are, under their own names in the job.
        recipe: as JSON; files in it are names of attachments.
        options: of `app.options.Options`, as JSON.
        attachments: files that the recipe names, by those names.

    Raises:
        PreimageError: the job cannot be carried out, or the disk refuses. One sentence, without paths.
    """
    desk.check_room()
    attached = attachments or {}
    if len(files) + len(attached) > desk.limits.files:
        raise Refused(413, f"Expected at most {desk.limits.files} files, got more; send several jobs or a zip.")
    store, name = desk.dispatcher.store, secrets.token_hex(8)
    staging = store.root / f".upload-{name}"
    shown = {**options, "views": True}  # the page wants to see it
    form = Form(fields={"recipe": json.dumps(recipe), "options": json.dumps(shown)})
    try:
        for part in FILES.values():
            (staging / part).mkdir(parents=True, mode=0o700)
        for k, file in enumerate(files, 1):
            given = plain_name(file.name)
            # two files of one name go beside each other
            unique = given if given not in form.files else f"{k}-{given}"
            _place(file, staging / FILES["files"] / unique)
            form.files.append(unique)
        for given, file in attached.items():
            _place(file, staging / FILES["attachments"] / given)
            form.attachments.append(given)
        job = submit(form, staging, store, name, desk.assets)
    except OSError as error:
        raise disk_refuses(error) from error
    finally:
        shutil.rmtree(staging, ignore_errors=True)
    desk.dispatcher.add(job)
    return name


def again(desk: Desk, name: str, samples: int) -> str:
    """Queue a job anew, from the same files, with so many samples of consecutive seeds; the first seed stays.

    Raises:
        PreimageError: there is no such job, or it cannot be carried out again.
    """
    job = desk.find(name)
    request = job.request
    recipe = Recipe.model_validate(by_name(request.recipe))
    seeds = tuple(range(recipe.seeds[0], recipe.seeds[0] + samples))
    images, attached = job.folder / IMAGES, job.folder / ATTACHED
    files = sorted(images.iterdir()) if images.is_dir() else []
    attachments = {path.name: path for path in attached.iterdir()} if attached.is_dir() else {}
    described = with_seeds(recipe, seeds).model_dump(mode="json")
    return begin(desk, files, described, request.options, attachments)


def uploaded(given: str, cache: Path) -> Path:
    """The file of a name that a browser sent, which must be an upload below Gradio's folder.

    Raises:
        ReadError: it is anything else.
    """
    try:
        path = Path(given).resolve()
        if path.is_relative_to(cache.resolve()) and path.is_file():
            return path
    except (OSError, ValueError):  # a name that is too long, or has a NUL byte
        pass
    raise ReadError("Expected a file that was uploaded here, got another; choose it again.")


def _place(file: Path, place: Path) -> None:
    """A second name for the file, or a copy where that cannot be; uploads are never written to again."""
    with contextlib.suppress(OSError):
        os.link(file, place)
        return
    shutil.copyfile(file, place)
