"""Line integrals through a grid of pixels: stored as a sparse matrix with its transpose, or computed in every call.

Both ways use the same numbers, made by a `Tracer`, so they are the same operator to rounding; which one is used is a
matter of memory. Stored matrices are kept for the process, least recently used first to go.
"""

import threading
import warnings
from abc import ABC, abstractmethod
from collections import OrderedDict
from typing import Any

import numpy as np
import torch
from scipy.sparse import coo_array, csr_array
from torch import Tensor, nn

Compressed = tuple[Tensor, Tensor, Tensor]
"""A matrix by rows: where each row begins, its columns (both int32), and its numbers."""

STORED_BYTES = 2 << 30
"""Largest matrix stored with its transpose, by an upper bound of its size: 180 views of 512x512 are just stored."""

_KEPT_BYTES = 2 << 30
_LARGEST_INDEX = 2**31 - 1

with warnings.catch_warnings():
    # torch says once per process that its row-compressed tensors are in beta
    warnings.simplefilter("ignore")
    torch.sparse_csr_tensor(torch.tensor([0, 1]), torch.tensor([0]), torch.tensor([1.0]), (1, 1))


class Tracer(ABC):
    """The rows of a system matrix, one view at a time: which pixels each ray meets, and with what weight.

    Attributes:
        views: number of views.
        rays: rays per view.
        pixels: pixels of the image.
        bound: entries that a view has at most.
    """

    views: int
    rays: int
    pixels: int
    bound: int

    @abstractmethod
    def trace(self, view: int, device: torch.device) -> list[tuple[Tensor, Tensor, Tensor]]:
        """Entries of one view, in groups.

        Returns:
            For each group: ray numbers (r,), pixel numbers (r, n), weights (r, n) float64. A weight of zero marks an
            entry that does not exist; its pixel number is any valid one.
        """

    @property
    @abstractmethod
    def key(self) -> bytes:
        """Bytes that are equal exactly for equal matrices."""


class Projector(nn.Module):
    """The matrix of a `Tracer` and its transpose, applied to columns.

    Args:
        tracer: the rows of the matrix.
        stored_bytes: matrix and transpose are stored when they surely fit into this many bytes, else every product
            computes them anew, one view at a time.
    """

    _starts: Tensor
    _columns: Tensor
    _values: Tensor
    _starts_t: Tensor
    _columns_t: Tensor
    _values_t: Tensor

    def __init__(self, tracer: Tracer, stored_bytes: int = STORED_BYTES) -> None:
        super().__init__()
        self.tracer = tracer
        entries = tracer.views * tracer.bound
        self.stored = 16 * entries <= stored_bytes and max(entries, tracer.pixels) <= _LARGEST_INDEX
        if self.stored:
            self._keep(*_stored(tracer))

    def _keep(self, direct: Compressed, transposed: Compressed) -> None:
        names = ("_starts", "_columns", "_values")
        for name, constant, other in zip(names, direct, transposed, strict=True):
            # the geometry says it all: a state would be hundreds of megabytes of what can be computed again
            self.register_buffer(name, constant, persistent=False)
            self.register_buffer(f"{name}_t", other, persistent=False)

    @property
    def bytes(self) -> int:
        """Memory taken by matrix and transpose."""
        return sum(b.numel() * b.element_size() for b in self.buffers())

    def project(self, x: Tensor) -> Tensor:
        """A x.   Shapes: (K, pixels) → (K, views · rays)."""
        return self._apply_matrix(x, transposed=False)

    def backproject(self, y: Tensor) -> Tensor:
        """A* y.   Shapes: (K, views · rays) → (K, pixels)."""
        return self._apply_matrix(y, transposed=True)

    def _apply_matrix(self, x: Tensor, transposed: bool) -> Tensor:
        if not x.requires_grad:
            return self._product(x, transposed)
        product: Tensor = _Product.apply(x, self, transposed)  # type: ignore[no-untyped-call]
        return product

    def _product(self, x: Tensor, transposed: bool) -> Tensor:
        if self.stored:
            return self._stored_product(x, transposed)
        return self._traced_backprojection(x) if transposed else self._traced_projection(x)

    def _stored_product(self, x: Tensor, transposed: bool) -> Tensor:
        shape = (self.tracer.views * self.tracer.rays, self.tracer.pixels)
        if transposed:
            parts, shape = (self._starts_t, self._columns_t, self._values_t), shape[::-1]
        else:
            parts = (self._starts, self._columns, self._values)
        starts, columns, values = parts
        matrix = torch.sparse_csr_tensor(starts, columns, values.to(x.dtype), shape, check_invariants=False)
        # one column goes twice as fast as a vector; several are read in place, whatever their layout, and stay columns:
        # copying them back would cost a fifth of the product, and the next product wants columns
        product: Tensor = torch.mv(matrix, x[0])[None] if len(x) == 1 else torch.mm(matrix, x.T).T
        return product

    def _traced_projection(self, x: Tensor) -> Tensor:
        columns = x.T.contiguous()
        data = x.new_zeros(self.tracer.views, self.tracer.rays, len(x))
        for view in range(self.tracer.views):
            for rays, pixels, weights in self.tracer.trace(view, x.device):
                met = columns.index_select(0, pixels.flatten()).reshape(*pixels.shape, -1)
                data[view, rays] = torch.einsum("rnk,rn->rk", met, weights.to(x.dtype))
        return data.reshape(-1, len(x)).T.contiguous()

    def _traced_backprojection(self, y: Tensor) -> Tensor:
        data = y.reshape(len(y), self.tracer.views, self.tracer.rays).permute(1, 2, 0)
        image = y.new_zeros(self.tracer.pixels, len(y))
        for view in range(self.tracer.views):
            for rays, pixels, weights in self.tracer.trace(view, y.device):
                spread = weights.to(y.dtype)[..., None] * data[view, rays][:, None]
                image.index_add_(0, pixels.flatten(), spread.flatten(0, 1))
        return image.T.contiguous()


