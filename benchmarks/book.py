"""Rows of figures in a JSON lines file: what is there is not made again, so that a long benchmark can be stopped."""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

Row = dict[str, Any]

_ASKED = ("task", "picture", "method", "settings")


class Book:
    """Rows by what was asked: task, picture, method and settings."""

    def __init__(self, path: Path) -> None:
        self.path = path
        lines = path.read_text().splitlines() if path.exists() else []
        self.rows = {_key(row): row for row in map(json.loads, lines)}

    def row(self, asked: Row, make: Callable[[], Row]) -> Row:
        """The row with these values, made now if it is not there."""
        key = _key(asked)
        if key not in self.rows:
            self.rows[key] = row = asked | make()
            self.path.parent.mkdir(parents=True, exist_ok=True)
            with self.path.open("a") as lines:
                lines.write(json.dumps(row) + "\n")
            print(*(row[name] for name in ("task", "picture", "method", "psnr", "residual", "seconds")), flush=True)
        return self.rows[key]


def _key(row: Row) -> str:
    return json.dumps([row[name] for name in _ASKED], sort_keys=True)
