"""The decode loop: sequences side by side in rows; finished ones leave, waiting ones enter, until none is left.

A chunk is what enters together: votes of one prompt. Its prompt is run once, its keys lie in a slot, and each of its sequences has a place there. S: all
sequences to be drawn; R: rows; A: rows in use, always the first ones.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import NamedTuple

import torch

from selftrain.policies.base import SamplingParams
from selftrain.policies.torch.attention import Decoding, decoding_masks
from selftrain.policies.torch.cache import DecodingCache, prompt_cache
from selftrain.policies.torch.draw import draw
from selftrain.policies.torch.forward import Forward
from selftrain.policies.torch.stops import StopTexts

LEAVE_SHARE = 0.97
"""Finished sequences leave once at most this share of the rows is still being sampled: leaving copies one row of the cache for each."""
ENTER_SHARE = 0.9
"""Waiting chunks enter once at most this share of the rows is in use, so that their prompts are run several at a time."""
DONE_EVERY = {"cpu": 1, "cuda": 8}
"""Steps between two looks at who is done; on a GPU a look makes it wait."""


class Chunk(NamedTuple):
    """Sequences first, first + 1, ... first + size - 1 go on from these prompt tokens."""

    prompt_ids: tuple[int, ...]
    first: int
    size: int


@dataclass(frozen=True, slots=True)
class Plan:
    """What is to be drawn. uniforms_ST: float64, one number a token. limits_S: new tokens at most. rows: sequences side by side at most."""

    chunks: Sequence[Chunk]
    uniforms_ST: torch.Tensor
    limits_S: torch.Tensor
    rows: int


class Drawn(NamedTuple):
    """What was drawn for S sequences, valid up to lengths_S: tokens, log-probabilities, entropies, certainties [S, T]; whether a stop ended it."""

    tokens_ST: list[list[int]]
    logprobs_ST: list[list[float]]
    entropies_ST: list[list[float]]
    certainties_ST: list[list[float]]
    lengths_S: list[int]
    stopped_S: list[bool]


class Decoder:
    """One pass over a plan. `ended` is called with the indices of sequences that left, so that their texts can be read meanwhile."""

    def __init__(self, forward: Forward, params: SamplingParams, plan: Plan, stop_ids: Sequence[int], stop_texts: StopTexts | None) -> None:
        self.forward, self.params, self.plan, self.stop_texts = forward, params, plan, stop_texts
        device, (total, columns) = forward.device, plan.uniforms_ST.shape
        self.stop_ids = torch.tensor(stop_ids, device=device, dtype=torch.int64)
        self.uniforms_ST, self.limits_S = plan.uniforms_ST.to(device), plan.limits_S.to(device)
        self.tokens_ST = torch.zeros((total, columns), dtype=torch.int64, device=device)
        self.logprobs_ST = torch.zeros((total, columns), device=device)
        self.entropies_ST = torch.zeros((total, columns), device=device)
        self.certainties_ST = torch.zeros((total, columns if params.certainties and params.temperature > 0 else 0), device=device)
        self.lengths_S = torch.zeros(total, dtype=torch.int64, device=device)
        self.stopped_S = torch.zeros(total, dtype=torch.bool, device=device)
        self.places = max(chunk.size for chunk in plan.chunks)
        self.slots = max(1, min(len(plan.chunks), plan.rows // min(chunk.size for chunk in plan.chunks)))
        self.prompt_width = max(len(chunk.prompt_ids) for chunk in plan.chunks)
        self.prompt_lengths = torch.zeros(self.slots, dtype=torch.int64, device=device)
        self.cache = DecodingCache(forward.config)
        self.kinds = sorted({layer.is_sliding for layer in self.cache.layers})
        # of each row: its sequence, place (slot * places + place in it), newest token, tokens drawn, whether it is done
        self.state = torch.zeros((5, plan.rows), dtype=torch.int64, device=device)
        self.most_columns = int(plan.limits_S.max())
        self.active, self.step = 0, 0
        self.entered: dict[int, tuple[int, int]] = {}  # slot -> (first sequence of its chunk, the step it entered)

    def run(self, ended: Callable[[list[int]], None] = lambda _: None) -> Drawn:
        """Draw until every sequence has stopped or reached its limit."""
        waiting = list(reversed(self.plan.chunks))
        while waiting or self.active:
            if waiting and self.active <= ENTER_SHARE * self.plan.rows:
                self._enter(waiting)
            for _ in range(DONE_EVERY[self.forward.device.type] if self.stop_texts is None else 1):
                self._advance()
            self._leave(bool(waiting), ended)
        return self._drawn()

    def _enter(self, waiting: list[Chunk]) -> None:
        """Take the next chunks that there is room for: run their prompts, draw their first tokens."""
        free = [slot for slot in range(self.slots) if slot not in self.entered]
        chunks: list[Chunk] = []
        room = self.plan.rows - self.active
        while waiting and len(chunks) < len(free) and waiting[-1].size <= room:
            chunks.append(waiting.pop())
            room -= chunks[-1].size
        if not chunks:
            return
        slots = free[: len(chunks)]
        logits_PV = self._prefill(chunks, slots)
        device = logits_PV.device
        of_chunk = torch.repeat_interleave(torch.arange(len(chunks), device=device), torch.tensor([chunk.size for chunk in chunks], device=device))
        sequences = torch.tensor([chunk.first + at for chunk in chunks for at in range(chunk.size)], device=device)
        places = torch.tensor([slot * self.places + at for chunk, slot in zip(chunks, slots, strict=True) for at in range(chunk.size)], device=device)
        rows = slice(self.active, self.active + len(sequences))
        self.state[:, rows] = torch.stack([sequences, places, *(torch.zeros_like(sequences),) * 3])
        self.active = rows.stop
        self.entered.update({slot: (chunk.first, self.step) for slot, chunk in zip(slots, chunks, strict=True)})
        self._record(logits_PV[of_chunk], rows)

    def _prefill(self, chunks: Sequence[Chunk], slots: Sequence[int]) -> torch.Tensor:
        """Logits [P, V] after each prompt, whose keys go into the slots; some prompts at a time, so that activations stay bounded."""
        logits = []
        for part in self.forward.prompt_parts([len(chunk.prompt_ids) for chunk in chunks]):
            prompts = [chunk.prompt_ids for chunk in chunks[part]]
            cache = prompt_cache(self.forward.config)
            logits.append(self.forward.head(self.forward.prompts(prompts, cache)))
            self.cache.store(slots[part], cache, self.slots)
        self.prompt_lengths[list(slots)] = torch.tensor([len(chunk.prompt_ids) for chunk in chunks], device=self.prompt_lengths.device)
        return torch.cat(logits)

    def _advance(self) -> None:
        """One more token for every row. Rows that are done go along without being written down."""
        if self.active == 0:
            return
        self.step += 1
        width = self._width()
        self.cache.make_room(self.plan.rows, width, self.most_columns)
        rows = slice(0, self.active)
        _, places_A, tokens_A, drawn_A, _ = self.state[:, rows]
        prompts_A = places_A // self.places
        layout = Decoding(
            places_A,
            self.places,
            decoding_masks(self.kinds, prompts_A, self.prompt_lengths, drawn_A, (self.prompt_width, width), self.forward.window),
        )
        all_rows = torch.arange(self.active, device=places_A.device)
        entered_once = len({step for _, step in self.entered.values()}) == 1
        columns = width - 1 if entered_once else drawn_A - 1  # one column is faster; what a row that is done writes there is not looked at
        for layer in self.cache.layers:
            layer.at(all_rows, columns, (self.slots, self.prompt_width, width), layout)
        positions_A = self.prompt_lengths[prompts_A] + drawn_A - 1
        self._record(self.forward.decode(tokens_A, positions_A, self.cache), rows)

    def _width(self) -> int:
        """Columns in use: tokens of the oldest rows that are in the cache."""
        return self.step - min(step for _, step in self.entered.values())

    def _record(self, logits_AV: torch.Tensor, rows: slice) -> None:
        """Draw one token for each row, write it down and see who is done."""
        sequences, _, _, drawn_A, done_A = self.state[:, rows]
        tokens_A, logprobs_A, entropies_A, certainties_A = draw(logits_AV, self.uniforms_ST[sequences, drawn_A], self.params)
        for buffer, values in ((self.tokens_ST, tokens_A), (self.logprobs_ST, logprobs_A), (self.entropies_ST, entropies_A)):
            buffer[sequences, drawn_A] = values
        if len(certainties_A):
            self.certainties_ST[sequences, drawn_A] = certainties_A
        is_open_A = done_A == 0
        length_A = drawn_A + is_open_A
        stopped_A = torch.isin(tokens_A, self.stop_ids)
        if self.stop_texts is not None:
            stopped_A |= self.stop_texts.hits(self.tokens_ST, sequences, length_A, is_open_A)
        self.stopped_S[sequences] |= stopped_A & is_open_A
        self.lengths_S[sequences] = length_A
        self.state[2, rows], self.state[3, rows] = tokens_A, length_A
        self.state[4, rows] = (~is_open_A | stopped_A | (length_A >= self.limits_S[sequences])).long()

    def _leave(self, is_waiting: bool, ended: Callable[[list[int]], None]) -> None:
        """Move the last active rows into the places of finished ones, when enough have finished."""
        done = self.state[4, : self.active].bool()
        active = self.active - int(done.sum())
        if active > (ENTER_SHARE if is_waiting else LEAVE_SHARE) * self.active:
            return
        gone = self.state[0, : self.active][done].tolist()
        holes = done[:active].nonzero()[:, 0]
        movers = (~done[active:]).nonzero()[:, 0] + active
        self.cache.move(movers, holes, self._width())
        self.state[:, holes] = self.state[:, movers]
        self.active = active
        used = set((self.state[1, :active] // self.places).tolist())
        self.entered = {slot: entry for slot, entry in self.entered.items() if slot in used}
        ended(gone)

    def _drawn(self) -> Drawn:
        longest = int(self.lengths_S.max())
        parts = (tensor[:, :longest].tolist() for tensor in (self.tokens_ST, self.logprobs_ST, self.entropies_ST, self.certainties_ST))
        tokens_ST, logprobs_ST, entropies_ST, certainties_ST = parts
        return Drawn(tokens_ST, logprobs_ST, entropies_ST, certainties_ST, self.lengths_S.tolist(), self.stopped_S.tolist())
