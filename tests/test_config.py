"""Layers of the config, and an error for each way to get it wrong."""

from __future__ import annotations

import re
from contextlib import nullcontext
from pathlib import Path
from typing import Any

import pytest

import selftrain
from selftrain.compose import config_hash
from selftrain.compose_idle import check_options
from selftrain.config import RunConfig, UpdateSection
from selftrain.config_load import load_config, option_names, validate_recorded
from selftrain.errors import ConfigError
from selftrain.ledger import read
from selftrain.replay import replay
from selftrain.run import read_config, resume, start
from selftrain.schedule import learning_rate
from tests.test_docs import METHOD_SECTIONS


def test_layers(tmp_path: Path) -> None:
    first, second = tmp_path / "a.toml", tmp_path / "b.toml"
    first.write_text('[policy]\nmodel = "toy"\n[update]\nlearning_rate = 0.5\nweight_decay = 0.5\n')
    second.write_text("[update]\nlearning_rate = 0.25\n")
    config = load_config([first, second], {"update.beta1": "0.8"})
    assert (config.update.learning_rate, config.update.weight_decay, config.update.beta1, config.update.beta2) == (0.25, 0.5, 0.8, 0.999)


def test_without_a_model_the_embedded_recipe_lies_below() -> None:
    assert load_config().policy.model == "embedded:default"
    assert load_config().prompts.task is not None
    own = load_config(overrides={"policy.model": "some/model", "prompts.file": "q.jsonl"})
    assert (own.prompts.task, own.update.learning_rate, own.run.num_steps) == (None, RunConfig().update.learning_rate, RunConfig().run.num_steps)


@pytest.mark.parametrize("source", ["file", "dataset"])
def test_the_recipes_task_gives_way_to_a_source_that_was_given(source: str) -> None:
    config = load_config(overrides={f"prompts.{source}": "mine"})
    assert (getattr(config.prompts, source), config.prompts.task, config.policy.model) == ("mine", None, "embedded:default")


def test_truth_values_are_no_numbers_and_stay_truth_values() -> None:
    with pytest.raises(ConfigError, match="it is no yes-or-no option"):
        load_config(overrides={"policy.model": "toy", "run.num_steps": True})
    assert load_config(overrides={"policy.model": "toy", "policy.gradient_checkpointing": True}).policy.gradient_checkpointing is True


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ({"rollout.stop": ["a", ""]}, "at least 1 character"),
        ({"rollout.stop": "a"}, "valid list\n  Give a list of texts, none of them empty, on the command line the option once for each. rollout.stop [texts]: "),
        ({"first_of.sources": ["majority"]}, ": list should have at least 2 items"),
        ({"rollout.temperature": 1e-39}, "Give a number (allowed: at least 0.001). rollout.temperature [factor]: "),
        ({"rollout.group_size": 0}, "Give a whole number (allowed: at least 1). rollout.group_size [completions]: "),
        ({"policy.gradient_checkpointing": "perhaps"}, "Give yes or no. policy.gradient_checkpointing [yes/no]: "),
        ({"evals.top_p": 2}, "Give a number (allowed: above 0, at most 1). evals.top_p [fraction]: "),
        ({"update.learnin-rate": 1}, "The nearest one is update.learning_rate"),
        ({"updates.beta1": 1}, "The nearest option is update.beta1"),
        ({"seed": 1}, "Did you mean run.seed"),
        ({"run.name": "../x"}, "letters, digits"),
        ({"run.name": ""}, "letters, digits"),
        ({"rollout.num_votes": 1}, "greater than or equal to 2"),
        ({"update.beta1": "much"}, "valid number"),
        ({"policy.device": "tpu"}, "'cpu' or 'cuda'"),
        ({"rollout.group_size": 99}, "more completions cannot be trained on than vote"),
        ({"objective.kl_in": "loss", "objective.kl_estimator": "k1"}, "mean zero"),
        ({"prompts.file": "a", "prompts.task": "add:2"}, "exactly one of"),
        ({"evals.file": "a", "evals.task": "add:2"}, "held-out problems come from one place"),
        ({"labels.source": "reference", "labels.clustering": "overlap"}, "not by clusters"),
        ({"labels.source": "frozen", "labels.clustering": "judge"}, "would be clustered apart"),
        (
            {"labels.clustering": "overlap"},
            "so its label would mean nothing among them\n  Take labels.source majority, the policy's own vote, or labels.clustering",
        ),
        (
            {"labels.source": "restrained", "restrained.prompt_sigma_frac": 0.5, "labels.clustering": "judge"},
            "Leave restrained.prompt_sigma_frac unset, or take another labels.clustering.",
        ),
        ({"labels.source": "flip_damped", "labels.clustering": "overlap"}, "every visit to a prompt would count as a flip"),
        ({"labels.source": "gate", "gate.conditions": ["base"], "labels.clustering": "judge"}, "would be clustered apart"),
        ({"labels.source": "first_of", "labels.clustering": "overlap"}, "first_of.sources = reference, labels.clustering = overlap"),
        ({"gate.conditions": ["moon"]}, "'share', 'halves', 'base', 'ema', 'second_view' or 'stored'"),
        ({"gate.conditions": []}, "at least 1 item"),
        ({"mixture.weights": {"majority": 1.0, "frozen": 0.0}}, "mixture.weights.frozen = 0.0: input should be greater than 0"),
        ({"mixture.weights": {"majority": 1e308, "frozen": 1e308}}, "less than or equal to 1000000"),
        ({"restrained.sigma_frac": 0}, "Give a number (allowed: at least 0.001). restrained.sigma_frac [fraction]: "),
        ({"judge.temperature": -1}, "Give a number (allowed: at least 0). judge.temperature [factor]: "),
        ({"update.num_minibatches": 99}, "never split"),
    ],
)
def test_errors_say_what_why_and_what_to_do(options: dict[str, Any], words: str) -> None:
    with pytest.raises(ConfigError) as caught:
        load_config(overrides=options)
    assert words in str(caught.value)
    assert all((caught.value.given, caught.value.why, caught.value.do))


