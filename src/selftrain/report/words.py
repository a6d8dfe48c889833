"""The report's and the terminal's sentences: what ran, who decided, what came of it. Plain words, no claim without evidence."""

from __future__ import annotations

import shlex
from collections.abc import Collection, Mapping, Sequence
from typing import Any

from selftrain.compose_labels import VALIDATION
from selftrain.config import RunConfig
from selftrain.control import visible
from selftrain.evals import Evaluation, Interval
from selftrain.guard.doubts import DRIFT, PROBE_NAMES
from selftrain.handover import START
from selftrain.ledger import BranchRecord
from selftrain.policies.toy import is_toy
from selftrain.remedies import GUARD
from selftrain.report.comparison import differences
from selftrain.report.record import RunRecord
from selftrain.types import Action, Finding, Health, Verdict

SOURCES: Mapping[str, str] = {
    "majority": "the majority vote of the model's own completions",
    "split_vote": "a split vote of the model's own completions: each half of a group labels the other half",
    "frozen": "the vote of the model as it was at the start",
    "ema": "the vote of a moving average of the model's weights",
    "stored": "votes that a model gave on the prompts before the run, stored in a file",
    "second_view": "the votes of the model's own completions under two wordings of each prompt: an answer has to survive rewording",
    "views": "the votes on several wordings of each prompt together: an answer has to survive rewording",
    "reference": "true answers (labels.source = reference)",
    "first_of": "the first of several sources that decides about a group",
    "mixture": "the weighted average of several sources",
    "gate": "the majority vote of the model's own completions, where independent signs agree with it",
    "verifier": "a program that checks each completion (labels.source = verifier)",
    "restrained": "a restrained vote of the model's own completions: every answer is rewarded by a weight that grows with its share",
    "novelty": "the majority vote of the model's own completions, and on each side of it by how unlike the others a completion is",
    "flip_damped": "the majority vote of the model's own completions, weighing less where a prompt's label changed often",
    "token_entropy": "how sure the model was of its own tokens (their entropy), whatever the answer",
    "self_certainty": "how sure the model was of its own tokens (their distance from a uniform draw), whatever the answer",
    "self_judge": "the model's own judgement of each of its completions, asked for several times",
    "random": "a coin, as a control: whatever is gained was not taught by a reward",
    "format_only": "whether an answer can be read, as a control: right and wrong answers are rewarded alike",
    "inverted": "the inverted majority vote, as a control: every readable answer but the most frequent one is rewarded",
}
JUDGED = " Which answers say the same is judged by the model that is trained."
OVER = f"made after the last probe within the budget of drift ({DRIFT})"
NO_EVIDENCE = "Without true answers this is no evidence of harm, and no evidence of gain either."
UNKNOWN = "Without true answers nobody knows whether accuracy was lost or gained."


def percent(interval: Interval | None) -> str:
    """51.2 % [47.0, 55.3]"""
    return "-" if interval is None else f"{100 * interval.value:.1f} % [{100 * interval.low:.1f}, {100 * interval.high:.1f}]"


def points(interval: Interval | None) -> str:
    """+21.3 points [18.0, 24.6]"""
    return "-" if interval is None else f"{100 * interval.value:+.1f} points [{100 * interval.low:+.1f}, {100 * interval.high:+.1f}]"


def duration(seconds: float) -> str:
    """1 h 02 min, 3 min 20 s, 12.3 s, 45 ms"""
    if seconds >= 3600:
        return f"{int(seconds // 3600)} h {int(seconds % 3600 // 60):02d} min"
    if seconds >= 60:
        return f"{int(seconds // 60)} min {int(seconds % 60):02d} s"
    if seconds >= 1 or seconds == 0:
        return f"{seconds:.1f} s" if seconds else "0 s"
    return f"{1000 * seconds:.0f} ms"


def count(number: int) -> str:
    """940, 12,300, 1.2 million"""
    return f"{number:,}" if number < 1_000_000 else f"{number / 1e6:.3g} million" if number < 1_000_000_000 else f"{number / 1e9:.3g} billion"


