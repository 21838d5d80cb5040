"""The variants of ECDM: what each switch leaves out, and the rows of the paper's ablation."""

from __future__ import annotations

from typing import Any

import pytest
import torch

from tests.evaluations import evaluations
from tests.fakes_cma import logged, scenes
from tests.fakes_ecdm import count, edged, fit, make
from zoo.models.ecdm import ECDM

# The rows of Table 2, and what the released code computes (Sec. 9 of the specification).
ROWS: dict[str, dict[str, Any]] = {
    "baseline": {"sail": False, "acda": False},
    "sail": {"acda": False},
    "acda": {"sail": False},
    "both": {},
    "official": {
        "sail_detached": True, "acda_radius": "official", "acda_norm_scope": "batch", "acda_double_self_attn": True,
        "latent_mask": "area", "known_latent": "gt", "blend_final": False,
    },
}  # fmt: skip
SWITCHES: list[dict[str, Any]] = [
    {"acda_blocks": [1]}, {"acda_window": "disc"}, {"acda_amp": "log1p"}, {"acda_phase": "sincos"},
    {"acda_hole_fill": "zero"}, {"acda_radius": 0}, {"hint": "rgbm"}, {"hint": "rgbm_neg1"}, {"latent_mask": "area"},
    {"latent_mask": "nearest"}, {"blend_entry": False}, {"known_latent": "masked"}, {"draw": "fixed"}, {"eta": 1.0},
    {"solver": "unipc"}, {"solver": "dpmsolver++"}, {"guidance": 1.0}, {"guidance": 4.0}, {"clip": 1.0}, {"steps": 5},
    {"prediction": "velocity"}, {"spacing": "trailing"}, {"blend_final": False}, {"acda_norm_scope": "batch"},
]  # fmt: skip


@pytest.mark.parametrize("row", list(ROWS))
def test_a_row_leaves_out_what_it_does_not_have(row: str) -> None:
    module, batch = make(**ROWS[row]), edged()
    names = {name for name, _ in module.named_children()}
    assert ("teacher" in names) == (row not in ("baseline", "acda"))
    assert bool(module.student.acda_kv) == (row not in ("baseline", "sail"))
    assert (module.student.freq_encoder is None) == (row in ("baseline", "sail"))
    values = logged(fit(module, batch))
    assert set(values) == ({"l_simple", "l_soft"} if "teacher" in names else {"l_simple"})
    completed = module.complete(batch)
    assert completed.image.isfinite().all()
    assert torch.equal(completed.image[(batch["mask"] < 0.5).expand_as(completed.image)],
                       batch["image"][(batch["mask"] < 0.5).expand_as(completed.image)])  # fmt: skip


def test_rows_are_trained_in_the_stages_that_they_need() -> None:
    own = {"base": ""}
    assert ECDM.stages_for({**own, "codec": "pca"}) == ECDM.stages
    assert ECDM.stages_for({**own, "codec": "identity"}) == ("unet", "teacher", "inpaint")
    assert ECDM.stages_for({**own, **ROWS["baseline"]}) == ("autoencoder", "unet", "inpaint")
    assert ECDM.stages_for({}) == ("inpaint",)
    assert ECDM.stages_for({"teacher_source": ""}) == ("teacher", "inpaint")
    assert ECDM.stages_for({"teacher_source": "", "sail": False}) == ("inpaint",)


def test_acda_adds_its_token_encoder_and_its_projections() -> None:
    plain, ours, doubled = (make(**ROWS[row]).student for row in ("baseline", "both", "official"))
    assert ours.freq_encoder is not None
    added = count(ours.freq_encoder, ours.acda_kv)
    assert count(ours) - count(plain) == added
    assert set(ours.acda_kv) == {key for key in ours.acda_kv if key.endswith("attn2")}
    assert len(doubled.acda_kv) == 2 * len(ours.acda_kv)


@pytest.mark.parametrize("change", SWITCHES, ids=str)
def test_every_switch_reaches_what_it_names(change: dict[str, Any]) -> None:
    batch = scenes()
    batch["mask"][:, :, 9:10, 6:12] = 1 - batch["mask"][:, :, 9:10, 6:12]  # a stroke thinner than a cell
    options = {"lively": True, "codec": "kl"}  # which looks beyond a cell
    raw = make(**options).complete(batch).raw
    found = make(**options, **change).complete(batch).raw
    assert found.isfinite().all()
    assert not torch.equal(found, raw)
    assert torch.equal(make(**options, **change).complete(batch).raw, found)


def test_the_official_row_detaches_its_soft_loss_and_needs_no_other_networks() -> None:
    module = make(lively=True, **ROWS["official"])
    with evaluations(student=module.student, unet=module.unet, teacher=module.teacher) as counted:
        module.complete(scenes())
    assert {name: found.calls for name, found in counted.items()} == {"student": 3, "unet": 3, "teacher": 0}
