"""Captions for ECDM: empty prompts, cutting, both tokenizers, and sizes that must fit."""

from __future__ import annotations

import logging
from pathlib import Path

import pytest
import torch
from transformers import CLIPTextConfig, CLIPTextModel

from tests.fakes_stable_diffusion import IDS, LENGTH, save_tokenizer
from zoo.errors import UsageError
from zoo.models.ecdm import hub
from zoo.models.ecdm.text import ClipPrompts, PromptEncoder, WordPrompts, drop_prompts, word_encoder

WORDS = ["a", "red", "square", "on", "blue", "background"]


def test_words_stand_between_start_and_end_and_an_empty_prompt_is_just_those() -> None:
    ids, rest = WordPrompts(WORDS, 7)(["a red square", "", " \n", "a sphere"])
    assert ids.tolist() == [
        [2, 4, 5, 6, 3, 0, 0],
        [2, 3, 0, 0, 0, 0, 0],
        [2, 3, 0, 0, 0, 0, 0],
        [2, 4, 1, 3, 0, 0, 0],
    ]
    assert rest == ["", "", "", ""]


def test_the_nano_encoder_has_the_specified_size() -> None:
    encoder = word_encoder([f"w{i}" for i in range(124)], length=16)  # with four special ones 128 ids
    assert sum(p.numel() for p in encoder.parameters()) == 76_288
    assert encoder(["w1 w2", ""]).shape == (2, 16, 64)


def test_it_gives_the_last_state_after_the_final_norm_one_by_one_as_in_a_batch() -> None:
    torch.manual_seed(0)
    encoder = word_encoder(WORDS, length=8, width=16, heads=2).eval()
    captions = ["a red square", "", "a blue square on a red background"]
    with torch.no_grad():
        together = encoder(captions)
        assert torch.allclose(together, torch.cat([encoder([caption]) for caption in captions]), atol=1e-6)
        with torch.autocast("cpu", dtype=torch.bfloat16):
            assert torch.equal(encoder(captions), together)
    assert torch.allclose(together.mean(-1), torch.zeros(3, 8), atol=1e-5)  # a fresh norm has weight 1 and bias 0
    assert not torch.allclose(together[0], together[1])


def test_the_encoder_can_be_trained() -> None:
    encoder = word_encoder(WORDS, length=8, width=16, heads=2)
    encoder(["a red square"])[..., 0].sum().backward()
    assert all(p.grad is not None for p in encoder.parameters())


def test_a_caption_of_200_words_is_cut_and_the_tail_is_said_once(caplog: pytest.LogCaptureFixture) -> None:
    encoder = word_encoder(WORDS, length=8, width=16, heads=2).eval()
    long = " ".join(["a red square"] * 66 + ["on background"])
    with caplog.at_level(logging.WARNING), torch.no_grad():
        states = encoder(["a", long])
        encoder([long])
    assert states.isfinite().all()
    assert len(caplog.records) == 1
    assert "8 tokens" in caplog.text
    assert "a red square a red square" in caplog.text
    ids, rest = encoder.tokenizer([long])
    assert ids[0].tolist() == [2, 4, 5, 6, 4, 5, 6, 3]
    assert rest[0].split() == long.split()[6:]


def test_clips_own_tokenizer_is_cut_row_by_row(tmp_path: Path) -> None:
    save_tokenizer(tmp_path / "tokenizer")
    tokenizer = ClipPrompts(hub.load_tokenizer(str(tmp_path), ids=IDS, length=LENGTH))
    ids, rest = tokenizer(["red a", "", "abc def ghi jkl mno pqr stu", "red", "abcdefghij"])
    start, end = IDS - 2, IDS - 1
    assert ids.shape == (5, LENGTH)
    assert ids[0].tolist() == [start, 53, 26] + [end] * 9
    assert ids[1].tolist() == [start] + [end] * 11
    assert ids[2, 0] == start
    assert ids[2, -1] == end
    assert (ids[2, 1:-1] < 52).all()
    assert ids[3].tolist() == [start, 53] + [end] * 10
    assert (ids[4, 1:-1] < 52).all()
    assert rest[0] == rest[1] == rest[3] == rest[4] == ""  # the last one fits exactly
    assert rest[2].replace(" ", "") == "jklmnopqrstu"[1:]


def test_a_tokenizer_larger_than_its_encoder_is_refused() -> None:
    config = CLIPTextConfig(
        vocab_size=8, hidden_size=8, intermediate_size=8, num_hidden_layers=1, num_attention_heads=1,
        max_position_embeddings=8, bos_token_id=2, eos_token_id=3, pad_token_id=0,
    )  # fmt: skip
    model = CLIPTextModel(config)
    with pytest.raises(UsageError, match="10 ids and captions of 8, the text encoder 8 and 8"):
        PromptEncoder(model, WordPrompts(WORDS, 8))
    with pytest.raises(UsageError, match="captions of 9"):
        PromptEncoder(model, WordPrompts(WORDS[:4], 9))


@pytest.mark.parametrize("sizes", [{"width": 10, "heads": 4}, {"layers": 0}, {"heads": 0}])
def test_impossible_sizes_are_refused(sizes: dict[str, int]) -> None:
    with pytest.raises(UsageError, match="heads must divide"):
        word_encoder(WORDS, **sizes)


def test_dropping_every_prompt_is_all_empty_and_none_is_none() -> None:
    captions, draws = ["a", "b", "c"], torch.tensor([0.0, 0.5, 0.999])
    assert drop_prompts(captions, 1.0, draws) == ["", "", ""]
    assert drop_prompts(captions, 0.0, draws) == captions
    assert drop_prompts(captions, 0.6, draws) == ["", "", "c"]
    with pytest.raises(UsageError, match="share"):
        drop_prompts(captions, 1.5, draws)
