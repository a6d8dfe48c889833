"""Stop texts: a completion ends with the token that completes one of them."""

from __future__ import annotations

from collections.abc import Sequence

import torch

from selftrain.policies.torch.text import BROKEN, TextDecoder


class StopTexts:
    """Looks only at sequences whose newest token could complete a stop text, and there only at the last tokens."""

    def __init__(self, stops: Sequence[str], text: TextDecoder) -> None:
        self.stops, self.text = tuple(stops), text
        self.last_characters = {stop[-1] for stop in stops}
        self.window_tokens = 4 * max(len(stop) for stop in stops) + 8
        self._may_end: dict[int, bool] = {}

    def hits(self, tokens_ST: torch.Tensor, sequences_B: torch.Tensor, lengths_B: torch.Tensor, open_B: torch.Tensor) -> torch.Tensor:
        """For each of B sequences whether its text now contains a stop text. Sequence i has lengths_B[i] tokens in row sequences_B[i]; only open ones count."""
        found_B = torch.zeros_like(open_B)
        newest = tokens_ST[sequences_B, (lengths_B - 1).clamp(min=0)].tolist()
        wanted = [row for row, (token, is_open) in enumerate(zip(newest, open_B.tolist(), strict=True)) if is_open and self.may_end(token)]
        places, lengths = sequences_B.tolist(), lengths_B.tolist()
        for row in wanted:
            ids = tokens_ST[places[row], max(0, lengths[row] - self.window_tokens) : lengths[row]].tolist()
            found_B[row] = any(stop in self.text.decode(ids) for stop in self.stops)
        return found_B

    def may_end(self, token: int) -> bool:
        """Whether a stop text's last character can come from this token."""
        known = self._may_end.get(token)
        if known is None:
            piece = self.text.piece(token)
            known = self._may_end[token] = not piece or BROKEN in piece or any(character in piece for character in self.last_characters)
        return known
