"""Recipes: round trips, digests, and sentences for what is wrong."""

import hashlib
import json
from collections.abc import Callable
from itertools import pairwise
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image

from operators import AnyNoise, AnyOperator, Gaussian, IdentitySpec, Poisson, kinds
from operators.errors import AssetCorrupt, AssetMissing, ReadError, RecipeError
from operators.spec import pin
from restoration.assets import AssetStore
from restoration.methods.dps import DPS
from restoration.recipe import AnyMethod, AnyModel, NoPrior, Recipe, parse_recipe, preset_names, read_recipe
from restoration.schedule import Karras, LinearVP

PRESETS = [
    "bridge-inpaint", "bridge-jpeg", "bridge-sr-x4", "deblur-gaussian", "deblur-motion", "denoise", "hdr",
    "inpaint-box", "inpaint-random-70", "inpaint-scratches", "jpeg", "nonlinear-blur", "phase-retrieval", "sr-x4",
]  # fmt: skip


def test_the_presets_are_there_valid_and_say_whom_they_follow() -> None:
    assert preset_names() == PRESETS
    for name in PRESETS:
        recipe, _ = read_recipe(name)
        assert recipe.problems(AssetStore()) == []
        assert recipe.title
        assert recipe.reference
        assert isinstance(recipe.noise, Gaussian)
        assert recipe.noise.sigma == {"jpeg": 0.002, "bridge-jpeg": 0.002, "phase-retrieval": 0.0125}.get(name, 0.025)


@pytest.mark.parametrize("name", PRESETS)
def test_json_round_trip(name: str) -> None:
    recipe, _ = read_recipe(name)
    assert Recipe.model_validate_json(recipe.model_dump_json()) == recipe


def example(cls: type) -> dict[str, object]:
    """Smallest values that a kind without defaults needs."""
    needed = {
        "gaussian": {"sigma": 0.1},
        "poisson": {"peak": 50.0},
        "learned-blur": {"weights": {"path": "w.safetensors"}},
        "checkpoint": {"path": "w.safetensors"},
        "i2sb-checkpoint": {"path": "latest.pt"},
        "resfusion-checkpoint": {"path": "last.ckpt"},
        "ir-sde-checkpoint": {"path": "lastest_EMA.pth"},
        "resshift-checkpoint": {"path": "resshift.pth", "codec": {"path": "autoencoder_vq_f4.pth"}},
    }
    tag = cls.model_fields["kind"].default  # type: ignore[attr-defined]
    return {"kind": tag, **needed.get(tag, {})}


@given(data=st.data())
def test_every_combination_of_kinds_round_trips(data: st.DataObject) -> None:
    def pick(union: object) -> dict[str, object]:
        return example(data.draw(st.sampled_from(list(kinds(union).values()))))

    seeds = data.draw(st.lists(st.integers(0, 2**63 - 1), min_size=1, max_size=4, unique=True))
    values = {
        "operator": pick(AnyOperator),
        "noise": pick(AnyNoise),
        "model": pick(AnyModel),
        "method": pick(AnyMethod),
    }
    recipe = Recipe.model_validate({**values, "seeds": seeds})
    again = parse_recipe(recipe.model_dump_json(), "test")
    assert again == recipe
    assert again.digest == recipe.digest
    assert isinstance(recipe.problems(AssetStore()), list)


def test_the_digest_sees_numbers_and_not_words() -> None:
    recipe, _ = read_recipe("denoise")
    assert recipe.model_copy(update={"title": "other", "reference": "other"}).digest == recipe.digest
    assert recipe.model_copy(update={"seeds": (1,)}).digest != recipe.digest
    assert recipe.model_copy(update={"noise": Gaussian(sigma=0.0251)}).digest != recipe.digest
    assert len(recipe.digest) == 12


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"noise": {"kind": "gaussian", "sigma": 0}}, "noise.gaussian.sigma"),
        ({"noise": {"kind": "gaussian", "sigma": -1}}, "greater than 0"),
        ({"noise": {"kind": "gaussian", "sigma": "much"}}, "number"),
        ({"method": {"kind": "dsp"}}, "'dps'"),
        ({"method": {"kind": "dps", "zeta": 1}}, "zeta"),
        ({"seeds": [-1]}, "seeds.0"),
        ({"seeds": []}, "seeds"),
        ({"version": 2}, "version"),
        ({"operator": {"kind": "downsample", "factor": 13}}, "factor"),
    ],
)
def test_a_wrong_field_is_named(change: dict[str, object], words: str) -> None:
    values = {"operator": {"kind": "identity"}, **change}
    with pytest.raises(RecipeError, match="correct") as caught:
        parse_recipe(json.dumps(values), "my.json")
    assert words in str(caught.value)
    assert "my.json" in str(caught.value)
    assert "\n" not in str(caught.value)


