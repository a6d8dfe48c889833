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

    def hits(self, tokens_TB: torch.Tensor, active_B: torch.Tensor) -> torch.Tensor:
        """For each of B sequences with T tokens so far: whether its text now contains a stop text."""
        found_B = torch.zeros_like(active_B)
        rows = [row for row, token in enumerate(tokens_TB[-1].tolist()) if self.may_end(token)]
        for row in rows:
            ids = tokens_TB[-self.window_tokens :, row].tolist()
            found_B[row] = any(stop in self.text.decode(ids) for stop in self.stops)
        return found_B & active_B

    def may_end(self, token: int) -> bool:
        """Whether a stop text's last character can come from this token."""
        known = self._may_end.get(token)
        if known is None:
            piece = self.text.piece(token)
            known = self._may_end[token] = not piece or BROKEN in piece or any(character in piece for character in self.last_characters)
        return known
