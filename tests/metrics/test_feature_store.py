"""Features on disk: blocks by id, whole or not at all, never of other images or other weights."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
from numpy.typing import NDArray

from zoo.errors import DataError
from zoo.metrics import Extractor, FeatureStore, pixel_digest

KIND = Extractor("inception_tf", "abc", 4)


def rows(*numbers: float) -> NDArray[np.float32]:
    return np.array([[n, n + 0.5, -n, 1.0] for n in numbers], np.float32)


@pytest.fixture
def store(tmp_path: Path) -> FeatureStore:
    return FeatureStore(tmp_path / "features", KIND)


def test_what_is_written_is_read_in_the_order_of_ids(store: FeatureStore) -> None:
    store.append("truth", ["c", "a"], rows(3, 1), ["dc", "da"])
    store.append("truth", ["b"], rows(2), ["db"])
    found = store.read("truth")
    assert found.ids == ["a", "b", "c"]
    assert found.digests == ["da", "db", "dc"]
    assert found.values.dtype == np.float32
    assert np.array_equal(found.values, rows(1, 2, 3))
    some = store.read("truth", ["c", "b"])
    assert some.ids == ["b", "c"]
    assert np.array_equal(some.values, rows(2, 3))
    assert store.known("truth") == {"a": "da", "b": "db", "c": "dc"}
    assert FeatureStore(store.folder.parent, KIND).read("truth").ids == ["a", "b", "c"]


def test_sets_are_apart(store: FeatureStore) -> None:
    store.append("truth", ["a"], rows(1), ["x"])
    store.append("cma@no wpa|object", ["a"], rows(2), ["y"])
    store.append("cma@no_wpa_object", ["a"], rows(3), ["z"])
    assert [store.read(part).values[0, 0] for part in ("truth", "cma@no wpa|object", "cma@no_wpa_object")] == [1, 2, 3]
    assert store.read("nothing").values.shape == (0, 4)
    assert store.known("nothing") == {}


def test_missing_ids_and_changed_pixels(store: FeatureStore) -> None:
    store.append("truth", ["a", "b"], rows(1, 2), ["da", "db"])
    assert store.missing("truth", {"b": "db", "d": "dd", "a": "da", "c": "dc"}) == ["d", "c"]
    with pytest.raises(DataError, match="other pixels") as caught:
        store.missing("truth", {"a": "da", "b": "changed"})
    assert "b" in caught.value.where


def test_the_same_block_twice_is_one_file(store: FeatureStore) -> None:
    first = store.append("truth", ["a", "b"], rows(1, 2), ["da", "db"])
    content = first.read_bytes()
    assert store.append("truth", ["a", "b"], rows(1, 2), ["da", "db"]) == first
    assert first.read_bytes() == content
    store.append("truth", ["b", "c"], rows(2, 3), ["db", "dc"])  # overlaps, and agrees
    assert store.read("truth").ids == ["a", "b", "c"]


def test_contradictions_are_refused(store: FeatureStore) -> None:
    store.append("truth", ["a", "b"], rows(1, 2), ["da", "db"])
    store.append("truth", ["b", "c"], rows(7, 3), ["db", "dc"])
    with pytest.raises(DataError, match="other features of the same image"):
        store.read("truth")


def test_features_of_other_weights_are_refused(store: FeatureStore, tmp_path: Path) -> None:
    store.append("truth", ["a"], rows(1), ["da"])
    other = FeatureStore(tmp_path / "features", Extractor("inception_tf", "other weights", 4))
    for look in (other.read, other.known):
        with pytest.raises(DataError, match="another network, weights or version"):
            look("truth")


def test_many_files_become_one(store: FeatureStore) -> None:
    for k in range(5):
        store.append("truth", [f"id{k}"], rows(k), [f"d{k}"])
    before = store.read("truth")
    store.compact("truth")
    after = store.read("truth")
    assert len(list((store.folder / "truth").iterdir())) == 1
    assert (after.ids, after.digests) == (before.ids, before.digests)
    assert np.array_equal(after.values, before.values)
    store.compact("truth")
    store.compact("nothing")
    assert store.read("truth").ids == before.ids


def test_a_full_disk_leaves_nothing_behind(store: FeatureStore, monkeypatch: pytest.MonkeyPatch) -> None:
    store.append("truth", ["a"], rows(1), ["da"])

    def full(self: Path, target: Path) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(Path, "replace", full)
    with pytest.raises(OSError, match="No space left"):
        store.append("truth", ["b"], rows(2), ["db"])
    monkeypatch.undo()
    assert store.read("truth").ids == ["a"]
    assert len(list((store.folder / "truth").iterdir())) == 1


def test_damage_is_reported(store: FeatureStore) -> None:
    path = store.append("truth", ["a"], rows(1), ["da"])
    path.write_bytes(path.read_bytes()[:40])
    with pytest.raises(DataError, match="cannot be read") as caught:
        store.read("truth")
    assert caught.value.where == str(path)
    assert "delete the file" in caught.value.remedy


def test_wrong_blocks_are_refused(store: FeatureStore) -> None:
    for ids, values, digests in (
        (["a"], rows(1, 2), ["d"]),
        (["a"], rows(1)[:, :3], ["d"]),
        (["a"], rows(1), []),
        ([], np.empty((0, 4), np.float32), []),
    ):
        with pytest.raises(DataError, match="features of shape"):
            store.append("truth", ids, values, digests)
    with pytest.raises(DataError, match="twice"):
        store.append("truth", ["a", "a"], rows(1, 2), ["d", "d"])
    with pytest.raises(DataError, match="not finite"):
        store.append("truth", ["a"], rows(float("nan")), ["d"])
    store.append("truth", ["a"], rows(1), ["da"])
    with pytest.raises(DataError, match="1 images have no features: b"):
        store.read("truth", ["a", "b"])


def test_the_digest_is_that_of_a_row() -> None:
    from zoo.benchmark.work import _digest

    image = torch.randint(0, 256, (3, 5, 7), dtype=torch.uint8)
    assert pixel_digest(image) == _digest(image.permute(1, 2, 0).contiguous().numpy())
    assert pixel_digest(image) != pixel_digest(image.flip(2))


def test_a_block_is_found_by_its_ids_in_their_order(tmp_path: Path) -> None:
    store = FeatureStore(tmp_path, Extractor("net", "print", 3))
    values = np.arange(6, dtype=np.float32).reshape(2, 3)
    path = store.append("truth", ["b", "a"], values, ["11", "22"])
    found = store.block("truth", ["b", "a"])
    assert found is not None
    assert (found.ids, found.digests) == (["b", "a"], ["11", "22"])
    assert np.array_equal(found.values, values)
    assert store.block("truth", ["a", "b"]) is None
    assert store.block("other", ["b", "a"]) is None
    path.rename(store._path("truth", ["a", "b"]))
    with pytest.raises(DataError, match="of other images than its name says"):
        store.block("truth", ["a", "b"])