def test_text_that_is_no_json_is_refused() -> None:
    with pytest.raises(RecipeError, match="JSON"):
        parse_recipe("{", "my.json")


def test_an_unknown_preset_lists_the_known_ones() -> None:
    with pytest.raises(ReadError, match="denoise"):
        read_recipe("sharpen")


def test_a_missing_recipe_file_is_refused(tmp_path: Path) -> None:
    with pytest.raises(ReadError, match=r"no\.json"):
        read_recipe(str(tmp_path / "no.json"))
    (tmp_path / "binary.json").write_bytes(b"\xff\xfe\x00")
    with pytest.raises(ReadError, match="UTF-8"):
        read_recipe(str(tmp_path / "binary.json"))


def test_files_are_pinned_by_content(tmp_path: Path) -> None:
    mask = tmp_path / "mask.png"
    Image.new("L", (8, 8), 255).save(mask)
    text = json.dumps({"operator": {"kind": "inpainting", "mask": {"kind": "file", "file": {"path": "mask.png"}}}})
    recipe = pin(parse_recipe(text, "test"), tmp_path)
    file = recipe.operator.mask.file  # type: ignore[union-attr]
    assert Path(file.path) == mask.resolve()
    assert file.sha256 == hashlib.sha256(mask.read_bytes()).hexdigest()
    Image.new("L", (8, 8), 254).save(mask)
    with pytest.raises(AssetCorrupt, match="SHA-256"):
        pin(recipe, tmp_path)
    assert pin(parse_recipe(text, "test"), tmp_path).digest != recipe.digest
    with pytest.raises(ReadError, match="readable file"):
        pin(parse_recipe(text.replace("mask.png", "no\\u0000.png"), "test"), tmp_path)


@pytest.mark.parametrize(
    ("method", "words"),
    [
        ({"kind": "diffpir", "schedule": {"kind": "karras", "sigma_max": 50}}, "trained range"),
        ({"kind": "dps", "schedule": {"kind": "karras", "sigma_max": 0.1, "sigma_min": 0.5}}, "sigma_min below"),
        ({"kind": "daps", "schedule": {"kind": "karras", "steps": 5}}, "narrower width"),
        ({"kind": "opencv-inpaint"}, "inpainting"),
    ],
)
def test_what_a_method_cannot_do_is_known_beforehand(method: dict[str, object], words: str) -> None:
    recipe = Recipe.model_validate({"operator": {"kind": "identity"}, "method": method})
    assert words in " ".join(recipe.problems(AssetStore()))


@pytest.mark.parametrize(
    "wrap", [lambda o: o, lambda o: {"kind": "composed", "steps": [o]}, lambda o: {"kind": "stacked", "parts": [o]}]
)
@pytest.mark.parametrize("kind", ["mri", "mri-noncartesian"])
def test_complex_images_are_refused_beforehand(kind: str, wrap: Callable[[dict[str, object]], object]) -> None:
    for image in ("complex", "real"):
        recipe = Recipe.model_validate({"operator": wrap({"kind": kind, "image": image}), "method": {"kind": "dps"}})
        assert ('say "image": "real"' in " ".join(recipe.problems(AssetStore()))) is (image == "complex")
        assert recipe.operator.build((1, 16, 16)).in_complex is recipe.operator.in_complex


