"""From token ids to text, and the character offset at which each token ends."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import accumulate
from typing import Any

BROKEN = "\N{REPLACEMENT CHARACTER}"


class TextDecoder:
    """Decodes completions; special tokens add no text. Pieces of single tokens are remembered, so a step costs one decode a completion."""

    def __init__(self, tokenizer: Any) -> None:
        self.tokenizer = tokenizer
        self._anchor = self._find_anchor()
        self._first: dict[int, str] = {}
        self._later: dict[int, str] = {}

    def decode(self, ids: Sequence[int]) -> str:
        return str(self.tokenizer.decode(list(ids), skip_special_tokens=True, clean_up_tokenization_spaces=False))

    def special_ids(self, texts: Sequence[str]) -> set[int]:
        """Special tokens that are written like one of these texts: they never appear in what is decoded."""
        added = self.tokenizer.added_tokens_decoder if texts else {}
        return {token for token, one in added.items() if one.special and one.content in texts}

    def decode_with_ends(self, ids: Sequence[int]) -> tuple[str, tuple[int, ...]]:
        """The text of T tokens, and T offsets: characters of `text` that are complete once a token is read. The last offset is len(text)."""
        text = self.decode(ids)
        pieces = [self.piece(token, is_first=not at) for at, token in enumerate(ids)]
        if "".join(pieces) == text:
            return text, tuple(accumulate(len(piece) for piece in pieces))
        return text, self._exact_ends(ids, text)

    def piece(self, token: int, is_first: bool = False) -> str:
        """The text of one token at the start of a completion or inside it (some tokenizers drop the space of a first word)."""
        known = self._first if is_first else self._later
        found = known.get(token)
        if found is None:
            found = self.decode((token,)) if is_first else self.decode((*self._anchor, token)).removeprefix(self.decode(self._anchor))
            known[token] = found
        return found

    def _exact_ends(self, ids: Sequence[int], text: str) -> tuple[int, ...]:
        """Decode growing prefixes: what a prefix shares with the text is complete. For characters of several tokens, such as emoji in byte-level BPE."""
        windowed = self._windowed_ends(ids, text)
        if windowed is not None:
            return windowed
        ends = [shared_length(self.decode(ids[: count + 1]), text) for count in range(len(ids))]
        ends[-1] = len(text)
        return tuple(accumulate(ends, max))

    def _windowed_ends(self, ids: Sequence[int], text: str) -> tuple[int, ...] | None:
        """The same in linear time: only a window of tokens is decoded anew. None where its pieces do not make up the text."""
        ends, total = [], 0
        begin, read = 0, 0  # tokens [begin, read) are the context of the next piece
        for at in range(len(ids)):
            context = self.decode(ids[begin:read])
            piece = self.decode(ids[begin : at + 1])[len(context) :]
            if piece and not piece.endswith(BROKEN):
                if text[total : total + len(piece)] != piece:
                    return None
                total += len(piece)
                begin, read = read, at + 1
            ends.append(total)
        rest = self.decode(ids[begin:])[len(self.decode(ids[begin:read])) :]
        if text[total:] != rest:
            return None
        ends[-1] = len(text)
        return tuple(ends)

    def _find_anchor(self) -> tuple[int, ...]:
        """A token with plain text to stand in front of others; none if the tokenizer has no such token."""
        for token in range(len(self.tokenizer)):
            if self.decode((token,)).isalnum():
                return (token,)
        return ()


def shared_length(left: str, right: str) -> int:
    """How many first characters are the same."""
    return next((at for at, (a, b) in enumerate(zip(left, right, strict=False)) if a != b), min(len(left), len(right)))
