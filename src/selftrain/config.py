"""What a run is: frozen sections with every option's unit, default and meaning. Loading and layering: config_load.py.

Units in names: `_frac` in [0, 1], `_nats`, `_tokens`, `_s`, `num_`, `max_`. No value stands for another one; an option that may be unset says
what then happens.
"""

from __future__ import annotations

import re
from typing import Annotated, Any, Literal

from pydantic import StringConstraints, field_validator

from selftrain.config_labels import (
    EmaSection,
    FirstOfSection,
    GateSection,
    JudgeSection,
    MixtureSection,
    NoveltySection,
    ReferenceSection,
    RestrainedSection,
    SecondViewSection,
    SelfJudgeSection,
    StepShareSection,
    StoredSection,
    VerifierSection,
    ViewsSection,
)
from selftrain.config_section import Section, option


class RunSection(Section):
    """The run itself."""

    name: str | None = option(
        None,
        "name",
        "Name of the run folder, of letters, digits, dots, dashes and underscores, a letter or digit first, at most 200; unset: train-0001, train-0002, ...",
    )
    folder: str = option(
        "runs",
        "path",
        "Folder in which run folders are made: a path, or a URL of an object store such as s3://bucket/runs (extra `s3`, `gs` or `abfs`).",
        min_length=1,
    )
    seed: int = option(0, "integer", "Every random draw of the run is derived from it.", ge=0)
    num_steps: int = option(200, "steps", "How many steps to train.", ge=1)
    checkpoint_every_steps: int = option(10, "steps", "Distance of checkpoints; a crash repeats at most this many steps.", ge=1)
    num_checkpoints: int = option(
        3,
        "checkpoints",
        "How many newest checkpoints to keep; what may be handed over or gone back to stays too (at most 7 were seen with one every 10 steps; docs/guard.md).",
        ge=1,
    )

    @field_validator("name")
    @classmethod
    def _is_a_folders_name(cls, name: str | None) -> str | None:
        if name is not None and not re.fullmatch(r"[A-Za-z0-9][A-Za-z0-9._-]*", name):
            raise ValueError("a name has letters, digits, dots, dashes and underscores only, and begins with a letter or digit")
        if name is not None and len(name) > 200:  # file systems take 255 bytes
            raise ValueError(f"it has {len(name)} characters, and a folder's name has room for 200 and the endings of what is written beside it")
        return name


class PolicySection(Section):
    """The model that is trained and how it is spoken to."""

    model: str = option("embedded:default", "model", "embedded:default, embedded:weak, toy, a Hugging Face folder or a hub id.")
    device: Literal["cpu", "cuda"] = option("cpu", "device", "Where the model runs.")
    sampler: Literal["torch", "vllm"] = option(
        "torch", "name", "Who draws completions. torch: the learner's own weights; vllm: a vLLM engine on the same GPU (extra `vllm`), see [vllm]."
    )
    dtype: Literal["float32", "bfloat16"] | None = option(
        None,
        "type",
        "Type of the arithmetic; trained weights, their gradients and moments stay float32. Unset: bfloat16 on a GPU, else float32; kept in the record.",
    )
    num_threads: int | None = option(None, "threads", "CPU threads; unset: OMP_NUM_THREADS, else one per core; kept in the record.", ge=1)
    prompt_format: Literal["chat", "plain"] = option("chat", "format", "chat: the tokenizer's chat template; plain: `plain_template`, for base models.")
    plain_template: str = option("Problem: {prompt}\nSolution:", "text", "What a base model is given; {prompt} and, if wanted, {system} are replaced.")
    system_prompt: str | None = option(None, "text", "A system turn before every prompt; unset: none.")
    chat_template_args: dict[str, Any] = option({}, "table", "Extra arguments of the chat template, for example enable_thinking = false.")
    lora_rank: int | None = option(None, "rank", "Train LoRA adapters of this rank (extra `lora`); unset: all weights.", ge=1)
    lora_alpha: float = option(32.0, "factor", "LoRA scale, divided by the rank.", gt=0)
    gradient_checkpointing: bool | None = option(
        None,
        "yes/no",
        "Recompute activations in the backward pass: less memory, about a third more time. Unset: where one sequence alone would keep more than 4 GiB "
        "on the CPU, a quarter of a GPU's memory.",
    )

    @property
    def compute_dtype(self) -> Literal["float32", "bfloat16"]:
        """`dtype`, or what it means when it is unset."""
        return self.dtype or ("bfloat16" if self.device == "cuda" else "float32")