@pytest.mark.parametrize("method", ["diffpir", "daps", "wiener", "tv"])
def test_gaussian_methods_refuse_poisson_noise_beforehand(method: str) -> None:
    values = {"operator": {"kind": "identity"}, "noise": {"kind": "poisson"}, "method": {"kind": method}}
    assert "Gaussian noise" in " ".join(Recipe.model_validate(values).problems(AssetStore()))


def test_langevin_daps_takes_poisson_noise_unless_tempered() -> None:
    for tau, fine in ((None, True), (0.01, False)):
        method = {"kind": "daps", "inner": {"kind": "langevin", "tau": tau}}
        values = {"operator": {"kind": "identity"}, "noise": {"kind": "poisson"}, "method": method}
        assert (Recipe.model_validate(values).problems(AssetStore()) == []) is fine


@pytest.mark.parametrize(
    ("operator", "method", "works", "fails"),
    [
        # No singular values where the border is mirrored.
        ({"kind": "blur", "boundary": "reflect"}, "ddrm", {"pigdm", "dds", "moment-matching", "dps"}, {"ddrm", "ddnm"}),
        ({"kind": "blur", "boundary": "reflect"}, "ddnm", {"diffpir"}, {"opencv-inpaint"}),
        ({"kind": "identity"}, "opencv-inpaint", {"ddrm", "ddnm", "lgd", "mcg", "tv"}, set()),
    ],
)
def test_a_refusal_names_methods_that_would_work(
    operator: dict[str, object], method: str, works: set[str], fails: set[str]
) -> None:
    values = {"operator": operator, "method": {"kind": method}}
    *_, last = Recipe.model_validate(values).problems(AssetStore())
    assert last.startswith("Methods that would work here")
    named = set(last.split(":")[1].strip(" .").replace("'", "").split(", "))
    assert works <= named
    assert not named & {method, *fails}
    for kind in named:
        assert Recipe.model_validate({**values, "method": {"kind": kind}}).problems(AssetStore()) == []


def test_a_form_that_needs_less_is_not_refused() -> None:
    values = {"operator": {"kind": "blur", "boundary": "reflect"}, "method": {"kind": "ddnm", "form": "scalar"}}
    assert Recipe.model_validate(values).problems(AssetStore()) == []


@pytest.mark.parametrize("text", ["[" * 100_000, '{"version": ' + "1" * 5000 + "}", "nul"])
def test_hostile_json_is_refused(text: str) -> None:
    with pytest.raises(RecipeError):
        parse_recipe(text, "my.json")


def test_problems_come_all_at_once() -> None:
    recipe = Recipe(operator=IdentitySpec(), noise=Poisson(peak=10), model=NoPrior(), seeds=(1, 1))
    problems = " ".join(recipe.problems(AssetStore()))
    assert "denoises" in problems
    assert "Gaussian noise" in problems
    assert "different seeds" in problems


@pytest.mark.parametrize("within", [None, "composed", "stacked"])
@pytest.mark.parametrize(
    ("operator", "noise", "words"),
    [
        ({"kind": "ct", "window": {"low": -160, "high": 240}}, {"kind": "low-dose"}, "-1000 HU"),
        ({"kind": "ct", "window": {"low": -160, "high": 240}}, {"kind": "gaussian"}, ""),
        ({"kind": "ct"}, {"kind": "low-dose"}, ""),
        ({"kind": "ct", "window": None}, {"kind": "low-dose"}, ""),
        ({"kind": "haze"}, {"kind": "poisson"}, "airlight"),
        ({"kind": "haze"}, {"kind": "gaussian"}, ""),
        ({"kind": "stacked", "weights": [1, 2]}, {"kind": "poisson"}, "weighted stacked data"),
        ({"kind": "stacked", "weights": [2, 2]}, {"kind": "poisson"}, "weighted stacked data"),
        ({"kind": "stacked", "weights": [1, 2]}, {"kind": "gaussian"}, ""),
        ({"kind": "stacked", "weights": [1, 1]}, {"kind": "poisson"}, ""),
        ({"kind": "stacked"}, {"kind": "poisson"}, ""),
    ],
)
def test_noise_that_does_not_fit_the_data_is_refused(
    within: str | None, operator: dict[str, object], noise: dict[str, object], words: str
) -> None:
    if within is not None:
        operator = {"kind": within, "steps" if within == "composed" else "parts": [operator]}
    values = {"operator": operator, "noise": noise, "method": {"kind": "dps"}}
    problems = Recipe.model_validate(values).problems(AssetStore())
    assert len(problems) == bool(words)
    assert words in " ".join(problems)


