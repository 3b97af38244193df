"""A resumable training loop for denoisers and bridges, bounded by wall-clock time.

Source: loss and preconditioning of Karras et al. 2022 (EDM, arXiv:2206.00364), Table 1 and eq. 8.
Deviations: the noise levels are a mixture of a log-normal and a log-uniform law; the learning rate follows the share
of the planned time that is used up, so that a run on a slow machine still ends with its full decay.
"""

import contextlib
import copy
import dataclasses
import json
import math
import os
import time
from dataclasses import dataclass
from fnmatch import fnmatch
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from restoration.allocator import keep_freed_memory
from restoration.nets.unet import ResidualUNet
from restoration.precision import resolve_precision
from restoration.preconditioning import edm
from restoration.train.data import Crops, centre_crops, load_photos
from restoration.train.optim import Muon
from restoration.train.widen import grey, widen

if TYPE_CHECKING:
    from restoration.train.bridges import Bridging


@dataclass(frozen=True)
class TrainRecipe:
    """What is trained, on what, for how long. Sigmas are on [-1, 1] data; all times are minutes of wall clock.

    With `bridge` (see `restoration.train.bridges.BridgeTraining`) it is a bridge, and the sigmas have no meaning.
    """

    name: str
    channels: tuple[int, ...] = (48, 96, 144, 192)
    blocks: int = 2
    embedding: int = 128
    sigma_data: float = 0.5
    sigma_log_mean: float = -1.6
    sigma_log_std: float = 1.0
    sigma_uniform: tuple[float, float] = (0.005, 20.0)
    uniform_share: float = 0.25
    crop: int = 128
    batch: int = 8
    scales: tuple[float, ...] = (1.0, 1.5, 2.0)
    light_prefix: str = ""
    light_weight: float = 1.0
    held_out: tuple[str, ...] = ()
    image_channels: int = 3
    validation_crop: int = 192
    optimiser: str = "adamw"
    learning_rate: float = 6e-4
    weight_decay: float = 0.0
    warmup_steps: int = 200
    flat_share: float = 0.5
    planned_minutes: float = 60.0
    ema: float = 0.999
    clip: float = 1.0
    seed: int = 0
    validate_minutes: float = 5.0
    bridge: dict[str, Any] = dataclasses.field(default_factory=dict)

    @classmethod
    def read(cls, path: Path) -> "TrainRecipe":
        """Read a JSON file; an unknown key or a missing name is an error that says so."""
        values: dict[str, Any] = json.loads(path.read_text(encoding="utf-8"))
        if not isinstance(values, dict):
            raise ValueError(
                f"Expected a JSON object in {path}, got {type(values).__name__}; write the settings by name."
            )
        known = {f.name for f in dataclasses.fields(cls)}
        if unknown := sorted(set(values) - known):
            raise ValueError(
                f"Expected training settings out of {sorted(known)}, got {unknown} in {path}; remove them."
            )
        settings: dict[str, Any] = {k: tuple(v) if isinstance(v, list) else v for k, v in values.items()}
        recipe = cls(**settings)
        for f in dataclasses.fields(cls):
            wanted = str if f.default is dataclasses.MISSING else type(f.default)
            if f.default_factory is not dataclasses.MISSING:
                wanted = type(f.default_factory())
            value = getattr(recipe, f.name)
            if type(value) is not wanted and not (wanted is float and type(value) is int):
                raise ValueError(f"Expected {f.name} as {wanted.__name__}, got {value!r} in {path}; correct it.")
        return recipe


def learning_rate(recipe: TrainRecipe, step: int, progress: float) -> float:
    """Warm-up by steps, flat, then a cosine to zero over the rest of the planned time; progress in [0, 1]."""
    warm = min(1.0, (step + 1) / max(1, recipe.warmup_steps))
    tail = max(0.0, progress - recipe.flat_share) / max(1e-9, 1 - recipe.flat_share)
    return recipe.learning_rate * warm * 0.5 * (1 + math.cos(math.pi * min(1.0, tail)))


def draw_sigmas(recipe: TrainRecipe, count: int, rng: np.random.Generator) -> Tensor:
    """(count,) noise levels: log-normal, or with probability `uniform_share` log-uniform, inside the trained range."""
    low, high = recipe.sigma_uniform
    normal = np.exp(rng.normal(recipe.sigma_log_mean, recipe.sigma_log_std, count))
    uniform = np.exp(rng.uniform(math.log(low), math.log(high), count))
    sigmas = np.where(rng.random(count) < recipe.uniform_share, uniform, np.clip(normal, low, high))
    return torch.from_numpy(sigmas).float()