def energy(watt_hours: float) -> str:
    """0.58 Wh, 12 Wh, 1.2 kWh"""
    return f"{watt_hours:.2g} Wh" if watt_hours < 100 else f"{watt_hours:.0f} Wh" if watt_hours < 1000 else f"{watt_hours / 1000:.3g} kWh"


def what_runs(header: Mapping[str, Any]) -> str:
    prompts, config = header["prompts"], header["config"]
    rollout = config["rollout"]
    return (
        f"{config['policy']['model']} trains on {prompts['count']:,} prompts of {prompts['origin']}: "
        f"{config['run']['num_steps']} steps of {rollout['prompts_per_step']} prompts x {rollout['num_votes']} completions."
    )


def who_decides(header: Mapping[str, Any]) -> str:
    """Who decides what is rewarded, and whether the run is label-free."""
    source = header["config"]["labels"]["source"]
    decides = f"What is rewarded is decided by {SOURCES.get(source, f'the function {source}')}."
    decides += JUDGED if header["config"]["labels"]["clustering"] == "judge" else ""
    if header["label_free"]:
        return f"{decides} Label-free: no true answer reaches training, the guard or the choice of a checkpoint."
    if header["truth_channels"] == [VALIDATION]:
        return f"{decides} No true answer reaches training or the guard; the checkpoint is chosen on {header['validation']['count']:,} labelled problems."
    return f"{decides} Not label-free: true answers reach it through {', '.join(header['truth_channels'])}."


def what_is_held_out(header: Mapping[str, Any]) -> str:
    held_out = header["held_out"]
    if held_out is None:
        return "No held-out problems: accuracy stays unknown. Give --evals.file or --evals.task to know it."
    samples = header["config"]["evals"]["num_samples"]
    return f"{held_out['count']:,} held-out problems of {held_out['origin']} with true answers, {samples} completions each: reported, never used to decide."


def finding_words(finding: Finding) -> str:
    seen = "by probes" if finding.rule in PROBE_NAMES else f"over {steps_words(finding.window_steps)}"
    return f"{finding.words} ({finding.rule}: {finding.value:.4g}, limit {finding.limit:.4g}, {seen})"


def health_words(health: Health | None) -> str:
    """health 0.43 [0.31, 0.58]"""
    return "health not measured yet" if health is None else f"health {health.value:.2f} [{health.low:.2f}, {health.high:.2f}]"


def findings_words(verdict: Verdict) -> str:
    return "; ".join(finding_words(finding) for finding in verdict.findings)


def guard_sentence(record: RunRecord) -> str:
    """What the guard saw, since a person overruled it last."""
    if record.config.guard.action == "off":
        return "The guard was off: nobody looked for reward hacking."
    verdicts = [verdict for verdict in record.verdicts if verdict.step >= record.overruled_until]
    findings = [verdict for verdict in verdicts if verdict.findings]
    since = " since it was overruled" if record.overruled else ""
    if not findings:
        return unjudged_sentence(record) or nothing_found(record, len(verdicts))
    first = findings[0]
    halted = next((verdict for verdict in verdicts if verdict.action is Action.HALT), None)
    if halted is not None:
        begin = f"The guard halted the run at step {halted.step}, before that step's update."
        return f"{begin} First finding{since} at step {first.step}: {findings_words(first)}."
    return f"The guard warned in {len(findings)} of {len(verdicts)} steps{since}, first at step {first.step}: {findings_words(first)}."


def nothing_found(record: RunRecord, num_steps: int) -> str:
    if record.overruled:
        return f"In the {steps_words(num_steps)} since it was overruled, the guard found no sign of reward hacking."
    if record.ledger.branches:
        return f"In the {steps_words(num_steps)} that count, the guard found no sign of reward hacking."
    return f"The guard judged {steps_words(num_steps)} and found no sign of reward hacking."


def unjudged_sentence(record: RunRecord) -> str:
    """That the rules about steps did not judge yet, and whether those about probes did; empty where they did."""
    section, verdicts = record.config.guard, [verdict for verdict in record.verdicts if verdict.step >= record.measured_since]
    needed, judged = max(section.baseline_steps + 1, section.window_steps), sum(verdict.health is not None for verdict in verdicts)
    if len(verdicts) >= needed:
        return ""
    is_back = record.ledger.branches and (not record.overruled or record.measured_since > record.overruled_until)
    begin = "Since the run went back, the guard" if is_back else "Since it was overruled, the guard" if record.overruled else "The guard"
    if judged:
        return f"{begin} judged {judged} of {steps_words(len(verdicts))}, by probes alone, and found no sign of reward hacking."
    return f"{begin} has not judged yet: it needs {steps_words(needed)} and has {len(verdicts)}."


