"""What the raters of a user study said: mean ranks, first places and win rates, with intervals over images."""

from __future__ import annotations

import json
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import permutations
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from zoo.benchmark.store import read_json
from zoo.benchmark.study import KEY
from zoo.errors import DataError
from zoo.metrics.comparison import Comparison, compare, intervals
from zoo.metrics.statistics import Interval

Answers = dict[tuple[str, str], list[list[str]]]  # by criterion and question: methods from the best to the worst


@dataclass(frozen=True)
class Criterion:
    """What the answers say by one criterion.

    Attributes:
        name: `naturalness` or `semantic_consistency`.
        answers: How many orders it is made of.
        ranks: By method, the mean rank, 1 for the best: what the papers' tables of user studies hold.
        first: By method, how often it was put first.
        preferred: By method, how often it was put before another one, over all pairs.
        wins: M x M, how often the row's method was put before the column's; NaN on the diagonal.
        pairs: Every two methods by their mean ranks, image by image.
    """

    name: str
    answers: int
    ranks: dict[str, Interval]
    first: dict[str, Interval]
    preferred: dict[str, Interval]
    wins: NDArray[np.float64]
    pairs: list[Comparison]


@dataclass(frozen=True)
class Ranking:
    """What a study says. Intervals resample images; who rated is held.

    Attributes:
        raters: How many gave answers.
        questions: Images with an answer.
        criteria: Those with an answer.
    """

    raters: int
    questions: int
    criteria: list[Criterion]


def rank_answers(folder: str | Path, paths: Sequence[Path]) -> Ranking:
    """Evaluates the answers to the study of a run.

    Args:
        folder: The run folder, with `study-key.json`.
        paths: Files that raters downloaded from the page, one per rater.

    Raises:
        DataError: No key, answers to another study, a damaged answer, two files of one rater, or no answer at all.
    """
    study = _read_key(Path(folder))
    answers: Answers = {}
    raters: dict[str, Path] = {}
    for path in paths:
        rater = _take(path, study, answers)
        if rater in raters:
            raise DataError(f"two files of one rater: {raters[rater]}", str(path), "leave the older one out")
        raters[rater] = path
    if not answers:
        raise DataError("there is no answer in these files", ", ".join(map(str, paths)))
    labels = sorted({label for question in study["questions"].values() for label in question["options"].values()})
    criteria = [_criterion(name, labels, answers) for name in study["criteria"] if any(c == name for c, _ in answers)]
    return Ranking(len(raters), len({question for _, question in answers}), criteria)


def _read_key(folder: Path) -> Mapping[str, Any]:
    path = folder / KEY
    if not path.is_file():
        raise DataError("this run has no study", str(path), f"zoo report {folder} --study 100 makes one")
    try:
        return read_json(path)
    except ValueError as error:
        raise DataError(
            f"this key cannot be read: {error}", str(path), "make the study again: it is the same"
        ) from error


def _take(path: Path, study: Mapping[str, Any], answers: Answers) -> str:
    """Takes the answers of a file in; gives the rater."""
    try:
        content = read_json(path)
        rater, there, given = str(content["rater"]), content["study"], list(content["answers"])
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise DataError(f"this is no file of answers: {error}", str(path), "download it from the page again") from error
    if there != study["study"]:
        remedy = "name the run that they are of, or make its study of then again: --study with as many images"
        raise DataError(f"these answer study {there}, not {study['study']}", str(path), remedy)
    seen = set()
    for number, answer in enumerate(given, 1):
        where = f"{path}, answer {number}"
        try:
            question, criterion, order = str(answer["question"]), answer["criterion"], [*map(str, answer["order"])]
            options = study["questions"][question]["options"]
        except (KeyError, TypeError) as error:
            raise DataError(f"this answer is to no question of the study: {json.dumps(answer)}", where) from error
        if sorted(order) != sorted(options) or criterion not in study["criteria"] or (question, criterion) in seen:
            raise DataError(f"this answer is not one order of all pictures: {json.dumps(answer)}", where)
        seen.add((question, criterion))
        answers.setdefault((criterion, question), []).append([options[letter] for letter in order])
    return rater


def _criterion(name: str, labels: list[str], answers: Answers) -> Criterion:
    """One row per image: the means over its raters, whose answers to one image are not independent."""
    questions = sorted((question for criterion, question in answers if criterion == name), key=int)
    places = [
        np.array([[order.index(label) + 1.0 for label in labels] for order in answers[name, question]])
        for question in questions
    ]
    ranks = np.stack([found.mean(0) for found in places])
    count = len(labels)
    first = np.stack([(found == 1).mean(0) for found in places])
    wins = np.full((count, count), math.nan)
    for a, b in permutations(range(count), 2):
        wins[a, b] = np.mean([(found[:, a] < found[:, b]).mean() for found in places])
    found = intervals(np.concatenate([ranks, first, (count - ranks) / (count - 1)], 1))
    means, firsts, shares = (dict(zip(labels, found[k * count : (k + 1) * count], strict=True)) for k in range(3))
    pairs = compare(dict(zip(labels, ranks.T, strict=True)), "lower")
    return Criterion(name, sum(map(len, places)), means, firsts, shares, wins, pairs)


def rank_grids(ranking: Ranking) -> list[tuple[str, list[list[str]]]]:
    """Two tables per criterion, each with its title, header first: the methods from the best, and who beats whom."""
    grids = []
    for one in ranking.criteria:
        order = sorted(one.ranks, key=lambda label: one.ranks[label].mean)
        rows = [["method", "mean rank", "put first", "put before another"]]
        for label in order:
            shares = [_share(found[label]) for found in (one.first, one.preferred)]
            rows.append([label, "{:.2f} [{:.2f}, {:.2f}]".format(*one.ranks[label][:3]), *shares])
        grids.append((f"{one.name}, {one.answers} answers", rows))
        labels = list(one.ranks)
        matrix = [["wins of over", *order]]
        for label in order:
            beaten = [float(one.wins[labels.index(label), labels.index(other)]) for other in order]
            matrix.append([label, *("" if math.isnan(share) else f"{100 * share:.0f} %" for share in beaten)])
        grids.append((f"{one.name}: how often the row was put before the column", matrix))
    return grids


def _share(value: Interval) -> str:
    return f"{100 * value.mean:.1f} % [{100 * value.lo:.1f}, {100 * value.hi:.1f}]"


def rank_json(ranking: Ranking) -> dict[str, Any]:
    """The same for programs."""

    def plain(found: Mapping[str, Interval]) -> dict[str, Any]:
        return {label: value._asdict() for label, value in found.items()}

    return {
        "raters": ranking.raters,
        "questions": ranking.questions,
        "criteria": {
            one.name: {
                "answers": one.answers,
                "rank": plain(one.ranks),
                "first": plain(one.first),
                "preferred": plain(one.preferred),
                "wins": {
                    a: {b: float(one.wins[i, j]) for j, b in enumerate(one.ranks) if i != j}
                    for i, a in enumerate(one.ranks)
                },
                "pairs": [{**pair._asdict(), "difference": pair.difference._asdict()} for pair in one.pairs],
            }
            for one in ranking.criteria
        },
    }