def test_errors_of_files(tmp_path: Path) -> None:
    bad = tmp_path / "bad.toml"
    bad.write_text("[update\n")
    for path, words in ((tmp_path / "none.toml", "no such file"), (bad, "not TOML"), (tmp_path, "cannot be read")):
        with pytest.raises(ConfigError, match=words):
            load_config([path])


def test_a_file_with_a_byte_order_mark_is_read(tmp_path: Path) -> None:
    (tmp_path / "marked.toml").write_bytes(b'\xef\xbb\xbf[policy]\nmodel = "toy"\n')
    assert load_config([tmp_path / "marked.toml"]).policy.model == "toy"


def test_place_does_not_decide() -> None:
    here = load_config(overrides={"policy.model": "toy", "run.name": "a", "run.folder": "x"})
    there = load_config(overrides={"policy.model": "toy", "run.name": "b", "run.folder": "y"})
    other = load_config(overrides={"policy.model": "toy", "run.seed": 1})
    assert config_hash(here) == config_hash(there) != config_hash(other)


def test_every_option_has_a_unit_and_a_meaning() -> None:
    for section in RunConfig.model_fields.values():
        for name, field in section.annotation.model_fields.items():  # type: ignore[union-attr]
            assert field.description, name
            assert field.description[-1] in ".?", name
            assert field.json_schema_extra["unit"], name  # type: ignore[index]
    assert 55 <= len([name for name in option_names() if not name.startswith(METHOD_SECTIONS)]) <= 72


@pytest.mark.parametrize(
    ("schedule", "rates"),
    [("constant", [0.5, 1.0, 1.0, 1.0, 1.0, 1.0]), ("linear", [0.5, 1.0, 1.0, 0.75, 0.5, 0.25]), ("cosine", [0.5, 1.0, 1.0, 0.853553, 0.5, 0.146447])],
)
def test_schedules(schedule: str, rates: list[float]) -> None:
    section = load_config(overrides={"policy.model": "toy", "update.learning_rate": 1.0, "update.warmup_steps": 2, "update.schedule": schedule}).update
    assert [learning_rate(section, step, 6) for step in range(6)] == pytest.approx(rates, abs=1e-6)


def test_the_package_gives_its_names_when_asked() -> None:
    for name in selftrain.__all__:
        assert getattr(selftrain, name) is not None
    with pytest.raises(AttributeError, match="nothing_here"):
        selftrain.nothing_here  # noqa: B018


def test_kl_in_the_loss_that_weighs_nothing_is_refused_in_new_runs_and_read_in_old_records(tmp_path: Path) -> None:
    options = {"policy.model": "toy", "objective.kl_in": "loss", "objective.kl_estimator": "k2", "objective.kl_coef": 0, "run.folder": str(tmp_path)}
    with pytest.raises(ConfigError, match="the start would be scored in every step"):
        start(load_config(overrides=options))
    assert validate_recorded(load_config(overrides=options).model_dump(mode="json")).objective.kl_coef == 0


NONE_HELD = {"policy.model": "toy", "prompts.count": 8, "rollout.prompts_per_step": 4, "probes.num_prompts": 0, "verifier.function": "tests.test_config:right"}
REFERENCE_IDLE = "of the 8 prompts of toy:0+8 8 have a true answer, and a fraction of 0.001, chosen by run seed and prompt id, holds none of those"
VERIFIER_IDLE = "a fraction of 0.001 of the 8 prompts of toy:0+8, chosen by run seed and prompt id, holds none of them"


def right(_: Any) -> bool:
    return True


