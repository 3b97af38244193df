"""Weights and pictures that ship with the package: a card each, found by name, checked by hash."""

import hashlib
import tomllib
from importlib import resources
from pathlib import Path
from typing import Annotated, Literal

import torch
from pydantic import Field
from safetensors import SafetensorError
from safetensors.torch import load_file
from torch import nn

from operators.errors import AssetCorrupt, AssetMissing, RecipeError
from operators.spec import Spec
from restoration.bridge import Bridge, BridgeSpec
from restoration.convert import EDM, Raw
from restoration.nets.unet import ResidualUNet
from restoration.precision import Precision, resolve_precision
from restoration.prior import Denoiser, Padded, Tiled, UnitRange


class ResidualUNetSpec(Spec):
    """Architecture of `restoration.nets.unet.ResidualUNet` under EDM preconditioning."""

    kind: Literal["residual-unet"] = "residual-unet"
    channels: tuple[int, ...]
    blocks: int
    embedding: int = 128
    image_channels: int = 3
    seen_channels: int = 0
    out_channels: int | None = None
    sigma_data: float = 0.5

    def build(self) -> ResidualUNet:
        """The network with fresh weights."""
        return ResidualUNet(
            self.channels, self.blocks, self.embedding, self.image_channels, self.seen_channels, self.out_channels
        )


class AssetCard(Spec):
    """What is known of a file before a byte of it is loaded."""

    name: str
    role: Literal["prior", "bridge", "image"]
    title: str
    file: str
    sha256: Annotated[str, Field(pattern="^[0-9a-f]{64}$")]
    bytes: int
    licence: str
    source: str
    net: ResidualUNetSpec | None = None
    bridge: BridgeSpec | None = None
    value_range: tuple[float, float] = (0.0, 1.0)
    sigma_range: tuple[float, float] | None = None
    training: dict[str, str] = Field(default_factory=dict)
    quality: dict[str, str] = Field(default_factory=dict)

    @property
    def unit_sigma_range(self) -> tuple[float, float] | None:
        """`sigma_range` carried to unit range."""
        if self.sigma_range is None:
            return None
        width = self.value_range[1] - self.value_range[0]
        return self.sigma_range[0] / width, self.sigma_range[1] / width


class AssetStore:
    """The assets of a folder that holds `manifest.toml`; the package's own by default. Nothing is ever downloaded."""

    def __init__(self, folder: Path | None = None) -> None:
        self.folder = folder or Path(str(resources.files("assets")))
        manifest = self.folder / "manifest.toml"
        try:
            entries = tomllib.loads(manifest.read_text(encoding="utf-8")).get("asset", [])
            cards = [AssetCard.model_validate(e) for e in entries]
        except (OSError, ValueError, TypeError, AttributeError) as error:
            first = str(error).splitlines()[0]
            raise AssetCorrupt(
                f"Expected a readable manifest of assets at {manifest}, got: {first}; reinstall."
            ) from error
        self.cards = {card.name: card for card in cards}

    def card(self, name: str, role: str) -> AssetCard:
        """The card of an asset in a role, or a sentence that lists the names there are."""
        card = self.cards.get(name)
        if card is None or card.role != role:
            known = sorted(c.name for c in self.cards.values() if c.role == role)
            raise AssetMissing(f"Expected the name of a {role} asset out of {known}, got '{name}'; choose one of them.")
        return card

    def resolve(self, card: AssetCard) -> Path:
        """The asset's file, its hash checked."""
        path = self.folder / card.file
        if not path.is_file():
            raise AssetMissing(f"Expected the asset '{card.name}' at {path}, found no file; reinstall the package.")
        try:
            digest = hashlib.sha256(path.read_bytes()).hexdigest()
        except OSError as error:
            raise AssetCorrupt(
                f"Expected to read the asset '{card.name}' at {path}, got: {error.strerror}; check its permissions."
            ) from error
        if digest != card.sha256:
            raise AssetCorrupt(
                f"Expected {path.name} with sha256 {card.sha256[:12]}, got {digest[:12]}; "
                "the file is damaged, reinstall it."
            )
        return path

    def picture(self, name: str) -> Path:
        """The file of a bundled picture."""
        return self.resolve(self.card(name, "image"))


def load_state(net: nn.Module, path: Path) -> None:
    """Load weights strictly: every name and shape must match."""
    try:
        state = load_file(path)
        net.load_state_dict({k: v.float() for k, v in state.items()}, strict=True)
    except (OSError, SafetensorError, RuntimeError) as error:
        reason = " ".join(str(error).split())[:300]
        raise AssetCorrupt(
            f"Expected weights for this network in {path}, got: {reason}; use an undamaged file."
        ) from error


def load_denoiser(card: AssetCard, path: Path, device: torch.device, precision: Precision) -> Denoiser:
    """A trained prior in unit range, for any image size; the network in the asked-for precision."""
    if card.net is None or card.sigma_range is None:
        raise RecipeError(
            f"Expected a card with a network and its range of noise, got '{card.name}' without; fix the card."
        )
    net = card.net.build()
    load_state(net, path)
    net.requires_grad_(requires_grad=False).eval()
    shape = (card.net.image_channels, None, None)
    inner = EDM(net, shape, card.sigma_range, card.net.sigma_data, resolve_precision(precision, device))
    denoiser: Denoiser = Tiled(Padded(inner, net.multiple), step_of=net.multiple)
    if card.value_range == (-1.0, 1.0):
        denoiser = UnitRange(denoiser)
    elif card.value_range != (0.0, 1.0):
        raise RecipeError(f"Expected a prior of [0, 1] or [-1, 1], got {card.value_range}; correct its card.")
    return denoiser.to(device)


def load_bridge(card: AssetCard, path: Path, device: torch.device, precision: Precision) -> Bridge:
    """A trained bridge for any image size; the network in the asked-for precision."""
    if card.net is None or card.bridge is None:
        raise RecipeError(f"Expected a card with a network and its bridge, got '{card.name}' without; fix the card.")
    spec, channels = card.bridge, card.net.image_channels
    if card.net.seen_channels != (wanted := spec.seen_channels(channels)):
        raise RecipeError(
            f"Expected {wanted} seen channels for what the bridge '{card.name}' sees, got {card.net.seen_channels}; "
            "fix the card."
        )
    net = card.net.build()
    load_state(net, path)
    net.requires_grad_(requires_grad=False).eval()
    shape = (channels, None, None)
    raw = Raw(net, shape, resolve_precision(precision, device))
    tiled = Tiled(Padded(raw, net.multiple), step_of=net.multiple)
    return Bridge(
        tiled,
        spec.path,
        spec.predicts,
        shape,
        sees_start=spec.sees_start,
        sees_holes=spec.sees_holes,
        tasks=spec.tasks,
    ).to(device)
