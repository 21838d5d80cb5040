"""The encoder: sizes, what is removed with a modality, the decoder's wiring, gradients, every row of the tables."""

from __future__ import annotations

from typing import Any

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from zoo.errors import UsageError
from zoo.models.mminvertfill import backbone as backbones
from zoo.models.mminvertfill.decoder import FUSIONS, Decoded, Fusion, Truth, enlarge, smaller_mask
from zoo.models.mminvertfill.encoder import Encoder, EncoderOptions

B, SIZE, K = 2, 64, 5
NANO: dict[str, Any] = {"segmentation": K, "widths": (16, 32, 48), "auxiliary": (24, 24, 16), "n_blocks": 2}
TINY: dict[str, Any] = {"segmentation": 3, "widths": (4, 6, 8), "auxiliary": (4, 4, 2), "n_blocks": 1}


def draw(*shape: int, seed: int = 0) -> Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed))


def make(base: dict[str, Any] = TINY, **changes: Any) -> Encoder:
    torch.manual_seed(0)
    return Encoder(EncoderOptions(**(base | changes)))


def inputs(encoder: Encoder, size: int = 32) -> tuple[Tensor, Tensor]:
    M = torch.zeros(B, 1, size, size)
    M[:, :, size // 4 : size // 2, size // 4 :] = 1
    return draw(B, encoder.options.channels_in, size, size), M


def truth(size: int = 32, k: int = 3) -> Truth:
    ids = torch.randint(k, (B, size, size), generator=torch.Generator().manual_seed(0))
    return Truth((draw(B, 1, size, size) > 1.5).float(), F.one_hot(ids, k).movedim(3, 1).float())


def total(decoded: Decoded) -> Tensor:
    """A loss of everything that the encoder gives."""
    return sum((t.square().sum() for maps in decoded if maps is not None for t in maps), torch.zeros(()))


def count(module: nn.Module) -> int:
    return sum(p.numel() for p in module.parameters())


# --- sizes ----------------------------------------------------------------------------------------------------------


def test_nano_has_the_specified_parameters() -> None:
    """With map2style 235,728, map2structure 205,920 and PM 140,640 they make the 1,286,750 of MGE."""
    encoder = make(NANO, dec_up="convT")
    branches = encoder.decoder.auxiliary.values()
    assert count(encoder) == 1_286_750 - 235_728 - 205_920 - 140_640 == 704_462
    assert count(encoder.bottleneck) == 226_464
    assert count(encoder.decoder.fusions) == 111_102
    assert sum(count(branch.layers) for branch in branches) == 178_816
    assert count(encoder.backbone) == 74_805
    assert count(make(NANO)) == 704_462 - 88_704  # kernels of 3x3 where those have 4x4


def test_paper_has_the_specified_parameters() -> None:
    with torch.device("meta"):
        encoder = Encoder(EncoderOptions(dec_up="convT"))
        parts = [encoder.bottleneck, encoder.decoder.fusions, encoder.backbone]
        parts.append(nn.ModuleList(branch.layers for branch in encoder.decoder.auxiliary.values()))
    assert [round(count(part) / 1e6, 1) for part in parts] == [25.7, 2.6, 1.7, 4.6]
    assert round(count(encoder) / 1e6 + 38.3 + 36.4 + 22.1, 1) == 134.0


@pytest.mark.parametrize("changes", [{}, {"dec_up": "convT"}, {"norm": "bn"}, {"norm": "syncbn"}, {"gated_stem": True}])
def test_maps_have_their_sizes_and_ranges(changes: dict[str, Any]) -> None:
    encoder = make(NANO, **changes)
    out = encoder(*inputs(encoder, SIZE))
    sides = (8, 16, 32)
    assert [tuple(t.shape) for t in out.features] == [(B, c, s, s) for c, s in zip((48, 32, 16), sides, strict=True)]
    for maps, channels in ((out.image, 3), (out.edge, 1), (out.segmentation, K)):
        assert [tuple(t.shape) for t in maps] == [(B, channels, s, s) for s in sides]
    assert all(t.abs().max() <= 1 for t in out.image)
    assert min(t.min() for t in (*out.edge, *out.segmentation)) < 0  # logits


def test_images_need_not_be_square() -> None:
    encoder = make()
    out = encoder(draw(B, encoder.options.channels_in, 32, 64), torch.ones(B, 1, 32, 64))
    assert [tuple(t.shape[-2:]) for t in out.image] == [(4, 8), (8, 16), (16, 32)]


# --- modalities -----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(("edge", "k", "channels"), [(True, 0, 6), (False, 3, 8), (False, 0, 4), (True, 3, 10)])
@pytest.mark.parametrize("fusion", FUSIONS)
def test_an_absent_modality_is_removed(edge: bool, k: int, channels: int, fusion: str) -> None:
    encoder = make(edge=edge, segmentation=k, fusion=fusion)
    out = encoder(*inputs(encoder))
    assert encoder.options.channels_in == channels == encoder.backbone.e1.conv.weight.shape[1]
    assert (out.edge is None, out.segmentation is None) == (not edge, not k)
    names = " ".join(name for name, _ in encoder.named_parameters())
    assert ("auxiliary.edge" in names, "auxiliary.segmentation" in names) == (edge, bool(k))
    total(out).backward()
    assert all(p.grad is not None for p in encoder.parameters())


# --- gradients ------------------------------------------------------------------------------------------------------


ROWS: list[dict[str, Any]] = [
    *({"fusion": fusion, "aux_source": source} for fusion in FUSIONS for source in ("feature", "pred", "hybrid")),
    *({"aux_source": "truth", "fusion": fusion} for fusion in ("gma+adn", "gma+spade", "concat")),
    *({"gma_gate": gate} for gate in ("post", "value", "none")),
    *({"bottleneck": kind, "matched": matched} for kind in ("res", "aot") for matched in (False, True)),
    {"acb_variant": "code"}, {"acb_tau": 0.2}, {"rates": (1, 2)}, {"n_blocks": 4}, {"norm": "bn"}, {"norm": "syncbn"},
    {"gated_stem": True}, {"ff_variant": "mmt"}, {"adn_order": "adn"}, {"dec_up": "convT"}, {"mask_down": "nearest"},
    {"patches": (2,)}, {"patches": (2, 2)},
]  # fmt: skip


@pytest.mark.parametrize("changes", ROWS, ids=lambda row: "-".join(str(v) for v in row.values()))
def test_every_row_trains_every_parameter(changes: dict[str, Any]) -> None:
    encoder = make(**changes)
    encoder.backbone.attention.gain.data.fill_(0.5)  # at zero the rest of self-attention waits for it
    total(encoder(*inputs(encoder), truth())).backward()
    without = [n for n, p in encoder.named_parameters() if p.grad is None or not p.grad.any()]
    # what the bias of a key adds to all scores of a query alike, the softmax takes away
    assert [n for n in without if not n.endswith("key.bias")] == []
    assert all(torch.isfinite(p.grad).all() for p in encoder.parameters())


def test_at_the_start_self_attention_waits_for_its_gain() -> None:
    encoder = make()
    total(encoder(*inputs(encoder))).backward()
    assert all(p.grad is not None for p in encoder.parameters())
    idle = {
        n.split(".")[2] for n, p in encoder.named_parameters() if not p.grad.any() and n[:19] == "backbone.attention."
    }
    assert idle == {"query", "key", "value", "out"}


# --- the decoder's wiring -------------------------------------------------------------------------------------------


def test_branches_read_x_of_the_stage_before() -> None:
    """The mutual decoder, stage by stage, from its own layers."""
    encoder = make()
    decoder, (x, M) = encoder.decoder, inputs(encoder)
    (h1, h2, h3), g = encoder.backbone(x)
    f = encoder.bottleneck(h3, g)
    out = decoder(f, (h1, h2, h3), M)
    x = e = s = f
    edge, segmentation = decoder.auxiliary["edge"], decoder.auxiliary["segmentation"]
    for k, h in enumerate((h3, h2, h1)):
        read = (h,) if k == 0 else (x, h)
        e, s = (
            F.leaky_relu(branch.layers[k](torch.cat([m, *read], 1)), 0.2)
            for branch, m in ((edge, e), (segmentation, s))
        )
        x = F.leaky_relu(decoder.norms[k](decoder.layers[k](torch.cat([x, h], 1))), 0.2)
        x = decoder.fusions[k].gma(x, torch.cat([e, s], 1), F.max_pool2d(M, M.shape[-1] // x.shape[-1]))
        torch.testing.assert_close(out.features[k], x)
        torch.testing.assert_close(out.image[k], decoder.heads[k](x).tanh())
        torch.testing.assert_close(out.edge[k], edge.heads[k](e))
        torch.testing.assert_close(out.segmentation[k], segmentation.heads[k](s))


@pytest.mark.parametrize("source", ["feature", "pred", "hybrid", "truth"])
def test_what_guides_the_inpainting_branch(source: str) -> None:
    encoder, seen = make(aux_source=source), []
    encoder.decoder.fusions[2].register_forward_pre_hook(lambda _, args: seen.append(args[1]))
    features = []
    for branch in encoder.decoder.auxiliary.values():
        branch.heads[2].register_forward_pre_hook(lambda _, args: features.append(args[0]))
    given = truth()
    out = encoder(*inputs(encoder), given)
    predictions = [out.edge[2].sigmoid(), out.segmentation[2].softmax(1)]
    complete = [F.max_pool2d(given.edge, 2), given.segmentation[:, :, ::2, ::2]]
    wanted = {"feature": features, "pred": predictions, "hybrid": features + predictions, "truth": complete}[source]
    torch.testing.assert_close(seen[0], torch.cat(wanted, 1))


def test_truth_must_be_given() -> None:
    encoder = make(aux_source="truth")
    for given, lacking in ((None, "edge"), (truth()._replace(segmentation=None), "segmentation")):
        with pytest.raises(UsageError, match=f"needs the complete {lacking}"):
            encoder(*inputs(encoder), given)


@pytest.mark.parametrize("name", FUSIONS)
def test_fusions(name: str) -> None:
    torch.manual_seed(0)
    fusion = Fusion(8, 5, EncoderOptions(fusion=name))
    x, a, M = draw(B, 8, 8, 8), draw(B, 5, 8, 8, seed=1), torch.zeros(B, 1, 8, 8)
    y = x
    if name == "gma+add":
        y = x + fusion.merge(a)
    elif name in ("gma+conv", "concat"):
        assert [type(layer) for layer in fusion.merge].count(nn.Conv2d) == (2 if name == "gma+conv" else 1)
        y = fusion.merge(torch.cat([x, a], 1))
    elif name in ("adain", "spade"):
        y = fusion.denorm(x, fusion.denorm.context(a))
    if name.startswith("gma+"):
        kinds = {"adn": "ADN", "adain": "AdaIN", "spade": "SPADE", "add": "Layer", "conv": "Layer"}
        assert type(fusion.gma.denorm).__name__ == kinds[name.removeprefix("gma+")]
        y = fusion.gma(y, a, M)
    else:
        assert fusion.gma is None
    torch.testing.assert_close(fusion(x, a, M), y)
    assert torch.equal(fusion(x, a, M), fusion(x, a + 1, M)) == (name == "none")


def test_thin_strokes_stay_in_smaller_masks() -> None:
    M = torch.zeros(1, 1, 16, 16)
    M[..., 5] = 1
    assert smaller_mask(M, (4, 4)).sum() == 4
    assert smaller_mask(M, (4, 4), "nearest").sum() == 0
    assert torch.equal(smaller_mask(M, (4, 4)), F.max_pool2d(M, 4))


def test_enlarging_layers_double_the_size() -> None:
    x = draw(B, 3, 4, 6)
    layer = enlarge("nearest_conv", 3, 2)
    torch.testing.assert_close(layer(x), layer[1](x.repeat_interleave(2, 2).repeat_interleave(2, 3)))
    assert enlarge("convT", 3, 2)(x).shape == (B, 2, 8, 12)


# --- the backbone ---------------------------------------------------------------------------------------------------


def test_self_attention_formula_and_its_start() -> None:
    torch.manual_seed(0)
    layer, x = backbones.SelfAttention(16), draw(B, 16, 3, 5)
    assert torch.equal(layer(x), x)
    layer.gain.data.fill_(0.7)
    q, k, v = (f(x).flatten(2) for f in (layer.query, layer.key, layer.value))
    assert (q.shape[1], v.shape[1]) == (2, 8)
    y = v @ torch.einsum("bci,bcj->bij", q, k).softmax(2).mT
    torch.testing.assert_close(layer(x), x + 0.7 * layer.out(y.view(B, 8, 3, 5)), rtol=1e-5, atol=1e-5)


def test_gated_tail_formulas() -> None:
    x = draw(B, 4, 6, 6)
    paper, code = backbones.Tail(4, "paper", "gn"), backbones.Tail(4, "code", "gn")
    f, g = paper(x)
    torch.testing.assert_close(g, paper.gate(x).sigmoid())
    torch.testing.assert_close(f, F.leaky_relu(paper.conv(x), 0.2) * g)
    f, g = code(x)
    torch.testing.assert_close(f, F.leaky_relu(code.norm(code.conv(x) * g), 0.2))
    torch.testing.assert_close(g, code.gate(x).sigmoid())


def test_blocks_and_norms() -> None:
    x = draw(B, 3, 6, 6)
    block = backbones.Block(3, 12, 3, 2, "gn", gated=True)
    assert block.norm.num_groups == 4  # eight do not divide twelve
    assert backbones.make_norm("gn", 64).num_groups == 8
    torch.testing.assert_close(block(x), block.norm(block.conv(x)).relu() * block.gate(x).sigmoid())
    with pytest.raises(UsageError, match="unknown norm 'gb'"):
        backbones.make_norm("gb", 4)


@pytest.mark.parametrize(
    ("kind", "plain"), [("gn", nn.GroupNorm), ("bn", nn.BatchNorm2d), ("syncbn", nn.SyncBatchNorm)]
)
def test_norms_are_float_under_autocast(kind: str, plain: type[nn.Module], monkeypatch: pytest.MonkeyPatch) -> None:
    compute, seen = plain.forward, []

    def record(self: nn.Module, x: Tensor) -> Tensor:
        seen.append((x.dtype, torch.is_autocast_enabled("cpu")))
        return compute(self, x)

    monkeypatch.setattr(plain, "forward", record)
    norm, x = backbones.make_norm(kind, 8), (512 + 2 * draw(4, 8, 6, 6).round()).bfloat16()
    with torch.autocast("cpu", torch.bfloat16):
        half = norm(x)
    assert (half.dtype, seen) == (torch.bfloat16, [(torch.float32, False)])
    torch.testing.assert_close(half.float(), norm(x.float()), rtol=0.01, atol=0.01)


# --- the whole ------------------------------------------------------------------------------------------------------


def test_autocast_memory_format_and_batch_change_nothing() -> None:
    encoder = make(NANO)
    x, M = inputs(encoder, SIZE)
    with torch.no_grad():
        exact = encoder(x, M)
        last = encoder(x.to(memory_format=torch.channels_last), M.to(memory_format=torch.channels_last))
        views = encoder(x.mT.contiguous().mT, M.mT.contiguous().mT)
        alone = encoder(x[1:], M[1:])
        with torch.autocast("cpu", torch.bfloat16):
            half = encoder(x, M)
    for k in range(3):
        for other in (last, views):
            torch.testing.assert_close(other.features[k], exact.features[k], rtol=1e-3, atol=1e-4)
        torch.testing.assert_close(alone.features[k], exact.features[k][1:], rtol=1e-3, atol=1e-4)
        assert (half.image[k] - exact.image[k]).abs().mean() < 0.03


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ({"fusion": "gma+and"}, "did you mean 'gma\\+adn'"),
        ({"aux_source": "features"}, "did you mean 'feature'"),
        ({"mask_down": "min"}, "unknown mask_down"),
        ({"dec_up": "conv"}, "unknown dec_up"),
        ({"norm": "ln"}, "unknown norm"),
        ({"acb_variant": "papers"}, "unknown acb_variant"),
    ],
)
def test_unknown_options_are_usage_errors(changes: dict[str, Any], said: str) -> None:
    with pytest.raises(UsageError, match=said):
        make(**changes)


def test_wrong_inputs_are_usage_errors() -> None:
    encoder = make()
    x, M = inputs(encoder)
    with pytest.raises(UsageError, match="given 9 channels, but is made for 10"):
        encoder(x[:, 1:], M)
    with pytest.raises(UsageError, match="32x24 pixels are no multiple of 32"):
        encoder(x[..., :24], M[..., :24])
