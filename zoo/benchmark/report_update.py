"""`--update README.md`: the table of a run between two marks of a text."""

from __future__ import annotations

import re
from pathlib import Path

from zoo.benchmark.plan import PROTOCOL, Plan
from zoo.benchmark.store import write_whole
from zoo.data.base import OWN
from zoo.errors import DataError, UsageError


def mark_names(plan: Plan) -> list[str]:
    """What the marks of a run may be called: `coco-center-tdanet`; for `shapes` the dataset may be left out.

    A run that shows guidance is `object-guided`, whatever it shows.
    """
    dataset = plan.dataset.rpartition(":")[2].rpartition(".")[2]
    rules = [rule for rule, usual in ((plan.captions, OWN), (plan.protocol, PROTOCOL)) if rule != usual]
    short = "-".join([plan.mask, *rules, *(["guided"] if plan.guidance else [])])
    return [f"{dataset}-{short}", *([short] if dataset == "shapes" else [])]


def marks(name: str) -> tuple[str, str]:
    """The lines between which the table of a name stands."""
    return f"<!-- table {name}: begin -->", f"<!-- table {name}: end -->"


def first_table(table: str) -> str:
    """A report's text up to the end of its first table; all of it where it has none."""
    lines = table.strip().splitlines()
    start = next((i for i, line in enumerate(lines) if line.startswith("|")), len(lines))
    end = next((i for i in range(start, len(lines)) if not lines[i].startswith("|")), len(lines))
    return "\n".join(lines[:end])


def update(path: Path, plan: Plan, table: str) -> bool:
    """Replaces what stands between the marks of a run by its first table; doing it again changes nothing.

    Args:
        path: The text.
        plan: The plan of the run.
        table: The report in Markdown, headed as `zoo.benchmark.report.headline` does.

    Returns:
        Whether the text has changed.

    Raises:
        UsageError: The text has no marks for this run, or not one of each; or the table that stands there is of another
            split, of images of another size, or of more of them.
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
    old, after = rest.split(end)
    _check_as_large(old, table, name, path)
    lines = [begin, *first_table(table).splitlines(), end]
    changed = before + ending.join(lines) + after
    if changed == text:
        return False
    write_whole(path, changed.encode())
    return True


def _check_as_large(old: str, new: str, name: str, path: Path) -> None:
    """Refuses a table in place of one that says more: the names of marks say nothing of split, size and count."""
    heads = [re.search(r"\((\w+)\), mask .*?, (\d+x\d+), n = (\d+) images", text) for text in (old, new)]
    if heads[0] is None or heads[1] is None:
        return
    (split, size, count), (new_split, new_size, new_count) = (head.groups() for head in heads if head)
    if (split, size) != (new_split, new_size) or int(new_count) < int(count):
        stands, comes = f"{count} images ({split}, {size})", f"{new_count} ({new_split}, {new_size})"
        remedy = "measure as many of the same, or empty the place between the marks first"
        raise UsageError(f"the table of '{name}' is of {stands}, this run of {comes}", str(path), remedy)
