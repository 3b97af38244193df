"""Running out of memory is something a person can mend: a sentence, on every device."""

import contextlib
from collections.abc import Iterator

import torch

from operators.errors import NeedError


@contextlib.contextmanager
def enough_memory(device: str) -> Iterator[None]:
    """Raise NeedError, a sentence, where the block runs out of memory."""
    try:
        yield
    except (MemoryError, RuntimeError) as error:  # torch.OutOfMemoryError, of a GPU, is a RuntimeError
        # torch has no type of its own for what the processor's allocator refuses
        allocation = isinstance(error, MemoryError | torch.OutOfMemoryError) or any(
            words in str(error) for words in ("DefaultCPUAllocator", "can't allocate memory")
        )
        if not allocation:
            raise
        remedy = "use a smaller one" if device == "cpu" else "use a smaller one or --device cpu"
        raise NeedError(f"Expected enough memory on {device} for this picture, ran out; {remedy}.") from error
