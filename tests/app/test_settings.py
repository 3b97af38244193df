"""What the environment decides."""

from pathlib import Path

from app.settings import Settings


def test_settings_come_from_the_environment(tmp_path: Path) -> None:
    assert Settings.from_env({}).assets is None
    assert Settings.from_env({"PREIMAGE_ASSETS": ""}).assets is None
    assert Settings.from_env({"PREIMAGE_ASSETS": str(tmp_path)}).assets == tmp_path