def overruled_sentences(record: RunRecord) -> list[str]:
    """Who overruled the guard, when and why, and what it had found until then."""
    if not record.overruled:
        return []
    told = [f"{after_steps(one.step)} ({visible(one.who)}: {visible(one.reason)})" for one in record.overruled]
    said = f"A person overruled the guard {' and '.join(told)}."
    findings = [verdict for verdict in record.verdicts if verdict.findings and verdict.step < record.overruled_until]
    if not findings:
        return [said]
    first = findings[0]
    return [f"{said} What it had found in {steps_words(len(findings))}, first at step {first.step}, is overruled: {findings_words(first)}."]


def rollback_sentences(record: RunRecord) -> list[str]:
    """Whether the run was set back, where to, by whom and why, and what was changed."""
    branches = record.ledger.branches
    if not branches:
        return []
    many = "once" if len(branches) == 1 else f"{len(branches)} times"
    return [f"Rolled back {many}: {'; '.join(map(rollback_words, branches))}. The steps left behind stay in the record and are not shown here."]


def steps_words(number: int) -> str:
    """1 step, 12 steps"""
    return f"{number} step{'' if number == 1 else 's'}"


def after_steps(done: int) -> str:
    """after 1 step, after 12 steps: steps are numbered from 0, so the last of 12 is step 11"""
    return f"after {steps_words(done)}"


def rollback_words(record: BranchRecord) -> str:
    """after 40 steps to step-000030, by guard: completions become shorter (remedy lower_rate: update.learning_rate = 5e-07)"""
    where = "the start" if record.checkpoint == START else record.checkpoint
    changed = [f"{name} = {value:g}" if isinstance(value, float) else f"{name} = {value}" for name, value in record.remedy.get("options", {}).items()]
    changed += [f"{len(record.remedy['prompts']):,} prompts are left"] if "prompts" in record.remedy else []
    remedy = f" (remedy {record.remedy['kind']}: {', '.join(changed)})" if record.remedy else ""
    return f"{after_steps(record.left_at)} to {where}, by {record.who}: {record.reason}{remedy}"


def guard_and_rollbacks(record: RunRecord) -> str:
    """What the guard did, whether it was overruled, and what it saw in the steps that count."""
    return " ".join([*rollback_sentences(record), *overruled_sentences(record), guard_sentence(record)])


def handover_sentence(record: RunRecord) -> str:
    """What is handed over and why."""
    if record.end_reason is None:
        return "The run has no end yet, so nothing is handed over." if record.steps else "No step is done yet."
    if record.validated:
        return validated_sentence(record)
    first, looked = record.harm_since_step, record.config.guard.window_steps
    before = "" if first is None else f" from before the {looked} steps up to step {first} (from there on every verdict speaks of harm)"
    without = left_out_words(record, {one.step for one in record.ledger.checkpoints() if first is None or one.step <= first - looked})
    if record.handed_over == START:
        return f"Handed over: the model as it was at the start ({record.config.policy.model}), because {why_start(record, before)}{without}."
    if first is not None:
        most = " whose support is the largest but for its standard error" if record.doubts.supports else ""
        return f"Handed over: checkpoint {record.handed_over}, of those{before} the newest{most}{without}."
    later = later_steps(record)
    if later:
        return f"Handed over: checkpoint {record.handed_over}{later_words(record, later)}."
    return f"Handed over: checkpoint {record.handed_over}, the newest one.{unharmed_words(record)}"


def unharmed_words(record: RunRecord) -> str:
    """That the guard saw no evidence of harm, where it judged and no verdict that counts has a finding; else empty."""
    if not any(verdict.health is not None for verdict in record.verdicts) or any(verdict.findings for verdict in record.verdicts):
        return ""
    return f"{' In the steps that count, the' if record.ledger.branches else ' The'} guard saw no evidence of harm."