class _Product(torch.autograd.Function):
    """A product whose derivative is the product with the transpose, which torch would form anew each time."""

    @staticmethod
    def forward(ctx: Any, x: Tensor, projector: Projector, transposed: bool) -> Tensor:
        ctx.projector, ctx.transposed = projector, transposed
        return projector._product(x, transposed)

    @staticmethod
    def backward(ctx: Any, *slopes: Tensor) -> tuple[Tensor, None, None]:
        return ctx.projector._apply_matrix(slopes[0], not ctx.transposed), None, None


_kept: OrderedDict[bytes, tuple[Compressed, Compressed]] = OrderedDict()
_lock = threading.Lock()


def _stored(tracer: Tracer) -> tuple[Compressed, Compressed]:
    """Matrix and transpose, from the process's store if the same was built before."""
    key = tracer.key
    with _lock:
        if key in _kept:
            _kept.move_to_end(key)
            return _kept[key]
    pair = _compress(tracer)
    with _lock:
        _kept[key] = pair
        while len(_kept) > 1 and sum(map(_size, _kept.values())) > _KEPT_BYTES:
            _kept.popitem(last=False)
    return pair


def _size(pair: tuple[Compressed, Compressed]) -> int:
    return sum(part.numel() * part.element_size() for matrix in pair for part in matrix)


def _compress(tracer: Tracer) -> tuple[Compressed, Compressed]:
    dtype = np.dtype(str(torch.get_default_dtype()).removeprefix("torch."))
    # room for the most there can be costs address space only; what is written is what takes memory
    most, used = tracer.views * tracer.bound, 0
    rows, columns, values = np.empty(most, np.int32), np.empty(most, np.int32), np.empty(most, dtype)
    for view in range(tracer.views):
        for rays, pixels, weights in tracer.trace(view, torch.device("cpu")):
            exists = weights.numpy() != 0
            counts = exists.sum(1)
            new = slice(used, used := used + int(counts.sum()))
            rows[new] = (rays.numpy() + view * tracer.rays).repeat(counts)
            columns[new] = pixels.numpy()[exists]
            values[new] = weights.numpy()[exists]
    shape = (tracer.views * tracer.rays, tracer.pixels)
    matrix = coo_array((values[:used], (rows[:used], columns[:used])), shape=shape)
    del rows, columns, values
    # a ray meets a pixel once, so there is nothing to add up; a transposition sorts what it writes
    matrix.has_canonical_format = True
    transposed = matrix.T.tocsr()
    del matrix
    direct = transposed.T.tocsr()
    if not transposed.has_sorted_indices:
        transposed = direct.T.tocsr()
    return _parts(direct), _parts(transposed)


def _parts(matrix: csr_array) -> Compressed:
    starts, columns = (torch.from_numpy(part.astype(np.int32, copy=False)) for part in (matrix.indptr, matrix.indices))
    return starts, columns, torch.from_numpy(matrix.data)
