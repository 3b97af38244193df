"""Settings shared by all tests: one thread, reproducible property tests, and where real data may lie."""

import os
from pathlib import Path

import torch
from hypothesis import settings

# the machine that runs the tests is small and often busy with something else
torch.set_num_threads(1)

# tests of real measurements that cannot be shipped are skipped where this folder is absent
os.environ.setdefault("PREIMAGE_DATA", str(Path(__file__).parents[2] / "shared" / "data"))

settings.register_profile("preimage", deadline=None, max_examples=20, derandomize=True)
settings.load_profile("preimage")
