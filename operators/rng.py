"""Randomness as an argument: one independent stream per sample, named child streams, nothing global."""

import hashlib
from collections.abc import Sequence
from typing import Any

import numpy as np
import torch
from torch import Tensor

from operators.errors import RecipeError, ShapeError

_NUMPY_DTYPES: dict[torch.dtype, Any] = {torch.float32: np.float32, torch.float64: np.float64}


def generator(seed: int, *stream: int) -> np.random.Generator:
    """The random numbers of a seed; streams of one seed are independent of each other."""
    return np.random.Generator(np.random.PCG64DXSM(np.random.SeedSequence(seed, spawn_key=stream)))


class Rng:
    """One random stream per sample.

    Sample k draws the same numbers alone, in any batch and on any device: numbers are drawn on the CPU, stream by
    stream, and moved. A stream depends on the whole seed (torch's own CPU generator keeps only its low 32 bits) and
    on the path of child names that led to it.

    Drawing advances the streams. `to` and `select` return other views of the *same* streams; `child` starts new ones.

    Args:
        seeds: one integer per sample, 0 <= seed < 2**63; equal seeds give equal samples.
        device: where drawn tensors are put.
        dtype: float32 or float64, the precision in which normal and uniform numbers are drawn.

    Raises:
        RecipeError: no seeds, or a seed out of range.
    """

    def __init__(
        self, seeds: Sequence[int], *, device: torch.device | str = "cpu", dtype: torch.dtype = torch.float32
    ) -> None:
        for seed in seeds:
            if isinstance(seed, bool) or not isinstance(seed, (int, np.integer)) or not 0 <= seed < 2**63:
                raise RecipeError(
                    f"Expected seeds that are integers from 0 to 2**63 - 1, got {seed!r}; choose another."
                )
        if len(seeds) == 0:
            raise RecipeError("Expected at least one seed, got none; give one seed per sample.")
        self._start(tuple(int(seed) for seed in seeds), (), torch.device(device), dtype, None)

    def _start(
        self,
        seeds: tuple[int, ...],
        path: tuple[str, ...],
        device: torch.device,
        dtype: torch.dtype,
        streams: tuple[np.random.Generator, ...] | None,
    ) -> None:
        if dtype not in _NUMPY_DTYPES:
            raise TypeError(f"Expected dtype float32 or float64, got {dtype}.")
        self._seeds = seeds
        self._path = path
        self._device = device
        self._dtype = dtype
        self._streams = tuple(_stream(seed, path) for seed in seeds) if streams is None else streams

    @property
    def batch(self) -> int:
        """Number of samples, B."""
        return len(self._seeds)

    @property
    def seeds(self) -> tuple[int, ...]:
        """The seeds, one per sample."""
        return self._seeds

    @property
    def device(self) -> torch.device:
        """Where drawn tensors are put."""
        return self._device

    @property
    def dtype(self) -> torch.dtype:
        """Real dtype of drawn tensors."""
        return self._dtype

    def randn(self, shape: Sequence[int], *, complex: bool = False) -> Tensor:  # noqa: A002 (the mathematical word)
        """Independent standard normal numbers.

        Shapes: shape without batch → (B, *shape), real, or complex with std 1 per real component.
        """
        size = (*shape, 2) if complex else tuple(shape)
        kind = _NUMPY_DTYPES[self._dtype]
        drawn = self._stack([stream.standard_normal(size, dtype=kind) for stream in self._streams])
        return torch.view_as_complex(drawn) if complex else drawn

    def rand(self, shape: Sequence[int]) -> Tensor:
        """Independent uniform numbers in [0, 1).   Shapes: shape without batch → (B, *shape)."""
        kind = _NUMPY_DTYPES[self._dtype]
        return self._stack([stream.random(tuple(shape), dtype=kind) for stream in self._streams])

    def poisson(self, rate: Tensor) -> Tensor:
        """Independent Poisson counts, as real numbers.

        Shapes: rate (B, ...) real, >= 0 → (B, ...).

        Raises:
            ShapeError: the batch of `rate` is not B, or a rate is negative or not finite.
        """
        if rate.shape[0] != self.batch:
            raise ShapeError(f"Poisson expected rates for {self.batch} samples, got {rate.shape[0]}; match the seeds.")
        rates = rate.detach().to("cpu", torch.float64).numpy()
        # numpy's own limit; beyond it a count no longer fits an integer
        if not (np.isfinite(rates).all() and (rates >= 0).all() and (rates < 9e18).all()):
            raise ShapeError("Poisson expected finite rates >= 0, got others; clip the clean data or lower the peak.")
        counts = [np.asarray(stream.poisson(one), np.float64) for stream, one in zip(self._streams, rates, strict=True)]
        return self._stack(counts)

    def gamma(self, concentration: float, shape: Sequence[int]) -> Tensor:
        """Independent gamma numbers of scale 1, that is of mean and variance `concentration` > 0.

        Shapes: shape without batch → (B, *shape).
        """
        kind = _NUMPY_DTYPES[self._dtype]
        return self._stack([stream.standard_gamma(concentration, tuple(shape), dtype=kind) for stream in self._streams])

    def child(self, name: str) -> "Rng":
        """New streams named `name`, at their beginning; the same name always gives the same streams.

        The parent is not advanced, and what a child draws does not depend on what its parent has drawn.
        """
        other = object.__new__(Rng)
        other._start(self._seeds, (*self._path, name), self._device, self._dtype, None)
        return other

    def to(self, device: torch.device | str | None = None, dtype: torch.dtype | None = None) -> "Rng":
        """The same streams, delivering to another device or in another precision."""
        other = object.__new__(Rng)
        where = self._device if device is None else torch.device(device)
        other._start(self._seeds, self._path, where, self._dtype if dtype is None else dtype, self._streams)
        return other

    def select(self, indices: Sequence[int]) -> "Rng":
        """The same streams, of some samples only.

        Raises:
            RecipeError: an index is out of range or appears twice (two samples would share one stream).
        """
        chosen = [int(i) for i in indices]
        if not chosen or len(set(chosen)) != len(chosen) or not all(0 <= i < self.batch for i in chosen):
            raise RecipeError(
                f"Expected distinct sample numbers below {self.batch}, got {chosen}; correct the selection."
            )
        other = object.__new__(Rng)
        seeds, streams = tuple(self._seeds[i] for i in chosen), tuple(self._streams[i] for i in chosen)
        other._start(seeds, self._path, self._device, self._dtype, streams)
        return other

    def _stack(self, drawn: list[Any]) -> Tensor:
        return torch.from_numpy(np.stack(drawn)).to(self._device, self._dtype)


def _stream(seed: int, path: tuple[str, ...]) -> np.random.Generator:
    # the names' lengths keep ("ab", "c") and ("a", "bc") apart; no names leave the plain seed
    text = "".join(f"{len(name)}:{name}" for name in path).encode()
    words = np.frombuffer(hashlib.sha256(text).digest(), dtype="<u4").tolist() if path else []
    return generator(seed, *words)
