"""Descriptions: frozen, closed, finite, and readable off their unions."""

import hashlib
import pickle
from pathlib import Path
from typing import Annotated, Literal

import pytest
from pydantic import Field, TypeAdapter, ValidationError

from operators import AnyKernel, AnyMask, AnyNoise, AnyOperator, DataRef, Gaussian, Need, Spec, Ui, kinds
from operators.errors import AssetCorrupt, Diverged, PreimageError, ReadError


class _A(Spec):
    kind: Literal["a"] = "a"
    x: Annotated[float, Field(gt=0, description="A number."), Ui(unit="px", scale="log")] = 1.0


class _B(Spec):
    kind: Literal["b"] = "b"


class _OtherA(Spec):
    kind: Literal["a"] = "a"


class _NoKind(Spec):
    x: int = 0


def test_specs_are_frozen_closed_and_finite() -> None:
    spec = _A()
    with pytest.raises(ValidationError):
        spec.x = 2.0  # type: ignore[misc]
    for wrong in ({"y": 1}, {"x": float("nan")}, {"x": float("inf")}, {"x": -1}, {"kind": "b"}):
        with pytest.raises(ValidationError):
            _A.model_validate(wrong)
    assert _A.model_validate_json(spec.model_dump_json()) == spec
    assert hash(spec) == hash(_A())


def test_display_hints_survive() -> None:
    assert Ui(unit="px", scale="log") in _A.model_fields["x"].metadata


def test_kinds_are_read_off_the_union() -> None:
    assert kinds(Annotated[_A | _B, Field(discriminator="kind")]) == {"a": _A, "b": _B}
    assert list(kinds(_B | _A)) == ["b", "a"]
    assert kinds(_A) == {"a": _A}
    assert kinds(Annotated[_A, Field(description="one")]) == {"a": _A}
    assert kinds(Annotated[Annotated[_A, "x"] | _B, "y"]) == {"a": _A, "b": _B}


def test_unions_that_cannot_be_told_apart_are_refused() -> None:
    for wrong in (_A | _OtherA, _NoKind, int, _A | None):
        with pytest.raises(TypeError, match="Expected"):
            kinds(wrong)


@pytest.mark.parametrize("union", [AnyOperator, AnyNoise, AnyKernel, AnyMask])
def test_every_union_round_trips_by_tag(union: object) -> None:
    adapter = TypeAdapter(union)
    needed = {"file": {"file": {"path": "a.png"}}, "learned-blur": {"weights": {"path": "a.pth"}}}
    for tag, kind in kinds(union).items():
        spec = kind.model_validate(needed.get(tag, {}))
        assert adapter.validate_json(adapter.dump_json(spec)) == spec
        # what a form is drawn from: every field has a description or is a group of its own
        for name, field in kind.model_fields.items():
            assert name == "kind" or field.description, f"{kind.__name__}.{name} has no description"
    with pytest.raises(ValidationError, match="does not match any of the expected tags"):
        adapter.validate_python({"kind": "no-such-thing"})


def test_every_need_has_a_sentence() -> None:
    assert all(need.sentence.endswith(".") for need in Need)


def test_data_references(tmp_path: Path) -> None:
    (tmp_path / "a.bin").write_bytes(b"abc")
    digest = hashlib.sha256(b"abc").hexdigest()
    assert DataRef(path="a.bin", sha256=digest).read_bytes(tmp_path) == b"abc"
    assert DataRef(path=str(tmp_path / "a.bin")).read_bytes() == b"abc"
    with pytest.raises(AssetCorrupt, match="restore the original"):
        DataRef(path="a.bin", sha256=digest[::-1]).read_bytes(tmp_path)
    with pytest.raises(ReadError, match="check the path"):
        DataRef(path="b.bin").read_bytes(tmp_path)


def test_diverged_says_where() -> None:
    error = Diverged(7, "the image")
    assert str(error).startswith("Expected finite numbers, got NaN or infinity in the image at step 7")
    assert isinstance(error, PreimageError)
    again = pickle.loads(pickle.dumps(error))  # noqa: TID251 (our own bytes)
    assert (again.step, again.what) == (7, "the image")


def test_defaults_are_visible() -> None:
    assert Gaussian().model_dump() == {"kind": "gaussian", "sigma": 0.02}
