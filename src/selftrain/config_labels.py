"""The sections of named label sources and clusterings, of at most four options each: a name's defaults are its vetted setting."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import Field, StringConstraints

from selftrain.config_section import Section, option


class EmaSection(Section):
    """labels.source = ema: a moving average of the weights votes on the label."""

    decay: float = option(
        0.95,
        "factor",
        "Weight of the old average at each update: it follows the policy 1 / (1 - decay) updates behind, 20 at 0.95. 0: the policy itself, drawn anew.",
        ge=0,
        lt=1,
    )


class StoredSection(Section):
    """labels.source = stored: votes that `selftrain label` wrote to a file before the run."""

    file: str | None = option(
        None, "path", "The file; {seed} in its name stands for run.seed. Unset: none, which is an error where stored labels are asked for."
    )


class SecondViewSection(Section):
    """labels.source = second_view: the same problem is put to the policy in two wordings."""

    wording: Literal["task", "template", "paraphrase"] = option(
        "task",
        "name",
        "Where the second wording comes from. task: the built-in task words its problem anew (57+80 as 80+57); template: `template` around the question; "
        "paraphrase: the policy rewrites the question.",
    )
    template: str | None = option(None, "text", "wording = template: raw, boxed, or a text with {prompt}, other than prompts.template.")
    rule: Literal["harmonic", "crossed"] = option(
        "harmonic",
        "name",
        "harmonic: the answer with the highest harmonic mean of its two vote shares; crossed: the winner under the second wording.",
    )
    max_paraphrases: int = option(4, "completions", "wording = paraphrase: how many are drawn; the first that keeps the question's numbers is used.", ge=1)


class ViewsSection(Section):
    """labels.source = views: several wordings of a problem vote together."""

    templates: tuple[Annotated[str, StringConstraints(min_length=1)], ...] = option(
        (),
        "texts",
        "Further templates in which the question is put, each of them one more wording: raw, boxed, or a text with {prompt}, other than prompts.template. "
        "Empty: the built-in task's own second wording.",
    )
    voter: Literal["current", "ema", "base"] = option(
        "current",
        "name",
        "Who answers. current: the policy, whose own completions are the votes under the first wording; ema: the moving average of its weights (ema.decay); "
        "base: the policy as it was at the start. ema and base answer the first wording, too, and the policy's own completions do not vote.",
    )
    rule: Literal["harmonic", "mean"] = option(
        "harmonic", "name", "The label is the answer with the highest mean of its vote shares over the wordings. harmonic, or mean: the arithmetic one."
    )
    min_agreeing: int = option(1, "wordings", "Under how many wordings, the first among them, the label must be the single winner.", ge=1)


class JudgeSection(Section):
    """labels.clustering = judge: how a model is asked whether two free-form answers say the same."""

    max_pairs: int = option(32, "pairs", "Pairs of different answers judged in a group, the most frequent first; any other pair counts as different.", ge=1)
    max_new_tokens: int = option(16, "tokens", "Longest reply; the first yes or no in it counts. A model that thinks first needs more.", ge=1)
    temperature: float = option(0.0, "factor", "Temperature of the replies; 0 is greedy: the more likely verdict.", ge=0)


class SelfJudgeSection(Section):
    """labels.source = self_judge: the policy grades its own completions."""

    num_judgements: int = option(4, "completions", "How often a completion is graded; its reward is the share of yes among the verdicts that were read.", ge=1)
    max_new_tokens: int = option(16, "tokens", "Longest reply; the first yes or no in it counts. A model that thinks first needs more.", ge=1)
    temperature: float = option(1.0, "factor", "Temperature of the replies; greedy ones (0) are all the same, so that one judgement is enough.", ge=0)
    policy: Literal["current", "base", "ema"] = option(
        "current", "name", "Who grades. current: the policy as it is; base: as it was at the start; ema: a moving average of its weights (ema.decay)."
    )


class ReferenceSection(Section):
    """labels.source = reference: true answers."""

    frac: float = option(1.0, "fraction", "Share of the prompts whose true answers train, chosen by a stable hash of run seed and prompt id.", gt=0, le=1)


class FirstOfSection(Section):
    """labels.source = first_of: the first source that decides."""

    sources: tuple[Annotated[str, StringConstraints(min_length=1)], ...] = option(
        ("reference", "ema"), "names", "Label sources in the order in which they are asked.", min_length=2
    )


class MixtureSection(Section):
    """labels.source = mixture: rewards averaged over sources."""

    weights: dict[str, Annotated[float, Field(gt=0, le=1e6)]] = option(
        {"frozen": 1.0, "majority": 1.0}, "table", "Label source and its weight; the weights of those that decide are made to add up to 1.", min_length=2
    )


class GateSection(Section):
    """labels.source = gate: the majority where it can be trusted."""

    conditions: tuple[Literal["share", "halves", "base", "ema", "second_view", "stored"], ...] = option(
        ("share", "halves"),
        "names",
        "All must hold. share: the winner's share; halves: both halves of the group have this winner; base: the frozen start's vote has it; "
        "ema: the moving average's has it (ema.decay); second_view: the vote under the second wording has it ([second_view]); "
        "stored: the vote in stored.file has it.",
        min_length=1,
    )
    min_share_frac: float = option(0.5, "fraction", "Least share of the winner, of the condition share.", ge=0, le=1)


class VerifierSection(Section):
    """labels.source = verifier: a program decides."""

    function: str | None = option(None, "name", "package.module:function, which gets a Submission and gives a score; unset: the verifier of a gym: task.")
    timeout_s: float = option(5.0, "s", "Longest check of one completion; a longer one is killed and that completion gets 0.", gt=0)
    memory_mib: int = option(2048, "MiB", "Address space of each of its processes, libraries included.", ge=64)
    frac: float = option(1.0, "fraction", "Share of the prompts that it may see, chosen by a stable hash of run seed and prompt id.", gt=0, le=1)


class StepShareSection(Section):
    """How many prompts of each step are such as a safety net holds, so that the few it holds weigh enough: they are drawn again and again."""

    reference_frac: float | None = option(
        None, "fraction", "Share of a step's prompts drawn from those whose true answers train; unset: they come as often as other prompts.", gt=0, le=1
    )
    verifier_frac: float | None = option(
        None, "fraction", "Share of a step's prompts drawn from those that the verifier sees; unset: they come as often as other prompts.", gt=0, le=1
    )


class RestrainedSection(Section):
    """labels.source = restrained: soft weights over all answers."""

    sigma_frac: float = option(0.5, "fraction", "Width of the weighting function over vote shares; smaller is nearer to the winner alone.", ge=0.001)
    min_share_frac: float = option(0.2, "fraction", "Largest share below which nothing is rewarded and the whole group is pushed down.", ge=0, le=1)
    penalty: float = option(0.5, "advantage", "How far down: subtracted from each advantage of such a group.", ge=0)
    prompt_sigma_frac: float | None = option(
        None, "fraction", "Width of the prompt's weight over the start's vote share, which costs as many samples as vote; unset: all prompts weigh 1.", ge=0.001
    )


class NoveltySection(Section):
    """labels.source = novelty: how alike two completions are."""

    num_chars: int = option(5, "characters", "Length of the n-grams whose overlap says how alike two completions are.", ge=1)
    mean_frac: float = option(0.5, "fraction", "Part of the mean similarity to its side; the rest is that of the largest one.", ge=0, le=1)
