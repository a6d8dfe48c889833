"""Where the time of a step goes: shares, tokens and floor by hand, and nothing left behind."""

from __future__ import annotations

import tempfile
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from selftrain.config_load import load_config
from selftrain.ledger import read
from selftrain.policies.torch import hardware
from selftrain.profile import STAGES, Look, Profile, look_of, profile
from selftrain.train import StepReport


def settings(folder: Path, **more: Any) -> Any:
    values = {
        "policy.model": "toy",
        "labels.source": "majority",
        "update.learning_rate": 0.1,
        "run.folder": str(folder),
        "rollout.prompts_per_step": 4,
        "rollout.num_votes": 6,
    }
    return load_config(overrides={**values, **more})


def test_stages_and_tokens_of_the_toy_policy(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path / "temporary"))
    (tmp_path / "temporary").mkdir()
    seen: list[StepReport] = []
    found = profile(settings(tmp_path / "runs"), 3, 2, seen.append)
    assert [report.metrics.step for report in seen] == [0, 1, 2, 3, 4]
    assert found.num_steps == 3
    assert tuple(found.seconds) == STAGES
    assert found.step_s == pytest.approx(sum(found.seconds.values()))
    for stage in set(STAGES) - {"checkpoint", "probe", "display", "sample"}:
        assert found.seconds[stage] == pytest.approx(sum(report.seconds[stage] for report in seen[2:]) / 3)
    assert found.seconds["checkpoint"] == pytest.approx(sum(report.seconds["checkpoint"] for report in seen[2:]) / 3 / 10)
    # of twenty steps one has a probe and four have a glance, and a run, here of 200, asks twice what tells the support alone
    assert [look_of(report) for report in seen[2:]] == [Look.OTHER, Look.PROBE, Look.SUPPORT]
    assert "glance/fallen_frac" in seen[2].metrics.values
    # what sampling takes longer where something is drawn beside the votes is that's
    assert found.seconds["sample"] == pytest.approx(seen[2].seconds["sample"])
    probe, support = (max(0.0, one.seconds["probe"] + one.seconds["sample"] - seen[2].seconds["sample"]) for one in seen[3:])
    assert found.seconds["probe"] == pytest.approx(probe / 20 + seen[2].seconds["probe"] * 4 / 20 + support * 2 / 200)
    assert (found.prompt_tokens, found.sampled_tokens) == (4, 4 * 6 * 2)
    trained = [2 * len(one.trained) for report in seen[2:] for one in report.scored]
    assert found.trained_tokens == pytest.approx(sum(trained) / 3)
    assert found.floor is None
    assert not list((tmp_path / "temporary").iterdir())
    assert not (tmp_path / "runs").exists()


def test_shares_make_a_whole_and_overhead_is_the_rest() -> None:
    seconds = dict.fromkeys(STAGES, 0.0) | {"sample": 6.0, "update": 3.0, "ledger": 0.75, "display": 0.25}
    found = Profile(2, seconds, {}, 10.0, 600.0, 300.0, 0.5, {}, None, None)
    told = found.to_json()
    assert told["step_s"] == 10.0
    assert sum(told["shares_frac"].values()) == pytest.approx(1.0)
    assert told["overhead_frac"] == pytest.approx(0.1)
    assert (told["sampled_tokens_per_s"], told["trained_tokens_per_s"]) == (100.0, 100.0)


def test_the_floor_of_a_model_by_hand(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """2 operations a weight for prompts and samples, 6 for trained groups' prompts and tokens, at a rate of 1e9 a second."""
    monkeypatch.setattr(hardware, "matrix_rate", lambda device, dtype: 1e9)
    sizes = {"labels.source": "majority", "rollout.prompts_per_step": 4, "rollout.num_votes": 6, "rollout.max_new_tokens": 16}
    seen: list[StepReport] = []
    found = profile(load_config(overrides={"run.folder": str(tmp_path), "policy.num_threads": 1, **sizes}), 1, 0, seen.append, keep=True)
    groups = [one.voted.group for one in seen[0].scored]
    trained = [one for one in seen[0].scored if one.trained]
    prompt = sum(len(group.prompt_ids) for group in groups)
    sampled = sum(len(done.token_ids) for group in groups for done in group.completions)
    learned = sum(len(one.voted.group.prompt_ids) + sum(len(one.voted.group.completions[at].token_ids) for at in one.trained) for one in trained)
    assert found.floor is not None
    weights = found.floor.weights
    assert found.floor.sample_s == pytest.approx(2 * weights * (prompt + sampled) / 1e9)
    assert found.floor.update_s == pytest.approx(6 * weights * learned / 1e9)
    assert found.sampled_tokens == sampled
    assert found.parts["text"] > 0
    assert found.memory["process_bytes"] > 2**26
    assert found.folder is not None
    assert len(read(found.folder).timings()) == 1


def test_an_input_table_of_its_own_is_not_multiplied() -> None:
    import torch

    table, head, other = torch.nn.Embedding(10, 4), torch.nn.Linear(4, 10, bias=False), torch.nn.Linear(4, 4)

    def model(head: Any) -> Any:
        modules = torch.nn.ModuleList([table, head, other])
        return SimpleNamespace(parameters=modules.parameters, get_input_embeddings=lambda: table, get_output_embeddings=lambda: head)

    assert hardware.multiplied_weights(model(head)) == 40 + 20
    head.weight = table.weight
    assert hardware.multiplied_weights(model(head)) == 40 + 20


def test_the_rate_of_matrix_products_is_that_of_this_machine() -> None:
    import torch

    assert 1e9 < hardware.matrix_rate(torch.device("cpu"), "float32") < 1e14
