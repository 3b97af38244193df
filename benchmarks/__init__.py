"""Measurements: overhead as ratios in one run, denoising, restoration quality."""
