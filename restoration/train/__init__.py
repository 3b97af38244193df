"""How every shipped weight file was made: `preimage train RECIPE` (or `python -m restoration.train`).

This room starts on a machine that has only torch, numpy and Pillow: nothing here imports the rest of the package
beyond the networks.
"""
