"""From training samples to one optimizer step: micro-batches, the slope of every token's loss, a finite check, clipping, AdamW on float32 weights."""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from contextlib import AbstractContextManager, nullcontext
from functools import cached_property
from typing import Any, NamedTuple

import numpy as np
import torch

from selftrain.config import UpdateSection
from selftrain.errors import UpdateError
from selftrain.objective import Objective
from selftrain.policies.base import UpdateStats
from selftrain.policies.torch.behind import Prompts, prompt_parts
from selftrain.policies.torch.forward import Forward
from selftrain.policies.torch.head import Head
from selftrain.policies.torch.memory import default_microbatch_tokens, give_back, kept_per_token, one_gradient, sequence_room
from selftrain.policies.torch.optimizer import make_optimizer
from selftrain.policies.torch.recomputing import check_recomputable, layers_of, recomputing
from selftrain.policies.torch.scoring import head_chunks, microbatches, rows_of
from selftrain.policies.torch.trees import TokenSequence, Tree, Wanted, alone, wanted_of
from selftrain.types import TrainingSample


class Sums(NamedTuple):
    """Sums over tokens: loss, importance ratios, clipped tokens, |learner - sampler| and KL in nats, tokens; and the largest ratio."""

    loss: float = 0.0
    ratio: float = 0.0
    clipped: float = 0.0
    gap_nats: float = 0.0
    kl_nats: float = 0.0
    tokens: float = 0.0
    ratio_max: float = 0.0

    @classmethod
    def of(cls, parts: Sequence[torch.Tensor]) -> Sums:
        """Of parts [7] on the device, all fetched at once: the device does not wait for the host between chunks."""
        if not parts:
            return cls()
        parts_X7 = torch.stack(list(parts))
        return cls(*torch.cat([parts_X7[:, :-1].sum(0), parts_X7[:, -1:].amax(0)]).tolist())


