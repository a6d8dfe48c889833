"""Everything on the device that a decode step reads and writes, and the step itself.

Shape letters: S sequences to be drawn, R rows side by side, A rows in use (always the first ones), T tokens, P slots for prompts.

A step reads where it stands from the board alone; sizes are all that it is told. So it can be recorded once as a CUDA graph and replayed (graphs.py).
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import torch

from selftrain.policies.base import SamplingParams
from selftrain.policies.torch.attention import Decoding
from selftrain.policies.torch.cache import DecodingCache
from selftrain.policies.torch.draw import Votes, draw
from selftrain.policies.torch.forward import Forward

SEQUENCE, PLACE, TOKEN, DRAWN, DONE = range(5)
"""Lines of the state: of each row its sequence, its place (slot * places + place in it), newest token, tokens drawn, whether it is done. Where sequences share
rows, a column stands for a sequence instead."""


class Sizes(NamedTuple):
    """sequences: S. columns: tokens of a completion at most. rows: R. slots: P. places: sequences of a prompt at most. prompt_tokens: of the longest."""

    sequences: int
    columns: int
    rows: int
    slots: int
    places: int
    prompt_tokens: int


class Board:
    """tokens_ST, logprobs_ST, entropies_ST, certainties_ST, lengths_S, stopped_S: what has been drawn; certainties have no columns where they are not
    asked for. uniforms_ST, limits_S: what it is drawn from and how far. state: [5, R]. prompt_lengths: [P]. cache: keys and values.
    """

    def __init__(self, forward: Forward, sizes: Sizes, params: SamplingParams, stop_ids: Sequence[int]) -> None:
        device, shape = forward.device, (sizes.sequences, sizes.columns)
        self.sizes = sizes
        self.stop_ids = torch.tensor(stop_ids, device=device, dtype=torch.int64)
        self.uniforms_ST = torch.zeros(shape, dtype=torch.float64, device=device)
        self.limits_S = torch.zeros(sizes.sequences, dtype=torch.int64, device=device)
        self.tokens_ST = torch.zeros(shape, dtype=torch.int64, device=device)
        self.logprobs_ST = torch.zeros(shape, device=device)
        self.entropies_ST = torch.zeros(shape, device=device)
        self.certainties_ST = torch.zeros((sizes.sequences, sizes.columns if params.certainties and params.temperature > 0 else 0), device=device)
        self.lengths_S = torch.zeros(sizes.sequences, dtype=torch.int64, device=device)
        self.stopped_S = torch.zeros(sizes.sequences, dtype=torch.bool, device=device)
        self.state = torch.zeros((5, sizes.rows), dtype=torch.int64, device=device)
        self.prompt_lengths = torch.zeros(sizes.slots, dtype=torch.int64, device=device)
        self.cache = DecodingCache(forward.config)

    def put(self, uniforms_ST: torch.Tensor, limits_S: torch.Tensor) -> None:
        """Begin anew with these numbers and limits."""
        count, columns = len(limits_S), min(uniforms_ST.shape[1], self.sizes.columns)
        self.uniforms_ST[:count, :columns].copy_(uniforms_ST[:, :columns])
        self.limits_S[:count].copy_(limits_S)
        self.lengths_S.zero_()
        self.stopped_S.zero_()


def record(board: Board, logits_AV: torch.Tensor, rows: slice, params: SamplingParams, votes: Votes | None = None) -> None:
    """Draw one token for each of these columns of the state, from a row of logits each or from those that `votes` names, write it down and see who is done.
    Those that are done go along without growing.
    """
    sequences, _, _, drawn_A, done_A = board.state[:, rows]
    tokens_A, logprobs_A, entropies_A, certainties_A = draw(logits_AV, board.uniforms_ST[sequences, drawn_A], params, votes)
    for buffer, values in ((board.tokens_ST, tokens_A), (board.logprobs_ST, logprobs_A), (board.entropies_ST, entropies_A)):
        buffer[sequences, drawn_A] = values
    if len(certainties_A):
        board.certainties_ST[sequences, drawn_A] = certainties_A
    is_open_A = done_A == 0
    length_A = drawn_A + is_open_A
    stopped_A = (tokens_A[:, None] == board.stop_ids).any(-1)
    board.stopped_S[sequences] |= stopped_A & is_open_A
    board.lengths_S[sequences] = length_A
    board.state[TOKEN, rows], board.state[DRAWN, rows] = tokens_A, length_A
    board.state[DONE, rows] = (~is_open_A | stopped_A | (length_A >= board.limits_S[sequences])).long()


class Extent(NamedTuple):
    """What a step runs over: the first rows, the first columns of prompts and of completions. column: which token all rows write, if it is the same for all.
    is_copied: before each row's own columns lie copies of its prompt's.
    """

    rows: int
    prompt_tokens: int
    columns: int
    column: int | None = None
    is_copied: bool = False


class Standing(NamedTuple):
    """Which sequences share a row. speakers_A: for each row the place in the state of one of its sequences. places_A: a place of each row's own, prompt *
    num_places + number. votes: of the E sequences being drawn, the first columns of the state, who draws from which row.
    """

    speakers_A: torch.Tensor
    places_A: torch.Tensor
    num_places: int
    votes: Votes


def advance(board: Board, forward: Forward, params: SamplingParams, extent: Extent, standing: Standing | None = None) -> None:
    """One more token for each row of the extent, of which each is a sequence's own, or for each of the sequences that stand there."""
    rows, sizes = slice(0, extent.rows), board.sizes
    _, places_A, tokens_A, drawn_A, _ = board.state[:, rows if standing is None else standing.speakers_A]
    places_A, num_places = (places_A, sizes.places) if standing is None else (standing.places_A, standing.num_places)
    prompts_A = places_A // num_places
    layout = Decoding(places_A, num_places, board.prompt_lengths, drawn_A, (extent.prompt_tokens, extent.columns), forward.window, extent.is_copied)
    copied = extent.prompt_tokens if extent.is_copied else 0
    all_rows, columns = torch.arange(extent.rows, device=places_A.device), copied + (drawn_A - 1 if extent.column is None else extent.column)
    for layer in board.cache.layers:
        layer.at(all_rows, columns, (sizes.slots, extent.prompt_tokens, copied + extent.columns), layout)
    positions_A = board.prompt_lengths[prompts_A] + drawn_A - 1
    logits_AV = forward.decode(tokens_A, positions_A, board.cache)
    if standing is None:
        record(board, logits_AV, rows, params)
    else:
        record(board, logits_AV, slice(0, len(standing.votes.rows_E)), params, standing.votes)
