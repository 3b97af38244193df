"""Published settings: all load, fit the photo prior, say where they are from and run; some of them by arithmetic."""

from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import save_file

from operators import Rng
from restoration.assets import AssetStore
from restoration.calls import calls_of
from restoration.pipeline import Pipeline
from restoration.published import EVIDENCE, published_settings
from restoration.recipe import PowerLaw, Recipe, preset_names, read_recipe
from tests.operators.test_wizard import _published as wizard_weights

SETTINGS = published_settings()
DOCS = Path(__file__).parents[2] / "docs" / "methods.md"


def method(name: str) -> Any:
    return read_recipe(name)[0].method


@pytest.mark.parametrize("name", SETTINGS)
def test_it_is_a_valid_recipe_for_the_photo_prior_with_a_source(name: str) -> None:
    recipe, base = read_recipe(name)
    assert recipe.problems(AssetStore(), base) == []
    assert recipe.title
    assert "arXiv:" in recipe.reference or "OpenReview" in recipe.reference
    assert EVIDENCE[SETTINGS[name].evidence] in recipe.reference
    assert recipe.model_dump()["method"] == Recipe.model_validate_json(recipe.model_dump_json()).model_dump()["method"]
    assert SETTINGS[name].method == recipe.method.model_dump(mode="json")  # nothing is left to defaults that may change
    assert calls_of(recipe).denoiser > 0


def test_names_are_told_from_presets_and_begin_with_a_method() -> None:
    assert not set(SETTINGS) & set(preset_names())
    for name in SETTINGS:
        recipe, _ = read_recipe(name)
        kind = getattr(recipe.method, "method", recipe.method).kind
        assert name.startswith(kind), name


def test_levels_that_the_prior_cannot_take_are_spoken_of() -> None:
    silent = {name for name, setting in SETTINGS.items() if "prior's top" not in setting.note}
    # these begin below it, as published
    assert silent == {"pigdm/sr-x4", *(name for name in SETTINGS if name.startswith("pnp-dm/"))}
    for name in silent:
        values = getattr(method(name), "method", method(name)).schedule
        assert values.sigmas((0, 100)) == values.sigmas((0.0025, 10))


