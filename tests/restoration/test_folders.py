"""Folders that appear whole or not at all, and replace nothing but their own kind."""

import os
from pathlib import Path
from typing import Any

import pytest

from operators.errors import WriteError
from restoration.folders import FolderKind, check_folder, write_folder
from restoration.result import RESULT

KIND = FolderKind("demo", frozenset({"a", "b"}), r"c[0-9]")


def content(folder: Path) -> dict[str, bytes]:
    return {p.name: p.read_bytes() for p in folder.iterdir()}


def write(folder: Path, *names: str, text: bytes = b"") -> None:
    with write_folder(folder, KIND) as part:
        for name in names:
            (part / name).write_bytes(text)


def test_a_folder_is_written_and_replaced_whole(tmp_path: Path) -> None:
    out = tmp_path / "deep" / "out"
    write(out, "a", "b", "c1", text=b"1")
    assert content(out) == {"a": b"1", "b": b"1", "c1": b"1"}
    write(out, "a", "b", text=b"2")
    assert content(out) == {"a": b"2", "b": b"2"}
    assert [p.name for p in out.parent.iterdir()] == ["out"]


@pytest.mark.parametrize("failure", [OSError(28, "No space left on device"), KeyboardInterrupt(), ValueError()])
@pytest.mark.parametrize("when", ["filling", "replacing"])
def test_a_failure_leaves_the_old_folder(
    when: str, failure: BaseException, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    out = tmp_path / "out"
    write(out, "a", "b", text=b"old")
    real, calls = os.replace, []

    def failing(source: Any, target: Any) -> None:
        calls.append(target)
        if len(calls) == 2:  # the old folder is out of the way, the new one not yet there
            raise failure
        real(source, target)

    monkeypatch.setattr("restoration.folders.os.replace", failing)

    def attempt() -> None:
        with write_folder(out, KIND) as part:
            (part / "a").write_bytes(b"new")
            if when == "filling":
                raise failure

    with pytest.raises(WriteError if isinstance(failure, OSError) else type(failure)):
        attempt()
    assert content(out) == {"a": b"old", "b": b"old"}
    assert [p.name for p in tmp_path.iterdir()] == ["out"]


@pytest.mark.parametrize("names", [["a", "b", "mine"], ["a", "b", "c1x"], ["a"], ["b"], ["mine"]])
def test_only_ones_own_files_are_replaced(names: list[str], tmp_path: Path) -> None:
    out = tmp_path / "out"
    out.mkdir()
    for name in names:
        (out / name).write_bytes(b"precious")
    with pytest.raises(WriteError, match="other files such as"):
        write(out, "a", "b")
    assert content(out) == dict.fromkeys(names, b"precious")


def test_a_folder_or_a_link_by_one_of_the_names_is_not_ones_own(tmp_path: Path) -> None:
    for make in (Path.mkdir, lambda path: path.symlink_to(tmp_path)):
        out = tmp_path / make.__name__
        write(out, "a", "b")
        make(out / "c1")
        with pytest.raises(WriteError, match="such as c1"):
            write(out, "a", "b")


def test_what_is_put_there_during_the_work_is_kept(tmp_path: Path) -> None:
    def attempt() -> None:
        with write_folder(tmp_path / "out", KIND):
            (tmp_path / "out").mkdir()
            (tmp_path / "out" / "mine").touch()

    with pytest.raises(WriteError, match="such as mine"):
        attempt()
    assert [p.name for p in tmp_path.iterdir()] == ["out"]


@pytest.mark.parametrize("name", ["mine.png", "sample-1.png", "sample-abc.png", "Mean.png", "mean.png~", "std.npz"])
def test_a_result_is_known_by_exact_names(name: str, tmp_path: Path) -> None:
    ours = ["recipe.json", "report.json", "samples.npz", "input.png", "mean.png", "std.png", "preview.png", "truth.png"]
    for one in [*ours, "sample-000.png", "sample-4095.png"]:
        (tmp_path / one).touch()
    assert RESULT.foreign(tmp_path) == []
    (tmp_path / name).touch()
    assert RESULT.foreign(tmp_path) == [name]


@pytest.mark.parametrize("name", [".", "..", "/", "../" + "inner"])
def test_the_current_folder_and_those_around_it_are_refused(
    name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    inner = tmp_path / "inner"
    inner.mkdir()
    monkeypatch.chdir(inner)
    with pytest.raises(WriteError, match="in use"):
        check_folder(Path(name), KIND)
    assert check_folder(Path("new"), KIND) == inner / "new"


def test_a_link_is_written_through(tmp_path: Path) -> None:
    target, link, dangling = tmp_path / "target", tmp_path / "link", tmp_path / "dangling"
    write(target, "a", "b", text=b"old")
    link.symlink_to(target)
    dangling.symlink_to(tmp_path / "later")
    for out in (link, dangling):
        write(out, "a", "b", text=b"new")
        assert out.is_symlink()
        assert content(out) == {"a": b"new", "b": b"new"}
    assert sorted(p.name for p in tmp_path.iterdir()) == ["dangling", "later", "link", "target"]
    (tmp_path / "loop").symlink_to(tmp_path / "loop")
    with pytest.raises(WriteError, match="endless link"):
        check_folder(tmp_path / "loop", KIND)


def test_a_new_folder_heeds_the_umask(tmp_path: Path) -> None:
    before = os.umask(0o027)
    try:
        write(tmp_path / "out", "a", "b")
    finally:
        os.umask(before)
    assert (tmp_path / "out").stat().st_mode & 0o777 == 0o750


def test_a_file_in_the_way_and_impossible_names_are_errors(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    for folder in (tmp_path / "file", tmp_path / "file" / "deep" / "out"):
        with pytest.raises(WriteError, match="got the file"):
            check_folder(folder, KIND)
    for name in ("n" * 300, "nul\0"):
        with pytest.raises(WriteError, match="simpler"):
            check_folder(tmp_path / name, KIND)


def test_a_parent_that_may_not_be_changed_is_an_error_at_once(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "out").mkdir()
    monkeypatch.setattr("restoration.folders.os.access", lambda place, _: Path(place) != tmp_path)
    with pytest.raises(WriteError, match="can be written to"):
        check_folder(tmp_path / "out", KIND)
