"""Freed memory stays with the process and is given back when asked; runs in a process of its own."""

import subprocess
import sys

import pytest

PROGRAM = """
import resource
import torch
from restoration.allocator import keep_freed_memory, return_freed_memory

def faults():
    # the best of many times: an aligned block does not always fit where the one before was
    found = []
    for _ in range(16):
        before = resource.getrusage(resource.RUSAGE_SELF).ru_minflt
        torch.ones(64 << 20, dtype=torch.uint8)
        found.append(resource.getrusage(resource.RUSAGE_SELF).ru_minflt - before)
    return min(found)

def resident():
    with open("/proc/self/statm") as file:
        return int(file.read().split()[1]) * resource.getpagesize() / 2**20

plain = faults()
kept = keep_freed_memory()
after, held = faults(), resident()
return_freed_memory()
print(int(kept), plain, after, held - resident())
"""


@pytest.mark.skipif(sys.platform != "linux", reason="glibc only")
def test_large_blocks_are_reused_and_given_back() -> None:
    run = subprocess.run([sys.executable, "-c", PROGRAM], capture_output=True, text=True, check=True)
    kept, plain, after, returned = (float(word) for word in run.stdout.split())
    if not kept:
        pytest.skip("this C library has no such setting")
    assert plain > 1000  # 64 MiB are 16,384 pages, fewer where they are large ones
    assert after < plain / 100
    assert returned > 60
