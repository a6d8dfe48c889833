"""Text and token offsets: right for characters of several tokens, dropped spaces and special tokens."""

from __future__ import annotations

from typing import Any

import pytest
from tokenizers import Tokenizer, decoders, models, pre_tokenizers
from torch_models import character_tokenizer
from transformers import PreTrainedTokenizerFast

from selftrain.policies.torch.text import TextDecoder


def byte_tokenizer() -> Any:
    """Byte-level BPE without merges, as GPT-2's and Qwen's: one token a byte."""
    alphabet = sorted(pre_tokenizers.ByteLevel.alphabet())
    tokenizer = Tokenizer(models.BPE(vocab={"<end>": 0} | {character: at for at, character in enumerate(alphabet, start=1)}, merges=[]))
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False)
    tokenizer.decoder = decoders.ByteLevel()
    return PreTrainedTokenizerFast(tokenizer_object=tokenizer, eos_token="<end>")


def word_tokenizer() -> Any:
    """SentencePiece style, as Llama 2's: spaces belong to the word after them and the first one is dropped."""
    vocabulary = {"<end>": 0, "<unk>": 1, "▁so": 2, "▁12": 3, "3": 4, "▁": 5, "é": 6}
    tokenizer = Tokenizer(models.WordLevel(vocabulary, unk_token="<unk>"))
    tokenizer.decoder = decoders.Metaspace(prepend_scheme="first")
    return PreTrainedTokenizerFast(tokenizer_object=tokenizer, eos_token="<end>", unk_token="<unk>")


def ids_of(text: str) -> list[int]:
    return [int(at) for at in byte_tokenizer().encode(text)]


@pytest.mark.parametrize(
    ("text", "ends"),
    [
        ("12", (1, 2)),
        ("é=", (0, 1, 2)),
        ("a\N{SNOWMAN}b", (1, 1, 1, 2, 3)),
        ("\N{GRINNING FACE}\N{GRINNING FACE}", (0, 0, 0, 1, 1, 1, 1, 2)),
    ],
)
def test_a_character_ends_with_its_last_byte(text: str, ends: tuple[int, ...]) -> None:
    assert TextDecoder(byte_tokenizer()).decode_with_ends(ids_of(text)) == (text, ends)


def test_end_tokens_add_no_text() -> None:
    assert TextDecoder(byte_tokenizer()).decode_with_ends([*ids_of("é1"), 0]) == ("é1", (0, 1, 2, 2))
    assert TextDecoder(character_tokenizer()).decode_with_ends([4, 5, 2]) == ("01", (1, 2, 2))
    assert TextDecoder(byte_tokenizer()).decode_with_ends([0]) == ("", (0,))
    assert TextDecoder(byte_tokenizer()).decode_with_ends([*ids_of("1"), 999]) == ("1", (1, 1))  # a row of the head that has no token


def test_broken_bytes_keep_the_offsets_inside_the_text() -> None:
    ids = [ids_of("é")[0], *ids_of("a"), ids_of("é")[0]]
    text, ends = TextDecoder(byte_tokenizer()).decode_with_ends(ids)
    assert text == "�a�"
    assert ends[1:] == (2, 3)


def test_a_dropped_first_space_shifts_no_offset() -> None:
    decoder = TextDecoder(word_tokenizer())
    assert decoder.decode_with_ends([2, 3, 4, 5, 6, 0]) == ("so 123 é", (2, 5, 6, 7, 8, 8))
    assert decoder.decode_with_ends([4, 2]) == ("3 so", (1, 4))


def test_the_slow_ways_agree_with_the_fast_one() -> None:
    decoder = TextDecoder(byte_tokenizer())
    text = "so 5+7=12, née \N{GRINNING FACE}: 12"
    ids = ids_of(text)
    exact = decoder.decode_with_ends(ids)[1]
    decoder._windowed_ends = lambda ids, text: None  # type: ignore[method-assign]
    assert decoder.decode_with_ends(ids)[1] == exact
    assert exact[-1] == len(text)