class PromptsSection(Section):
    """Where training prompts come from: exactly one of file, dataset and task."""

    file: str | None = option(None, "path", "JSONL, CSV or Parquet with one prompt a row.")
    dataset: str | None = option(None, "name", "A Hugging Face dataset, NAME or NAME:CONFIG (extra `datasets`).")
    dataset_split: str = option("train", "name", "Split of the dataset.")
    task: str | None = option(None, "name", "A procedural task: add:4 (name:level), several with commas, or gym:NAME:LEVEL for reasoning-gym (extra `gym`).")
    count: int | None = option(
        None,
        "prompts",
        "How many prompts to make, or to use from the start of a file; unset: all rows of a file, 1,024 of a task or all that its level has.",
        ge=1,
    )
    prompt_field: str = option("prompt", "column", "Column with the prompt: a text, or a list of {role, content} messages.")
    answer_field: str = option("answer", "column", "Column with true answers; read for evaluation and by the `reference` label source only.")
    template: str | None = option(None, "text", "raw, boxed, or a text with {prompt}; unset: boxed for files and datasets, raw for tasks.")
    max_prompt_tokens: int = option(1024, "tokens", "A longer prompt is an error, found before the first step.", ge=1)


class RolloutSection(Section):
    """How completions are drawn."""

    prompts_per_step: int = option(16, "prompts", "P, prompts of a step.", ge=1)
    num_votes: int = option(16, "completions", "N, completions of a prompt that vote.", ge=2)
    group_size: int | None = option(None, "completions", "G, completions of a group that are trained on, drawn by a named seed; unset: all that vote.", ge=1)
    max_new_tokens: int = option(512, "tokens", "Longest completion.", ge=1)
    temperature: float = option(1.0, "factor", "Sampling temperature; the objective uses the same.", ge=1e-3)
    stop: tuple[Annotated[str, StringConstraints(min_length=1)], ...] = option((), "texts", "Texts that end a completion.")
    cache_mib: int | None = option(
        None,
        "MiB",
        "Memory for the keys and values of the completions being sampled; it decides how many are sampled side by side. Unset: 1,024 on the CPU, "
        "a quarter of a GPU's memory.",
        ge=1,
    )


ONE_ANSWER_CLUSTERINGS = ("exact", "text")
"""values of labels.clustering whose keys follow from each answer alone, so that they mean something outside their group"""


class LabelsSection(Section):
    """Who decides what is rewarded."""

    source: str = option(
        "ema",
        "name",
        "ema: the vote of a moving average of the weights; majority: the vote of the policy as it is, half the samples; "
        "split_vote: each half of the group labels the other; frozen: the vote of the model as it was at the start; "
        "stored: votes that `selftrain label` wrote to a file; "
        "second_view: an answer that survives another wording of the prompt; views: several wordings vote together; "
        "restrained: soft weights over all answers; novelty: the vote, ranked by novelty; flip_damped: the vote, less where it changed often; "
        "token_entropy and self_certainty: how sure the policy is of its tokens; "
        "self_judge: the policy grades its own completions; "
        "verifier: a program decides, reference: true answers (both use the truth); the controls random, format_only and inverted; "
        "first_of, mixture and gate are made of others; "
        "or package.module:function (docs/labels.md).",
    )
    clustering: str = option(
        "exact",
        "name",
        "Which answers are one. exact: canonical keys; for free-form answers text, overlap (nearly the same words), judge (the policy is asked) or "
        "package.module:function.",
    )
    min_read_frac: float = option(0.25, "fraction", "Quorum: least share of completions with a readable answer for a decided vote.", ge=0, le=1)
    min_share_frac: float = option(0.0, "fraction", "Least share of the winner among all votes for a decided vote.", ge=0, le=1)