class TorchLearner:
    """AdamW over the trainable weights of `forward.model`. gradient_checkpointing: whether activations are recomputed; None: in updates with a sequence
    that alone would keep more than memory.sequence_room. Raises ModelError where it is asked for and cannot be done.
    """

    def __init__(self, forward: Forward, config: UpdateSection, gradient_checkpointing: bool | None = None) -> None:
        if gradient_checkpointing:
            check_recomputable(forward.running)
        self.forward, self.config, self.checkpointing = forward, config, gradient_checkpointing
        self.weights: dict[str, torch.nn.Parameter] = {name: weight for name, weight in sorted(forward.model.named_parameters()) if weight.requires_grad}
        self._microbatch_tokens: dict[bool, int] = {}
        self.restart()

    def restart(self) -> None:
        """Without moments, as before the first update."""
        self.optimizer = make_optimizer(list(self.weights.values()), self.config)

    @cached_property
    def kept_per_token(self) -> float:
        """Bytes that a pass keeps for each token where nothing is recomputed."""
        return kept_per_token(self.forward)

    @property
    def tokens_per_microbatch(self) -> int:
        """Padded tokens of one pass, of an update in which no sequence is too long to be kept."""
        return self.microbatch_tokens(bool(self.checkpointing))

    def microbatch_tokens(self, recompute: bool) -> int:
        """Padded tokens of one pass: the config's, or what fits (memory.py)."""
        if self.config.tokens_per_microbatch is not None:
            return self.config.tokens_per_microbatch
        if recompute not in self._microbatch_tokens:
            with self._recomputing(recompute):
                self._microbatch_tokens[recompute] = default_microbatch_tokens(self.forward)
        return self._microbatch_tokens[recompute]

    def recomputes(self, sequences: Sequence[TokenSequence]) -> bool:
        """Whether the activations of an update with these sequences are recomputed in its backward pass."""
        if self.checkpointing is not None:
            return self.checkpointing
        longest = max((sequence.length for sequence in sequences), default=0)
        return longest * self.kept_per_token > sequence_room(self.forward) and bool(layers_of(self.forward.running))

    def update(self, samples: Sequence[TrainingSample], objective: Objective, learning_rate: float) -> UpdateStats:
        """One step on the plain sum of the samples' losses. Raises UpdateError, before a weight moves, when the loss or the gradient is not finite."""
        self.optimizer.zero_grad(set_to_none=True)
        if self.forward.device.type == "cpu":
            give_back()
        try:
            sums = self.accumulate(samples, objective)
            grad_norm = self._finite_norm(sums)
            torch.nn.utils.clip_grads_with_norm_(list(self.weights.values()), self.config.max_grad_norm, grad_norm)
            for group in self.optimizer.param_groups:
                group["lr"] = learning_rate
            self.optimizer.step()
            self.forward.refresh()
        finally:
            self.optimizer.zero_grad(set_to_none=True)
        return stats_of(sums, float(grad_norm), learning_rate)

    def accumulate(self, samples: Sequence[TrainingSample], objective: Objective) -> Sums:
        """Add the gradient of the samples' summed loss to the weights' gradients; samples without signal are not computed."""
        used = [sample for sample in samples if any(sample.mask) and (objective.kl_coef or any(sample.advantages))]
        sequences = [TokenSequence(sample.prompt_ids, sample.token_ids, [at for at, wanted in enumerate(sample.mask) if wanted]) for sample in used]
        one_gradient(self.weights.values())
        sums: list[torch.Tensor] = []
        recompute = self.recomputes(sequences)
        budget_tokens = self.microbatch_tokens(recompute)
        with self._recomputing(recompute):
            for prompts, trees in self._parts(sequences, recompute, budget_tokens):
                lengths = [sequences[tree.members[0]].length if prompts is None else tree.length for tree in trees]
                for batch in microbatches(lengths, budget_tokens):
                    part = [trees[at] for at in batch]
                    hidden_KH = self._hidden(part, sequences, prompts)
                    sums += self._backward(hidden_KH, wanted_of(part), used, sequences, objective)
                if prompts is not None:
                    prompts.backward()
        return Sums.of(sums)

    def _parts(self, sequences: Sequence[TokenSequence], recompute: bool, budget_tokens: int) -> Iterator[tuple[Prompts | None, list[Tree]]]:
        """Prompts, as many as the budget holds, run once, and their sequences as trees; all at once, nothing shared and no prompts where activations are
        recomputed, which works without a cache only.
        """
        if recompute:
            yield None, [alone(at, sequence) for at, sequence in enumerate(sequences)]
            return
        yield from prompt_parts(self.forward, sequences, budget_tokens)

    def _hidden(self, trees: Sequence[Tree], sequences: Sequence[TokenSequence], prompts: Prompts | None) -> torch.Tensor:
        """Hidden states [K, H] that predict the distinct wanted tokens."""
        if prompts is not None:
            return prompts.hidden(trees)
        rows = rows_of([sequences[at] for tree in trees for at in tree.members], self.forward.pad_id, self.forward.device)
        return self.forward.hidden(rows.ids_BT).flatten(0, 1).index_select(0, rows.positions_K)

    def _backward(
        self, hidden_KH: torch.Tensor, wanted: Wanted, samples: Sequence[TrainingSample], sequences: Sequence[TokenSequence], objective: Objective
    ) -> list[torch.Tensor]:
        """Gradient of one micro-batch; the sums of its chunks. The head runs on chunks of the K distinct tokens, forward and backward at once; X: every
        completion's own wanted tokens, with a loss each, in the order of the distinct ones.
        """
        order_X = np.argsort(wanted.of_X, kind="stable")
        of_X = wanted.of_X[order_X]
        names = ("advantages", "logprobs", "ref_logprobs") if objective.kl_coef else ("advantages", "logprobs")
        numbers = {name: self._on_device(gathered(samples, sequences, wanted.members, name)[order_X]) for name in names}
        scale_X = self._on_device(np.array([samples[at].scale for at in wanted.members for _ in sequences[at].wanted], np.float32)[order_X])
        targets_K, places_X = self._on_device(wanted.targets_K), self._on_device(of_X)
        sums, slopes_KH = list[torch.Tensor](), torch.empty_like(hidden_KH)
        for part in head_chunks(len(hidden_KH), self.forward):
            own = slice(*np.searchsorted(of_X, [part.start, part.stop]).tolist())
            leaf_KH, places = hidden_KH[part].detach().requires_grad_(), places_X[own] - part.start
            head = Head(self.forward, leaf_KH, targets_K[part], objective.temperature)
            logprobs_X, sampled_X = head.logprobs_K[places], numbers["logprobs"][own]
            reference_X = numbers["ref_logprobs"][own] if objective.kl_coef else None
            terms = objective.token_loss(torch, logprobs_X, sampled_X, numbers["advantages"][own], reference_X)
            head.backward(torch.zeros_like(head.logprobs_K).index_add_(0, places, terms.slope * scale_X[own]))
            assert leaf_KH.grad is not None
            slopes_KH[part] = leaf_KH.grad
            sums.append(sums_of(terms, scale_X[own], (logprobs_X - sampled_X).abs()))
        torch.autograd.backward(hidden_KH, slopes_KH)
        return sums

    def _on_device(self, numbers: np.ndarray[Any, Any]) -> torch.Tensor:
        return torch.from_numpy(numbers).to(self.forward.device)

    def _finite_norm(self, sums: Sums) -> torch.Tensor:
        """The gradient's norm. Raises UpdateError when it or the loss is not finite."""
        norm = torch.nn.utils.get_total_norm([weight.grad for weight in self.weights.values() if weight.grad is not None])
        if not math.isfinite(sums.loss) or not math.isfinite(float(norm)):
            raise UpdateError(
                f"an update with loss {sums.loss} and gradient norm {float(norm)}",
                "a step that is not finite would destroy the weights; none has moved",
                "lower update.learning_rate, or look for infinite rewards or log-probabilities in the record of this step",
            )
        return norm

    def _recomputing(self, recompute: bool) -> AbstractContextManager[None]:
        return recomputing(self.forward.running) if recompute else nullcontext()