@pytest.mark.parametrize("name", SETTINGS)
def test_it_runs(name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    size = 32
    values = read_recipe(name)[0].model_dump(mode="json")
    few = shortened(values["method"])
    if name.endswith("deblur-nonlinear"):
        size = 128  # the least that the network takes
        few = shortened(values["method"], levels=2, steps=1)
        monkeypatch.chdir(tmp_path)
        save_file(wizard_weights(), "GOPRO_wVAE.pth")
    mask = values["operator"].get("mask", {})
    mask |= {key: mask[key] // 8 for key in ("height", "width", "top", "left", "margin") if mask.get(key)}
    recipe = Recipe.model_validate({**values, "method": few, "model": PowerLaw()})
    pipeline = Pipeline.load(recipe)
    result = pipeline.run(pipeline.simulate(Rng([1]).rand((3, size, size))[0]))
    assert bool(torch.isfinite(result.samples).all())
    assert result.samples.shape == (1, 3, size, size)
    assert result.report.nfe > 0


def shortened(values: dict[str, Any], levels: int = 3, steps: int = 3) -> dict[str, Any]:
    """The same method with a few levels, and a few steps, runs and particles at each; the other settings stay."""
    least = {"hold": 1, "runs": 2, "iterations": steps, "particles": 8}
    values = values | {key: least[key] for key in least.keys() & values.keys()}
    if "inner" in values and "steps" in values["inner"]:
        values |= {"inner": values["inner"] | {"steps": steps}}
    if "method" in values:
        return values | {"method": shortened(values["method"], levels, steps)}
    if values["schedule"]["kind"] == "tail":
        return values | {"schedule": values["schedule"] | {"of": values["schedule"]["of"] | {"steps": 8}}}
    return values | {"schedule": values["schedule"] | {"steps": levels}}


# figures, from the numbers of papers and code


def test_dps() -> None:
    assert method("dps/sr-x4").guidance.scale == 0.3
    assert method("dps/inpaint-box").guidance.scale == 0.5
    assert method("dps-paper/phase-retrieval").guidance.zeta == 0.4
    assert method("dps-imagenet/deblur-motion").guidance.zeta == 0.6
    for name in ("dps/sr-x4", "dps-paper/sr-x4"):
        assert read_recipe(name)[0].noise.sigma == 0.05 / 2  # type: ignore[union-attr]  # on [-1, 1]


def test_daps() -> None:
    legacy, main, hmc = (method(f"{form}/deblur-motion") for form in ("daps", "daps-main", "daps-hmc"))
    assert legacy.inner.tau == main.inner.tau == 0.01 / 2
    assert legacy.inner.rate == main.inner.rate == 5e-5 / 4  # a step in squared units
    assert (legacy.inner.doubled, main.inner.doubled) == (False, True)  # 1 / (2 tau²) and 1 / tau²
    assert (hmc.inner.rate, hmc.inner.steps, hmc.inner.momentum) == (pytest.approx(3.69e-5 / 4), 96, 0.11)
    assert legacy.schedule.sigma_min == 0.1 / 2
    assert main.schedule.sigma_min == pytest.approx(0.10604 / 2, rel=1e-4)  # the last of 201 is left out
    assert legacy.schedule.sigma_max == AssetStore().card("photo", "prior").unit_sigma_range[1]  # type: ignore[index]
    assert calls_of(read_recipe("daps/sr-x4")[0]).denoiser == 1000
    # phase retrieval maps images to [0, 1] first: neither noise nor temperature is halved
    phase = read_recipe("daps/phase-retrieval")[0]
    assert phase.noise.sigma == 0.05  # type: ignore[union-attr]
    assert phase.method.method.inner.tau == 0.01  # type: ignore[union-attr]
    assert calls_of(phase).denoiser == 4 * 1000


def test_noise_that_is_doubled_there_is_not_halved_here() -> None:
    for name in ("ddrm/sr-x4", "diffpir/sr-x4"):
        assert read_recipe(name)[0].noise.sigma == 0.05  # type: ignore[union-attr]


def test_diffpir() -> None:
    # rho = lambda 0.05² / level² on [0, 1], the level on [-1, 1]: with level = 2 sigma, lambda / 4
    assert method("diffpir/deblur-gaussian").weight == 1 / 4
    assert method("diffpir-sweep/deblur-gaussian").weight == 7 / 4
    assert method("diffpir-sweep/deblur-gaussian").zeta == 0.3


def test_sitcom() -> None:
    assert method("sitcom/sr-x4").stop == pytest.approx((0.05 + 0.001) / 0.05)
    assert method("sitcom/sr-x4").rate == 0.02  # halved by the method itself


def test_pnp_dm_and_the_rest() -> None:
    walk = method("pnp-dm/sr-x4").schedule
    assert (walk.sigma_max, walk.sigma_min) == (10 / 2, 0.3 / 2)
    assert walk.steps + method("pnp-dm/sr-x4").hold == 100
    ratios = [b / a for a, b in zip(walk.sigmas((0, 10)), walk.sigmas((0, 10))[1:], strict=False)]
    assert min(ratios) > 0.89  # published: 0.9
    assert max(ratios) < 0.91
    assert method("pnp-dm/phase-retrieval").method.inner.rate == 1e-4 / 4
    assert method("red-diff/sr-x4").rate == 0.1 / 2
    assert method("flow-chef/sr-x4").rate == pytest.approx(500 * 2 / (16 * 16 * 3) / 4**2, rel=1e-4)  # |A|² = 1 / 4²
    assert method("gdp/low-light").rate == pytest.approx(80000 / (2 * 3 * 256 * 256), rel=1e-3)
    assert read_recipe("pnp-flow/inpaint-random")[0].noise.sigma == 0.01 / 2  # type: ignore[union-attr]
    assert method("pigdm/sr-x4").schedule.top == pytest.approx(3.44297 / 2, rel=1e-4)  # DDPM index 500


def test_the_page_lists_them() -> None:
    lines: dict[str, dict[str, list[str]]] = {}
    for name, setting in SETTINGS.items():
        form, task = name.split("/")
        source = f"{setting.reference.split(';')[0].split(',')[0]} | {setting.evidence}"
        lines.setdefault(form, {}).setdefault(source, []).append(f"`{task}`")
    table = [
        f"| `{form}/` | {', '.join(tasks)} | {source} |"
        for form, rows in lines.items()
        for source, tasks in rows.items()
    ]
    page = DOCS.read_text(encoding="utf-8")
    section = page.split("## Published settings")[1].split("\n## ")[0]
    assert [line for line in section.splitlines() if line.startswith("| `")] == table, "\n".join(table)