def test_an_unknown_prior_is_a_problem() -> None:
    recipe = Recipe.model_validate({"operator": {"kind": "identity"}, "model": {"kind": "trained", "name": "cats"}})
    assert any("'photo'" in p and "cats" in p for p in recipe.problems(AssetStore()))


def test_dps_takes_poisson_noise() -> None:
    assert Recipe(operator=IdentitySpec(), noise=Poisson(peak=10), method=DPS()).problems(AssetStore()) == []


def test_every_asset_has_a_card_that_matches_its_file() -> None:
    store = AssetStore()
    for card in store.cards.values():
        path = store.resolve(card)
        assert path.stat().st_size == card.bytes
        assert card.licence
        assert card.source
    photo = store.card("photo", "prior")
    assert photo.net is not None
    assert sum(p.numel() for p in photo.net.build().parameters()) <= 8_000_000


def test_a_damaged_asset_is_refused(tmp_path: Path) -> None:
    store = AssetStore()
    (tmp_path / "manifest.toml").write_text((store.folder / "manifest.toml").read_text())
    (tmp_path / "images").mkdir()
    content = bytearray(store.picture("coffee").read_bytes())
    content[1000] ^= 1
    (tmp_path / "images" / "coffee.png").write_bytes(content)
    damaged = AssetStore(tmp_path)
    with pytest.raises(AssetCorrupt, match="sha256"):
        damaged.picture("coffee")
    with pytest.raises(AssetMissing, match="no file"):
        damaged.picture("astronaut")
    with pytest.raises(AssetMissing, match="image"):
        damaged.picture("photo")


@pytest.mark.parametrize("content", [b"\xff", b"asset = 3", b"[[asset]]\nname = 1", b"="])
def test_a_malformed_manifest_is_refused(content: bytes, tmp_path: Path) -> None:
    (tmp_path / "manifest.toml").write_bytes(content)
    with pytest.raises(AssetCorrupt, match="manifest"):
        AssetStore(tmp_path)


def test_a_folder_without_a_manifest_is_refused(tmp_path: Path) -> None:
    with pytest.raises(AssetCorrupt, match="manifest"):
        AssetStore(tmp_path)


def test_karras_has_its_ends_and_falls() -> None:
    sigmas = Karras(steps=7, sigma_max=2, sigma_min=0.1).sigmas((0.01, 5))
    assert sigmas[0] == pytest.approx(2)
    assert sigmas[-1] == pytest.approx(0.1)
    assert all(a > b for a, b in pairwise(sigmas))
    # EDM's own first steps: sigma 80 to 0.002, rho 7, 18 steps (second level 57.586).
    edm = Karras(steps=18, sigma_max=80, sigma_min=0.002).sigmas((0, 100))
    assert edm[1] == pytest.approx(57.586, abs=0.001)


def test_levels_outside_the_trained_range_are_refused() -> None:
    with pytest.raises(RecipeError, match="trained range"):
        Karras(sigma_max=20).sigmas((0.0025, 10))
    with pytest.raises(RecipeError, match="below"):
        Karras(sigma_max=0.1, sigma_min=0.2).sigmas((0.0025, 10))


def test_linear_vp_keeps_what_the_prior_knows() -> None:
    sigmas = LinearVP().sigmas((0.0025, 5))
    assert sigmas[-1] == pytest.approx(0.0100005 / 2, rel=1e-5)
    assert 4.9 < sigmas[0] <= 5
    assert len(LinearVP().sigmas((0, 100))) == 1000
    with pytest.raises(RecipeError, match="two"):
        LinearVP(steps=5).sigmas((1, 1.01))
