"""`--update README.md`: the table of a run between two marks of a text."""

from __future__ import annotations

from pathlib import Path

from zoo.benchmark.plan import PROTOCOL, Plan
from zoo.benchmark.store import write_whole
from zoo.data.base import OWN
from zoo.errors import DataError, UsageError


def mark_names(plan: Plan) -> list[str]:
    """What the marks of a run may be called: `coco-center-tdanet`; for `shapes` the dataset may be left out."""
    dataset = plan.dataset.rpartition(":")[2].rpartition(".")[2]
    rules = [rule for rule, usual in ((plan.captions, OWN), (plan.protocol, PROTOCOL)) if rule != usual]
    short = "-".join([plan.mask, *rules])
    return [f"{dataset}-{short}", *([short] if dataset == "shapes" else [])]


def marks(name: str) -> tuple[str, str]:
    """The lines between which the table of a name stands."""
    return f"<!-- table {name}: begin -->", f"<!-- table {name}: end -->"


def update(path: Path, plan: Plan, table: str) -> bool:
    """Replaces what stands between the marks of a run; doing it again changes nothing.

    Args:
        path: The text.
        plan: The plan of the run.
        table: The table in Markdown.

    Returns:
        Whether the text has changed.

    Raises:
        UsageError: The text has no marks for this run, or not one of each.
        DataError: The text cannot be read or written.
    """
    try:
        text = path.read_bytes().decode("utf-8")
    except (OSError, UnicodeDecodeError) as error:
        raise DataError(f"this text cannot be read: {error}", str(path), "name a Markdown file") from error
    names = mark_names(plan)
    name = next((name for name in names if any(mark in text for mark in marks(name))), None)
    if name is None:
        remedy = f"put these two lines where the table shall stand: {' '.join(marks(names[-1]))}"
        raise UsageError("this text has no marks for the table of this run", str(path), remedy)
    begin, end = marks(name)
    if text.count(begin) != 1 or text.count(end) != 1 or text.index(begin) > text.index(end):
        raise UsageError(
            f"the marks of '{name}' are not one beginning and one end after it", str(path), f"{begin} {end}"
        )
    ending = "\r\n" if "\r\n" in text else "\n"
    before, rest = text.split(begin)
    after = rest.split(end)[1]
    lines = [begin, *table.strip().splitlines(), end]
    changed = before + ending.join(lines) + after
    if changed == text:
        return False
    write_whole(path, changed.encode())
    return True
