"""Which arithmetic a network runs in. Imports torch alone, so that training starts wherever torch is."""

from typing import Literal

import torch

Precision = Literal["auto", "fp32", "bf16"]


def resolve_precision(wanted: Precision, device: torch.device) -> Literal["fp32", "bf16"]:
    """What "auto" means on a device: bf16 on CUDA and on CPUs with AMX tiles or AVX-512 bf16, else fp32.

    Emulated bf16 is several times slower than fp32, so a CPU without the instructions stays in fp32.
    """
    if wanted != "auto":
        return wanted
    if device.type == "cuda":
        return "bf16"
    capabilities = torch.cpu.get_capabilities() if device.type == "cpu" else {}
    return "bf16" if capabilities.get("amx_bf16") or capabilities.get("avx512_bf16") else "fp32"