class CorrectionSection(Section):
    """A second turn in which the policy sees what it answered, looks for the error and answers again; trained by whether it then agrees with the label."""

    mode: Literal["off", "own", "group"] = option(
        "off", "name", "own: it sees its own completion; group: and the different answers of the whole group; off: there is no second turn."
    )
    text: str | None = option(
        None,
        "text",
        "What the user says in the second turn; group: with {answers} where the group's answers belong. Unset: an English sentence that asks to check and to "
        "answer again.",
    )
    num_completions: int = option(2, "completions", "Completions of a group that get a second turn, half of them agreeing with the label if possible.", ge=1)
    num_corrections: int = option(4, "completions", "Corrections of each; the baseline of their advantages is over them.", ge=2)


class RewardSection(Section):
    """From a label to one number per completion."""

    rule: str = option(
        "match", "name", "match: 1 if the answer is the pseudo-label; share: the vote share of the completion's own answer; or package.module:function."
    )


class AdvantageSection(Section):
    """From rewards to advantages."""

    rule: str = option(
        "rloo", "name", "rloo: minus the mean of the others; grpo: minus the mean, over the deviation; dr_grpo: minus the mean; or package.module:function."
    )


class ObjectiveSection(Section):
    """The loss."""

    name: Literal["reinforce", "clipped"] = option("reinforce", "name", "reinforce, or clipped importance ratios (PPO).")
    clip_low_frac: float = option(0.2, "fraction", "clipped: lower bound of the ratio is 1 minus this.", ge=0, lt=1)
    clip_high_frac: float = option(0.2, "fraction", "clipped: upper bound of the ratio is 1 plus this.", ge=0)
    length_norm: Literal["tokens", "sequence", "max_tokens"] = option(
        "tokens",
        "name",
        "tokens: mean over the step's tokens; sequence: mean of each completion, then over completions; max_tokens: sum over max_new_tokens (Dr. GRPO).",
    )
    mask_answer: bool = option(
        False, "yes/no", "The tokens of the final answer give no gradient, so that a policy cannot learn an answer instead of the way to it (OM-GRPO)."
    )
    kl_in: Literal["none", "reward", "loss"] = option("none", "place", "Where KL to the start enters; none: no second model in memory.")
    kl_coef: float = option(0.001, "1/nats", "Weight of the KL; 0 in the reward only measures it.", ge=0)
    kl_estimator: Literal["k1", "k2", "k3"] = option("k1", "name", "k1 in the reward or k2 in the loss are unbiased; k3 in the reward is the SRT paper's.")


class UpdateSection(Section):
    """The optimizer: AdamW."""

    optimizer: Literal["adamw", "adamw_8bit", "adamw_paged_8bit"] = option(
        "adamw",
        "name",
        "adamw: moments in float32; adamw_8bit: in 8 bits (extra `optimizers`); adamw_paged_8bit: the same, moved to host memory when the GPU is full.",
    )
    learning_rate: float = option(1e-6, "1/update", "Peak learning rate.", gt=0)
    schedule: Literal["constant", "linear", "cosine"] = option("constant", "name", "From the peak: constant, or down to 0 one step after the last.")
    warmup_steps: int = option(
        10, "steps", "Linear rise to the peak. By default it lasts until the guard has seen its first steps and a window after them.", ge=0
    )
    weight_decay: float = option(0.01, "factor", "Decoupled weight decay.", ge=0)
    beta1: float = option(0.9, "factor", "Decay of the first moment.", ge=0, lt=1)
    beta2: float = option(0.999, "factor", "Decay of the second moment.", ge=0, lt=1)
    max_grad_norm: float = option(1.0, "norm", "Gradients above it are scaled down.", gt=0)
    num_minibatches: int = option(
        1, "minibatches", "Optimizer steps on disjoint parts of a step's groups; above 1 importance ratios correct for the age of the samples.", ge=1
    )
    num_epochs: int = option(1, "passes", "Passes over a step's samples.", ge=1)
    tokens_per_microbatch: int | None = option(
        None,
        "tokens",
        "Padded tokens of one forward and backward pass; the gradient does not depend on it. Unset: counted, so that what is kept for the backward pass "
        "fits 256 MiB on the CPU (in float32 and 4 bytes a weight), half of what weights and cache leave of a GPU's memory; at most 2,048 and 32,768.",
        ge=1,
    )


