"""Stored labels: what a file of them holds, what a run makes of it, and what is refused before the first sample."""

from __future__ import annotations

import hashlib
import json
import shutil
from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from selftrain import compose
from selftrain.answers import KEY_VERSION, key
from selftrain.answers.freeform import reader
from selftrain.compose import load_policy, load_sets, make_labelling
from selftrain.config import RunConfig
from selftrain.config_load import load_config
from selftrain.errors import ConfigError, PromptError, RunFolderError, SelftrainError
from selftrain.labels import Bounds
from selftrain.labels.gate import Condition, Gate
from selftrain.labels.stored import Stored, StoredVotes
from selftrain.ledger import read
from selftrain.replay import replay
from selftrain.rollout import read_and_count
from selftrain.run import read_config, resume, start, train_to_end
from selftrain.stored_file import complete_rows, read_stored, vote_of
from selftrain.stored_labels import label, line_of, prepare, row_of
from selftrain.types import Group, Outcome
from selftrain.vote import count
from tests.builders import group, voted
from tests.killing import cut_off_and_resumed
from tests.test_train import SMALL, config, files_of, shuffled_truth

QUICK = {**SMALL, "run.num_steps": 6, "prompts.count": 20, "rollout.prompts_per_step": 8, "rollout.num_votes": 6}
VOTES = StoredVotes({"p0": count([key("1"), key("1"), key("2"), None]), "p1": count([key("1"), key("2")]), "p2": count([])}, "stored abc")


def labels_of(file: Path, **options: Any) -> RunConfig:
    """Write the file for QUICK by the vote of toy:weak; gives the config that was used."""
    used = load_config(overrides={**QUICK, "policy.model": "toy:weak", **{name.replace("__", "."): value for name, value in options.items()}})
    assert [*label(prepare(used, file))][-1].num_done == 20
    return used


@pytest.fixture
def file(tmp_path: Path) -> Path:
    labels_of(tmp_path / "labels.jsonl")
    return tmp_path / "labels.jsonl"


def trained(tmp_path: Path, name: str, file: Path, **more: Any) -> RunConfig:
    return config(tmp_path, name, {**QUICK, "labels.source": "stored", "stored.file": str(file)}, **more)


def test_the_label_is_the_stored_winner_within_the_bounds() -> None:
    source = Stored(VOTES)
    groups = [voted(["2", "2", "2"], prompt_id) for prompt_id in ("p0", "p1", "p2", "p9")]
    known, tie, unread, missing = source(groups, Bounds())
    assert (known.targets, known.source, known.decided_by, known.uses_truth) == ((key("1"),) * 3, "stored", "stored abc", False)
    assert [one.outcome for one in (tie, unread, missing)] == [Outcome.TIE, Outcome.NO_ANSWER, Outcome.NOT_STORED]
    assert missing.targets == (None, None, None)
    assert source(groups[:1], Bounds(min_share_frac=0.5))[0].is_decided
    assert source(groups[:1], Bounds(min_share_frac=0.51))[0].outcome is Outcome.BELOW_MIN_SHARE
    assert source(groups[:1], Bounds(min_read_frac=0.76))[0].outcome is Outcome.BELOW_QUORUM


def test_a_gate_may_ask_for_the_stored_winner() -> None:
    gate = Gate(["stored"], 0.0, {"stored": Condition(VOTES.agree)})
    assert gate.requests([voted(["1", "1"])], Bounds()) == []
    same, other, tie, missing = gate([voted(["1", "1"]), voted(["2", "2"]), voted(["1", "1"], "p1"), voted(["1", "1"], "p9")], Bounds())
    assert (same.key, same.source, same.decided_by) == (key("1"), "gate", "vote 0:3")
    assert {(one.outcome, one.decided_by) for one in (other, tie, missing)} == {(Outcome.GATE_CLOSED, "gate stored")}


def test_the_file_holds_every_vote_and_says_who_gave_it_on_what(file: Path) -> None:
    header, *rows = [json.loads(line) for line in file.read_text().splitlines()]
    used = load_config(overrides={**QUICK, "policy.model": "toy:weak"})
    train = load_sets(used).train
    assert header["model_hash"] == load_policy(used).weights_hash()
    assert (header["prompts"]["hash"], header["prompts"]["count"]) == (compose.prompt_set_hash(train), 20)
    assert (header["seed"], header["key_version"], header["sampling"]["num_votes"], header["sampling"]["temperature"]) == (0, compose.KEY_VERSION, 6, 1.0)
    assert [row["prompt_id"] for row in rows] == [prompt.id for prompt in train]
    assert {row["outcome"] for row in rows} == {"decided", "tie"}
    for row in rows:
        most = row["counts"][0]
        assert sum(votes for _, votes in row["counts"]) == row["num_read"] <= row["num_votes"] == 6
        assert row["share_frac"] == most[1] / 6
        assert (row["key"], row["answer"]) == ((most[0], most[0]) if row["outcome"] == "decided" else (None, None))
    assert read_stored(file).votes[rows[0]["prompt_id"]].counts[0] == tuple(rows[0]["counts"][0])


