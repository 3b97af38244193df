"""One algorithm per file, each readable beside its paper."""