class VllmSection(Section):
    """The engine of policy.sampler = vllm."""

    memory_frac: float = option(0.4, "fraction", "Share of the GPU's memory for its weights, keys and values while it samples.", gt=0, lt=1)
    sleep_level: int = option(
        2,
        "level",
        "Its memory during the update. 0: kept; 1: given back, weights moved to host memory; 2: given back, weights transferred again.",
        ge=0,
        le=2,
    )
    max_sequences: int = option(256, "completions", "Completions side by side.", ge=1)
    weight_max: float = option(2.0, "ratio", "Importance weights of its samples, against its own log-probabilities, are truncated here.", ge=1)


class GuardSection(Section):
    """Rules that see reward hacking without labels."""

    action: Literal["roll_back", "halt", "warn", "off"] = option(
        "roll_back",
        "name",
        "On harm: roll_back to an earlier checkpoint and go on with a remedy ([rollback]); halt and hand it over; or only warn; off: nothing is judged.",
    )
    window_steps: int = option(5, "steps", "Steps over which signals are averaged.", ge=1)
    baseline_steps: int = option(5, "steps", "First steps of the run, against which drift is measured.", ge=1)


class RollbackSection(Section):
    """guard.action = roll_back: what is changed from there on, and how often."""

    remedy: Literal["lower_rate", "higher_min_share", "frozen_teacher", "ema_teacher", "easier_prompts", "fewer_votes"] = option(
        "lower_rate",
        "name",
        "lower_rate, fewer_votes: the learning rate, the votes times `factor`; higher_min_share: the distance of labels.min_share_frac to 1 times `factor`; "
        "easier_prompts: on with the share `factor` of the prompts seen so far that agreed most; frozen_teacher, ema_teacher: labels.source becomes that.",
    )
    factor: float = option(0.5, "factor", "How far the remedy goes, each time again; teachers have none.", gt=0, lt=1)
    max_rollbacks: int = option(2, "rollbacks", "Harm after so many rollbacks of the guard halts the run.", ge=1)
    max_drift_nats: float | None = option(
        None, "nats", "Budget of drift: a probe's KL to the start per token above it halts the run, whatever guard.action is but off. Unset: none.", gt=0
    )


class ProbesSection(Section):
    """Prompts that are never trained on, asked in several wordings at intervals: what the guard sees without a label."""

    every_steps: int = option(
        20,
        "steps",
        "Distance of probes, from the first step on. In each of the next four steps, and about four times between two probes, a glance at the start's "
        "completions, for which nothing is sampled, calls for a probe at once where those have become less probable by more than chance.",
        ge=1,
    )
    num_prompts: int = option(
        96,
        "prompts",
        "Prompts held aside; 0: no probes. Those on which the start mostly agrees are asked at every probe; where these are few, further ones of a "
        "built-in task, up to three times as many. See docs/probes.md for where they come from.",
        ge=0,
    )
    num_votes: int = option(
        2,
        "completions",
        "Completions at a probe of each prompt that is also asked in other wordings (8 of them); half as many of the others; half as many, at least 2, "
        "of another wording; once, before the first step, four times as many of the start.",
        ge=2,
    )
    canaries: tuple[Annotated[str, StringConstraints(min_length=1)], ...] = option(
        (), "names", "Built-in tasks, such as add:2, whose answers a program knows (uses the truth: the run is then not label-free)."
    )