def test_true_answers_are_in_no_file_and_change_nothing(file: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Design law 1."""
    real = compose.load_sets
    monkeypatch.setattr("selftrain.stored_labels.load_sets", lambda config: compose.Problems(shuffled_truth(real(config).train), None))
    labels_of(tmp_path / "blind.jsonl")
    assert (tmp_path / "blind.jsonl").read_bytes() == file.read_bytes()


@pytest.mark.parametrize("where", [0.02, 0.3, 0.31, 0.5, 0.99, 1.0])
def test_a_file_that_was_cut_anywhere_goes_on_to_the_same_bytes(file: Path, where: float) -> None:
    whole = file.read_bytes()
    file.write_bytes(whole[: int(where * len(whole))])
    labels_of(file)
    assert file.read_bytes() == whole


def test_what_is_whole_is_kept() -> None:
    rows = b"a\nbb\nc\nd\ne\n"
    assert [complete_rows(rows[:size], 2, 5) for size in (0, 1, 2, 4, 5, 9, 10, 11)] == [(0, 0), (0, 0), (0, 0), (0, 0), (2, 5), (4, 9), (4, 9), (5, 11)]


def test_a_run_is_cut_off_replayed_and_names_its_teacher(file: Path, tmp_path: Path) -> None:
    expected = train_to_end(trained(tmp_path, "whole", file))
    outcome = cut_off_and_resumed(trained(tmp_path, "cut", file), 3)
    assert outcome.head == expected.head
    ledger = read(outcome.folder)
    stored = read_stored(file)
    assert ledger.header["stored_labels"] == {
        "sha256": hashlib.sha256(file.read_bytes()).hexdigest(),
        "model": "toy:weak",
        "model_hash": stored.header["model_hash"],
        "num_votes": 6,
        "num_prompts": 20,
    }
    assert (ledger.header["label_free"], ledger.header["class"]) == (True, "exact")
    groups = [one for step in ledger.group_steps() for one in ledger.groups(step)]
    for one in groups:
        vote = stored.votes[one.voted.group.prompt.id]
        assert one.label.decided_by == f"stored {stored.header['model_hash'][:12]}"
        assert one.label.key == (None if vote.is_tie else vote.winners[0])
    assert any(one.label.key not in (None, *one.voted.vote.winners) for one in groups)
    found = replay(ledger, read_config(outcome.folder))
    assert (found.agrees, found.groups.num_groups) == (True, 48)


def test_prompts_that_were_taken_out_of_the_file_are_undecided(file: Path, tmp_path: Path) -> None:
    header, *rows = file.read_bytes().splitlines(keepends=True)
    file.write_bytes(header + b"".join(rows[:10]))
    kept = set(read_stored(file).votes)
    ledger = read(train_to_end(trained(tmp_path, "a", file)).folder)
    groups = [one for step in ledger.group_steps() for one in ledger.groups(step)]
    assert all((one.label.outcome is Outcome.NOT_STORED) == (one.voted.group.prompt.id not in kept) for one in groups)
    assert {one.admission.value for one in groups if one.label.outcome is Outcome.NOT_STORED} == {"undecided"}


def test_a_file_without_votes_is_refused_unless_others_label(file: Path, tmp_path: Path) -> None:
    file.write_bytes(file.read_bytes().splitlines(keepends=True)[0])
    for options in ({}, {"labels.source": "gate", "gate.conditions": ["share", "stored"]}):
        with pytest.raises(ConfigError, match=r"stored.file = .*: it has a vote on none of the 20 prompts of toy:0\+20: nothing would be labelled"):
            start(trained(tmp_path, "a", file, **options))
    assert not (tmp_path / "a").exists()
    with pytest.warns(RuntimeWarning, match="it has a vote on none of the 20 prompts of .* and the others decide"):
        start(trained(tmp_path, "a", file, **{"labels.source": "first_of", "first_of.sources": ["stored", "majority"]})).ledger.close()


@pytest.mark.parametrize(
    "options",
    [
        {"labels.source": "first_of", "first_of.sources": ["stored", "majority"]},
        {"labels.source": "mixture", "mixture.weights": {"stored": 1.0, "majority": 1.0}},
        {"labels.source": "gate", "gate.conditions": ["stored"]},
    ],
    ids=lambda options: options["labels.source"],
)
def test_compositions_hold_stored_labels(file: Path, tmp_path: Path, options: dict[str, Any]) -> None:
    outcome = train_to_end(config(tmp_path, "a", {**QUICK, "stored.file": str(file), **options}))
    ledger = read(outcome.folder)
    assert ledger.header["stored_labels"]["model"] == "toy:weak"
    assert ledger.header["label_free"] is True
    assert replay(ledger, read_config(outcome.folder)).agrees


def test_a_run_is_taken_up_and_replayed_from_another_folder(file: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    file.rename(tmp_path / "labels-0.jsonl")
    run = start(trained(tmp_path, "a", Path("labels-{seed}.jsonl")))
    next(iter(run.events()))
    run.ledger.close()
    (tmp_path / "elsewhere").mkdir()
    monkeypatch.chdir(tmp_path / "elsewhere")
    *_, outcome = resume(tmp_path / "a").events()
    assert replay(read(tmp_path / "a"), read_config(tmp_path / "a")).agrees
    assert outcome.reason == "done"


def test_another_file_is_neither_gone_on_with_nor_replayed(file: Path, tmp_path: Path) -> None:
    run = start(trained(tmp_path, "a", file))
    next(iter(run.events()))
    run.ledger.close()
    shutil.copy(file, tmp_path / "kept.jsonl")
    file.unlink()
    labels_of(file, rollout__temperature=0.9)
    with pytest.raises(RunFolderError, match="the stored labels: they are not those"):
        resume(tmp_path / "a")
    shutil.copy(tmp_path / "kept.jsonl", file)
    [*_] = resume(tmp_path / "a").events()
    file.unlink()
    labels_of(file, rollout__temperature=0.9)
    with pytest.raises(RunFolderError, match="not the file the run was started with"):
        replay(read(tmp_path / "a"), read_config(tmp_path / "a"))


def edited(change: Callable[[list[dict[str, Any]]], object]) -> Callable[[Path], None]:
    def edit(file: Path) -> None:
        lines = [json.loads(line) for line in file.read_text().splitlines()]
        change(lines)
        file.write_text("".join(json.dumps(line) + "\n" for line in lines))

    return edit


def decided_row(rows: list[dict[str, Any]]) -> dict[str, Any]:
    return next(row for row in rows[1:] if row["outcome"] == "decided")


def tied_row(rows: list[dict[str, Any]]) -> dict[str, Any]:
    return next(row for row in rows[1:] if row["outcome"] == "tie")


@pytest.mark.parametrize(
    ("edit", "options", "words"),
    [
        (Path.unlink, {}, ("there is no such file", "selftrain label")),
        (lambda file: file.write_text('{"prompt": "1+1"}\n'), {}, ("first line is not the header",)),
        (None, {"prompts.count": 16}, ("it has labels of 20 prompts of toy:0+20", "16 of toy:0+16", "selftrain label")),
        (None, {"labels.clustering": "text"}, ("its labels.clustering is exact, the run's text",)),
        (None, {"labels.clustering": "overlap"}, ("clustered apart",)),
        (None, {"stored.file": None}, ("labels.source = stored", "stored.file is unset", "selftrain label")),
        (None, {"reward.rule": "share"}, ("share rewards each answer by its own votes",)),
        (edited(lambda rows: rows[0].update(key_version="1")), {}, ("its answer keys have version 1",)),
        (edited(lambda rows: rows[0].update(selftrain_labels=2)), {}, ("its format is 2",)),
        (edited(lambda rows: rows.append(rows[3])), {}, ("line 22", "stands there twice")),
        (edited(lambda rows: rows[1].update(prompt_id="toy-77")), {}, ("toy-77, which is none of its prompts",)),
        (edited(lambda rows: rows[1].update(outcome="decided", key="99")), {}, ("line 2", "its key is '99', and its counts say")),
        (edited(lambda rows: decided_row(rows).update(outcome="tie")), {}, ("its outcome is tie", "its counts say decided (labels.min_read_frac = 0.25")),
        (edited(lambda rows: decided_row(rows).update(outcome="no_answer", key=None, answer=None)), {}, ("its outcome is no_answer",)),
        (edited(lambda rows: tied_row(rows).update(outcome="decided")), {}, ("its key is None, and its counts say", " and ")),
        (edited(lambda rows: tied_row(rows).update(key="99")), {}, ("its key is '99', and a row whose outcome is tie has none",)),
        (edited(lambda rows: tied_row(rows).update(answer="99")), {}, ("its answer is '99', and a row whose outcome is tie has none",)),
        (edited(lambda rows: rows[1].update(share_frac=0.99)), {}, ("line 2", "its share_frac is 0.99, and its counts say")),
        (edited(lambda rows: rows[1].update(share_frac=float("nan"))), {}, ("line 2", "its share_frac is nan")),
        (edited(lambda rows: rows[1].update(share_frac="most")), {}, ("line 2", "its share_frac is 'most'")),
        (edited(lambda rows: decided_row(rows).update(answer="99")), {}, ("its answer is '99', and its key is",)),
        (edited(lambda rows: decided_row(rows).update(answer=None)), {}, ("its answer is None, and its key is",)),
        (edited(lambda rows: rows[0]["labels"].pop("min_read_frac")), {}, ("line 1", "min_read_frac")),
        (edited(lambda rows: rows[1].update(num_read=99)), {}, ("line 2", "num_read is 99 of 6")),
        (edited(lambda rows: rows[1].update(counts=[["1", 1], ["2", 5]])), {}, ("line 2", "most first")),
        (edited(lambda rows: rows[1].pop("counts")), {}, ("line 2", "no stored vote", "counts")),
        (lambda file: file.write_bytes(file.read_bytes() + b"{]\n"), {}, ("line 22", "it is not JSON")),
    ],
)
def test_what_does_not_go_with_the_run_is_said_before_the_first_sample(
    file: Path, tmp_path: Path, edit: Callable[[Path], object] | None, options: dict[str, Any], words: tuple[str, ...]
) -> None:
    if edit is not None:
        edit(file)
    with pytest.raises(SelftrainError) as caught:
        start(config(tmp_path, "a", {**QUICK, "labels.source": "stored", "stored.file": str(file), **options}))
    assert isinstance(caught.value, ConfigError | PromptError)
    assert all(word in str(caught.value) for word in words), str(caught.value)
    assert not (tmp_path / "a").exists()


@pytest.mark.parametrize("clustering", ["exact", "text"])
@pytest.mark.parametrize("bounds", [(0.0, 0.0), (1.0, 0.0), (0.25, 0.6)])
def test_every_row_that_is_written_is_read(clustering: str, bounds: tuple[float, float]) -> None:
    """Whatever the answers look like: the row says what its counts say."""
    said = [" Rome, Italy. ", "rome, italy", "\\frac{1}{2}", "0.5", "1/2", "½", "x" * 3000, "(B)", "12 km", "", "a=b", "{1,2}", "no\ud800", "𝟙", "3.0e5", "-0"]
    texts = [f"So \\boxed{{{one}}}" for one in said] + [f"First this.\n\n{one}" for one in said] + [f"<think>so</think> The answer is {one}." for one in said]
    for text in texts:
        for other in ((), ("The answer is 7.",), ("The answer is 7.",) * 4, ("",) * 3):
            group = answered((text, text, *other))
            row = json.loads(line_of(row_of(read_and_count(group, reader(clustering)), Bounds(*bounds))))
            header = {"labels": {"min_read_frac": bounds[0], "min_share_frac": bounds[1]}, "key_version": KEY_VERSION}
            assert vote_of(Path("f"), 2, row, header)[1].counts == tuple((one, votes) for one, votes in row["counts"])


def answered(texts: Sequence[str]) -> Group:
    made = group(["1"] * len(texts))
    return replace(made, completions=tuple(replace(one, text=text) for one, text in zip(made.completions, texts, strict=True)))


def test_a_torch_model_labels_and_a_task_under_another_seed_is_another_prompt_set(tmp_path: Path) -> None:
    """The name of the file may hold the seed."""
    asks = {"labels.source": "stored", "prompts.task": "add:2", "prompts.count": 8, "evals.num_problems": 8, "rollout.prompts_per_step": 4}
    asks |= {"rollout.num_votes": 3, "stored.file": str(tmp_path / "labels-{seed}.jsonl")}
    good, file = load_config(overrides=asks), tmp_path / "labels-0.jsonl"
    [*_] = label(prepare(good, file))
    whole = file.read_bytes()
    file.write_bytes(whole[:-3])
    assert [state.num_done for state in label(prepare(good, file))] == [4, 8]
    assert file.read_bytes() == whole
    assert make_labelling(good, load_sets(good).train) is not None
    other = load_config(overrides={**asks, "stored.file": str(file), "run.seed": 1})
    with pytest.raises(ConfigError, match=r"A task makes other prompts for another run\.seed"):
        make_labelling(other, load_sets(other).train)


def test_the_same_run_is_the_same_record_and_weights(file: Path, tmp_path: Path) -> None:
    first, second = (files_of(train_to_end(trained(tmp_path, name, file)).folder) for name in ("a", "b"))
    assert first == second
