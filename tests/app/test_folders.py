"""Folders that appear whole or not at all."""

import os
from pathlib import Path
from typing import Any

import pytest

from app.folders import check_earlier, check_place, write_folder
from app.settings import Settings
from operators.errors import WriteError

MINE = frozenset({"a", "b"})


def content(folder: Path) -> dict[str, bytes]:
    return {p.name: p.read_bytes() for p in folder.iterdir()}


def test_a_folder_is_written_and_replaced_whole(tmp_path: Path) -> None:
    out = tmp_path / "deep" / "out"
    write_folder(out, {"a": b"1", "b": b"2"})
    assert content(out) == {"a": b"1", "b": b"2"}
    write_folder(out, {"a": b"3"})
    assert content(out) == {"a": b"3"}
    assert [p.name for p in out.parent.iterdir()] == ["out"]


@pytest.mark.parametrize("failure", [OSError(28, "No space left on device"), KeyboardInterrupt()])
def test_a_failure_leaves_the_old_folder(
    failure: BaseException, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    out = tmp_path / "out"
    write_folder(out, {"a": b"old"})
    real, calls = os.replace, []

    def failing(source: Any, target: Any) -> None:
        calls.append(target)
        if len(calls) == 2:  # the old folder is out of the way, the new one not yet there
            raise failure
        real(source, target)

    monkeypatch.setattr("app.folders.os.replace", failing)
    with pytest.raises(WriteError if isinstance(failure, OSError) else KeyboardInterrupt):
        write_folder(out, {"a": b"new"})
    assert content(out) == {"a": b"old"}
    assert [p.name for p in tmp_path.iterdir()] == ["out"]


def test_only_ones_own_files_are_replaced(tmp_path: Path) -> None:
    out = tmp_path / "out"
    check_earlier(out, MINE, "demo")
    out.mkdir()
    check_earlier(out, MINE, "demo")
    (out / "a").touch()
    check_earlier(out, MINE, "demo")
    (out / "c").touch()
    with pytest.raises(WriteError, match="found c"):
        check_earlier(out, MINE, "demo")


def test_a_file_in_the_way_is_an_error(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    for folder in (tmp_path / "file", tmp_path / "file" / "deep" / "out"):
        with pytest.raises(WriteError, match="file"):
            check_earlier(folder, MINE, "demo")
    check_place(tmp_path / "new" / "deep")


def test_settings_come_from_the_environment(tmp_path: Path) -> None:
    assert Settings.from_env({}).assets is None
    assert Settings.from_env({"PREIMAGE_ASSETS": ""}).assets is None
    assert Settings.from_env({"PREIMAGE_ASSETS": str(tmp_path)}).assets == tmp_path
