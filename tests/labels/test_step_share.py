"""[step_share]: each step takes its share of the prompts that a safety net holds, and those are the ones that it labels."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest
from benchmarks import labels

from selftrain import compose
from selftrain.compose_order import make_strata
from selftrain.config_load import load_config
from selftrain.errors import ConfigError
from selftrain.ledger import Ledger, read
from selftrain.prompts import draw
from selftrain.replay import replay
from selftrain.run import read_config, start, train_to_end
from selftrain.seeds import Stream
from selftrain.types import AnswerSheet, PromptSet, ScoredGroup
from selftrain.verifiers.verification import sees
from tests.killing import cut_off_and_resumed, killed_and_resumed
from tests.recorded import RecordedRuns
from tests.test_train import SMALL, config, shuffled_truth

NET = {**SMALL, "run.num_steps": 8, "labels.source": "first_of", "reference.frac": 0.05, "step_share.reference_frac": 0.5}
"""of the toy's 256 prompts about 13 have an answer, and 8 of the 16 of a step are from them"""
VERIFIER = "selftrain.policies.toy:true_digit"
"""named and never called: these tests stop before the first sample"""
BOTH = {
    **SMALL,
    "labels.source": "first_of",
    "first_of.sources": ["verifier", "reference", "majority"],
    "verifier.function": VERIFIER,
    "verifier.frac": 0.2,
    "reference.frac": 0.2,
    "rollout.prompts_per_step": 10,
    "step_share.reference_frac": 0.25,
    "step_share.verifier_frac": 0.45,
}

VARIANTS = sorted((Path(labels.__file__).parent / "label_variants").glob("*.toml"))


def steps_of(ledger: Ledger) -> list[list[ScoredGroup]]:
    return [list(ledger.groups(step)) for step in ledger.group_steps()]


def ids_of(ledger: Ledger) -> list[list[str]]:
    return [[one.voted.group.prompt.id for one in step] for step in steps_of(ledger)]


def test_the_net_decides_its_share_of_every_step_and_the_few_come_again(recorded_run: RecordedRuns) -> None:
    steps = steps_of(read(recorded_run(NET).folder))
    assert [sum(one.label.source == "reference" for one in step) for step in steps] == [8] * 8
    assert [sum(one.label.uses_truth for one in step) for step in steps] == [8] * 8
    visits = Counter(one.voted.group.prompt.id for step in steps for one in step if one.label.uses_truth)
    others = Counter(one.voted.group.prompt.id for step in steps for one in step if not one.label.uses_truth)
    assert (sum(visits.values()), max(others.values())) == (64, 1)
    assert len(visits) <= 20
    assert min(visits.values()) >= 2
    assert len({tuple(one.label.uses_truth for one in step) for step in steps}) > 4, "the places in a step are mixed"


def test_without_a_share_prompts_come_as_they_did_without_a_net(tmp_path: Path) -> None:
    plain = train_to_end(config(tmp_path, "a", {**SMALL, "run.num_steps": 3}))
    unset = train_to_end(config(tmp_path, "b", {**NET, "run.num_steps": 3, "step_share.reference_frac": None}))
    shared = train_to_end(config(tmp_path, "c", {**NET, "run.num_steps": 3}))
    assert ids_of(read(plain.folder)) == ids_of(read(unset.folder)) != ids_of(read(shared.folder))
    hashes = {read(one.folder).header["config_hash"] for one in (plain, unset, shared)}
    assert len(hashes) == 3


def test_a_share_of_1_draws_nothing_but_what_the_net_holds(tmp_path: Path) -> None:
    """`labels.source = reference` alone then trains on every prompt that it draws."""
    options = {**NET, "labels.source": "reference", "step_share.reference_frac": 1.0, "rollout.prompts_per_step": 10}
    steps = steps_of(read(train_to_end(config(tmp_path, "a", options)).folder))
    assert all(one.label.is_decided and one.label.uses_truth for step in steps for one in step)


def test_a_run_that_was_cut_off_or_killed_draws_the_same(tmp_path: Path, recorded_run: RecordedRuns) -> None:
    expected = recorded_run(NET)
    outcome = cut_off_and_resumed(config(tmp_path, "cut", NET), step=4)
    assert (outcome.head, outcome.after) == (expected.head, expected.after)
    assert killed_and_resumed(config(tmp_path, "killed", NET), times=2, max_events=6) == 2
    assert read(tmp_path / "killed").head == expected.head
    found = replay(read(outcome.folder), read_config(outcome.folder))
    assert found.agrees, found.groups.mismatches


