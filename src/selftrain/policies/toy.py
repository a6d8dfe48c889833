"""The toy policy: a log-linear table, no torch. It learns, collapses and resumes like a large one, in about a second.

A problem is `toy-I`; its true answer is one of NUM_ANSWERS digits. A completion is two tokens: a style word, then a digit (or a token without an
answer). The digit's logit is  evidence * E[a] + distractor * D[a] + bias[a]  with two fixed random features of the problem: E is 1 at the true
answer plus noise, D is 1 at one plausible wrong answer. `weak` starts with the distractor ahead, so that the vote is mostly wrong, and the shared
bias makes collapse onto one constant answer possible. `sure` answers the more sharply the later the style word is, so that it can learn to be sure. All
gradients are exact. Asked whether two answers say the same, the toy judges by a fixed rule; asked whether an answer is right, by how likely it finds it.
`toy-I again` is a second wording of problem I: the same true answer, other noise and another distractor. Asked to rewrite a problem, the toy mostly does.
In a second turn it looks at the problem as if it were worded anew and has a weight more, for the answer that it gave in the first turn; whatever else the
user says there, it does not read. At the start it mostly keeps its answer, so a second turn is worth little before it is trained.
"""

from __future__ import annotations

import hashlib
import json
import re
from bisect import bisect_right
from collections.abc import Sequence
from functools import lru_cache
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from selftrain.config import UpdateSection
from selftrain.errors import PromptError, UpdateError
from selftrain.objective import Objective
from selftrain.policies.base import SampleRequest, SamplingParams, UpdateStats
from selftrain.prompts.wordings import INSTRUCTION
from selftrain.seeds import Stream
from selftrain.types import AnswerSheet, Completion, Finish, Group, Message, PolicyVersion, Prompt, PromptSet, TrainingSample

Floats = NDArray[np.float64]

STYLES = ("so ", "thus ", "well ")
NUM_ANSWERS = 8
NUM_TOKENS = len(STYLES) + NUM_ANSWERS + 1
"""style words, digits, and one token without an answer"""
NUM_WEIGHTS = 2 + len(STYLES) + NUM_ANSWERS + 1 + 1
"""evidence, distractor, one bias per token, and in a second turn the answer of the first"""
JUDGED = re.compile(r"Question: toy-(\d+)\n\nAnswer 1: (.+)\n\nAnswer 2: (.+)\n\n")
"""how `answers.judge.judge_prompt` begins for a toy problem"""
SECOND, REWRITE, CHECK = 0, 1, 2
"""second token of a prompt that is a second wording, that asks for one, or that is a second turn"""
SAID = re.compile(r"#### (\d)")
"""the answer in what the toy said in the first turn"""
GRADED = re.compile(r"Question: toy-(\d+)\n\nAnswer: .*?(?:#### (\d))?\n\n")
"""how `labels.self_judge.grade_prompt` begins for a completion, with a digit or without"""
GRADE = (0, 0)
"""last tokens of a prompt that asks whether an answer is right, so that it has four"""
AGAIN = " again"
"""what makes a second wording of a toy problem"""
_TOY = re.compile(rf"toy-(\d+)({AGAIN})?")
START = {"toy": (1.6, 0.8), "toy:weak": (0.7, 1.5), "toy:sure": (1.6, 0.8)}
"""first weights of evidence and distractor"""
KEEP_START = 2.0
"""first weight of its own answer in a second turn"""
SHARPNESS = {"toy:sure": (0.5, 1.0, 2.0)}
"""by model, factors of the answers' logits after each style word; 1 where it is missing"""


def is_toy(model: str) -> bool:
    """Whether a model's name means the toy policy: `toy` or `toy:...`, not a folder or hub id that begins with these letters."""
    return model in START or model.startswith("toy:")


def problems(count: int, first: int = 0) -> PromptSet:
    """Problems toy-first ... with their true answers."""
    prompts = tuple(Prompt(f"toy-{i}", (Message("user", f"toy-{i}"),)) for i in range(first, first + count))
    return PromptSet(prompts, AnswerSheet({prompt.id: str(true_digit(prompt.text)) for prompt in prompts}), f"toy:{first}+{count}")