def denoise(net: nn.Module, x: Tensor, sigma: Tensor, sigma_data: float) -> Tensor:
    """D(x, sigma) of a raw network; x (B, C, H, W), sigma (B,)."""
    c_skip, c_out, c_in, c_noise = (c.view(-1, 1, 1, 1) for c in edm(sigma, sigma_data))
    raw: Tensor = net(c_in * x, c_noise.flatten())
    return c_skip * x + c_out * raw.float()


class Denoising:
    """The objective of a denoiser: EDM's loss at random noise levels."""

    def __init__(self, recipe: TrainRecipe) -> None:
        self.recipe = recipe

    def net(self, channels: tuple[int, ...], blocks: int, embedding: int) -> ResidualUNet:
        """A fresh network."""
        return ResidualUNet(channels, blocks, embedding, self.recipe.image_channels)

    def loss(
        self,
        net: nn.Module,
        x: Tensor,
        rng: np.random.Generator,
        generator: torch.Generator,
        autocast: contextlib.AbstractContextManager[Any],
        layout: torch.memory_format,
    ) -> Tensor:
        """In the network's own units EDM's weight is one: the loss is the plain mean square."""
        sigma = draw_sigmas(self.recipe, len(x), rng).to(x.device)
        noise = torch.randn(x.shape, generator=generator, device=x.device)
        c_skip, c_out, c_in, c_noise = (c.view(-1, 1, 1, 1) for c in edm(sigma, self.recipe.sigma_data))
        noisy = x + sigma.view(-1, 1, 1, 1) * noise
        with autocast:
            prediction = net((c_in * noisy).contiguous(memory_format=layout), c_noise.flatten())
        return F.mse_loss(prediction.float(), (x - c_skip * noisy) / c_out)

    def validation(self, images: Tensor) -> "Validation":
        """Figures on these images, always with the same noise."""
        return Validation(images, self.recipe.sigma_data)


def _objective(recipe: TrainRecipe) -> "Denoising | Bridging":
    if not recipe.bridge:
        return Denoising(recipe)
    from restoration.train.bridges import Bridging  # needs more than torch, numpy and Pillow

    return Bridging(recipe.bridge, recipe.image_channels, recipe.crop)


class Validation:
    """The same crops and the same noise every time.

    Reports PSNR (dB, peak 1 on [0, 1]) at noise 15, 25 and 50 of 255, and the RMS error on [-1, 1] over the range.
    """

    psnr_levels = (15, 25, 50)
    rms_levels = (0.01, 0.03, 0.1, 0.3, 1.0, 3.0, 10.0)

    def __init__(self, images: Tensor, sigma_data: float) -> None:
        generator = torch.Generator().manual_seed(20260101)
        self.images = images
        self.noise = torch.randn(images.shape, generator=generator)
        self.sigma_data = sigma_data

    @torch.no_grad()
    def run(
        self, net: nn.Module, device: torch.device, autocast: contextlib.AbstractContextManager[Any]
    ) -> dict[str, float]:
        """Quality by level; keys `psnr15` ... and `rms0.01` ..."""
        report: dict[str, float] = {}
        for level in self.psnr_levels:
            report[f"psnr{level}"] = self._mean(net, 2 * level / 255, device, autocast, psnr=True)
        for sigma in self.rms_levels:
            report[f"rms{sigma}"] = self._mean(net, sigma, device, autocast, psnr=False)
        return report

    def _mean(self, net: nn.Module, sigma: float, device: torch.device, autocast: Any, *, psnr: bool) -> float:
        values = []
        for images, noise in zip(self.images.split(8), self.noise.split(8), strict=True):
            x = images.to(device)
            level = torch.full((len(x),), sigma, device=device)
            with autocast:
                estimate = denoise(net, x + sigma * noise.to(device), level, self.sigma_data)
            errors = (estimate.clamp(-1, 1) - x).square().mean(dim=(1, 2, 3))
            values.append(10 * (4 / errors).log10() if psnr else errors.sqrt())
        return float(torch.cat(values).mean())


def save_weights(net: nn.Module, path: Path, metadata: dict[str, str]) -> None:
    """Weights alone: safetensors where that package is, else a .pt state dict beside it. Written whole or not."""
    state = {k: v.detach().float().cpu().contiguous() for k, v in net.state_dict().items()}
    try:
        from safetensors.torch import save_file
    except ImportError:
        path = path.with_suffix(".pt")
        torch.save(state, path.with_name(path.name + ".part"))
    else:
        save_file(state, path.with_name(path.name + ".part"), metadata=metadata)
    os.replace(path.with_name(path.name + ".part"), path)


