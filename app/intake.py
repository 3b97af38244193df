"""From what a client sent to a queued job: checked before anything is queued, and whole or not at all."""

import os
import shutil
from pathlib import Path, PurePosixPath
from typing import Annotated, Any

from pydantic import Field, Json, ValidationError, model_validator

from app.batch import checked
from app.jobs import Job, JobStore, Request, disk_refuses, sync
from app.options import Options
from app.run import chosen_seeds
from app.uploads import FILES, Form
from operators.errors import RecipeError
from operators.spec import Spec, data_refs
from restoration.assets import AssetStore
from restoration.pipeline import with_seeds
from restoration.published import published_settings
from restoration.recipe import Recipe, Seed, preset_names, read_recipe

IMAGES = f"inputs/{FILES['files']}"
ATTACHED = f"inputs/{FILES['attachments']}"

_DATA = (".png", ".jpg", ".jpeg", ".tif", ".tiff", ".bmp", ".webp", ".npy", ".npz")


class Submission(Spec):
    """The fields of a new job that are text."""

    recipe: Annotated[
        Json[Recipe] | None,
        Field(description="A recipe as JSON. Files in it (masks, kernels) are names of attachments."),
    ] = None
    preset: Annotated[str | None, Field(description="Name of a preset, in place of a recipe.")] = None
    options: Annotated[Json[Options] | None, Field(description="What a recipe does not say, as JSON.")] = None
    samples: Annotated[
        int | None, Field(ge=1, le=4096, description="So many samples, of consecutive seeds from the first.")
    ] = None
    seed: Annotated[Seed | None, Field(description="The first seed, in place of the recipe's seeds.")] = None

    @model_validator(mode="after")
    def _one(self) -> "Submission":
        if (self.recipe is None) == (self.preset is None):
            raise ValueError("give a recipe or the name of a preset, and not both")
        return self


def submit(form: Form, staging: Path, store: JobStore, name: str, assets: AssetStore) -> Job:
    """The queued job `name` of a form whose files lie in `staging`, on the disk of the store.

    Raises:
        PreimageError: the form, the recipe or the options cannot be carried out, or the disk refuses.
    """
    if not form.files:
        raise RecipeError("Expected at least one file to restore in 'files', got none; add it.")
    recipe, options = _asked_for(form, staging / FILES["attachments"], assets)
    request = Request.new((IMAGES,), recipe, options.model_dump(mode="json")).model_copy(update={"id": name})
    fresh = store.root / f".new-{name}"
    try:
        Job.create(fresh, request)
        os.replace(staging, fresh / "inputs")
        os.replace(fresh, store.root / name)
        sync(store.root)
    except OSError as error:
        raise disk_refuses(error) from error
    finally:
        shutil.rmtree(fresh, ignore_errors=True)
    return store.get(name)


def _asked_for(form: Form, attached: Path, assets: AssetStore) -> tuple[dict[str, Any], Options]:
    try:
        asked = Submission.model_validate(form.fields)
    except ValidationError as error:
        faults = "; ".join(
            f"{'.'.join(str(part) for part in fault['loc']) or 'fields'}: {fault['msg'][:1000]}"
            for fault in error.errors()[:5]
        )
        raise RecipeError(f"Expected a valid job, got: {faults}; correct these fields.") from error
    recipe = asked.recipe if asked.recipe is not None else shipped(asked.preset or "")
    given = () if asked.seed is None else (asked.seed,)
    recipe = with_seeds(recipe, chosen_seeds(recipe.seeds, given, asked.samples))
    for ref in data_refs(recipe):
        if ref is recipe.model or not ref.path.lower().endswith(_DATA):
            raise RecipeError("Expected pictures or NumPy arrays as attachments, got another file; leave it out.")
        if ref.path not in form.attachments:
            raise RecipeError("Expected recipes to name attachments of the same job, got another file; attach it.")
    options = asked.options or Options()
    pinned = checked(recipe, options, attached, assets)
    moved = {str((attached / name).resolve()): f"{ATTACHED}/{name}" for name in form.attachments}
    return _moved(pinned.model_dump(mode="json"), moved), options


def shipped(name: str) -> Recipe:
    """A recipe that ships with the program.

    Raises:
        RecipeError: there is none of that name; nothing else is looked up on the disk.
    """
    if name not in (*preset_names(), *published_settings()):  # `read_recipe` would also read files of this machine
        raise RecipeError(
            f"Expected a preset out of {', '.join(preset_names())}, or a published setting; got another; "
            "choose one of them."
        )
    return read_recipe(name)[0]


def by_name(values: Any) -> Any:
    """The JSON of a job's recipe whose files go by their own names, as when they were attached."""
    if isinstance(values, dict):
        return {key: _last(value) if key == "path" else by_name(value) for key, value in values.items()}
    return [by_name(value) for value in values] if isinstance(values, list) else values


def _last(path: Any) -> Any:
    return PurePosixPath(path).name if isinstance(path, str) else path


def _moved(values: Any, places: dict[str, str]) -> Any:
    """JSON with some strings replaced."""
    if isinstance(values, dict):
        return {key: _moved(value, places) for key, value in values.items()}
    if isinstance(values, list):
        return [_moved(value, places) for value in values]
    return places.get(values, values) if isinstance(values, str) else values