def second_wording(text: str) -> str | None:
    """Another wording of a toy problem; None for any other text."""
    return f"{text}{AGAIN}" if _TOY.fullmatch(text) and not text.endswith(AGAIN) else None


def true_digit(text: str) -> int:
    return hashlib.sha256(text.encode("utf-8", "surrogatepass")).digest()[0] % NUM_ANSWERS


def features(text: str) -> Floats:
    """[2, NUM_ANSWERS + 1]: evidence and distractor of each digit and of the token without an answer; fixed for a problem."""
    random = Stream(0, stream="toy features", prompt_id=text).generator()
    table = random.normal(0.0, 0.35, size=(2, NUM_ANSWERS + 1))
    right = true_digit(text.removesuffix(AGAIN))
    table[0, right] += 1.0
    table[1, (right + 1 + int(random.integers(NUM_ANSWERS - 1))) % NUM_ANSWERS] += 1.0
    table[:, NUM_ANSWERS] = -0.5
    return np.asarray(table)


@lru_cache(maxsize=4096)
def inputs(prompt_ids: tuple[int, ...]) -> Floats:
    """[3, NUM_ANSWERS + 1], not to be written to: evidence, distractor and, in a second turn, 1 at the answer of the first, else 0."""
    text = f"toy-{prompt_ids[0]}"
    said = np.zeros(NUM_ANSWERS + 1)
    if len(prompt_ids) == 4:
        said[prompt_ids[2]] = 1.0
    table = np.vstack([features(text if len(prompt_ids) == 1 else f"{text}{AGAIN}"), said])
    table.setflags(write=False)
    return table


def log_softmax(logits: Floats) -> Floats:
    shifted = logits - logits.max()
    return np.asarray(shifted - np.log(np.exp(shifted).sum()))


def cumulated(table: Floats) -> list[float]:
    """The cumulated probability up to each entry of a distribution given by its log-probabilities."""
    return np.cumsum(np.exp(table)).tolist()  # type: ignore[no-any-return]


def pick(up_to: Sequence[float], draw: float) -> int:
    """The entry at which the cumulated probability first exceeds a number in [0, 1)."""
    return min(bisect_right(up_to, draw), len(up_to) - 1)


def entropy(table: Floats) -> float:
    """Of a distribution given by its log-probabilities, in nats, rounded to 32 bits like those of other policies."""
    return float(np.float32(-(np.exp(table) * table).sum()))


def certainty(table: Floats) -> float:
    """KL(uniform || p) of a distribution given by its log-probabilities, in nats, rounded to 32 bits."""
    return float(np.float32(-table.mean() - np.log(len(table))))


def is_grade(prompt_ids: tuple[int, ...]) -> bool:
    """Whether a prompt asks whether an answer is right; a second turn has as many tokens and another last one."""
    return len(prompt_ids) == 4 and prompt_ids[2:] == GRADE


def replies(prompt_ids: tuple[int, ...]) -> tuple[tuple[str, ...], Floats]:
    """What the toy may reply to a question that is no problem, with unnormalised log-probabilities.

    A judge says yes with log-odds of 2 for two even or two odd digits, of -2 for any other pair. A paraphrase is the second wording, or the problem as it
    was, or another problem.
    """
    if prompt_ids[1:] == (REWRITE,):
        return (f"toy-{prompt_ids[0]}{AGAIN}", f"toy-{prompt_ids[0]}", f"toy-{prompt_ids[0] + 1}{AGAIN}"), np.array([1.0, 0.0, 0.0])
    alike = max(prompt_ids[1:]) < NUM_ANSWERS and prompt_ids[1] % 2 == prompt_ids[2] % 2
    return ("yes", "no"), np.array([2.0, 0.0] if alike else [0.0, 2.0])


