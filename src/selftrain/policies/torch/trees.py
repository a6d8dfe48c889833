"""Completions of one prompt as trees of their tokens: a prefix that several of them have in common is one path, run once, forward and backward.

A node is a prefix of a completion behind its prompt. It attends to the prompt and to the nodes above it, so hidden states, log-probabilities and gradients
are those of every completion run alone. Nodes lie in the order of a walk that visits each before what goes on from it: those below node i are i + 1 ...
ends[i] - 1.

A tree of n nodes has n tokens to run and about n^2 pairs of tokens to compare, so completions that soon part are cheaper in trees of their own.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, NamedTuple

import numpy as np
import torch

from selftrain.policies.torch.layers import head_sizes, layer_configs

Indices = np.ndarray[tuple[int], np.dtype[np.int64]]

PAIR_COST = 4.0
"""What a multiplication of attention costs against one of a matrix product: it comes with a mask and a softmax, in small pieces (docs/log.md)."""


class TokenSequence(NamedTuple):
    """A prompt and a completion as token ids, and which completion tokens are wanted (indices, ascending)."""

    prompt_ids: tuple[int, ...]
    token_ids: tuple[int, ...]
    wanted: Sequence[int]

    @property
    def length(self) -> int:
        """Tokens that are run: the last completion token predicts nothing that is wanted."""
        return len(self.prompt_ids) + len(self.token_ids) - 1

    @property
    def needed(self) -> tuple[int, ...]:
        """The completion up to its last wanted token."""
        return self.token_ids[: self.wanted[-1] + 1]


class Tree(NamedTuple):
    """Some completions of one prompt. members: their indices. tokens, depths, ends: of the N nodes that are run. targets, sources: of the K distinct tokens
    that are wanted, each with the node that predicts it, -1 being the prompt. wanted: for the members' wanted tokens, in order, which of the K each is.
    """

    prompt_ids: tuple[int, ...]
    members: list[int]
    tokens: Indices
    depths: Indices
    ends: Indices
    targets: Indices
    sources: Indices
    wanted: Indices

    @property
    def length(self) -> int:
        """Tokens of its row in a pass: a tree whose only tokens are predicted by the prompt has a row too."""
        return max(1, len(self.tokens))


class Wanted(NamedTuple):
    """Of some trees: targets [K], the distinct wanted tokens; of each of the X wanted tokens of all their members, in order, which of the K it is."""

    members: list[int]
    targets_K: Indices
    of_X: Indices


def wanted_of(trees: Sequence[Tree]) -> Wanted:
    firsts = np.cumsum([0, *(len(tree.targets) for tree in trees)])
    of_X = np.concatenate([tree.wanted + first for tree, first in zip(trees, firsts, strict=False)])
    return Wanted([at for tree in trees for at in tree.members], np.concatenate([tree.targets for tree in trees]), of_X)


def trees_of(sequences: Sequence[TokenSequence], chosen: Sequence[int], most_nodes: int, token_cost: float) -> list[Tree]:
    """The chosen sequences, all of one prompt, in trees of at most `most_nodes` nodes, the last token of each included, unless one alone has more.
    token_cost: that of a node, in pairs.
    """
    prompt_ids = sequences[chosen[0]].prompt_ids
    tokens = {at: sequences[at].needed for at in chosen}
    trees: list[Tree] = []
    growing: Growing | None = None
    for at in sorted(chosen, key=tokens.__getitem__):
        shared = growing.shared(tokens[at]) if growing is not None else 0
        if growing is None or not growing.is_cheaper(len(tokens[at]), shared, len(prompt_ids), most_nodes, token_cost):
            trees += [growing.tree(prompt_ids)] if growing is not None else []
            growing, shared = Growing(), 0
        growing.add(at, tokens[at], shared, sequences[at].wanted)
    assert growing is not None
    return [*trees, growing.tree(prompt_ids)]


def alone(at: int, sequence: TokenSequence) -> Tree:
    """One sequence, nothing shared."""
    growing = Growing()
    growing.add(at, sequence.needed, 0, sequence.wanted)
    return growing.tree(sequence.prompt_ids)


class Growing:
    """A tree to which completions are added in the order of their tokens, so that each shares most with the one before."""

    def __init__(self) -> None:
        self.members: list[int] = []
        self.tokens: list[int] = []
        self.parents: list[int] = []
        self.depths: list[int] = []
        self.ends: list[int] = []
        self.runs: list[bool] = []
        self.path: list[int] = []
        self.newest: tuple[int, ...] = ()
        self.wanted: list[int] = []

    def shared(self, tokens: tuple[int, ...]) -> int:
        """Tokens that this completion has in common with the newest one, from the first on."""
        longest = min(len(tokens), len(self.newest))
        if tokens[:longest] == self.newest[:longest]:
            return longest
        return next(at for at in range(longest) if tokens[at] != self.newest[at])

    def is_cheaper(self, length: int, shared: int, prompt_tokens: int, most_nodes: int, token_cost: float) -> bool:
        """Whether adding a completion costs less than running it alone: a token less for each shared one, and other pairs of tokens."""
        count = len(self.tokens)
        together = count + length - shared
        pairs = sum(sign * nodes * (prompt_tokens + nodes) for sign, nodes in ((1, together), (-1, count), (-1, length)))
        return together <= most_nodes and pairs < shared * token_cost

    def add(self, at: int, tokens: tuple[int, ...], shared: int, wanted: Sequence[int]) -> None:
        first = len(self.tokens)
        new = range(first, first + len(tokens) - shared)
        for node in self.path[shared:]:
            self.ends[node] = first
        self.path[shared:] = new
        self.tokens += tokens[shared:]
        self.parents += [self.path[shared - 1] if shared else -1, *new[:-1]][: len(new)]
        self.depths += range(shared, len(tokens))
        self.ends += [0] * len(new)
        self.runs += [True] * (len(new) - 1) + [False] * (len(new) > 0)
        if shared and new:
            self.runs[self.path[shared - 1]] = True
        self.wanted += [self.path[place] for place in wanted]
        self.members.append(at)
        self.newest = tokens

    def tree(self, prompt_ids: tuple[int, ...]) -> Tree:
        for node in self.path:
            self.ends[node] = len(self.tokens)
        tokens, depths, ends, parents, wanted = (np.array(values, np.int64) for values in (self.tokens, self.depths, self.ends, self.parents, self.wanted))
        runs = np.array(self.runs, bool)
        before = np.concatenate([[0], np.cumsum(runs)])  # nodes that are run, before each
        is_wanted = np.zeros(len(tokens), bool)
        is_wanted[wanted] = True
        number = np.cumsum(is_wanted) - 1
        parents = parents[is_wanted]
        sources = np.where(parents < 0, -1, before[parents])
        return Tree(prompt_ids, self.members, tokens[runs], depths[runs], before[ends[runs]], tokens[is_wanted], sources, number[wanted])


def pairs_per_token(model: Any) -> float:
    """How many pairs of tokens cost as much attention as one token costs everything else in the layers: 2 operations a weight against 4 a pair, head and
    dimension of a head. 0 where scores have a soft cap: they are kept for the backward pass, so trees may not have more pairs than their completions.
    """
    text = model.config.get_text_config(decoder=True)
    if getattr(text, "attn_logit_softcapping", None) is not None:
        return 0.0
    ends = {id(module.weight) for module in (model.get_input_embeddings(), model.get_output_embeddings())}
    weights: int = sum(weight.numel() for weight in model.parameters() if id(weight) not in ends)
    return float(weights / sum(one.num_attention_heads * sum(head_sizes(one)) for one in layer_configs(model.config)) / PAIR_COST)


class Packed(NamedTuple):
    """Trees side by side, padded on the right."""

    ids_BN: torch.Tensor
    depths_BN: torch.Tensor
    ends_BN: torch.Tensor

    @classmethod
    def of(cls, trees: Sequence[Tree], pad_id: int, device: torch.device) -> Packed:
        width = max(tree.length for tree in trees)
        packed = []
        for name, padding in (("tokens", pad_id), ("depths", 0), ("ends", width)):
            rows_BN = np.full((len(trees), width), padding, np.int64)
            for row, tree in zip(rows_BN, trees, strict=True):
                row[: len(tree.tokens)] = getattr(tree, name)
            packed.append(torch.from_numpy(rows_BN).to(device))
        return cls(*packed)

    def sees(self, reach: int | None = None) -> torch.Tensor:
        """[B, N, N]: whether a node may look at another, which is above it or itself and, with a reach, less than `reach` tokens back."""
        at_N = torch.arange(self.ids_BN.shape[1], device=self.ids_BN.device)
        seen_BNN = (at_N[:, None] >= at_N) & (at_N[:, None] < self.ends_BN[:, None])
        if reach is not None:
            depths_BN = self.depths_BN.int()
            seen_BNN &= depths_BN[:, :, None] - depths_BN[:, None] < reach
        return seen_BNN


def by_prompt(sequences: Sequence[TokenSequence]) -> dict[tuple[int, ...], list[int]]:
    """Indices of the sequences of each prompt, longest prompts first."""
    of_prompt: dict[tuple[int, ...], list[int]] = {}
    for at, sequence in enumerate(sequences):
        of_prompt.setdefault(sequence.prompt_ids, []).append(at)
    return {ids: of_prompt[ids] for ids in sorted(of_prompt, key=len, reverse=True)}
