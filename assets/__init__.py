"""Data of the package: weights, pictures and recipes, each with a card in manifest.toml."""
