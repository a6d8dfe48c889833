"""The model card that goes with an exported model, in Hugging Face form."""

from __future__ import annotations

from selftrain.evals import Evaluation
from selftrain.report.comparison import measures, rows
from selftrain.report.limits import limits_of
from selftrain.report.record import RunRecord
from selftrain.report.render import environment
from selftrain.report.repeat import command_line
from selftrain.report.words import guard_sentence, overruled_sentences, rollback_sentences, what_runs, who_decides


def model_card(record: RunRecord, checkpoint: str) -> str:
    """Markdown with a front matter. Accuracies are given only for the checkpoint that was evaluated: the one handed over."""
    before, after = record.evaluation("before"), record.evaluation("after")
    model = record.config.policy.model
    is_evaluated = checkpoint == record.handed_over and record.end_reason is not None
    return (
        environment(False)
        .get_template("model_card.md.jinja")
        .render(
            record=record,
            checkpoint=checkpoint,
            base_model=model if model.count("/") == 1 and not model.startswith((".", "/", "~")) else None,
            dataset=record.config.prompts.dataset.partition(":")[0] if record.config.prompts.dataset else None,
            measured=results(after) if after and is_evaluated else (),
            sentences=(what_runs(record.header), who_decides(record.header), guard_sentence(record)),
            interventions=[*rollback_sentences(record), *overruled_sentences(record)],
            outcome=rows(before, after) if before and after and is_evaluated else (),
            origin=before.origin if before else "",
            limits=limits_of(record),
            repeat=command_line(record.config),
        )
    )


def results(after: Evaluation) -> tuple[tuple[str, float], ...]:
    """(measure, percent) for the card's metadata."""
    return tuple((name, round(100 * value.value, 1)) for name, value in measures(after).items() if value)
