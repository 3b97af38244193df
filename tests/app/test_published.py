"""Published settings by name, where people and programs ask for recipes."""

import pytest

from app import cli
from app.intake import shipped
from operators.errors import RecipeError
from restoration.calls import calls_of
from restoration.published import published_settings
from restoration.recipe import read_recipe


def test_all_are_listed_with_what_they_cost_and_where_they_are_from(capsys: pytest.CaptureFixture[str]) -> None:
    assert cli.main(["recipes", "--published"]) == 0
    printed = capsys.readouterr().out
    for name, setting in published_settings().items():
        calls = calls_of(read_recipe(name)[0])
        (line,) = (line for line in printed.splitlines() if line.startswith(f"{name} "))
        assert f"; {calls.denoiser} calls" in line
        assert ("pullbacks" in line) == (calls.vjps > 0)
        assert setting.reference.split(";")[0] in " ".join(printed.split())


def test_the_list_of_presets_says_that_there_are_more(capsys: pytest.CaptureFixture[str]) -> None:
    assert cli.main(["recipes"]) == 0
    assert f"{len(published_settings())} published settings" in capsys.readouterr().out


def test_programs_ask_for_them_by_name() -> None:
    assert shipped("daps/phase-retrieval") == read_recipe("daps/phase-retrieval")[0]
    with pytest.raises(RecipeError, match="published setting"):
        shipped("daps/none")