class ToyPolicy:
    """Implements the Policy protocol. `model` is toy, toy:weak or toy:sure. Learns by AdamW like the others; `weights` has NUM_WEIGHTS float64 values."""

    def __init__(self, model: str, update: UpdateSection, ema_decay: float = 0.95) -> None:
        self._model = model
        self._update = update
        self._decay = ema_decay
        self._sharpness = SHARPNESS.get(model, (1.0,) * len(STYLES))
        self.restart()
        self._reference = self.weights.copy()

    def restart(self) -> None:
        """The policy as it was before the first update."""
        self.weights: Floats = np.zeros(NUM_WEIGHTS)
        self.weights[:2], self.weights[-1] = START[self._model], KEEP_START
        self._moments: Floats = np.zeros((2, NUM_WEIGHTS))
        self._version = PolicyVersion(0, 0)
        self._average: Floats | None = None

    @property
    def version(self) -> PolicyVersion:
        return self._version

    def encode(self, prompt: Prompt) -> tuple[int, ...]:
        """A toy problem is one token, its number; its second wording or the request for one is one more, a question whether two answers say the same two
        more, whether an answer is right and a second turn three. Raises PromptError for any other text.
        """
        if len(prompt.messages) == 3 and prompt.messages[1].role == "assistant":
            said = SAID.search(prompt.messages[1].content)
            return (*self.encode(Prompt(prompt.id, prompt.messages[:1])), CHECK, int(said[1]) if said else NUM_ANSWERS, CHECK)
        if judged := JUDGED.match(prompt.text):
            return (int(judged[1]), *(int(answer) if answer.isdigit() else NUM_ANSWERS for answer in judged.group(2, 3)))
        if graded := GRADED.match(prompt.text):
            return (int(graded[1]), NUM_ANSWERS if graded[2] is None else int(graded[2]), *GRADE)
        read = _TOY.fullmatch(prompt.text.removeprefix(INSTRUCTION))
        if read is None:
            raise PromptError(f"prompt {prompt.id}: {prompt.text[:60]!r}", "the toy policy knows its own problems only", "Choose another policy.model.")
        if prompt.text.startswith(INSTRUCTION):
            return (int(read[1]), REWRITE)
        return (int(read[1]), SECOND) if read[2] else (int(read[1]),)

    def too_long(self, prompts: Sequence[Prompt], max_prompt_tokens: int | None = None) -> list[tuple[str, int]]:
        """A toy prompt has one to four tokens; reading them here raises PromptError for a text that is no toy problem before the first step."""
        lengths = [(prompt.id, len(self.encode(prompt))) for prompt in prompts]
        return [one for one in lengths if max_prompt_tokens is not None and one[1] > max_prompt_tokens]

    def base(self) -> ToyPolicy:
        return ToyPolicy(self._model, self._update)

    def ema(self) -> ToyPolicy:
        if self._average is None:
            self._average = self.weights.copy()
        averaged = ToyPolicy(self._model, self._update)
        averaged.weights, averaged._version = self._average.copy(), self._version
        return averaged

    def logits(self, prompt_ids: tuple[int, ...], weights: Floats) -> tuple[Floats, Floats]:
        """Logits of the style words and of the answers ([3], [NUM_ANSWERS + 1])."""
        evidence, distractor, said = inputs(prompt_ids)
        answers = weights[0] * evidence + weights[1] * distractor + weights[2 + len(STYLES) : -1] + weights[-1] * said
        return weights[2 : 2 + len(STYLES)], answers

    def sample(self, requests: Sequence[SampleRequest], params: SamplingParams, seeds: Stream) -> list[Group]:
        return [self._sample_one(request, params, request.seeds or seeds) for request in requests]

    def _sample_one(self, request: SampleRequest, params: SamplingParams, seeds: Stream) -> Group:
        prompt_ids = self.encode(request.prompt)
        if len(prompt_ids) == 3 or prompt_ids[1:] == (REWRITE,) or is_grade(prompt_ids):
            streams = (seeds.at(step=request.step, prompt_id=request.prompt.id, index=index) for index in range(request.count))
            words, log_odds = self._grades(prompt_ids) if is_grade(prompt_ids) else replies(prompt_ids)
            done = tuple(self._reply(words, log_softmax(log_odds / max(params.temperature, 1e-6)), stream.generator().random()) for stream in streams)
            return Group(request.step, request.index, request.prompt, prompt_ids, done)
        styles, answers = (logits / max(params.temperature, 1e-6) for logits in self.logits(prompt_ids, self.weights))
        first, after = log_softmax(styles), [log_softmax(answers * sharpness) for sharpness in self._sharpness]
        entropies = [(entropy(first), entropy(table)) for table in after]
        certainties = [(certainty(first), certainty(table)) for table in after] if params.certainties else [()] * len(after)
        styles_up_to, answers_up_to = cumulated(first), [cumulated(table) for table in after]
        completions = []
        for index in range(request.count):
            draws = seeds.at(step=request.step, prompt_id=request.prompt.id, index=index).generator().random(2).tolist()
            style = pick(styles_up_to, draws[0])
            tables, picks = (first, after[style]), (style, pick(answers_up_to[style], draws[1]))
            words = (STYLES[picks[0]], f"#### {picks[1]}" if picks[1] < NUM_ANSWERS else "hm")
            length = min(2, params.max_new_tokens)
            completions.append(
                Completion(
                    text="".join(words[:length]),
                    token_ids=(picks[0], len(STYLES) + picks[1])[:length],
                    logprobs=tuple(float(np.float32(table[at])) for table, at in zip(tables, picks, strict=True))[:length],
                    token_ends=(len(words[0]), len(words[0]) + len(words[1]))[:length],
                    entropies=entropies[style][:length],
                    finish=Finish.STOP if length == 2 else Finish.LENGTH,
                    version=self._version,
                    certainties=certainties[style][:length],
                )
            )
        return Group(request.step, request.index, request.prompt, prompt_ids, tuple(completions))

    def _grades(self, prompt_ids: tuple[int, ...]) -> tuple[tuple[str, ...], Floats]:
        """What the toy may reply when it is asked whether an answer is right: yes the more likely it finds the answer, no or nothing readable else."""
        answers = log_softmax(self.logits(prompt_ids[:1], self.weights)[1])
        return ("yes", "no", "perhaps"), np.array([answers[prompt_ids[1]], -np.log(len(answers)), -np.log(3 * len(answers))])

    def _reply(self, words: Sequence[str], table: Floats, draw: float) -> Completion:
        """One of the texts, drawn from these log-probabilities."""
        at = pick(cumulated(table), draw)
        return Completion(words[at], (NUM_TOKENS + at,), (float(np.float32(table[at])),), (len(words[at]),), (entropy(table),), Finish.STOP, self._version)

    def token_logprobs(self, prompt_ids: tuple[int, ...], token_ids: Sequence[int], temperature: float, weights: Floats) -> tuple[Floats, Floats]:
        """Log-probabilities [T] of the tokens and their gradients [T, NUM_WEIGHTS]."""
        first = token_ids[0]
        sharpness = self._sharpness[first]
        styles, answers = (logits / temperature for logits in self.logits(prompt_ids, weights))
        styles, answers = log_softmax(styles), log_softmax(answers * sharpness)
        gradients = np.zeros((2, NUM_WEIGHTS))
        if len(token_ids) == 1:  # cut off after the style word
            gradients[0, 2 : 2 + len(STYLES)] = np.eye(len(STYLES))[first] - np.exp(styles)
            return styles[first : first + 1], gradients[:1] / temperature
        second = token_ids[1] - len(STYLES)
        gradients[0, 2 : 2 + len(STYLES)] = np.eye(len(STYLES))[first] - np.exp(styles)
        *known, said = inputs(prompt_ids)
        slope = (np.eye(NUM_ANSWERS + 1)[second] - np.exp(answers)) * sharpness
        gradients[1, :2], gradients[1, -1] = np.array(known) @ slope, said @ slope
        gradients[1, 2 + len(STYLES) : -1] = slope
        return np.array([styles[first], answers[second]]), gradients / temperature

    def reference_logprobs(self, groups: Sequence[Group], temperature: float) -> list[list[tuple[float, ...]]]:
        return self._logprobs(groups, temperature, self._reference)

    def logprobs(self, groups: Sequence[Group], temperature: float) -> list[list[tuple[float, ...]]]:
        return self._logprobs(groups, temperature, self.weights)

    def _logprobs(self, groups: Sequence[Group], temperature: float, weights: Floats) -> list[list[tuple[float, ...]]]:
        return [
            [tuple(self.token_logprobs(group.prompt_ids, one.token_ids, temperature, weights)[0].tolist()) for one in group.completions] for group in groups
        ]

    def gradient(self, samples: Sequence[TrainingSample], objective: Objective) -> tuple[float, Floats, list[tuple[float, float, float, float]]]:
        """Loss, gradient [NUM_WEIGHTS] and per token (ratio, clipped, gap, kl)."""
        loss, gradient, tokens = 0.0, np.zeros(NUM_WEIGHTS), []
        for sample in samples:
            logprobs, slopes = self.token_logprobs(sample.prompt_ids, sample.token_ids, objective.temperature, self.weights)
            reference = np.array(sample.ref_logprobs) if sample.ref_logprobs else None
            term = objective.token_loss(np, logprobs, np.array(sample.logprobs), np.array(sample.advantages), reference)
            mask = np.array(sample.mask, dtype=float) * sample.scale
            loss += float((term.value * mask).sum())
            gradient += (term.slope * mask) @ slopes
            gaps = np.abs(logprobs - np.array(sample.logprobs))
            kept = np.array(sample.mask)
            columns = (values[kept].tolist() for values in (term.ratio, term.clipped, gaps, term.kl))
            tokens += list(zip(*columns, strict=True))
        return loss, gradient, tokens

    def update(self, samples: Sequence[TrainingSample], objective: Objective, learning_rate: float) -> UpdateStats:
        loss, gradient, tokens = self.gradient(samples, objective)
        norm = float(np.linalg.norm(gradient))
        if not np.isfinite(norm) or not np.isfinite(loss):
            raise UpdateError(
                f"update {self._version.updates + 1}: loss {loss}, gradient norm {norm}",
                "it is not finite, so no weight was changed",
                "Lower update.learning_rate; `selftrain resume` goes on from the last checkpoint.",
            )
        gradient *= min(1.0, self._update.max_grad_norm / (norm + 1e-6))
        beta1, beta2, count = self._update.beta1, self._update.beta2, self._version.updates + 1
        self._moments[0] = beta1 * self._moments[0] + (1 - beta1) * gradient
        self._moments[1] = beta2 * self._moments[1] + (1 - beta2) * gradient**2
        moved = (self._moments[0] / (1 - beta1**count)) / (np.sqrt(self._moments[1] / (1 - beta2**count)) + 1e-8)
        self.weights = self.weights * (1 - learning_rate * self._update.weight_decay) - learning_rate * moved
        self._version = PolicyVersion(self._version.branch, count)
        if self._average is not None:
            self._average = self._decay * self._average + (1 - self._decay) * self.weights
        columns = np.array(tokens)
        return UpdateStats(
            loss=loss,
            grad_norm=norm,
            learning_rate=learning_rate,
            ratio_mean=float(columns[:, 0].mean()),
            ratio_max=float(columns[:, 0].max()),
            clip_frac=float(columns[:, 1].mean()),
            logprob_gap_nats=float(columns[:, 2].mean()),
            kl_loss_nats=float(columns[:, 3].mean()),
            num_tokens=len(tokens),
        )

    def save(self, folder: Path) -> None:
        (folder / "toy.json").write_text(json.dumps({"weights": self.weights.tolist()}), "utf-8")

    def save_optimizer(self, folder: Path) -> None:
        average = None if self._average is None else self._average.tolist()
        record = {"moments": self._moments.tolist(), "version": str(self._version), "average": average}
        (folder / "optimizer.json").write_text(json.dumps(record), "utf-8")

    def load(self, folder: Path) -> None:
        self.weights = np.array(json.loads((folder / "toy.json").read_text("utf-8"))["weights"])
        optimizer = json.loads((folder / "optimizer.json").read_text("utf-8"))
        self._moments, self._version = np.array(optimizer["moments"]), PolicyVersion.parse(optimizer["version"])
        average = optimizer.get("average")
        self._average = None if average is None else np.array(average)

    def weights_hash(self) -> str:
        return hashlib.sha256(self.weights.tobytes()).hexdigest()

    def start_branch(self, branch: int) -> None:
        self._version = PolicyVersion(branch, self._version.updates)