class EvalsSection(Section):
    """Held-out problems with true answers: they are reported and never reach training, stopping or the choice of a checkpoint."""

    file: str | None = option(None, "path", "JSONL, CSV or Parquet with prompts and answers; unset for a file run: no evaluation.")
    task: str | None = option(None, "name", "A procedural task; unset: the training task, with other problems.")
    num_problems: int = option(128, "problems", "Held-out problems, from the start of the file or made by the task.", ge=1)
    num_samples: int = option(16, "completions", "k of avg@k, maj@k and pass@k.", ge=1)
    every_steps: int | None = option(None, "steps", "Evaluate also every so many steps; unset: before and after only.", ge=1)
    temperature: float = option(1.0, "factor", "Sampling temperature of evaluations; 0 is greedy.", ge=0)
    top_p: float = option(1.0, "fraction", "Nucleus of evaluations.", gt=0, le=1)


class ValidationSection(Section):
    """A few problems with true answers that decide which checkpoint is handed over; off unless file or task names them. The run is then not label-free."""

    file: str | None = option(None, "path", "JSONL, CSV or Parquet with prompts and answers.")
    task: str | None = option(None, "name", "A procedural task: other problems than those to train on and those of [evals].")
    num_problems: int = option(64, "problems", "From the start of the file, or made by the task.", ge=1)
    num_samples: int = option(4, "completions", "k of the avg@k that decides; every checkpoint is measured.", ge=1)

    @property
    def is_on(self) -> bool:
        return self.file is not None or self.task is not None


class RunConfig(Section):
    """Everything that decides a run; two runs with equal configs (but for run.name and run.folder) have equal ledgers in the exact class."""

    run: RunSection = RunSection()
    policy: PolicySection = PolicySection()
    prompts: PromptsSection = PromptsSection()
    rollout: RolloutSection = RolloutSection()
    labels: LabelsSection = LabelsSection()
    ema: EmaSection = EmaSection()
    stored: StoredSection = StoredSection()
    second_view: SecondViewSection = SecondViewSection()
    views: ViewsSection = ViewsSection()
    judge: JudgeSection = JudgeSection()
    self_judge: SelfJudgeSection = SelfJudgeSection()
    reference: ReferenceSection = ReferenceSection()
    verifier: VerifierSection = VerifierSection()
    step_share: StepShareSection = StepShareSection()
    first_of: FirstOfSection = FirstOfSection()
    mixture: MixtureSection = MixtureSection()
    gate: GateSection = GateSection()
    restrained: RestrainedSection = RestrainedSection()
    novelty: NoveltySection = NoveltySection()
    correction: CorrectionSection = CorrectionSection()
    reward: RewardSection = RewardSection()
    advantage: AdvantageSection = AdvantageSection()
    objective: ObjectiveSection = ObjectiveSection()
    update: UpdateSection = UpdateSection()
    vllm: VllmSection = VllmSection()
    guard: GuardSection = GuardSection()
    rollback: RollbackSection = RollbackSection()
    probes: ProbesSection = ProbesSection()
    evals: EvalsSection = EvalsSection()
    validation: ValidationSection = ValidationSection()

    @property
    def label_sources(self) -> tuple[tuple[str, str], ...]:
        """(option, name) of every label source that takes part, those that a composition is made of after it."""
        found = [("labels.source", self.labels.source)]
        if self.labels.source == "first_of":
            found += [("first_of.sources", name) for name in self.first_of.sources]
        if "mixture" in [name for _, name in found]:
            found += [("mixture.weights", name) for name in sorted(self.mixture.weights)]
        return tuple(found)

    @property
    def uses_stored(self) -> bool:
        """Whether stored labels take part in the labels."""
        names = [name for _, name in self.label_sources]
        return "stored" in names or ("gate" in names and "stored" in self.gate.conditions)

    @property
    def stored_file(self) -> str | None:
        """`stored.file` with the seed in its place."""
        return None if self.stored.file is None else self.stored.file.replace("{seed}", str(self.run.seed))