def gathered(samples: Sequence[TrainingSample], sequences: Sequence[TokenSequence], chosen: Sequence[int], name: str) -> np.ndarray[Any, Any]:
    """Numbers [X] of the wanted tokens of the chosen sequences, in order, float32."""
    values: list[float] = []
    for at in chosen:
        numbers = getattr(samples[at], name)
        if len(numbers) != len(samples[at].token_ids):
            raise UpdateError(
                f"a sample with {len(samples[at].token_ids)} tokens and {len(numbers)} {name}", "every token needs one", "give one number a token"
            )
        values.extend(numbers[token] for token in sequences[at].wanted)
    return np.array(values, np.float32)


def sums_of(terms: Any, scale_K: torch.Tensor, gaps_K: torch.Tensor) -> torch.Tensor:
    """The `Sums` [7] of one chunk of K tokens, float64."""
    parts = (terms.value * scale_K, terms.ratio, terms.clipped, gaps_K, terms.kl)
    count = torch.full((), len(scale_K), dtype=torch.float64, device=scale_K.device)
    return torch.stack([*(part.sum(dtype=torch.float64) for part in parts), count, terms.ratio.max().double()])


def stats_of(sums: Sums, grad_norm: float, learning_rate: float) -> UpdateStats:
    """Means over tokens; all 0 but the learning rate where no token gave gradient."""
    count = max(sums.tokens, 1)
    return UpdateStats(
        loss=sums.loss,
        grad_norm=grad_norm,
        learning_rate=learning_rate,
        ratio_mean=sums.ratio / count,
        ratio_max=sums.ratio_max,
        clip_frac=sums.clipped / count,
        logprob_gap_nats=sums.gap_nats / count,
        kl_loss_nats=sums.kl_nats / count,
        num_tokens=int(sums.tokens),
    )