def load_weights(path: Path) -> dict[str, Tensor]:
    """A state dict from .safetensors or .pt; never a pickle."""
    if path.suffix == ".safetensors":
        from safetensors.torch import load_file

        state: dict[str, Tensor] = load_file(path)
    else:
        state = torch.load(path, map_location="cpu", weights_only=True)  # noqa: TID251  (restricted loader)
    return state


def default_device() -> torch.device:
    """CUDA where there is one."""
    return torch.device("cuda" if torch.cuda.is_available() else "cpu")


def train(
    recipe: TrainRecipe,
    data: Path,
    out: Path,
    *,
    minutes: float,
    resume: bool = False,
    init: Path | None = None,
    device: torch.device | None = None,
    threads: int | None = None,
) -> dict[str, float]:
    """Train until `minutes` are used up or the plan is complete; returns the last validation.

    `out` receives `state.pt` (everything a resumed run needs), `ema.safetensors` (what is shipped) and `log.jsonl`.
    """
    device = device or default_device()
    if device.type == "cpu":
        keep_freed_memory()
    if threads:
        torch.set_num_threads(threads)
    if not minutes > 0:
        raise ValueError(f"Expected a positive number of minutes, got {minutes}; give the time of this call.")
    state_file = out / "state.pt"
    if resume and not state_file.is_file():
        raise FileNotFoundError(f"Expected {state_file} to resume from, found none; start without --resume.")
    if not resume and state_file.exists():
        raise FileExistsError(f"Expected no earlier run in {out}, found state.pt; resume it or choose another folder.")

    objective = _objective(recipe)
    photos = load_photos(data, recipe.scales, recipe.light_prefix, recipe.light_weight, grey=recipe.image_channels == 1)
    if missing := [pattern for pattern in recipe.held_out if not any(fnmatch(p.name, pattern) for p in photos)]:
        raise ValueError(
            f"Expected the held-out photographs in {data}, missing {missing}; give the recipe's data folder."
        )
    held_out = [p for p in photos if any(fnmatch(p.name, pattern) for pattern in recipe.held_out)]
    kept_back = {p.name for p in held_out}
    # enough for a steady figure; a whole subject would take longer to validate than to train on
    held_out = held_out[:: math.ceil(len(held_out) / 24)] if held_out else []
    crops = Crops([p for p in photos if p.name not in kept_back], recipe.crop)
    validation = objective.validation(centre_crops(held_out, recipe.validation_crop)) if held_out else None

    torch.backends.cudnn.benchmark = True
    with torch.random.fork_rng():
        torch.default_generator.manual_seed(recipe.seed)
        net = objective.net(recipe.channels, recipe.blocks, recipe.embedding)
    if init is not None:
        state = {k: v.float() for k, v in load_weights(init).items()}
        # it looks at nothing beside what it answers for
        prior = {"head.weight", "tail.bias"} <= set(state) and state["head.weight"].shape[1] == len(state["tail.bias"])
        if recipe.image_channels == 1 and prior and len(state["tail.bias"]) == 3:
            state = grey(state)
        widen(state, net)
        if recipe.bridge and prior:
            # A prior answered another question than a bridge: keep its features, not its answers.
            nn.init.zeros_(net.tail.weight)
            nn.init.zeros_(net.tail.bias)  # type: ignore[arg-type]
    # bf16 needs channels_last to pay, and fp32 on a CPU is several times slower with it (measured: 28 against 152
    # GFLOP/s), so they come together.
    bf16 = resolve_precision("auto", device) == "bf16"
    layout = torch.channels_last if bf16 else torch.contiguous_format
    # The stubs of Module.to lack memory_format.
    net = net.to(device, memory_format=layout)  # type: ignore[call-overload]
    average = copy.deepcopy(net)
    average.requires_grad_(requires_grad=False)
    optimisers = _optimisers(recipe, net)
    step, used = 0, 0.0
    if resume:
        state = _read_state(state_file, recipe, device)
        net.load_state_dict(state["net"])
        average.load_state_dict(state["ema"])
        for optimiser, saved in zip(optimisers, state["optimisers"], strict=True):
            optimiser.load_state_dict(saved)
        step, used = int(state["step"]), float(state["seconds"])

    autocast = torch.autocast(device.type, torch.bfloat16, enabled=bf16)
    # The generators are seeded by the step they start at: a resumed run draws fresh crops, never the same ones again.
    rng = np.random.default_rng([recipe.seed, step])
    generator = torch.Generator(device).manual_seed(recipe.seed * 1_000_003 + step)
    plan = recipe.planned_minutes * 60
    began = last_validation = time.monotonic()
    recent: list[float] = []
    start_used = used

    def save() -> None:
        state = {
            "net": net.state_dict(),
            "ema": average.state_dict(),
            "optimisers": [o.state_dict() for o in optimisers],
            "step": step,
            "seconds": used,
            "fixed": _fixed(recipe),
        }
        torch.save(state, out / "state.part")
        os.replace(out / "state.part", state_file)
        save_weights(
            average, out / "ema.safetensors", {"recipe": json.dumps(dataclasses.asdict(recipe)), "steps": str(step)}
        )

    def validate() -> dict[str, float]:
        figures = {"step": step, "minutes": used / 60, "loss": float(np.mean(recent)) if recent else math.nan}
        if validation is not None:
            figures |= validation.run(average, device, autocast)
        with (out / "log.jsonl").open("a") as log:
            log.write(json.dumps({k: round(v, 5) for k, v in figures.items()}) + "\n")
        return figures

    out.mkdir(parents=True, exist_ok=True)
    try:
        while used - start_used < minutes * 60 and used < plan:
            rate = learning_rate(recipe, step, used / plan)
            x = crops.draw(recipe.batch, rng).to(device, memory_format=layout, non_blocking=True)
            loss = objective.loss(net, x, rng, generator, autocast, layout)
            loss.backward()
            norm = nn.utils.clip_grad_norm_(net.parameters(), recipe.clip)
            if not math.isfinite(float(norm)):
                raise FloatingPointError(
                    f"Expected a finite gradient, got {float(norm)} at step {step}; lower the learning rate."
                )
            for optimiser in optimisers:
                for group in optimiser.param_groups:
                    group["lr"] = rate
                optimiser.step()
                optimiser.zero_grad(set_to_none=True)
            decay = min(recipe.ema, (step + 1) / (step + 10))
            with torch.no_grad():
                torch._foreach_lerp_(list(average.parameters()), list(net.parameters()), 1 - decay)
            recent = [*recent[-199:], loss.item()]
            step += 1
            used = start_used + time.monotonic() - began
            if time.monotonic() - last_validation > recipe.validate_minutes * 60:
                validate()
                save()
                last_validation = time.monotonic()
    except KeyboardInterrupt:
        # Nothing done is lost: the next call resumes here.
        save()
        raise
    report = validate()
    save()
    return report


