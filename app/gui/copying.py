"""A job as texts that do it again: Python, command line and curl; and as a run file for the page."""

import contextlib
import json
import os
import pprint
import shlex
from importlib.metadata import version
from pathlib import PurePosixPath
from typing import Any

import numpy as np
import torch

from app.intake import IMAGES, by_name
from app.jobs import Job
from app.options import Options
from operators.errors import PreimageError
from operators.spec import data_refs
from restoration.assets import AssetStore
from restoration.recipe import Recipe

MOST_NAMED = 20
"""Inputs that a text names one by one; more are taken from a folder."""

_FLAGS = {"output_types": "--output-type", "series": "--series", "on_gap": "--on-gap", "window": "--window"}
_FLAGS |= {"truth": "--truth", "device": "--device", "precision": "--precision", "batch": "--batch"}
_FLAGS |= {"fail_fast": "--fail-fast"}


def commands(job: Job, address: str, *, token: bool = False, store: AssetStore | None = None) -> dict[str, Any]:
    """Texts under "python", "cli" and "curl" that repeat the job, and its "run_file" as JSON.

    They are to be run where the inputs and the files that the recipe names lie under their own names; none holds a path
    of this machine. Results are the same bytes, on a CPU in fp32 and with as many threads.

    Args:
        job: of a server or a batch.
        address: of the server, for curl.
        token: whether the server wants one, which curl then takes from PREIMAGE_TOKEN.
        store: the assets, whose checksums go into the run file.

    Raises:
        PreimageError: the job is damaged, or its inputs were deleted.
    """
    request = job.request
    recipe = Recipe.model_validate(by_name(request.recipe))
    options = Options.model_validate(request.options)
    inputs, attached = _inputs(job, request.inputs), list(dict.fromkeys(ref.path for ref in data_refs(recipe)))
    beside = [*inputs, *attached]
    return {
        "python": _python(recipe, options, inputs, beside),
        "cli": _cli(recipe, options, inputs, beside),
        "curl": _head(beside) + _curl(recipe, options, {"files": inputs, "attachments": attached}, address, token),
        "run_file": _run_file(job, recipe, options, inputs, store or AssetStore()),
    }


# texts


def _python(recipe: Recipe, options: Options, inputs: list[str], beside: list[str]) -> str:
    chosen = pprint.pformat(recipe.model_dump(mode="json"), width=110, sort_dicts=False)
    wanted = ", ".join(f"{name}={value!r}" for name, value in _chosen(options).items())
    named = ", ".join(f"Path({name!r})" for name in inputs)
    return (
        f"{_head(beside)}from pathlib import Path\n\nfrom app.batch import Options, run_batch\n"
        f"from restoration import Recipe\n\nrecipe = Recipe.model_validate(\n{_indented(chosen)}\n)\n"
        f'outcome = run_batch(recipe, [{named}], Path("result"), Options({wanted}))\n'
        'print(outcome.message or "done, see result/results")\n'
    )


def _cli(recipe: Recipe, options: Options, inputs: list[str], beside: list[str]) -> str:
    words = ["preimage", "batch", "-i", *(_word(name) for name in inputs), "-o", "result", "--recipe", "recipe.json"]
    for name, value in _chosen(options).items():
        words.append(_FLAGS[name])
        if isinstance(value, tuple):
            words += (
                [",".join(value)]
                if name == "output_types"
                else [np.format_float_positional(number, trim="0") for number in value]
            )
        elif not isinstance(value, bool):
            words.append(str(value))
    # no line of JSON can end the here-document: line feeds in it are escaped
    text = json.dumps(recipe.model_dump(mode="json"), indent=1, ensure_ascii=False)
    return f"{_head(beside)}cat > recipe.json <<'RECIPE'\n{text}\nRECIPE\n{shlex.join(words)}\n"


def _curl(recipe: Recipe, options: Options, files: dict[str, list[str]], address: str, token: bool) -> str:
    fields: dict[str, Any] = {"recipe": recipe.model_dump(mode="json"), "options": _chosen(options)}
    words = []
    for name, value in fields.items():
        if value:
            words += ["--form-string", f"{name}={json.dumps(value, ensure_ascii=False, separators=(',', ':'))}"]
    for field, names in files.items():
        for name in names:
            # in quotes, as commas and semicolons would end the name
            words += ["-F", f"{field}=@{json.dumps(name, ensure_ascii=False)}"]
    words.append(f"{address.rstrip('/')}/api/v1/jobs")
    bearer = '-H "Authorization: Bearer $PREIMAGE_TOKEN" ' if token else ""
    return f"curl {bearer}{shlex.join(words)}\n"


def _head(beside: list[str]) -> str:
    # a name cannot end the comment: it holds no line feed
    return f"# Preimage {version('preimage')}, torch {torch.__version__}. To be run beside: {', '.join(beside)}\n"


def _chosen(options: Options) -> dict[str, Any]:
    """Options other than the defaults, without the page's own."""
    usual = Options()
    return {name: value for name in _FLAGS if (value := getattr(options, name)) != getattr(usual, name)}


def _indented(text: str) -> str:
    return "\n".join(f"    {line}" for line in text.splitlines())


def _word(name: str) -> str:
    """A file name that no program takes for an option."""
    return f"./{name}" if name.startswith("-") else name


# the run file


def _run_file(job: Job, recipe: Recipe, options: Options, inputs: list[str], store: AssetStore) -> dict[str, Any]:
    manifest: dict[str, Any] = {}
    with contextlib.suppress(OSError, ValueError):
        manifest = json.loads((job.folder / "manifest.json").read_bytes())
    hashes: dict[str, str] = {}
    with contextlib.suppress(OSError, PreimageError):  # an asset that is no longer here
        hashes = recipe.model.asset_hashes(store)
    versions = manifest.get("versions") or {"torch": torch.__version__}
    return {
        "preimage_run": 1,
        "job": job.request.id,
        "created": job.request.created,
        "recipe": recipe.model_dump(mode="json"),
        "recipe_digest": recipe.digest,
        "options": options.model_dump(mode="json"),
        "versions": {"preimage": version("preimage"), **versions},
        "asset_sha256": hashes,
        "inputs": inputs,
        "input_sha256": [case["inputs"] for case in manifest.get("cases", [])],
        "repeats": "bit by bit on a CPU in fp32 with as many threads; closely elsewhere",
    }


# names


def _inputs(job: Job, given: tuple[str, ...]) -> list[str]:
    """Names of the inputs, or of a folder for them."""
    names = [PurePosixPath(name).name for name in given]
    if given == (IMAGES,):
        try:
            names = sorted(name for name in os.listdir(job.folder / IMAGES) if not name.startswith("."))
        except OSError as error:
            raise PreimageError("Expected the inputs of the job, got none; they were deleted.") from error
    return names if len(names) <= MOST_NAMED else ["inputs"]
