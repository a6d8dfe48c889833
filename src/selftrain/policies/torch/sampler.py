"""From requests to groups: which sequences are drawn side by side, with which random numbers; then their texts."""

from __future__ import annotations

from collections.abc import Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass

import numpy as np
import torch

from selftrain.errors import ModelError, PromptError
from selftrain.policies.base import SampleRequest, SamplingParams
from selftrain.policies.torch.decoding import Chunk, Drawn, Plan, RecordedDecoder
from selftrain.policies.torch.encoding import Encoder
from selftrain.policies.torch.forward import Forward
from selftrain.policies.torch.graphs import Graphs
from selftrain.policies.torch.prefixes import PrefixDecoder, copied_tokens
from selftrain.policies.torch.scoring import LOGITS_AT_ONCE
from selftrain.policies.torch.stops import StopTexts
from selftrain.policies.torch.text import TextDecoder
from selftrain.seeds import Stream
from selftrain.types import Completion, Finish, Group, Message, PolicyVersion

MOST_ROWS = {"cpu": 2048, "cuda": 4096}
"""Sequences side by side at most, however small they are: more of them do not make a processor faster."""
ROWS_OF_LOGITS = 512
"""On a CPU more than so many go side by side only where logits of all of them are made at once."""

Text = tuple[str, tuple[int, ...]]


@dataclass(frozen=True, slots=True)
class TorchSampler:
    """Draws completions from the weights in `forward`. cache_mib: memory for keys and values; how many sequences go side by side follows from it, from the
    lengths and from nothing else. graphs: the decode step recorded, on a GPU; stop texts are looked for between steps, so with them no step is.
    """

    forward: Forward
    encoder: Encoder
    text: TextDecoder
    stop_ids: frozenset[int]
    cache_mib: int
    graphs: Graphs | None = None

    def sample(self, requests: Sequence[SampleRequest], params: SamplingParams, seeds: Stream, version: PolicyVersion) -> list[Group]:
        """One group per request, in order. Raises PromptError when a prompt leaves no room for a completion."""
        encoded: dict[tuple[Message, ...], tuple[int, ...]] = {}
        prompts = [encoded.get(one.prompt.messages) or encoded.setdefault(one.prompt.messages, self.encoder.encode(one.prompt)) for one in requests]
        self._check_prompts(requests, prompts)
        if not any(request.count for request in requests):
            return [Group(one.step, one.index, one.prompt, ids, ()) for one, ids in zip(requests, prompts, strict=True)]
        plan = self._plan(requests, prompts, params, seeds)
        drawn, texts = self._draw(plan, params)
        groups, first = [], 0
        for request, prompt_ids in zip(requests, prompts, strict=True):
            completions = tuple(completion(drawn, texts, at, version) for at in range(first, first + request.count))
            groups.append(Group(request.step, request.index, request.prompt, prompt_ids, completions))
            first += request.count
        return groups

    def _plan(self, requests: Sequence[SampleRequest], prompts: Sequence[tuple[int, ...]], params: SamplingParams, seeds: Stream) -> Plan:
        """Sequences are numbered by request and vote; chunks with the longest prompts come first."""
        total, limit = sum(request.count for request in requests), self.forward.max_positions
        uniforms, limits = np.zeros((total, params.max_new_tokens + 1)), list[int]()
        for request, prompt_ids in zip(requests, prompts, strict=True):
            room = params.max_new_tokens if limit is None else min(params.max_new_tokens, limit - len(prompt_ids))
            for vote in range(request.count):
                if params.temperature > 0:
                    stream = (request.seeds or seeds).at(step=request.step, prompt_id=request.prompt.id, index=vote)
                    uniforms[len(limits), :-1] = stream.generator().random(params.max_new_tokens)
                limits.append(room)
        longest = max(len(ids) for ids in prompts)
        longest += max(limits) + copied_tokens(longest, self.forward.device.type)
        rows = rows_within(self.cache_mib, self.forward.bytes_per_token * longest)
        rows = max(1, min(rows, most_rows(self.forward.device.type, self.forward.vocabulary), total))
        return Plan(chunks_of(prompts, [request.count for request in requests], rows), torch.from_numpy(uniforms), torch.tensor(limits), rows)

    def _draw(self, plan: Plan, params: SamplingParams) -> tuple[Drawn, list[Text]]:
        """What is drawn, and its texts, which are read on another thread while the rest is still being drawn."""
        stop_texts = StopTexts(params.stop, self.text) if params.stop else None
        graphs = None if params.stop or self.graphs is None or self.graphs.broken else self.graphs
        texts: dict[int, Future[Text]] = {}
        with ThreadPoolExecutor(1) as reader, torch.inference_mode():
            given, stop_ids = (self.forward, params, plan), sorted(self.stop_ids | self.text.special_ids(params.stop))
            decoder = PrefixDecoder(*given, stop_ids, stop_texts) if graphs is None else RecordedDecoder(*given, stop_ids, graphs)

            def read(sequences: list[int]) -> None:
                tokens, lengths = decoder.board.tokens_ST[sequences].tolist(), decoder.board.lengths_S[sequences].tolist()
                for at, ids, length in zip(sequences, tokens, lengths, strict=True):
                    texts[at] = reader.submit(self.text.decode_with_ends, ids[:length])

            drawn = decoder.run(read)
            if graphs is not None and graphs.broken:
                graphs.drop()
        return drawn, [texts[at].result() for at in range(len(drawn.lengths_S))]

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


def completion(drawn: Drawn, texts: Sequence[Text], at: int, version: PolicyVersion) -> Completion:
    """Sequence `at` of what was drawn."""
    length, (text, ends) = drawn.lengths_S[at], texts[at]
    logprobs, entropies, certainties = (tuple(values[at][:length]) for values in (drawn.logprobs_ST, drawn.entropies_ST, drawn.certainties_ST))
    finish = Finish.STOP if drawn.stopped_S[at] else Finish.LENGTH
    return Completion(text, tuple(drawn.tokens_ST[at][:length]), logprobs, ends, entropies, finish, version, certainties)


def most_rows(device: str, vocabulary: int) -> int:
    """Sequences side by side at most, whatever the memory for keys and values."""
    return MOST_ROWS[device] if device != "cpu" else min(MOST_ROWS[device], max(ROWS_OF_LOGITS, LOGITS_AT_ONCE[device] // vocabulary))


def rows_within(cache_mib: int, bytes_each: int) -> int:
    """How many sequences fit into the cache."""
    return (cache_mib << 20) // bytes_each


def chunks_of(prompts: Sequence[tuple[int, ...]], counts: Sequence[int], rows: int) -> list[Chunk]:
    """Chunks of at most `rows` sequences, longest prompts first, whole groups where they fit. A function of its arguments alone."""
    firsts = [sum(counts[:at]) for at in range(len(counts))]
    chunks = []
    for request in sorted(range(len(counts)), key=lambda at: (-len(prompts[at]), at)):
        for begin in range(0, counts[request], rows):
            chunks.append(Chunk(prompts[request], firsts[request] + begin, min(rows, counts[request] - begin)))
    return chunks