def _fixed(recipe: TrainRecipe) -> str:
    """What a resumed run may not change; plan, rates, crops and sigmas may."""
    values = (recipe.channels, recipe.blocks, recipe.embedding, recipe.sigma_data, recipe.optimiser, recipe.held_out)
    return json.dumps((*values, recipe.bridge) if recipe.bridge else values)


def _read_state(path: Path, recipe: TrainRecipe, device: torch.device) -> dict[str, Any]:
    try:
        state: dict[str, Any] = torch.load(path, map_location=device, weights_only=True)  # noqa: TID251  (restricted)
    except Exception as error:  # damaged bytes lead the restricted reader to errors of many kinds
        raise ValueError(f"Expected a training state in {path}, got a damaged file; start a new run.") from error
    if state.get("fixed", _fixed(recipe)) != _fixed(recipe):
        raise ValueError(
            f"Expected the network, optimiser and held-out photographs of the run in {path.parent}, got others; "
            "use its recipe or start a new run."
        )
    return state


def _optimisers(recipe: TrainRecipe, net: nn.Module) -> list[torch.optim.Optimizer]:
    if recipe.optimiser == "adamw":
        return [
            torch.optim.AdamW(net.parameters(), recipe.learning_rate, (0.9, 0.99), weight_decay=recipe.weight_decay)
        ]
    if recipe.optimiser == "muon":
        # Muon for the inner convolutions; the first and last layer, biases and embeddings keep AdamW.
        inner = [p for n, p in net.named_parameters() if p.ndim == 4 and not n.startswith(("head", "tail"))]
        chosen = {id(p) for p in inner}
        rest = [p for p in net.parameters() if id(p) not in chosen]
        return [
            Muon(inner, recipe.learning_rate, weight_decay=recipe.weight_decay),
            torch.optim.AdamW(rest, recipe.learning_rate, (0.9, 0.99), weight_decay=recipe.weight_decay),
        ]
    raise ValueError(f"Expected optimiser 'adamw' or 'muon', got {recipe.optimiser!r}; choose one of them.")
