"""Tiny pictures, recipes and assets that need no trained weights."""

import hashlib
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from safetensors.torch import save_file
from torch import Tensor

from app.pictures import write_picture
from restoration.nets.unet import ResidualUNet

BLUR: dict[str, Any] = {"kind": "blur", "kernel": {"kind": "gaussian", "size": 7, "std": 1.5}, "boundary": "circular"}
STEPS = 4


def smooth(height: int = 32, width: int = 40) -> Tensor:
    """A picture (3, height, width) with an edge, a slope and some colour."""
    y, x = torch.meshgrid(torch.linspace(0, 1, height), torch.linspace(0, 1, width), indexing="ij")
    return torch.stack([0.2 + 0.6 * x, 0.3 + 0.4 * y, (x + y > 1).float() * 0.5 + 0.25])


@pytest.fixture
def photo(tmp_path: Path) -> Path:
    path = tmp_path / "photo.png"
    write_picture(path, smooth())
    return path


@pytest.fixture
def write_recipe(tmp_path: Path) -> Callable[..., Path]:
    """Writes a recipe with a closed-form prior and few steps; arguments replace whole fields."""

    def write(name: str = "recipe.json", *, steps: int = STEPS, changes: dict[str, Any] | None = None) -> Path:
        values: dict[str, Any] = {
            "operator": BLUR,
            "noise": {"kind": "gaussian", "sigma": 0.025},
            "model": {"kind": "power-law"},
            "method": {"kind": "diffpir", "schedule": {"kind": "karras", "steps": steps}},
        }
        path = tmp_path / name
        path.write_text(json.dumps(values | (changes or {})))
        return path

    return write


@pytest.fixture
def recipe(write_recipe: Callable[..., Path]) -> Path:
    return write_recipe()


@pytest.fixture
def assets(tmp_path: Path) -> Path:
    """An asset folder with an untrained network 'tiny' and two pictures."""
    folder = tmp_path / "assets"
    folder.mkdir()
    net = ResidualUNet((4, 8), 1, 8)
    drawn = np.random.default_rng(0)
    state = {k: torch.from_numpy(0.1 * drawn.standard_normal(v.shape, np.float32)) for k, v in net.state_dict().items()}
    save_file(state, folder / "tiny.safetensors")
    write_picture(folder / "wide.png", smooth())
    write_picture(folder / "tall.png", smooth(40, 32).flip(0))

    def card(name: str, role: str, file: str) -> str:
        content = (folder / file).read_bytes()
        return (
            f'[[asset]]\nname = "{name}"\nrole = "{role}"\ntitle = "The {name} one"\nfile = "{file}"\n'
            f'sha256 = "{hashlib.sha256(content).hexdigest()}"\nbytes = {len(content)}\nlicence = "CC0-1.0"\n'
            'source = "made by a test"\n'
        )

    net_table = '[asset.net]\nkind = "residual-unet"\nchannels = [4, 8]\nblocks = 1\nembedding = 8\n'
    prior = card("tiny", "prior", "tiny.safetensors") + "sigma_range = [0.005, 20.0]\n" + net_table
    manifest = [prior, card("wide", "image", "wide.png"), card("tall", "image", "tall.png")]
    (folder / "manifest.toml").write_text("\n".join(manifest))
    return folder
