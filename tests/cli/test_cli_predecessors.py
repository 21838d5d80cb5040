"""What a stage takes over from the weights of the stages before it: whole networks, and their licence."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch

from zoo.cli.export import inherited_licence
from zoo.cli.fit import _check_whole
from zoo.errors import WeightsError
from zoo.models import build
from zoo.weights import LICENCE, save_weights


def named(*names: str) -> dict[str, torch.Tensor]:
    return dict.fromkeys(names, torch.zeros(1))


@pytest.mark.parametrize(
    ("state", "fits"),
    [
        (("generator.a", "generator.b"), True),
        (("generator.a", "generator.b", "critic.a"), True),  # what is not here is nobody's half
        (("critic.a",), True),
        (("generator.a",), False),
        (("generator.a", "generator.b", "generator.c"), False),
    ],
)
def test_half_a_network_is_refused(state: tuple[str, ...], fits: bool) -> None:
    own = named("generator.a", "generator.b", "inverter.a", "phi.a")
    if fits:
        _check_whole(named(*state, "phi.b"), own, ("phi",), "first", Path("weights"))
        return
    with pytest.raises(WeightsError, match="'generator' of stage 'first'"):
        _check_whole(named(*state), own, ("phi",), "first", Path("weights"))


def test_the_licence_of_converted_weights_goes_on_to_what_is_built_on_them(tmp_path: Path) -> None:
    assert inherited_licence(tmp_path, ("generator",)) == LICENCE
    for stage, licence in (("generator", "NVIDIA, non-commercial"), ("other", LICENCE)):
        (tmp_path / stage).mkdir()
        save_weights(build("deepfill"), tmp_path / stage / "weights.safetensors", licence=licence)
    assert inherited_licence(tmp_path, ("other",)) == LICENCE
    assert inherited_licence(tmp_path, ("generator", "other")) == "NVIDIA, non-commercial"
    assert inherited_licence(tmp_path, ("generator",), ["OpenRAIL"]) == "NVIDIA, non-commercial; OpenRAIL"
    assert inherited_licence(tmp_path, ("other",), ["OpenRAIL"]) == "OpenRAIL"
