"""The discriminator's game and the mean latent while MMInvertFill trains."""

from __future__ import annotations

from typing import Any

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor

from tests.fakes_cma import changed, logged, some, states
from tests.fakes_mminvertfill import TERMS, Seeded, fed, fit, guided, make, own, without
from zoo.models.mminvertfill import module as implementation

ONCE: dict[str, Any] = {"max_steps": -1, "max_epochs": 1}  # for steps that do not count, as nothing is stepped
QUIET: dict[str, Any] = {"hrf": "none", "w_adv": 0.0, "fid": 0.0, "w_rec": 0.0, "w_edge": 0.0, "w_seg": 0.0}
FIRST: dict[str, Any] = {"stage": "generator"}


# --- the discriminator ------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("adv_on", ["raw", "composite"])
def test_the_discriminator_sees_truth_and_output_each_with_its_edges(adv_on: str) -> None:
    module, batch = make(lively=True, lr=0.0, adv_on=adv_on), guided()
    given, encoded = fed(module.critic), []
    module.inverter.encoder.register_forward_hook(lambda *a: encoded.append(a[2]))
    fit(module, batch)
    (images, edges), (again, predicted) = given
    truth, output = images.chunk(2)
    I, known = batch["image"] * 2 - 1, (batch["mask"] < 0.5).expand_as(batch["image"])  # noqa: E741
    assert torch.equal(truth, I)
    assert torch.equal(output, again)
    assert torch.equal(output[known], I[known]) == (adv_on == "composite")
    assert not torch.allclose(output[~known], I[~known], atol=0.1)
    assert torch.equal(edges.chunk(2)[0], batch["edge"])
    assert torch.equal(edges.chunk(2)[1], predicted)
    expected = F.interpolate(encoded[0].edge[-1].sigmoid(), (32, 32), mode="bilinear")
    torch.testing.assert_close(predicted, expected)


def test_where_the_data_has_no_edges_neither_truth_nor_output_has_any() -> None:
    """Otherwise the edges alone would tell them apart."""
    module = make(lively=True)
    given = fed(module.critic)
    fit(module, without(guided(), "edge"))
    assert not given[0][1].any()
    assert not given[1][1].any()
    module = make(lively=True, edge=False)
    given = fed(module.critic)
    fit(module)
    assert [arguments[1] for arguments in given] == [None, None]


def test_the_adversarial_game_begins_when_it_is_told_to() -> None:
    module = make(lively=True, adv_start=2)
    before = states(module)
    assert "l_d" not in logged(fit(module, max_steps=2))
    assert changed(module, before) == {"inverter"}
    module = make(lively=True, adv_start=2)
    assert "l_d" in logged(fit(module, max_steps=3))
    assert changed(module, before) == {"inverter", "critic"}


def test_without_weight_no_discriminator_is_built() -> None:
    module = make(w_adv=0.0)
    assert not own(module, "critic")
    assert set(logged(fit(module))) == TERMS - {"l_d", "l_adv"}
    assert list(module.by_name) == ["inverter"]


# --- the mean latent --------------------------------------------------------------------------------------------------


def test_9_a_training_starts_from_the_mean_of_many_codes_and_moves_from_one_mean_to_the_next() -> None:
    module = make(tau=0.25, mean_samples=2, mean_eps=0.5, lr=0.0)

    def mean(number: int, count: int) -> Tensor:
        module.mean.draws.fill_(number)
        return module.codes(count).mean(0)

    first, targets = mean(0, 50), [mean(1, 2), mean(2, 2)]
    fit(module)
    expected = 0.75 * first + 0.25 * targets[0]
    torch.testing.assert_close(module.mean.online, expected)
    torch.testing.assert_close(module.mean.target, targets[0])
    fit(module, max_steps=3)  # from its beginning again; half of the way is made in the third step
    for _ in range(2):
        expected = 0.75 * expected + 0.25 * targets[0]
    torch.testing.assert_close(module.mean.online, expected)
    torch.testing.assert_close(module.mean.target, targets[1])
    assert module.mean.draws == 3


def test_9_a_static_mean_stays_and_without_it_is_zero() -> None:
    for mode, draws in (("static", 1), ("off", 0)):
        module = make(sml=mode, tau=0.5)
        expected = module.codes(50).mean(0) if draws else torch.zeros(10)
        fit(module, max_steps=3)
        torch.testing.assert_close(module.mean.online, expected)
        assert module.mean.draws == draws
    assert not torch.allclose(module.codes(50).mean(0), torch.zeros(10), atol=1e-2)


def test_codes_are_those_of_the_mapping_network_and_drawn_in_parts(monkeypatch: pytest.MonkeyPatch) -> None:
    module = make()
    whole = module.codes(25)
    monkeypatch.setattr(implementation, "CHUNK", 10)
    given = fed(module.generator.mapping)
    torch.testing.assert_close(module.codes(25), whole)
    assert [len(z) for (z,) in given] == [10, 10, 5]
    assert not whole.requires_grad
    module.mean.draws += 1
    assert not torch.allclose(module.codes(25), whole, atol=0.1)


def test_accumulated_batches_make_one_step() -> None:
    batch = guided(4)
    whole = Seeded(**make(accumulate=2, lr=1e-2, mean_samples=1, sml="static").hparams)
    before = states(whole)
    made = fit(whole, some(batch, 0, 1), some(batch, 2, 3), max_steps=-1, max_epochs=1)
    assert made.global_step == 1
    assert changed(whole, before) == {"inverter", "critic"}
    alone = Seeded(**make(accumulate=2).hparams)
    before = states(alone)
    assert fit(alone, some(batch, 0, 1), max_steps=-1, max_epochs=1).global_step == 0
    assert changed(alone, before) == set()
