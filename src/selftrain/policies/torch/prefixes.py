"""Sampling in which a prefix that several votes have in common is run once.

Votes of one prompt that have drawn the same tokens so far have the same keys, values and next-token distribution, so they stand in one row: it is run
once, and each vote draws from it with its own random number. Votes that draw different tokens part: the row is copied. So the number of rows is that of
distinct prefixes, one for each prompt at first and at most one for each vote. The more a policy agrees with itself, the fewer. With short prompts each row
has a copy of its prompt's keys and values, with long ones all rows of a prompt share them (attention.py).

S: all sequences to be drawn; E: sequences being drawn, the first columns of the board's state; A: rows.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from typing import NamedTuple

import numpy as np
import torch

from selftrain.policies.base import SamplingParams
from selftrain.policies.torch.board import DONE, DRAWN, PLACE, SEQUENCE, TOKEN, Board, Extent, Sizes, Standing, advance, record
from selftrain.policies.torch.decoding import Chunk, Decoder, Plan
from selftrain.policies.torch.draw import Votes
from selftrain.policies.torch.forward import Forward
from selftrain.policies.torch.stops import StopTexts

TOKEN_BITS = 32
PROMPT_WORTH = 2
"""tokens that a part of a chunk may draw, for each of its prompt, which is run once more for it"""
LEAST_SLOTS, SLOTS_SHARE = 8, 4
"""Prompts at a time, where not all sequences fit side by side: at least so many, and so many times as many as fill the rows."""
COPIED_TOKENS = {"cpu": 20, "cuda": 0}
"""Prompts up to this length are copied into each row: a few more keys to read cost less than gathering the rows of each prompt, from about 28 on more where
rows are many (docs/log.md). A GPU's kernel gathers nothing.
"""

Indices = np.ndarray[tuple[int], np.dtype[np.int64]]


class Parting(NamedTuple):
    """rows_E: the row of each sequence. sources, targets: rows to be copied, and where to; no target is a source. num_rows: rows are 0 ... num_rows - 1."""

    rows_E: Indices
    sources: Indices
    targets: Indices
    num_rows: int


class PrefixDecoder(Decoder):
    """Steps are run as they are, on a board of the decoder's own, whose cache grows with the columns. Finished sequences leave at once."""

    def __init__(self, forward: Forward, params: SamplingParams, plan: Plan, stop_ids: Sequence[int], stop_texts: StopTexts | None) -> None:
        self.stop_ids, self.stop_texts = stop_ids, stop_texts
        super().__init__(forward, params, plan)
        self.copied = copied_tokens(self.prompt_tokens, forward.device.type)
        self.rows_E: Indices = np.zeros(0, np.int64)
        self.num_rows = 0
        self.gone: list[int] = []  # finished sequences that nobody has been told of
        self.standing: Standing | None = None  # None: the sequences have changed since it was made

    def _num_slots(self, plan: Plan) -> int:
        """More than chunks that fill the rows, so that the last votes of one do not keep others waiting; the memory for a row is enough for its prompt."""
        if sum(chunk.size for chunk in plan.chunks) <= plan.rows:
            return len(plan.chunks)
        return min(plan.rows, max(LEAST_SLOTS, SLOTS_SHARE * (plan.rows // min(chunk.size for chunk in plan.chunks))))

    def _fitting(self, waiting: list[Chunk], room: int) -> Chunk | None:
        """A part of the next chunk where there is no room for all of it: its prompt is run again for the rest, so where it may draw twice as many tokens."""
        chunk = waiting[-1]
        if chunk.size <= room:
            return waiting.pop()
        if room * self.most_columns < PROMPT_WORTH * len(chunk.prompt_ids) or not room:
            return None
        waiting[-1] = chunk._replace(first=chunk.first + room, size=chunk.size - room)
        return chunk._replace(size=room)

    def _board(self, sizes: Sizes) -> Board:
        return Board(self.forward, sizes, self.params, self.stop_ids)

    def _begin(self, logits_PV: torch.Tensor, of_chunk: torch.Tensor, entering: slice) -> None:
        """Each chunk stands in one row until its sequences part."""
        with self._stopping(entering):
            record(self.board, logits_PV[of_chunk], entering, self.params)
        rows, chunks_E = slice(self.num_rows, self.num_rows + len(logits_PV)), of_chunk.cpu().numpy()
        self.rows_E = np.concatenate([self.rows_E, rows.start + chunks_E])
        self.num_rows = rows.stop
        if self.copied:
            _, speakers = np.unique(chunks_E, return_index=True)
            slots = self.board.state[PLACE, entering][torch.from_numpy(speakers)] // self.board.sizes.places
            self._make_room(self._width(), rows.start)
            self.board.cache.copy_prompts(slots, rows, self.copied)
        self.standing = None
        self._part()

    def _advance(self) -> None:
        if self.active == 0:
            return
        self.step += 1
        width = self._width()
        if self.standing is None:
            self.standing = self._standing()
        entered_once = len({step for _, step in self.entered.values()}) == 1
        column = width - 1 if entered_once else None  # one column is faster
        self._make_room(width, self.num_rows)
        with self._stopping(slice(0, self.active)):
            advance(self.board, self.forward, self.params, Extent(self.num_rows, self.prompt_tokens, width, column, self.copied > 0), self.standing)

    def _make_room(self, width: int, used_rows: int) -> None:
        """For so many tokens of each row behind what is copied there."""
        self.board.cache.make_room(self.plan.rows, self.copied + width, self.copied + self.most_columns, used_rows)

    def _leave(self, is_waiting: bool, ended: Callable[[list[int]], None]) -> None:  # noqa: ARG002
        self._part()
        if self.gone:
            self._free_slots()
            ended(self.gone)
            self.gone = []

    def _part(self) -> None:
        """After a draw: finished sequences leave, those of one row that drew different tokens part."""
        state = self.board.state[:, : self.active]
        done_E = state[DONE].cpu().numpy().astype(bool)
        if done_E.any():
            done = torch.from_numpy(done_E).to(state.device)
            self.gone += state[SEQUENCE, done].tolist()
            left = state[:, ~done]
            self.active, self.rows_E = left.shape[1], self.rows_E[~done_E]
            self.board.state[:, : self.active] = left
            state = left
        parting = parted(self.rows_E, state[TOKEN].cpu().numpy())
        if parting.num_rows == self.num_rows and not done_E.any() and self.standing is not None:
            return
        used_rows = self.num_rows
        self.rows_E, self.num_rows, self.standing = parting.rows_E, parting.num_rows, None
        width = self._width() if self.active else 0
        if len(parting.sources) and self.copied + width:
            self._make_room(width, used_rows)
            sources, targets = (torch.from_numpy(rows).to(state.device) for rows in (parting.sources, parting.targets))
            self.board.cache.move(sources, targets, self.copied + width)

    def _standing(self) -> Standing:
        """Rows of one prompt have places side by side, as many as the prompt with most rows needs."""
        _, speakers_A = np.unique(self.rows_E, return_index=True)
        slots_A = (self.board.state[PLACE, : self.active].cpu().numpy() // self.board.sizes.places)[speakers_A]
        numbers_A = numbers_within(slots_A)
        num_places = int(numbers_A.max()) + 1
        numbers_E = numbers_within(self.rows_E)
        arrays = (speakers_A, slots_A * num_places + numbers_A, self.rows_E, numbers_E)
        speakers, places, rows, numbers = (torch.from_numpy(array).to(self.board.state.device) for array in arrays)
        return Standing(speakers, places, num_places, Votes(rows, numbers, int(numbers_E.max()) + 1))

    @contextmanager
    def _stopping(self, columns: slice) -> Iterator[None]:
        """Sequences that are given a token inside are done when their text then contains a stop text."""
        if self.stop_texts is None:
            yield
            return
        board = self.board
        is_open_E, sequences_E = board.state[DONE, columns] == 0, board.state[SEQUENCE, columns]
        yield
        hits_E = self.stop_texts.hits(board.tokens_ST, sequences_E, board.state[DRAWN, columns], is_open_E)
        board.stopped_S[sequences_E] |= hits_E
        board.state[DONE, columns] |= hits_E


def copied_tokens(longest: int, device: str) -> int:
    """Columns that each row has for a copy of its prompt, where the longest one has so many tokens."""
    return longest if longest <= COPIED_TOKENS[device] else 0


def parted(rows_E: Indices, tokens_E: Indices) -> Parting:
    """Sequences of one row that drew one token go on in one row. One part of each row stays where it is, if that is among the first rows; the others take the
    free ones among these.
    """
    branches_B, branch_E = np.unique((rows_E << TOKEN_BITS) + tokens_E, return_inverse=True)
    parents_B, count = branches_B >> TOKEN_BITS, len(branches_B)
    is_first_B = np.ones(count, bool)
    is_first_B[1:] = parents_B[1:] != parents_B[:-1]
    stays_B = is_first_B & (parents_B < count)
    is_free = np.ones(count, bool)
    is_free[parents_B[stays_B]] = False
    rows_B = parents_B.copy()
    rows_B[~stays_B] = np.flatnonzero(is_free)
    return Parting(rows_B[branch_E], parents_B[~stays_B], rows_B[~stays_B], count)


def numbers_within(groups: Indices) -> Indices:
    """For each entry how many before it have the same value."""
    order = np.argsort(groups, kind="stable")
    ordered = groups[order]
    begins = np.flatnonzero(np.concatenate([[True], ordered[1:] != ordered[:-1]])) if len(ordered) else np.zeros(0, np.int64)
    numbers = np.empty(len(groups), np.int64)
    numbers[order] = np.arange(len(groups)) - np.repeat(begins, np.diff(np.append(begins, len(groups))))
    return numbers