@pytest.mark.parametrize(
    ("options", "words"),
    [
        (
            {"labels.source": "reference", "reference.frac": 0.001},
            (f"labels.source = reference, reference.frac = 0.001: {REFERENCE_IDLE}", "Raise --reference.frac"),
        ),
        ({"labels.source": "verifier", "verifier.frac": 0.001}, (f"labels.source = verifier, verifier.frac = 0.001: {VERIFIER_IDLE}", "Raise --verifier.frac")),
        (
            {"labels.source": "first_of", "first_of.sources": ["verifier", "reference"], "reference.frac": 0.001, "verifier.frac": 0.001},
            (
                "first_of.sources = verifier, verifier.frac = 0.001, first_of.sources = reference",
                f"{VERIFIER_IDLE}, and {REFERENCE_IDLE}: nothing would be labelled",
            ),
        ),
    ],
    ids=["reference", "verifier", "first_of"],
)
def test_sources_that_hold_no_prompt_are_refused_in_new_runs_and_gone_on_with_in_old_ones(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, options: dict[str, Any], words: tuple[str, ...]
) -> None:
    whole = load_config(overrides={**NONE_HELD, "run.folder": str(tmp_path), "run.name": "a", "run.num_steps": 2, **options})
    with pytest.raises(ConfigError) as caught:
        start(whole)
    assert all(word in str(caught.value) for word in words), str(caught.value)
    assert not list(tmp_path.iterdir())
    with monkeypatch.context() as patch:
        patch.setattr("selftrain.compose_idle.check_idle", lambda *_: None)
        run = start(whole)
    next(iter(run.events()))
    run.ledger.close()
    [*_] = resume(tmp_path / "a").events()
    assert replay(read(tmp_path / "a"), read_config(tmp_path / "a")).agrees


@pytest.mark.parametrize(
    ("options", "words"),
    [
        (
            {"labels.source": "first_of", "reference.frac": 0.001},
            f"first_of.sources = reference, reference.frac = 0.001: {REFERENCE_IDLE}, so it labels nothing",
        ),
        (
            {"labels.source": "mixture", "mixture.weights": {"verifier": 1, "majority": 1}, "verifier.frac": 0.001},
            f"mixture.weights = verifier, verifier.frac = 0.001: {VERIFIER_IDLE}, so it labels nothing in this run and the others decide. Raise",
        ),
    ],
    ids=["first_of", "mixture"],
)
def test_a_source_that_holds_no_prompt_is_warned_of_where_others_label(tmp_path: Path, options: dict[str, Any], words: str) -> None:
    whole = load_config(overrides={**NONE_HELD, "run.folder": str(tmp_path), **options})
    with pytest.warns(RuntimeWarning, match=re.escape(words)):
        start(whole).ledger.close()
    enough = load_config(overrides={**NONE_HELD, "run.folder": str(tmp_path), **options, "reference.frac": 1.0, "verifier.frac": 1.0})
    start(enough).ledger.close()


@pytest.mark.parametrize("schedule", ["linear", "cosine"])
@pytest.mark.parametrize(("warmup_steps", "num_steps"), [(0, 1), (0, 2), (1, 2), (9, 11), (10, 11), (10, 2)])
def test_a_schedule_is_idle_where_it_gives_the_rates_of_the_constant_one(schedule: Any, warmup_steps: int, num_steps: int) -> None:
    update = UpdateSection(schedule=schedule, warmup_steps=warmup_steps)
    rates = [[learning_rate(one, step, num_steps) for step in range(num_steps)] for one in (update, UpdateSection(warmup_steps=warmup_steps))]
    whole = load_config(overrides={"update.schedule": schedule, "update.warmup_steps": warmup_steps, "run.num_steps": num_steps})
    with pytest.raises(ConfigError, match="the run ends before") if rates[0] == rates[1] else nullcontext():
        check_options(whole)


@pytest.mark.parametrize(
    ("options", "why"),
    [
        ({"update.schedule": "cosine", "run.num_steps": 11}, "the rate falls from the second step after the warm-up on"),
        ({"labels.source": "gate", "gate.conditions": ["halves"], "gate.min_share_frac": 0.7}, "only the condition share looks at it"),
    ],
)
def test_options_that_would_do_nothing_are_refused_in_new_runs_and_read_in_old_records(tmp_path: Path, options: dict[str, Any], why: str) -> None:
    whole = load_config(overrides={"policy.model": "toy", "run.folder": str(tmp_path), **options})
    with pytest.raises(ConfigError, match=why):
        start(whole)
    assert not list(tmp_path.iterdir())
    assert validate_recorded(whole.model_dump(mode="json")) == whole
    start(load_config(overrides={"policy.model": "toy", "run.folder": str(tmp_path), **options, "update.warmup_steps": 9, "gate.min_share_frac": 0.5}))
