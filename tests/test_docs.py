"""The code blocks of the README run as they stand."""

import re
from pathlib import Path

import pytest

BLOCKS = re.findall(r"```python\n(.*?)```", (Path(__file__).parents[1] / "README.md").read_text(), re.DOTALL)


@pytest.mark.parametrize("number", range(len(BLOCKS)))
def test_readme_code_runs(number: int, capsys: pytest.CaptureFixture[str]) -> None:
    scope: dict[str, object] = {}
    exec(compile(BLOCKS[number], f"README block {number}", "exec"), scope)
    if number == 0:
        psnr, residual, *shape = capsys.readouterr().out.split(maxsplit=2)
        assert float(psnr) > 20
        assert 0.8 < float(residual) < 1.2
        assert "torch.Size([1, 3, 256, 320])" in shape[0]


def test_there_are_blocks() -> None:
    assert len(BLOCKS) == 2
