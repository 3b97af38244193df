"""What the environment decides."""

import os
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path

from restoration.assets import AssetStore


@dataclass(frozen=True)
class Settings:
    """Settings of this process.

    Attributes:
        assets: folder with a `manifest.toml` to use instead of the package's own assets (PREIMAGE_ASSETS).
        token: bearer token of `preimage serve` (PREIMAGE_TOKEN).
    """

    assets: Path | None = None
    token: str = field(default="", repr=False)

    @classmethod
    def from_env(cls, environ: Mapping[str, str] = os.environ) -> "Settings":
        """Read the PREIMAGE_* variables; an empty one counts as unset."""
        folder = environ.get("PREIMAGE_ASSETS", "")
        return cls(Path(folder) if folder else None, environ.get("PREIMAGE_TOKEN", ""))

    def store(self) -> AssetStore:
        """The assets that these settings name."""
        return AssetStore(self.assets)