def left_out_words(record: RunRecord, made: Collection[int]) -> str:
    """How many of these checkpoints are left out for their probes; empty where none is. made: steps done when each was made."""
    left_out = [steps for steps in made if not record.doubts.allows(steps)]
    if not left_out:
        return ""
    why = OVER if is_over(record) else f"whose probe is worse than the base's ({blocking_rules(record, left_out)})"
    return f"; {len(left_out)} {'is' if len(left_out) == 1 else 'are'} left out, {why}"


def is_over(record: RunRecord) -> bool:
    """Whether the budget of drift is used up, which leaves out all since the last probe within it."""
    return any(finding.rule == DRIFT for verdict in record.verdicts for finding in verdict.findings)


def blocking_rules(record: RunRecord, made: Sequence[int]) -> str:
    """The rules about probes that speak against these checkpoints."""
    looked = {step for steps in made for step in (steps - 1, steps) if step in record.doubts.blocked_steps}
    found = (finding.rule for verdict in record.verdicts if verdict.step in looked for finding in verdict.findings)
    return ", ".join(dict.fromkeys(rule for rule in found if rule in PROBE_NAMES))


def later_steps(record: RunRecord) -> list[int]:
    """Steps done when each checkpoint was made that is newer than the one handed over."""
    made = {one.name: one.step for one in record.ledger.checkpoints()}
    return [steps for steps in made.values() if steps > made.get(record.handed_over, 0)]


def later_words(record: RunRecord, later: Sequence[int]) -> str:
    """Why none of the later checkpoints is handed over, while no harm is seen."""
    blocked = [steps for steps in later if not record.doubts.allows(steps)]
    reasons = ["has not surely more of the start's vote behind its answers"] if record.doubts.supports and len(blocked) < len(later) else []
    worse = f"has a probe that is worse than the base's ({blocking_rules(record, blocked)})"
    reasons += [f"came after the last probe within the budget of drift ({DRIFT})" if is_over(record) else worse] if blocked else []
    return f": what came later {', or '.join(reasons)}" if reasons else ""


def why_start(record: RunRecord, before: str) -> str:
    """Why the start is handed over. before: of which checkpoints one could have been, in words."""
    if not any(True for _ in record.ledger.checkpoints()):
        return f"no checkpoint was made{' since the run went back' if record.ledger.branches else ''}"
    if not any("update/loss" in step.values for step in record.steps):
        return "nothing was trained in the steps that count: no group had a label and an advantage other than 0"
    if not record.doubts.supports:
        return f"nothing speaks for a checkpoint{before}"
    return f"the watched prompts say of no checkpoint{before} that it surely gained on the start"


def validated_sentence(record: RunRecord) -> str:
    """What the validation problems chose, and whether the guard would have chosen the same."""
    found = {one.name: one.evaluation for one in record.validated}
    chosen, start = found[record.handed_over], found[START]
    name = f"avg@{chosen.num_samples}"
    problems = f"{len(chosen.results)} validation problems"
    if record.handed_over == START:
        why = f"no checkpoint is better on the {problems} ({name} {percent(start.avg)})"
        said = f"Handed over: the model as it was at the start ({record.config.policy.model}), because {why}."
    else:
        compared = f"{name} {percent(chosen.avg)}, {percent(start.avg)} at the start"
        said = f"Handed over: checkpoint {record.handed_over}, the best of {len(found)} on the {problems} ({compared})."
    other = "the start" if record.healthiest == START else f"checkpoint {record.healthiest}"
    if record.healthiest == record.handed_over:
        return f"{said} The guard, without labels, would have handed over the same."
    return f"{said} The guard, without labels, would have handed over {other}: they do not agree."


def unknown_sentence(record: RunRecord) -> str:
    """What is known about accuracy without true answers: nothing."""
    harmed = any(verdict.findings for verdict in record.verdicts) or any(one.who == GUARD for one in record.ledger.branches)
    return UNKNOWN if harmed else NO_EVIDENCE


