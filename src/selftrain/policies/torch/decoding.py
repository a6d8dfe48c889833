"""The decode loop: sequences side by side in rows; finished ones leave, waiting ones enter, until none is left.

A chunk is what enters together: votes of one prompt. Its prompt is run once, its keys lie in a slot, and each of its sequences has a place there. S: all
sequences to be drawn; R: rows; A: rows in use, always the first ones. What lies on the device, and one step of it: board.py. Where steps are recorded every
sequence has a row of its own (`RecordedDecoder`); where they are not, sequences share rows (prefixes.py).
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import NamedTuple

import torch

from selftrain.errors import SamplerError
from selftrain.policies.base import SamplingParams
from selftrain.policies.torch.board import DONE, PLACE, SEQUENCE, Board, Extent, Sizes, record
from selftrain.policies.torch.cache import prompt_cache
from selftrain.policies.torch.forward import Forward
from selftrain.policies.torch.graphs import Graphs, unused

LEAVE_SHARE = 0.97
"""Finished sequences of recorded steps leave once at most this share of the rows is still being sampled: leaving copies one row of the cache for each."""
ENTER_SHARE = 0.9
"""Waiting chunks enter once at most this share of the rows is in use, so that their prompts are run several at a time."""
DONE_EVERY = {"cpu": 1, "cuda": 8}
"""Recorded steps between two looks at who is done; on a GPU a look makes it wait."""


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
    """One pass over a plan. How rows go on from their newest tokens is for a subclass to say."""

    def __init__(self, forward: Forward, params: SamplingParams, plan: Plan) -> None:
        self.forward, self.params, self.plan = forward, params, plan
        self.total, self.most_columns = len(plan.limits_S), int(plan.limits_S.max())
        self.slots = self._num_slots(plan)
        places, self.prompt_tokens = max(chunk.size for chunk in plan.chunks), max(len(chunk.prompt_ids) for chunk in plan.chunks)
        self.board = self._board(Sizes(self.total, self.most_columns + 1, plan.rows, self.slots, places, self.prompt_tokens))
        self.board.put(plan.uniforms_ST, plan.limits_S)
        self.active, self.step = 0, 0  # sequences being drawn, always the first ones of the state
        self.entered: dict[int, tuple[int, int]] = {}  # slot -> (first sequence of its chunk, the step it entered)

    def _num_slots(self, plan: Plan) -> int:
        """How many chunks are there at a time at most."""
        return max(1, min(len(plan.chunks), plan.rows // min(chunk.size for chunk in plan.chunks)))

    def _fitting(self, waiting: list[Chunk], room: int) -> Chunk | None:
        """Take the next of the waiting chunks, where there is room for it."""
        return waiting.pop() if waiting[-1].size <= room else None

    def _board(self, sizes: Sizes) -> Board:
        raise NotImplementedError

    def _begin(self, logits_PV: torch.Tensor, of_chunk: torch.Tensor, entering: slice) -> None:
        """Draw the first tokens of sequences that enter, from the logits after their prompts."""
        raise NotImplementedError

    def _advance(self) -> None:
        """One more token for every sequence in use."""
        raise NotImplementedError

    def _leave(self, is_waiting: bool, ended: Callable[[list[int]], None]) -> None:
        """Let finished sequences go, if it is time to."""
        raise NotImplementedError

    def run(self, ended: Callable[[list[int]], None] = lambda _: None) -> Drawn:
        """Draw until every sequence has stopped or reached its limit. `ended` is called with sequences that left, so that their texts can be read meanwhile."""
        waiting = list(reversed(self.plan.chunks))
        while waiting or self.active:
            if waiting and self.active <= ENTER_SHARE * self.plan.rows:
                self._enter(waiting)
            self._advance()
            self._leave(bool(waiting), ended)
        return self._drawn()

    def _enter(self, waiting: list[Chunk]) -> None:
        """Take the next chunks that there is room for: run their prompts, draw their first tokens."""
        free = [slot for slot in range(self.slots) if slot not in self.entered]
        chunks: list[Chunk] = []
        room = self.plan.rows - self.active
        while waiting and len(chunks) < len(free) and (chunk := self._fitting(waiting, room)) is not None:
            chunks.append(chunk)
            room -= chunk.size
        if not chunks:
            return
        slots = free[: len(chunks)]
        logits_PV = self._prefill(chunks, slots)
        device, places_each = logits_PV.device, self.board.sizes.places
        of_chunk = torch.repeat_interleave(torch.arange(len(chunks), device=device), torch.tensor([chunk.size for chunk in chunks], device=device))
        sequences = torch.tensor([chunk.first + at for chunk in chunks for at in range(chunk.size)], device=device)
        places = torch.tensor([slot * places_each + at for chunk, slot in zip(chunks, slots, strict=True) for at in range(chunk.size)], device=device)
        entering = slice(self.active, self.active + len(sequences))
        self.board.state[:, entering] = torch.stack([sequences, places, *(torch.zeros_like(sequences),) * 3])
        self.active = entering.stop
        self.entered.update({slot: (chunk.first, self.step) for slot, chunk in zip(slots, chunks, strict=True)})
        self._begin(logits_PV, of_chunk, entering)

    def _prefill(self, chunks: Sequence[Chunk], slots: Sequence[int]) -> torch.Tensor:
        """Logits [P, V] after each prompt, whose keys go into the slots; some prompts at a time, so that activations stay bounded."""
        logits, board = [], self.board
        for part in self.forward.prompt_parts([len(chunk.prompt_ids) for chunk in chunks]):
            prompts = [chunk.prompt_ids for chunk in chunks[part]]
            cache = prompt_cache(self.forward.config)
            logits.append(self.forward.logits(self.forward.prompts(prompts, cache)))
            board.cache.store(slots[part], cache, board.sizes.slots)
        board.prompt_lengths[list(slots)] = torch.tensor([len(chunk.prompt_ids) for chunk in chunks], device=board.prompt_lengths.device)
        return torch.cat(logits)

    def _width(self) -> int:
        """Columns in use: tokens of the oldest rows that are in the cache."""
        return self.step - min(step for _, step in self.entered.values())

    def _free_slots(self) -> None:
        """Slots whose sequences have all left may be taken by others."""
        used = set((self.board.state[PLACE, : self.active] // self.board.sizes.places).tolist())
        self.entered = {slot: entry for slot, entry in self.entered.items() if slot in used}

    def _drawn(self) -> Drawn:
        """What lies on the board. Raises SamplerError when a log-probability of it is not finite."""
        board, lengths_S = self.board, self.board.lengths_S[: self.total]
        longest = int(lengths_S.max())
        is_drawn_ST = torch.arange(longest, device=lengths_S.device) < lengths_S[:, None]
        if not bool((board.logprobs_ST[: self.total, :longest].isfinite() | ~is_drawn_ST).all()):
            raise SamplerError(
                "sampling from the policy as it is now",
                "its logits are no longer finite numbers, so nothing can be drawn from them: its weights have grown without bound",
                "start anew with a lower update.learning_rate; earlier checkpoints of the run are untouched",
            )
        drawn = (board.tokens_ST, board.logprobs_ST, board.entropies_ST, board.certainties_ST)
        tokens_ST, logprobs_ST, entropies_ST, certainties_ST = (tensor[: self.total, :longest].tolist() for tensor in drawn)
        return Drawn(tokens_ST, logprobs_ST, entropies_ST, certainties_ST, lengths_S.tolist(), board.stopped_S[: self.total].tolist())


class RecordedDecoder(Decoder):
    """A row for every sequence, as always as many as were recorded: steps are replayed on the board of `graphs`, and finished sequences leave now and then."""

    def __init__(self, forward: Forward, params: SamplingParams, plan: Plan, stop_ids: Sequence[int], graphs: Graphs) -> None:
        self.graphs, self.stop_ids = graphs, stop_ids
        super().__init__(forward, params, plan)

    def _board(self, sizes: Sizes) -> Board:
        return self.graphs.board_for(self.forward, sizes, self.params, self.stop_ids)

    def _begin(self, logits_PV: torch.Tensor, of_chunk: torch.Tensor, entering: slice) -> None:
        record(self.board, logits_PV[of_chunk], entering, self.params)

    def _advance(self) -> None:
        """Some tokens for every row. Rows that are done go along without being written down."""
        for _ in range(DONE_EVERY[self.forward.device.type] if self.active else 0):
            self.step += 1
            self.graphs.advance(self.board, self.forward, self.params, Extent(self.active, self.prompt_tokens, self._width()))

    def _leave(self, is_waiting: bool, ended: Callable[[list[int]], None]) -> None:
        """Move the last active rows into the places of finished ones, when enough have finished."""
        state = self.board.state
        done = state[DONE, : self.active].bool()
        active = self.active - int(done.sum())
        if active > (ENTER_SHARE if is_waiting else LEAVE_SHARE) * self.active:
            return
        gone = state[SEQUENCE, : self.active][done].tolist()
        holes = done[:active].nonzero()[:, 0]
        movers = (~done[active:]).nonzero()[:, 0] + active
        self.board.cache.move(movers, holes, self._width())
        state[:, holes] = state[:, movers]
        state[:, active : self.active] = unused(self.board)
        self.active = active
        self._free_slots()
        ended(gone)
