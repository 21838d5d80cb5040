"""Every row of a run as one Parquet file, for those who go on with pandas, polars or a database."""

from __future__ import annotations

import json
import os
from pathlib import Path
from typing import Any

from zoo.benchmark.store import storing
from zoo.benchmark.tables import Table, chunks
from zoo.errors import UsageError

REMEDY = 'pip install ".[parquet]" in a checkout (pyarrow, about 45 MB); table.csv and rows/*.jsonl need nothing'


def require_pyarrow() -> Any:
    """The library, for those who want to know before the work that it is there.

    Raises:
        UsageError: It is not installed.
    """
    try:
        import pyarrow
        import pyarrow.parquet
    except ImportError as error:
        raise UsageError("Parquet files need pyarrow, which is not installed", remedy=REMEDY) from error
    return pyarrow


def write_parquet(table: Table, path: Path) -> Path:
    """Writes the rows that count, a column per field; lists and samples become JSON text.

    Args:
        table: Of `read_table`.
        path: The file, replaced whole.

    Returns:
        The path.

    Raises:
        UsageError: pyarrow is not installed.
        DataError: The disk is full.
    """
    pyarrow = require_pyarrow()
    kinds: dict[str, set[type]] = {}
    for row in table.rows():
        for name, value in row.items():
            kinds.setdefault(name, set()).add(type(value))
    schema = pyarrow.schema([(name, _type(pyarrow, kinds[name])) for name in kinds])
    with storing(path):
        place = path.with_name(f"{path.name}.{os.getpid()}.part")
        try:
            with pyarrow.parquet.ParquetWriter(place, schema) as writer:
                for chunk in chunks(table.rows()):
                    columns = [[_value(row.get(field.name), field.type) for row in chunk] for field in schema]
                    writer.write_batch(pyarrow.record_batch(columns, schema=schema))
            place.replace(path)
        except BaseException:
            place.unlink(missing_ok=True)
            raise
    return path


def _type(arrow: Any, kinds: set[type]) -> Any:
    there = kinds - {type(None)}
    if there == {bool}:
        return arrow.bool_()
    if there == {int}:
        return arrow.int64()
    return arrow.float64() if there and there <= {int, float} else arrow.string()


def _value(value: Any, kind: Any) -> Any:
    if value is None or str(kind) != "string":
        return value
    return value if isinstance(value, str) else json.dumps(value, sort_keys=True)