def accuracy_sentence(before: Evaluation, after: Evaluation | None) -> str:
    """What held-out problems say."""
    if after is None:
        return f"Before training: avg@{before.num_samples} {percent(before.avg)} on {len(before.results)} held-out problems."
    name = f"avg@{before.num_samples}"
    if after is before:
        return f"{name} on {len(before.results)} held-out problems: {percent(before.avg)}, as at the start, which is what is handed over."
    pairs = differences(before, after)
    if not pairs:
        return "The evaluations before and after share no problem, so they cannot be compared."
    difference = pairs[name]
    given = f"{name} on {len(before.results)} held-out problems: {points(difference)}"
    if not difference.excludes_zero:
        said = f"{given}. Chance alone could explain this difference."
    else:
        said = f"{given}. The model handed over is {'more' if difference.value > 0 else 'less'} often right than at the start."
    reach = pairs[f"pass@{before.num_samples}"]
    if reach.high < 0:
        said += f" It has lost reach: pass@{before.num_samples} {points(reach)}, so there are problems that none of its completions solve any more."
    return said


def second_turn_sentences(evaluation: Evaluation | None) -> list[str]:
    """What a second turn is worth against sampling again, and how long both are; none without one."""
    second = evaluation.second_turn if evaluation else None
    if evaluation is None or second is None:
        return []
    beats = "it beats sampling again" if second.gain.low > 0 else "it loses to sampling again" if second.gain.high < 0 else "chance alone could explain it"
    return [
        f"Second turn: {points(second.gain)} over the first, corrected once each ({100 * second.corrected_frac:.1f} % could be): {beats}. "
        f"{percent(second.mended)} of the wrong completions are mended, {percent(second.broken)} of the right ones broken. "
        f"A correction has {second.tokens_mean:.1f} tokens, a first completion {evaluation.tokens_mean:.1f}."
    ]


def verdict_sentences(record: RunRecord) -> list[str]:
    """How the run ended, in the order a reader asks: the guard, what is handed over, what is known about accuracy."""
    before = record.evaluation("before")
    return [
        *overruled_sentences(record),
        guard_sentence(record),
        *rollback_sentences(record),
        handover_sentence(record),
        accuracy_sentence(before, record.evaluation("after")) if before else unknown_sentence(record),
        *second_turn_sentences(record.evaluation("after") or before),
    ]


def repetition_words(record: RunRecord) -> str:
    """What the record of a repetition has in common with this one."""
    if record.header["class"] != "exact":
        return "on this device completions may differ, but every vote, label, reward and verdict follows from the recorded ones"
    asked = next(record.ledger.requests(), None)
    if asked is not None:
        return f"on the same kind of machine, the record is then the same until a person made a request, {after_steps(asked.step)}"
    if record.end_reason is None:
        return "on the same kind of machine, the record then begins as this one, which has no end yet"
    return "on the same kind of machine, the record then ends with the same head"


def status_words(record: RunRecord) -> str:
    done, planned = len(record.steps), record.config.run.num_steps
    return {"done": f"finished, {steps_words(done)}", "halted": f"halted by the guard after {done} of {planned} steps"}.get(
        record.end_reason or "", f"not finished: {done} of {planned} steps"
    )


def next_commands(config: RunConfig, folder: str, handed_over: str) -> list[tuple[str, str]]:
    """The commands a user would want next, each with what it does; the toy policy cannot be exported, and of a start that is handed over there is nothing to
    compare or export.
    """
    model, export_to = shlex.quote(config.policy.model), shlex.quote(f"{folder.rstrip('/')}-model")
    folder = shlex.quote(folder)
    verify = (f"selftrain verify {folder} --replay", "prove that nothing in the record was changed")
    if handed_over == START:
        return [verify]
    evaluate = (f"selftrain evaluate {model} {folder}", "both models on the held-out problems, with paired differences")
    if not (is_toy(config.policy.model) or config.evals.file or config.evals.task or config.prompts.task):
        evaluate = (f"{evaluate[0]} --evals.file FILE", "both models on problems with true answers, with paired differences")
    export = (f"selftrain export {folder} {export_to}", "the model handed over, as a Hugging Face folder")
    return [evaluate, verify] if is_toy(config.policy.model) else [evaluate, verify, export]
