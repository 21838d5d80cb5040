"""The published tables: `python -m benchmarks.publish`."""

from __future__ import annotations

import pytest

from benchmarks.publish import NAMES, place_of, tables


@pytest.mark.parametrize("name", NAMES)
def test_the_tables_follow_from_the_rows_beside_them(name: str) -> None:
    kept = (place_of(name) / "table.md").read_text()
    assert tables(name)["table.md"].decode() == kept, "python -m benchmarks.publish --tables"
