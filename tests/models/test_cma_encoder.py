"""The vision-and-language encoder of CMA: the order of patches, [Vmask], positions, padding."""

from __future__ import annotations

from typing import Any

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor

from zoo.errors import UsageError
from zoo.models.cma.encoder import RULES, EncoderOptions, VisionLanguageEncoder, masked_patches
from zoo.words import Tokens, WordTokenizer

SIZES: dict[str, Any] = {
    "patch": 8, "table": 4, "hidden": 16, "layers": 2, "heads": 2, "intermediate": 32, "init_std": 0.3
}  # fmt: skip
WORDS = ["a", "red", "circle", "square", "blue"]


def make(**changes: Any) -> VisionLanguageEncoder:
    torch.manual_seed(0)
    return VisionLanguageEncoder(len(WORDS) + 4, EncoderOptions(**{**SIZES, **changes}))


def tokens(*captions: str, length: int = 40) -> Tokens:
    return WordTokenizer(WORDS, length)(captions or ("a red circle", "a blue square red"))


def image(height: int = 32, width: int = 32, batch: int = 2) -> Tensor:
    return torch.rand(batch, 3, height, width, generator=torch.Generator().manual_seed(1)) * 2 - 1


def nothing(height: int = 32, width: int = 32, batch: int = 2) -> Tensor:
    return torch.zeros(batch, height // 8 * (width // 8))


# --- the order of patches ---------------------------------------------------------------------------------------------


@pytest.mark.parametrize(("height", "width"), [(32, 32), (16, 40)])
def test_c6_each_cell_of_the_grid_is_made_of_its_own_pixels(height: int, width: int) -> None:
    """Without transformer layers a cell sees nothing else; transformers' own pixel path puts patches in any order."""
    encoder, x = make(layers=0), image(height, width).requires_grad_(True)
    patches = encoder(x, nothing(height, width), tokens()).patches
    rows, columns = height // 8, width // 8
    assert patches.shape == (2, rows * columns, 16)
    for cell in range(rows * columns):
        (grad,) = torch.autograd.grad(patches[0, cell].square().sum(), x, retain_graph=True)
        reached = F.max_pool2d(grad.abs().sum(1, keepdim=True), 8)[:, 0] > 0
        expected = torch.zeros(2, rows, columns, dtype=torch.bool)
        expected[0, cell // columns, cell % columns] = True
        assert torch.equal(reached, expected)


def test_c6_repeated_calls_agree_to_the_bit() -> None:
    encoder, x = make(), image()
    first, second = (encoder(x, nothing(), tokens()) for _ in range(2))
    assert torch.equal(first.text, second.text)
    assert torch.equal(first.patches, second.patches)


@pytest.mark.parametrize(("height", "width"), [(32, 32), (16, 40), (48, 24)])
def test_patches_are_those_of_transformers_which_puts_them_in_any_order(height: int, width: int) -> None:
    encoder, x, said = make().eval(), image(height, width), tokens()
    ours = encoder(x, nothing(height, width), said)
    seen = torch.ones(2, height, width, dtype=torch.long)
    with torch.no_grad():
        theirs = encoder.vilt(
            input_ids=said.ids, attention_mask=said.known.long(), pixel_values=x, pixel_mask=seen
        ).last_hidden_state
    torch.testing.assert_close(ours.text, theirs[:, :40], atol=5e-6, rtol=0.0)
    patches = theirs[:, 41:]
    assert (ours.patches - patches).abs().max() > 0.1  # not in this order
    distances = torch.cdist(ours.patches.double(), patches.double())
    nearest = distances.argmin(2)
    assert all(sorted(row.tolist()) == list(range(patches.shape[1])) for row in nearest)
    assert distances.amin(2).max() < 2e-5  # of sixteen channels together


@pytest.mark.parametrize(("height", "width"), [(4, 4), (2, 5), (8, 8), (1, 1)])
def test_positions_are_interpolated_between_the_corners_of_the_table(height: int, width: int) -> None:
    encoder = make()
    table = encoder.vilt.embeddings.position_embeddings[0].detach()
    made = encoder._positions(height, width)[0].detach()
    assert torch.equal(made[0], table[0])  # the image's [CLS] has a place of its own
    grid = table[1:].view(4, 4, 16)

    def between(at: float, line: Tensor) -> Tensor:
        low = min(int(at), 2)
        return line[low] + (at - low) * (line[low + 1] - line[low])

    for r in range(height):
        for c in range(width):
            y, x = (3 * r / (height - 1) if height > 1 else 0.0), (3 * c / (width - 1) if width > 1 else 0.0)
            expected = between(x, between(y, grid))
            torch.testing.assert_close(made[1 + r * width + c], expected, atol=1e-5, rtol=1e-5)


def test_the_output_holds_the_captions_then_the_patches_and_no_class_token() -> None:
    encoder, x, said = make(), image(), tokens("red", "a blue square", length=7)
    out = encoder(x, nothing(), said)
    assert (out.text.shape, out.patches.shape) == ((2, 7, 16), (2, 16, 16))
    with torch.no_grad():
        whole = encoder.vilt(
            input_ids=said.ids, attention_mask=said.known.long(), image_embeds=encoder.embed(x, nothing()),
            pixel_mask=torch.ones(2, 17, dtype=torch.long),
        ).last_hidden_state  # fmt: skip
    assert whole.shape[1] == 7 + 1 + 16
    torch.testing.assert_close(torch.cat([out.text, whole[:, 7:8], out.patches], 1), whole)


# --- [Vmask] ----------------------------------------------------------------------------------------------------------


def centre(side: int, size: int = 256) -> Tensor:
    start = (size - side) // 2
    mask = torch.zeros(1, 1, size, size)
    mask[..., start : start + side, start : start + side] = 1
    return mask


@pytest.mark.parametrize(
    ("side", "rule", "count"),
    [(128, rule, 16) for rule in RULES] + [(181, "any", 36), (181, "all", 16), (0, "any", 0), (256, "all", 64)],
)
def test_c7_how_many_patches_are_masked(side: int, rule: str, count: int) -> None:
    share = masked_patches(centre(side), 32, rule)
    assert share.shape == (1, 64)
    assert share.sum() == count
    assert ((share == 0) | (share == 1)).all()


def test_c7_partly_masked_patches_by_rule() -> None:
    mask = torch.zeros(1, 1, 16, 24)
    mask[..., :8, :8] = 1  # whole
    mask[..., 0, 8] = 1  # a pixel
    mask[..., :4, 16:] = 1  # exactly half
    mask[..., 8:13, 8:16] = 1  # five eighths
    expected = {
        "any": [1, 1, 1, 0, 1, 0], "all": [1, 0, 0, 0, 0, 0], "majority": [1, 0, 1, 0, 1, 0],
        "soft": [1, 1 / 64, 0.5, 0, 0.625, 0],
    }  # fmt: skip
    assert set(expected) == set(RULES)
    for rule, values in expected.items():
        torch.testing.assert_close(masked_patches(mask, 8, rule)[0], torch.tensor(values, dtype=torch.float32))
    with pytest.raises(UsageError, match="'some'") as caught:
        masked_patches(mask, 8, "some")
    assert all(rule in str(caught.value) for rule in RULES)


def test_c5_a_masked_patch_is_the_token_at_its_place_whatever_its_pixels_are() -> None:
    encoder, x = make(), image()
    masked = nothing()
    masked[0, 5], masked[1, 2], masked[1, 3] = 1, 1, 0.25
    made, plain = encoder.embed(x, masked), encoder.embed(x, nothing())
    place = encoder.vilt.embeddings.position_embeddings[0]
    assert torch.equal(made[0, 6], encoder.v_mask + place[6])
    blend = 0.75 * (plain[1, 4] - place[4]) + 0.25 * encoder.v_mask + place[4]
    torch.testing.assert_close(made[1, 4], blend)
    others = (masked == 0)[..., None].expand(-1, -1, 16)
    assert torch.equal(made[:, 1:][others], plain[:, 1:][others])
    assert torch.equal(made[:, 0], plain[:, 0])
    changed = x.clone()
    changed[0, :, 8:16, 8:16] = 100.0  # row 1, column 1: patch 5
    one, two = encoder(x, masked, tokens()), encoder(changed, masked, tokens())
    assert torch.equal(one.patches, two.patches)
    assert torch.equal(one.text, two.text)


def test_a_patch_is_its_projected_pixels_at_its_place() -> None:
    encoder, x = make(), image(16, 24)
    made = encoder.embed(x, nothing(16, 24))
    projection: Any = encoder.vilt.embeddings.patch_embeddings.projection
    place = encoder._positions(2, 3)[0]
    for k in range(6):
        pixels = x[:, :, k // 3 * 8 : k // 3 * 8 + 8, k % 3 * 8 : k % 3 * 8 + 8]
        expected = pixels.flatten(1) @ projection.weight.flatten(1).T + projection.bias + place[1 + k]
        torch.testing.assert_close(made[:, 1 + k], expected)


def test_masked_patches_are_attended_to() -> None:
    encoder, x, masked = make(), image(), nothing()
    masked[:, 5] = 1
    before = encoder(x, masked, tokens())
    with torch.no_grad():
        encoder.v_mask.neg_()
    after = encoder(x, masked, tokens())
    assert (after.patches - before.patches)[:, 0].abs().max() > 1e-3
    assert (after.text - before.text).abs().max() > 1e-3


# --- captions ---------------------------------------------------------------------------------------------------------


def test_c2_what_stands_at_padding_changes_nothing() -> None:
    encoder, x, said = make(), image(), tokens()
    other = said._replace(ids=torch.where(said.known, said.ids, torch.randint(1, 9, said.ids.shape)))
    assert not torch.equal(said.ids, other.ids)
    one, two = encoder(x, nothing(), said), encoder(x, nothing(), other)
    torch.testing.assert_close(one.patches, two.patches, atol=1e-5, rtol=0.0)
    torch.testing.assert_close(one.text[said.known], two.text[said.known], atol=1e-5, rtol=0.0)


def test_captions_and_images_see_each_other() -> None:
    encoder, x = make(), image()
    before = encoder(x, nothing(), tokens())
    assert (encoder(x, nothing(), tokens("blue", "blue")).patches - before.patches).abs().max() > 1e-3
    assert (encoder(-x, nothing(), tokens()).text - before.text).abs().max() > 1e-3


def test_a_sample_does_not_depend_on_its_batch() -> None:
    encoder, x, masked = make(), image(), nothing()
    masked[0, 3] = 1
    together = encoder(x, masked, tokens())
    alone = encoder(x[1:], masked[1:], tokens("a blue square red"))
    torch.testing.assert_close(together.patches[1:], alone.patches, atol=1e-5, rtol=0.0)
    torch.testing.assert_close(together.text[1:], alone.text, atol=1e-5, rtol=0.0)


# --- its parameters ---------------------------------------------------------------------------------------------------


def test_every_parameter_is_used() -> None:
    encoder, masked = make().double(), nothing()
    masked[:, 3] = 1
    said = tokens("a red circle square blue nonsense", "a")
    out = encoder(image().double(), masked, said)
    (out.text[said.known].square().sum() + out.patches.pow(3).sum()).backward()
    # Softmax does not feel what is added to all keys alike: their bias has rounding for a gradient.
    used = [n for n, p in encoder.named_parameters() if p.grad is not None and p.grad.abs().max() > 1e-9]
    assert sorted(used) == sorted(n for n, _ in encoder.named_parameters() if not n.endswith("attention.key.bias"))
    assert encoder.vilt.pooler is None


def test_there_is_no_dropout() -> None:
    encoder, x = make(), image()
    trained, evaluated = encoder.train()(x, nothing(), tokens()), encoder.eval()(x, nothing(), tokens())
    assert torch.equal(trained.patches, evaluated.patches)


def test_random_weights_have_the_spread_they_are_given() -> None:
    for std in (0.02, 0.3):
        encoder = make(hidden=128, heads=4, init_std=std)
        embeddings = encoder.vilt.embeddings
        for table in (encoder.v_mask, embeddings.cls_token, embeddings.position_embeddings):
            assert table.std().item() == pytest.approx(std, rel=0.35)
        words = embeddings.text_embeddings.word_embeddings.weight
        assert words[1:].std().item() == pytest.approx(std, rel=0.2)
        assert words.shape == (len(WORDS) + 4, 128)


def test_it_runs_in_low_precision() -> None:
    encoder, x = make(), image()
    exact = encoder(x, nothing(), tokens())
    with torch.autocast("cpu", torch.bfloat16):
        rough = encoder(x, nothing(), tokens())
    torch.testing.assert_close(rough.patches.float(), exact.patches, atol=0.2, rtol=0.0)
