"""From requests to groups: prefill each prompt once, share its cache among its votes, decode side by side, let finished sequences leave."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
import torch

from selftrain.errors import ModelError, PromptError
from selftrain.policies.base import SampleRequest, SamplingParams
from selftrain.policies.torch.cache import SamplingCache
from selftrain.policies.torch.draw import draw
from selftrain.policies.torch.encoding import Encoder
from selftrain.policies.torch.forward import Forward
from selftrain.policies.torch.stops import StopTexts
from selftrain.policies.torch.text import TextDecoder
from selftrain.seeds import Stream
from selftrain.types import Completion, Finish, Group, PolicyVersion

LEAVE_SHARE = 0.97
"""Finished sequences leave the batch once at most this share of it is still being sampled: leaving copies one row of the cache for each."""


class Slot(NamedTuple):
    """One completion to be drawn: which request, which of its votes."""

    request: int
    vote: int


class Drawn(NamedTuple):
    """What was sampled for B slots, cut at lengths_B: tokens, log-probabilities and entropies of shape [B, T]; whether a stop ended it."""

    tokens_BT: list[list[int]]
    logprobs_BT: list[list[float]]
    entropies_BT: list[list[float]]
    lengths_B: list[int]
    stopped_B: list[bool]


@dataclass(frozen=True, slots=True)
class TorchSampler:
    """Draws completions from the weights in `forward`. sequences_per_batch: how many completions side by side; the plan follows from it alone."""

    forward: Forward
    encoder: Encoder
    text: TextDecoder
    stop_ids: frozenset[int]
    sequences_per_batch: int

    def sample(self, requests: Sequence[SampleRequest], params: SamplingParams, seeds: Stream, version: PolicyVersion) -> list[Group]:
        """One group per request, in order. Raises PromptError when a prompt leaves no room for a completion."""
        encoded: dict[str, tuple[int, ...]] = {}
        prompts = [encoded.get(request.prompt.id) or encoded.setdefault(request.prompt.id, self.encoder.encode(request.prompt)) for request in requests]
        self._check_prompts(requests, prompts)
        completions: list[list[Completion | None]] = [[None] * request.count for request in requests]
        for slots in batch_plan([len(ids) for ids in prompts], [request.count for request in requests], self.sequences_per_batch):
            drawn = self._draw_batch(slots, requests, prompts, params, seeds)
            for row, slot in enumerate(slots):
                completions[slot.request][slot.vote] = self._completion(drawn, row, version)
        return [
            Group(request.step, request.index, request.prompt, prompt_ids, tuple(done for done in group if done is not None))
            for request, prompt_ids, group in zip(requests, prompts, completions, strict=True)
        ]

    def _check_prompts(self, requests: Sequence[SampleRequest], prompts: Sequence[tuple[int, ...]]) -> None:
        limit = self.forward.max_positions
        for request, ids in zip(requests, prompts, strict=True):
            if max(ids) >= self.forward.vocabulary:
                raise ModelError(
                    f"prompt {request.prompt.id}",
                    f"it has token {max(ids)} and the model knows tokens up to {self.forward.vocabulary - 1}",
                    "give the tokenizer that belongs to the model",
                )
            if limit is not None and len(ids) >= limit:
                raise PromptError(
                    f"prompt {request.prompt.id}",
                    f"it has {len(ids)} tokens and the model takes {limit}, completion included",
                    "shorten the prompt or lower prompts.max_prompt_tokens",
                )

    def _draw_batch(
        self, slots: Sequence[Slot], requests: Sequence[SampleRequest], prompts: Sequence[tuple[int, ...]], params: SamplingParams, seeds: Stream
    ) -> Drawn:
        limit = self.forward.max_positions
        limits = [min(params.max_new_tokens, params.max_new_tokens if limit is None else limit - len(prompts[slot.request])) for slot in slots]
        uniforms = np.empty((len(slots), params.max_new_tokens))
        if params.temperature > 0:
            for row, slot in enumerate(slots):
                request = requests[slot.request]
                seeds.at(step=request.step, prompt_id=request.prompt.id, index=slot.vote).generator().random(out=uniforms[row])
        stop_texts = StopTexts(params.stop, self.text) if params.stop else None
        decoding = Decoding(self.forward, params, torch.from_numpy(uniforms), torch.tensor(limits), sorted(self.stop_ids), stop_texts)
        with torch.inference_mode(), self.forward.autocast():
            decoding.start([prompts[slot.request] for slot in slots])
            return decoding.run()

    def _completion(self, drawn: Drawn, row: int, version: PolicyVersion) -> Completion:
        length = drawn.lengths_B[row]
        ids = tuple(drawn.tokens_BT[row][:length])
        text, ends = self.text.decode_with_ends(ids)
        finish = Finish.STOP if drawn.stopped_B[row] else Finish.LENGTH
        return Completion(text, ids, tuple(drawn.logprobs_BT[row][:length]), ends, tuple(drawn.entropies_BT[row][:length]), finish, version)


def batch_plan(prompt_lengths: Sequence[int], counts: Sequence[int], sequences_per_batch: int) -> list[list[Slot]]:
    """Batches of at most `sequences_per_batch` slots: longest prompts first, whole groups where they fit. A function of its arguments alone."""
    batches: list[list[Slot]] = []
    open_batch: list[Slot] = []
    for request in sorted(range(len(counts)), key=lambda at: (-prompt_lengths[at], at)):
        slots = [Slot(request, vote) for vote in range(counts[request])]
        if open_batch and len(open_batch) + len(slots) > sequences_per_batch:
            batches.append(open_batch)
            open_batch = []
        while len(slots) > sequences_per_batch:
            batches.append(slots[:sequences_per_batch])
            slots = slots[sequences_per_batch:]
        open_batch = open_batch + slots
    return [*batches, open_batch] if open_batch else batches


class Decoding:
    """One batch being decoded. B: all its sequences; A: those still in the cache (a finished one stays until enough have finished)."""

    def __init__(
        self, forward: Forward, params: SamplingParams, uniforms_BT: torch.Tensor, limits_B: torch.Tensor, stop_ids: list[int], stop_texts: StopTexts | None
    ) -> None:
        device = forward.device
        self.forward, self.params, self.stop_texts = forward, params, stop_texts
        self.uniforms_TB = uniforms_BT.T.contiguous().to(device)
        self.limits_B, self.stop_ids = limits_B.to(device), torch.tensor(stop_ids, device=device)
        max_new, batch = self.uniforms_TB.shape
        self.tokens_TB = torch.zeros((max_new, batch), dtype=torch.int64, device=device)
        self.logprobs_TB = torch.zeros((max_new, batch), device=device)
        self.entropies_TB = torch.zeros((max_new, batch), device=device)
        self.lengths_B = torch.zeros(batch, dtype=torch.int64, device=device)
        self.stopped_B = torch.zeros(batch, dtype=torch.bool, device=device)
        self.rows_A = torch.arange(batch, device=device)
        self.done_A = torch.zeros(batch, dtype=torch.bool, device=device)

    def start(self, prompts: Sequence[tuple[int, ...]]) -> None:
        """Run each distinct prompt once and give every sequence its copy of the cache and of the last logits."""
        distinct = list(dict.fromkeys(prompts))
        source_B = torch.tensor([distinct.index(ids) for ids in prompts], device=self.forward.device)
        width = max(len(ids) for ids in distinct)
        ids_PT = torch.tensor([[self.forward.pad_id] * (width - len(ids)) + list(ids) for ids in distinct], device=self.forward.device)
        pads_P = torch.tensor([width - len(ids) for ids in distinct], device=self.forward.device)
        self.cache = SamplingCache(self.forward.config)
        self.logits_AV = self.forward.prefill(ids_PT, pads_P, self.cache)
        self.width = width
        self.cache.expand(source_B)
        self.pads_A, self.logits_AV = pads_P[source_B], self.logits_AV[source_B]

    def run(self) -> Drawn:
        """Decode until every sequence has stopped or reached its limit."""
        for at in range(len(self.tokens_TB)):
            tokens_A = self._draw(at)
            active = len(self.done_A) - int(self.done_A.sum())
            if active == 0:
                break
            if active <= LEAVE_SHARE * len(self.done_A):
                tokens_A = self._leave(active, tokens_A)
            self.logits_AV = self.forward.decode(tokens_A, self.pads_A, self.width + at, self.cache)
        return self._drawn()

    def _draw(self, at: int) -> torch.Tensor:
        """Draw token `at` of every active sequence, write it down and see who is done."""
        rows_A = self.rows_A
        drawn = draw(self.logits_AV, self.uniforms_TB[at][rows_A], self.params)
        self.tokens_TB[at, rows_A], self.logprobs_TB[at, rows_A], self.entropies_TB[at, rows_A] = drawn
        stopped_A = torch.isin(drawn.tokens_B, self.stop_ids)
        if self.stop_texts is not None:
            stopped_A |= self.stop_texts.hits(self.tokens_TB[: at + 1, rows_A], ~self.done_A)
        self.stopped_B[rows_A] |= stopped_A & ~self.done_A
        self.lengths_B[rows_A] += ~self.done_A
        self.done_A = self.done_A | stopped_A | (self.limits_B[rows_A] <= at + 1)
        return drawn.tokens_B

    def _leave(self, active: int, tokens_A: torch.Tensor) -> torch.Tensor:
        """Move the last active sequences into the places of finished ones; returns the tokens in the new order."""
        holes = self.done_A[:active].nonzero()[:, 0]
        movers = (~self.done_A[active:]).nonzero()[:, 0] + active
        self.cache.shrink(holes, movers, active)
        order = torch.arange(active, device=holes.device)
        order[holes] = movers
        self.rows_A, self.done_A, self.pads_A = self.rows_A[order], self.done_A[order], self.pads_A[order]
        return tokens_A[order]

    def _drawn(self) -> Drawn:
        longest = int(self.lengths_B.max())
        tokens_BT, logprobs_BT, entropies_BT = (tensor[:longest].T.tolist() for tensor in (self.tokens_TB, self.logprobs_TB, self.entropies_TB))
        return Drawn(tokens_BT, logprobs_BT, entropies_BT, self.lengths_B.tolist(), self.stopped_B.tolist())
