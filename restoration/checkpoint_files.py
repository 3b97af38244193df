"""Reading checkpoints: names and shapes first, numbers when they are wanted, and never anything but tensors."""

import json
import pickle
import warnings
import zipfile
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError, safe_open
from torch import Tensor

from operators.errors import AssetMissing, ReadError
from restoration.layouts import State


@dataclass(frozen=True)
class Contents:
    """Tensors of a file without storage, how to read one, and what its folder or header says of it."""

    tensors: State
    read: Callable[[str], Tensor]
    facts: Mapping[str, Any]


def open_checkpoint(path: Path, given: str) -> Contents:
    """The tensors of a file or of a diffusers folder, none of them read; `given` is the path as the user wrote it.

    Raises:
        AssetMissing: there is nothing at the path.
        ReadError: the file is damaged, holds no tensors, or more than tensors.
    """
    if not path.exists():
        hint = f"download it with `hf download {given} --local-dir FOLDER`, or " if _hub_name(given) else ""
        raise AssetMissing(f"Expected a checkpoint at {path}, found nothing; {hint}check the path.")
    return _folder(path) if path.is_dir() else _file(path)


def _hub_name(path: str) -> bool:
    parts = path.split("/")
    return len(parts) == 2 and all(parts) and not path.startswith(".") and "." not in parts[1][-5:]


def _file(path: Path) -> Contents:
    return _safetensors(path) if path.suffix == ".safetensors" else _torch_file(path)


def _safetensors(path: Path) -> Contents:
    try:
        with safe_open(path, "pt") as file:
            shapes = {name: tuple(file.get_slice(name).get_shape()) for name in file.keys()}  # noqa: SIM118
            facts = dict(file.metadata() or {})
    except (OSError, SafetensorError) as error:
        raise damaged(path, error) from error

    def read(name: str) -> Tensor:
        with safe_open(path, "pt") as file:
            tensor: Tensor = file.get_tensor(name)
        return tensor

    return Contents({n: torch.empty(s, device="meta") for n, s in shapes.items()}, read, facts)


def _torch_file(path: Path) -> Contents:
    """A .pt, .pth, .ckpt or .bin file of tensors; torch's restricted unpickler refuses everything else."""
    try:
        with warnings.catch_warnings(action="ignore"):  # about pickles of other kinds, which are refused below
            # Mapped, so that the numbers stay on the disk until wanted; files older than torch 1.6 cannot be.
            mapped = zipfile.is_zipfile(path)
            found = torch.load(path, map_location="cpu", weights_only=True, mmap=mapped)  # noqa: TID251
    except pickle.UnpicklingError as error:
        with path.open("rb") as file:
            pickled = file.read(1) in (
                b"\x80",
                b"P",
            )  # a pickle, or a zip that holds one; a web page begins with neither
        if not pickled:
            raise damaged(path, ValueError("something else than tensors")) from error
        raise ReadError(
            f"Expected a file of tensors alone at {path}, got one that would run code of its own when it is opened; "
            "convert it to safetensors where you trust it (docs/priors.md)."
        ) from error
    except (OSError, RuntimeError, EOFError, ValueError, KeyError, AttributeError) as error:
        raise damaged(path, error) from error
    state = _averaged(found)
    if not state:
        raise ReadError(f"Expected named tensors in {path}, got {type(found).__name__}; use a file of weights.")
    return Contents({n: t.to("meta") for n, t in state.items()}, state.__getitem__, _options(found))


def _averaged(found: Any) -> State:
    """The weights in a file of training: the running average where there is one."""
    if not isinstance(found, dict):
        return {}
    model, ema = found.get("model", found.get("net")), found.get("ema")
    if isinstance(model, dict) and isinstance(ema, dict) and isinstance(ema.get("shadow_params"), list):
        # score_sde and I2SB: averages without names, in the order of the trained parameters.
        state = _tensors(model)
        trained = [n for n in state if n not in ("sigmas", "all_modules.0.W")]
        shadow = ema["shadow_params"]
        if len(shadow) != len(trained) or any(a.shape != state[n].shape for n, a in zip(trained, shadow, strict=True)):
            raise ReadError(
                f"Expected running averages for the {len(trained)} tensors of the model, got {len(shadow)} or others "
                "in shape; save the weights alone."
            )
        return {**state, **dict(zip(trained, shadow, strict=True))}
    for key in ("ema", "model_ema", "params_ema", "state_dict", "model", "net"):
        if isinstance(found.get(key), dict) and (state := _tensors(found[key])):
            return state
    return _tensors(found)


def _options(found: dict[str, Any]) -> dict[str, Any]:
    """The plain values among the options of training that Lightning keeps beside the weights."""
    given = found.get("hyper_parameters")
    plain = given.items() if isinstance(given, dict) else ()
    return {"hyper_parameters": {n: v for n, v in plain if isinstance(v, (str, int, float))}}


def _tensors(state: dict[Any, Any]) -> State:
    return {str(n).removeprefix("module."): t for n, t in state.items() if isinstance(t, Tensor)}


def _folder(path: Path) -> Contents:
    """A folder of diffusers: a pipeline with `unet` and `scheduler` in it, or the network's own."""
    folder = path / "unet" if (path / "unet").is_dir() else path
    files = [folder / f"diffusion_pytorch_model.{end}" for end in ("safetensors", "bin")]
    weights = next((file for file in files if file.is_file()), None)
    if weights is None:
        raise ReadError(
            f"Expected diffusion_pytorch_model.safetensors or .bin in {folder}, found neither; "
            "give the folder that diffusers saved, or the file itself."
        )
    facts = {"config": _json(folder / "config.json")}
    for place in (path / "scheduler", path, path.parent / "scheduler"):
        if (place / "scheduler_config.json").is_file():
            facts["scheduler"] = _json(place / "scheduler_config.json")
            break
    contents = _file(weights)
    return Contents(contents.tensors, contents.read, facts)


def _json(path: Path) -> dict[str, Any]:
    try:
        found = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise ReadError(f"Expected JSON in {path}, got: {str(error)[:100]}; download the folder again.") from error
    if not isinstance(found, dict):
        raise ReadError(f"Expected an object of settings in {path}, got {type(found).__name__}; download it again.")
    return found


def damaged(path: Path, error: Exception) -> ReadError:
    """The sentence for a file that cannot be read to its end."""
    reason = " ".join(str(error).split())[:160]
    return ReadError(f"Expected a readable checkpoint at {path}, got: {reason}; the file is damaged or cut short.")
