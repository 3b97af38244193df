"""The front of the house: files, commands and pictures; no numerics."""
