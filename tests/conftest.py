"""Settings shared by all tests: one thread, and reproducible property tests."""

import torch
from hypothesis import settings

# the machine that runs the tests is small and often busy with something else
torch.set_num_threads(1)

settings.register_profile("preimage", deadline=None, max_examples=20, derandomize=True)
settings.load_profile("preimage")