def test_of_true_answers_only_their_being_there_decides_what_is_drawn(tmp_path: Path) -> None:
    """Other answers to the same prompts: the same prompts at the same places. One answer taken away: its prompt is one of the others."""
    run = config(tmp_path, "a", NET)
    prompts = compose.load_sets(run).train

    def drawn(known: PromptSet) -> list[tuple[str, ...]]:
        strata = make_strata(run, known)
        return [tuple(prompt.id for prompt in draw(strata, step, Stream(run.run.seed))) for step in range(20)]

    assert drawn(prompts) == drawn(shuffled_truth(prompts))
    held = make_strata(run, prompts)[0].prompts
    one = held[0].id
    fewer = PromptSet(prompts.prompts, AnswerSheet({p.id: "1" for p in prompts if p.id != one}), prompts.origin)
    assert make_strata(run, fewer)[0].prompts == held[1:]
    assert one in {prompt.id for prompt in make_strata(run, fewer)[1].prompts}


def test_two_nets_have_strata_of_their_own_and_counts_that_add_up(tmp_path: Path) -> None:
    """0.25 and 0.45 of 10 are 2.5 and 4.5, together 7: 2 and 5. What both hold counts for the reference."""
    run = config(tmp_path, "a", BOTH)
    prompts = compose.load_sets(run).train
    known, seen, rest = make_strata(run, prompts)
    assert [part.per_step for part in (known, seen, rest)] == [2, 5, 3]
    assert {*known.prompts, *seen.prompts, *rest.prompts} == {*prompts}
    assert len(known.prompts) + len(seen.prompts) + len(rest.prompts) == len(prompts)
    seeds = Stream(run.run.seed)
    assert all(sees(seeds, 0.2, prompt.id) for prompt in seen.prompts)
    assert not any(sees(seeds, 0.2, prompt.id) for prompt in rest.prompts)
    assert any(sees(seeds, 0.2, prompt.id) for prompt in known.prompts)


@pytest.mark.parametrize("file", VARIANTS, ids=lambda file: file.stem)
def test_the_variants_of_the_benchmark_have_enough_prompts_for_every_seed_of_it(file: Path) -> None:
    for seed in (seed for seeds in labels.SEEDS.values() for seed in seeds):
        run = load_config([file], {"run.seed": seed})
        strata = make_strata(run, compose.named_sets(run).train)
        assert sum(part.per_step for part in strata) == 32
        assert all(len(part.prompts) >= part.per_step for part in strata)
        shares = [share for share in (run.step_share.reference_frac, run.step_share.verifier_frac) if share is not None]
        assert [part.per_step for part in strata[: len(shares)]] == [32 * share for share in shares]


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ({"labels.source": "majority"}, "reference labels nothing in this run"),
        ({"step_share.verifier_frac": 0.2}, "verifier labels nothing in this run"),
        ({"rollout.prompts_per_step": 64}, "a step would take 32 different prompts with a true answer, of the 1"),
        ({"step_share.reference_frac": 0.01}, "a step would take 0 different prompts with a true answer"),
        ({"reference.frac": 1.0}, "a step would take 8 different prompts beside those with a true answer, of the 0 that there are"),
        ({**BOTH, "step_share.verifier_frac": 0.8}, "together they are more than a whole step"),
        ({**BOTH, "step_share.verifier_frac": 0.04}, "a step would take 1 different prompts that the verifier sees"),
    ],
)
def test_shares_that_cannot_be_had_are_refused_before_the_first_sample(tmp_path: Path, options: Mapping[str, Any], words: str) -> None:
    given = {**NET, **options}
    if words.startswith("a step would take 1 "):
        given["prompts.count"], given["verifier.frac"] = 40, 1e-9
    with pytest.raises(ConfigError) as caught:
        start(config(tmp_path, "a", given))
    assert words in caught.value.why
    assert "step_share" in caught.value.given
    assert caught.value.do
    assert not (tmp_path / "a").exists()
