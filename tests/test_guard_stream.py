"""The guard outside our loop: rows of signals, rows of completions, run folders, recorded runs of a 0.5 B model where they are at hand."""

from __future__ import annotations

import json
import sys
import time
from collections.abc import Callable, Iterator, Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from selftrain.config import GuardSection
from selftrain.config_load import load_config
from selftrain.console_log import console_rows
from selftrain.errors import ConfigError, PromptError
from selftrain.guard import RULES
from selftrain.guard_stream import rows_in, steps_of_rows, steps_of_run, verdicts, verdicts_of_run
from selftrain.ledger import read
from selftrain.run import train_to_end
from selftrain.trainer_log import Seen, names_from
from selftrain.types import Action, Verdict
from tests.cli.conftest import Called, assert_refused, command, made_run

__all__ = ["command", "made_run"]

TRACES = Path(__file__).parent.parent.parent / "shared" / "traces"
HALTS = GuardSection(action="halt")
VERL_LOG = "\x1b[36m(TaskRunner pid=7)\x1b[0m step:{} - {} - perf/x:np.float64(1.5)\nTraining Progress:  5%|#    | 1/20 [00:10<03:10]\n"
NAMES = {
    "coll": "vote/collision_frac",
    "ent": "policy/entropy_mean_nats",
    "len": "completion/length_mean_tokens",
    "share": "vote/share_mean_frac",
    "gn": "update/grad_norm",
}


def judged(rows: list[dict[str, Any]], names: Mapping[str, str] = NAMES, per_step: int | None = None) -> list[Verdict]:
    return list(verdicts(steps_of_rows(rows, "rows", names, per_step), HALTS))


def halted_at(found: list[Verdict]) -> int | None:
    return next((verdict.step for verdict in found if verdict.action is Action.HALT), None)


def collapse(num_steps: int) -> Iterator[dict[str, Any]]:
    """A run like the recorded collapse: an evaluation first, then agreement up and completions ever shorter from step 4 on."""
    yield {"step": 0, "eval": {"avg4": 0.14}}
    for step in range(1, num_steps + 1):
        late = max(0, step - 4)
        wobble = 1 + 0.02 * (-1) ** step
        yield {"step": step, "share": (0.2 + 0.02 * late) * wobble, "len": 260 * 0.94**late * wobble, "ent": 0.33 * 0.98**late, "acc": 0.1}


def learning(num_steps: int) -> Iterator[dict[str, Any]]:
    """A run like the recorded one with true answers: the same agreement, less length lost."""
    for row in collapse(num_steps):
        yield row if "eval" in row else row | {"len": 260 * 0.993 ** max(0, row["step"] - 4)}


def test_a_collapse_in_rows_of_signals_is_found_and_learning_is_left_alone() -> None:
    found = judged(list(collapse(30)))
    halted = halted_at(found)
    assert halted is not None
    assert halted <= 14
    rules = {finding.rule for verdict in found[: halted + 1] for finding in verdict.findings}
    assert rules & {"shortcut", "shrinking"}
    assert not any(verdict.findings for verdict in judged(list(learning(30))))


def test_other_limits_and_fewer_rules_give_other_verdicts() -> None:
    steps = list(steps_of_rows(list(collapse(30)), "rows", NAMES, None))
    for_length = ("shortcut", "shrinking", "probe_shortcut")
    loose = [replace(rule, limit=10 * rule.limit) for rule in RULES.values()]
    without = [rule for rule in RULES.values() if rule.name not in for_length]
    for rules in (loose, without):
        assert not any(verdict.findings for verdict in verdicts(steps, HALTS, rules))
    assert halted_at(list(verdicts(steps, HALTS, [RULES[name] for name in for_length]))) == halted_at(judged(list(collapse(30))))


def test_truth_in_the_rows_changes_nothing() -> None:
    rows = list(collapse(20))
    assert judged([row | {"acc": 1.0, "lab": 0.0} for row in rows]) == judged(rows)


def test_names_of_other_trainers_are_known() -> None:
    rows = [{"global_step": step, "completions/mean_length": 100.0, "entropy": 0.3 if step < 10 else 3.0} for step in range(1, 21)]
    found = judged(rows, {})
    halted = halted_at(found)
    assert halted is not None
    assert 10 <= halted <= 13
    assert found[halted - 1].findings[0].rule == "noise"


def test_a_terminal_of_ttrl_is_judged_by_the_share_of_its_votes(tmp_path: Path, command: Any) -> None:
    """And by nothing that its hidden answers say: the label accuracy falls in both."""
    for name, rows in (("collapse", collapse(30)), ("learning", learning(30))):
        lines = []
        for at, row in enumerate(row for row in rows if "eval" not in row):
            logged = {
                "train/label_accuracy": 0.5 - at / 100,
                "train/majority_ratio": row["share"],
                "response_length/mean": row["len"],
                "actor/entropy": row["ent"],
            }
            lines.append(VERL_LOG.format(row["step"], " - ".join(f"{key}:{value:.3f}" for key, value in logged.items())))
        (tmp_path / f"{name}.log").write_text("".join(lines))
    collapsed, learned = command("guard", "collapse.log"), command("guard", "learning.log")
    assert (collapsed.status, learned.status) == (4, 0), collapsed.err + learned.err
    assert "hollow, shortcut" in collapsed.err, "rules that look at the share"


def test_rows_without_a_step_are_counted() -> None:
    assert [verdict.step for verdict in judged([{"share": 0.2}, {"other": 1}, {"share": 0.3}])] == [0, 1]


def groups(constant_from: int) -> list[dict[str, Any]]:
    """Twelve steps of four prompts with four completions each; from a step on every answer is 1."""
    found = []
    for step in range(12):
        for at in range(4):
            answer = 1 if step >= constant_from else 10 * step + at
            texts = [f"first {at}, then {step}: #### {answer if number else 99 + at}" for number in range(4)]
            found.append({"step": step, "prompt": f"p{step}-{at}", "completions": texts})
    return found


def test_groups_with_a_step_are_voted_on_and_judged() -> None:
    found = judged(groups(constant_from=6))
    assert len(found) == 12
    halted = halted_at(found)
    assert halted is not None
    assert any(finding.rule == "constant_answer" for finding in found[halted].findings)
    assert halted_at(judged(groups(constant_from=99))) is None


def test_groups_without_a_step_are_cut_by_number_and_a_rest_is_left() -> None:
    rows = [{key: value for key, value in row.items() if key != "step"} for row in groups(constant_from=6)]
    assert [verdict.health for verdict in judged(rows, per_step=4)] == [verdict.health for verdict in judged(groups(constant_from=6))]
    assert len(judged(rows[:-1], per_step=4)) == 11


def test_a_prompt_that_comes_back_with_another_answer_is_a_flip() -> None:
    rows = [{"step": step, "prompt": f"p{at}", "completions": [f"#### {at + 10 * (step % 2 if step > 7 else 0)}"] * 4} for step in range(16) for at in range(4)]
    found = judged(rows)
    assert any(finding.rule == "flips" for verdict in found for finding in verdict.findings)
    assert not any(verdict.findings for verdict in found[:8])


@pytest.mark.parametrize(
    ("rows", "words"),
    [
        ([], "there is nothing in it"),
        ([{"loss": 1.0}], "no row has a field that is a signal"),
        ([{"step": 2, "share": 0.1}, {"step": 2, "share": 0.1}], "does not come after step 2"),
        ([{"step": 1, "share": "high"}], "its share is 'high'"),
        ([{"step": -1, "share": 0.5}], "its step is -1"),
        ([{"step": float("nan"), "share": 0.5}], "its step is nan"),
        ([{"step": float("inf"), "share": 0.5}], "its step is inf"),
        ([{"step": 10**400, "share": 0.5}], "its step is a number of more than 30 digits"),
        ([{"step": "half", "share": 0.5}], "its step is 'half'"),
        ([{"step": 9, "share": 0.1}, {"step": 5, "share": 0.1}], "(?s)step 5 does not come after step 9.*restarted.*keep the newer rows"),
        ([{"step": 1, "share": 31.0}], "(?s)its share is 31, and .* looks like percent.*divide by 100"),
        ([{"step": 1, "share": -0.5}], "(?s)its share is -0.5, .*give it as a fraction"),
        ([{"step": 1, "completions/clipped_ratio": 12}], "looks like percent"),
        ([{"step": 1, "prompt": "a", "completion": "1"}, {"step": 2, "prompt": "b", "completion": 5}], "rows, row 2: a completion is not a text"),
        ([{"prompt": "a", "completion": "1"}], "of which step it is"),
        ([{"step": 1, "prompt": "a", "completion": "1"}, {"step": 0, "prompt": "a", "completion": "1"}], "step 0 comes after step 1"),
    ],
)
def test_what_cannot_be_judged_is_refused(rows: list[dict[str, Any]], words: str) -> None:
    with pytest.raises(PromptError, match=words):
        judged(rows)


@pytest.mark.parametrize("value", [float("nan"), float("inf"), 10**400, "NaN", "-Infinity", 1e200], ids=["nan", "inf", "long", "NaN", "-Infinity", "1e200"])
def test_what_is_no_finite_number_is_missing_and_counted(value: object) -> None:
    seen = Seen()
    rows: list[dict[str, Any]] = [{"step": step, "share": 0.5, "ent": value if step == 7 else 0.3} for step in range(12)]
    found = list(verdicts(steps_of_rows(rows, "rows", NAMES, None, seen), HALTS, seen=seen))
    assert seen.not_finite == {"ent": 1}
    without = [{name: one for name, one in row.items() if row["step"] != 7 or name != "ent"} for row in rows]
    assert found == judged(without)
    assert (seen.judged, seen.rules) == (7, {"noise", "hollow"})


def test_a_mapping_names_signals() -> None:
    assert names_from(["a=vote/share_mean_frac"]) == {"a": "vote/share_mean_frac"}
    for bad, words in (
        ("a", "not a field and its signal"),
        ("=vote/share_mean_frac", "no field before the ="),
        ("a=vote/nothing", "vote/nothing is no signal"),
    ):
        with pytest.raises(ConfigError, match=words):
            names_from([bad])


OTHERS = {"entropy": 0.3, "grad_norm": 0.5}


@pytest.mark.parametrize(
    "row",
    [
        lambda step: {"step": str(step), **OTHERS},
        lambda step: {"step": step, "data": {"actor/entropy": 0.3, "actor/grad_norm": 0.5}},
        lambda step: {"step": step, "train": OTHERS, "eval": {"entropy": 9.0}},
        lambda step: {"_step": step + 7, "train/global_step": step, **{f"train/{name}": value for name, value in OTHERS.items()}},
        lambda step: {"_step": step, "actor": OTHERS},
        lambda step: {"step": step, "entropy": "0.3", "grad_norm": 5e-1},
        lambda step: {"step": step, **OTHERS, "output": "checkpoints/1", "text": "a note"},
    ],
    ids=["digits", "verl", "nested", "wandb", "nested wandb", "texts", "a text beside"],
)
def test_rows_as_trainers_write_them(row: Callable[[int], dict[str, Any]]) -> None:
    found = list(steps_of_rows([row(step) for step in range(3)], "rows", {}, None))
    assert [step.metrics.step for step in found] == [0, 1, 2]
    assert all(step.metrics.values == {"policy/entropy_mean_nats": 0.3, "update/grad_norm": 0.5} for step in found)


def written(path: Path, rows: list[dict[str, Any]]) -> None:
    """In the format that the name says."""
    import pyarrow as pa
    import pyarrow.parquet as pq

    if path.suffix == ".parquet":
        pq.write_table(pa.Table.from_pylist(rows), path)
    elif path.suffix == ".csv":
        names = list(rows[-1])
        path.write_text("\n".join([",".join(names), *(",".join(str(row.get(name, "")) for name in names) for row in rows)]) + "\n")
    elif path.name == "trainer_state.json":
        path.write_text(json.dumps({"global_step": 12, "log_history": rows}, indent=1))
    elif path.name == "verl.log":
        path.write_text("".join(VERL_LOG.format(row.pop("step"), " - ".join(f"{name}:{value}" for name, value in row.items())) for row in rows))
    elif path.name == "trl.log":
        path.write_text(
            "Downloading ...\n" + "".join(f" {100 * at // len(rows)}%|##   | {at}/{len(rows)} [00:01<00:02]\r{row}\n" for at, row in enumerate(rows))
        )
    else:
        path.write_text(json.dumps(rows) if path.suffix == ".json" else "".join(json.dumps(row) + "\n" for row in rows))


@pytest.mark.parametrize("name", ["a.jsonl", "a.parquet", "a.csv", "trainer_state.json", "a.json", "verl.log", "trl.log"])
def test_a_log_may_have_any_of_these_formats(tmp_path: Path, command: Any, name: str) -> None:
    """Mapped fields and those with a prefix too, of which a table reads the columns."""
    rows = [{"step": step, "train/entropy": 0.3 if step < 10 else 3.0, "mine": 0.5, "loss": 1.0} for step in range(1, 21)]
    written(tmp_path / name, rows)
    called: Called = command("guard", name, "--map", "mine=vote/share_mean_frac")
    assert called.status == 4, called.err
    assert "noise" in called.err.splitlines()[-1]
    assert called.out.splitlines()[-1].startswith("20 steps judged: findings in ")


@pytest.mark.parametrize(
    ("line", "row"),
    [
        ("step:0 - val-core/gsm8k/acc/mean@1:0.508", {"step": 0, "val-core/gsm8k/acc/mean@1": 0.508}),
        ("(TaskRunner pid=7) step:3 - a:np.float64(0.25) - b:1e-06 - c:tensor(2.) - d:x1 - e:1.2.3 - f", {"step": 3, "a": 0.25, "b": 1e-6, "c": 2}),
        ("\x1b]0;t\x07\x1b[?25l\x1b[36m(main_task pid=7)\x1b[0m step:34 - a:0.5 [repeated 2x across cluster]", {"step": 34, "a": 0.5}),
        ("INFO:step: 3 - a:-0.000 - b:1 x:2 50%|", {"step": 3, "a": 0, "b": 1}),
        ("50%|#| 1/2 [00:01<00:01]   {'entropy': nan, 'grad_norm': '0.5', 'epoch': 1}", {"entropy": "nan", "grad_norm": "0.5", "epoch": 1}),
        ("{'a': np.float64(0.25), 'b': tensor(0.5, device='cuda:0'), 'c': [nan], 'e': True} 100%|##| 2/2", {"a": 0.25, "b": 0.5}),
        *(
            (line, None)
            for line in ("footstep:3 - a:1", "step:3", "first step: 3 - 2 = 1", "{'a': open('x')}", "{'trainer': {'n_gpus': 8,", "{1: 2}", "{'a': {{'b': 1}}}")
        ),
        ("{'prompt': 'What is 1 + 1?', 'completion': '2', 'id': 3}", None),
    ],
)
def test_lines_of_a_terminal(line: str, row: dict[str, Any] | None) -> None:
    assert list(console_rows([line + "\n"], lambda: None)) == ([] if row is None else [pytest.approx(row) if "nan" not in row.values() else row])


@pytest.mark.parametrize("piece", ["a:", "x", "{'", "np.", "1", "a:1 ", "\x1b[", "step:1 - ", "- ", "[", "tensor("])
def test_a_long_line_of_a_terminal_is_read_at_once(piece: str) -> None:
    begun = time.monotonic()
    for before in ("step:1 - ", "{'a': ", ""):
        list(console_rows([f"{before}{piece * (60_000 // len(piece))}\n"], lambda: None))
    assert time.monotonic() - begun < 5


@pytest.mark.parametrize(
    "first",
    [
        b"{\n 'a': 1}\n",
        b"8\n",
        b'{"config": 1}\n',
        b'{"config": 1}\n{"seed": 2}\n',
        b'{"step": 0, "prompt": "q"}\n',
        b"{'prompt': 'q', 'completion': '1'}\n{'actor': {'entropy': 'off'}}\n",
        b"\xe2\x96 half\n",
        b"",
    ],
)
def test_what_was_written_to_a_terminal_may_begin_with_anything(tmp_path: Path, command: Any, first: bytes) -> None:
    """A last line without its end may lack a digit."""
    lines = "".join(f"step:{step} - actor/entropy:{0.3 if step < 10 else 3.0}\n" for step in range(1, 21)).encode()
    (tmp_path / "whole.log").write_bytes(b"%b%bTraining finished\n" % (first, lines.replace(b"\n", b"\n\xff template {'role': {{'b': 1}}}\n")))
    (tmp_path / "cut.log").write_bytes(b"starting\n%b" % lines[:-1])
    whole, cut = command("guard", "whole.log"), command("guard", "cut.log")
    assert (whole.status, cut.status) == (4, 4), whole.err + cut.err
    assert (whole.out.splitlines()[-1][:8], cut.out.splitlines()[-1][:8]) == ("20 steps", "19 steps")
    assert "the last line is cut off and was left out" in cut.err
    (tmp_path / "none.log").write_text("starting\nended\n")
    assert_refused(command("guard", "none.log"), 2, "none.log, line 1: it is not JSON")


@pytest.mark.parametrize("damage", ["Saving model checkpoint to out\n", '{"step": 12, "entr\n'])
@pytest.mark.parametrize("at", [1, 12, 29])
@pytest.mark.parametrize("text", ["", "first step: 3 - 2 = 1"])
def test_damage_among_rows_is_not_taken_for_a_terminal(tmp_path: Path, command: Any, damage: str, at: int, text: str) -> None:
    """Rows behind it would be lost, and with them what was found there."""
    rows = [json.dumps({"step": step, "entropy": 0.3 if step < 15 else 3.0, "sample": text}) + "\n" for step in range(1, 31)]
    (tmp_path / "a.log").write_text("".join([*rows[:at], damage, *rows[at + 1 :], "{'train_runtime': 93.2, 'train_loss': 0.1}\n"]))
    called: Called = command("guard", "a.log")
    assert f"a.log, line {at + 1}: it is not JSON" in called.err
    assert called.status in {2, 4}


def test_utf_16_is_refused_by_name(tmp_path: Path, command: Any) -> None:
    (tmp_path / "a.jsonl").write_text('{"step": 1, "entropy": 0.3}\n', encoding="utf-16")
    assert_refused(command("guard", "a.jsonl"), 2, "a.jsonl, line 1: it is not UTF-8 text (it begins as UTF-16 does)")


def test_a_row_that_is_no_text_is_refused(tmp_path: Path, command: Any) -> None:
    """Among rows, unlike on a terminal, it matters what stands there."""
    (tmp_path / "a.jsonl").write_bytes(b'{"step": 1, "prompt": "a", "completions": ["1", "1"]}\n{"step": 2, "prompt": "a", "completions": ["\xff", "1"]}\n')
    assert_refused(command("guard", "a.jsonl"), 2, "a.jsonl, after line 1: it is not UTF-8 text")


def test_completions_as_trl_and_verl_write_them(tmp_path: Path, command: Any) -> None:
    rows = [
        {"step": str(step), "prompt": [{"role": "user", "content": f"q{at}"}], "completion": [{"role": "assistant", "content": f"#### {at}"}], "reward": 0.5}
        for step in range(8)
        for at in range(4)
        for _ in range(2)
    ]
    written(tmp_path / "trl.parquet", rows)
    called: Called = command("guard", "trl.parquet", "--json")
    assert called.status == 0, called.err
    assert json.loads(called.out.splitlines()[-1])["judged"] == 3
    written(tmp_path / "verl.jsonl", [{"step": row["step"], "input": row["prompt"][0]["content"], "output": "#### 1", "score": 1} for row in rows])
    assert command("guard", "verl.jsonl").status == 0


def test_a_compressed_log_says_how_it_is_read(tmp_path: Path, command: Any) -> None:
    (tmp_path / "a.jsonl.gz").write_bytes(b"")
    assert_refused(command("guard", "a.jsonl.gz"), 2, "it is compressed", "gunzip -c a.jsonl.gz | selftrain guard -")


def test_long_numbers_and_a_closed_input_are_told(tmp_path: Path, command: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "a.jsonl").write_text('{"step": 1, "prompt": "a", "completion": "1", "n": ' + "9" * 5000 + "}\n")
    for name in ("guard", "vote"):
        assert_refused(command(name, "a.jsonl"), 2, "line 1: it is not JSON (Exceeds the limit")
    monkeypatch.setattr(sys, "stdin", None)
    for name in ("guard", "vote"):
        assert_refused(command(name, "-"), 2, "standard input: it is closed", "Pipe rows into it")


def write(path: Path, rows: list[dict[str, Any]]) -> Path:
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    return path


MAPPED = [word for field in ("share", "len", "ent") for word in ("--map", f"{field}={NAMES[field]}")]


def test_the_command_says_what_it_found_by_its_exit_status(tmp_path: Path, command: Any) -> None:
    harmed: Called = command("guard", write(tmp_path / "bad.jsonl", list(collapse(30))), *MAPPED)
    assert harmed.status == 4
    assert "health 0." in harmed.out
    assert "harm, or a standstill, at step" in harmed.out.splitlines()[-1]
    healthy: Called = command("guard", write(tmp_path / "good.jsonl", list(learning(30))), *MAPPED)
    assert (healthy.status, healthy.out) == (0, "30 steps judged: no evidence of harm.\n")
    rows = [{"share": 0.3, "swap": 0.1 if step else 0.0} for step in range(3)]
    probes = [row | {"probe/swap_changed_frac": 0.5 * at} for at, row in enumerate(rows)]
    warned: Called = command("guard", write(tmp_path / "warned.jsonl", probes), *MAPPED)
    assert warned.status == 3
    assert "no harm that would have halted it" in warned.out


STEADY = [{"step": step, "entropy": 0.3, "grad_norm": 0.5} for step in range(12)]


@pytest.mark.parametrize(
    ("rows", "words", "why"),
    [
        (STEADY[:1], (), ("1 step, the first verdict needs 6", "smaller --baseline-steps")),
        (STEADY[:5], (), ("5 steps, the first verdict needs 6",)),
        (STEADY, ("--baseline-steps", "100"), ("12 steps, the first verdict needs 101",)),
        (STEADY, ("--window-steps", "20"), ("12 steps, the first verdict needs 20",)),
        ([{"step": step, "completions/mean_length": 200} for step in range(20)], (), ("no rule has all of its signals", "completion/length_mean_tokens")),
        (
            [{"step": step, **({"entropy": 0.3} if step > 4 else {}), "loss": 1.0, "completions/mean_length": 9} for step in range(20)],
            (),
            ("no rule has all of its signals",),
        ),
        ([STEADY[0], *({"step": 1, "prompt": "a", "completions": ["1", "2"]} for _ in range(9))], (), ("were passed over: 9", "1 step,")),
        (
            [{"step": s, "prompt": f"p{p}", "completion": "1"} for s in range(9) for _ in range(2) for p in range(2)],
            (),
            ("36 of 36 groups", "every group has one"),
        ),
        ([{"prompt": f"p{p}", "completions": ["1", "1"]} for p in range(31)], ("--prompts-per-step", "6"), ("were left out: 1", "5 steps, the first")),
        ([{"step": s, "prompt": f"p{s}", "completions": ["well", "", "no"]} for s in range(20)], (), ("no completion of 20 groups", "vote FILE --explain")),
    ],
    ids=["one", "five", "baseline", "window", "half a rule", "late", "mixed", "interleaved", "rest", "unread"],
)
def test_where_nothing_could_be_judged_it_says_so(
    tmp_path: Path, command: Any, rows: list[dict[str, Any]], words: tuple[str, ...], why: tuple[str, ...]
) -> None:
    called: Called = command("guard", write(tmp_path / "a.jsonl", rows), *words)
    assert (called.status, called.out) == (2, "")
    assert "a.jsonl: no step could be judged: " in called.err
    assert all(one in called.err for one in why), called.err
    as_json: Called = command("guard", "a.jsonl", *words, "--json")
    last = json.loads(as_json.out.splitlines()[-1])
    assert (as_json.status, last["judged"]) == (2, 0)
    assert "no step could be judged" in last["error"]


def test_how_few_answers_were_read_is_said(tmp_path: Path, command: Any) -> None:
    """Groups that are too few for a step count nowhere; rules of which none judged anything are not listed."""
    rows = [{"prompt": f"p{at}", "completions": ["well", "so", "no", "#### 1" if at in (0, 24) else ""]} for at in range(25)]
    few = command("guard", write(tmp_path / "few.jsonl", rows), "--prompts-per-step", "2")
    assert few.status == 0, few.err
    assert "an answer was read in 1 of 96 completions only" in few.err
    left = command("guard", write(tmp_path / "left.jsonl", [*rows[1:24], rows[2], rows[0]]), "--prompts-per-step", "2", "--json")
    assert left.status == 2
    last = json.loads(left.out.splitlines()[-1])
    assert "no completion of 24 groups has" in last["error"]
    assert not any("rules that had" in note for note in last["notes"])


def test_options_that_do_nothing_are_refused(tmp_path: Path, command: Any) -> None:
    signals, completions = write(tmp_path / "signals.jsonl", STEADY), write(tmp_path / "completions.jsonl", groups(99))
    assert_refused(command("guard", completions, "--map", "a=vote/share_mean_frac"), 2, "--map a=vote/share_mean_frac", "Leave out --map")
    assert_refused(command("guard", signals, "--prompts-per-step", "4"), 2, "--prompts-per-step 4", "Leave out --prompts-per-step")
    mistyped: Called = command("guard", signals, "--map", "shar=vote/share_mean_frac")
    assert (mistyped.status, mistyped.out) == (0, "12 steps judged: no evidence of harm.\n")
    assert "note: --map shar=vote/share_mean_frac: no row has that field" in mistyped.err


def test_what_was_found_before_an_error_counts(tmp_path: Path, command: Any) -> None:
    rows = list(collapse(30))[1:]
    harmed: Called = command("guard", write(tmp_path / "a.jsonl", [*rows, {"step": 20, "share": 0.3}]), *MAPPED)
    assert harmed.status == 4
    assert "harm, or a standstill, at step" in harmed.out.splitlines()[-1]
    assert "a.jsonl, row 31: its step 20 does not come after step 30" in harmed.err
    unharmed: Called = command("guard", write(tmp_path / "b.jsonl", [*STEADY, {"step": 3, "entropy": 0.3}]), "--json")
    assert unharmed.status == 2
    last = json.loads(unharmed.out.splitlines()[-1])
    assert (last["steps"], last["judged"]) == (12, 7)
    assert "its step 3 does not come after step 11" in last["error"]


@pytest.mark.parametrize("end", ["", "\n", "\n\n"])
def test_a_last_line_that_is_cut_off_is_left_out(tmp_path: Path, command: Any, end: str) -> None:
    whole = "".join(json.dumps(row) + "\n" for row in STEADY)
    (tmp_path / "a.jsonl").write_text(whole + '{"step": 12, "entr' + end)
    called: Called = command("guard", "a.jsonl")
    assert (called.status, called.out) == (0, "12 steps judged: no evidence of harm.\n")
    assert "note: the last line is cut off and was left out" in called.err
    (tmp_path / "b.jsonl").write_text('{"step": 0, "entr\n' + whole)
    assert_refused(command("guard", "b.jsonl"), 2, "line 1: it is not JSON")


def test_ctrl_c_ends_with_what_was_found(tmp_path: Path, command: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    def typed(rows: list[dict[str, Any]]) -> Iterator[str]:
        yield from (json.dumps(row) + "\n" for row in rows)
        raise KeyboardInterrupt

    for rows, status, words in ((STEADY, 0, "12 steps judged: no evidence"), (list(collapse(30)), 4, "harm, or a standstill"), (STEADY[:3], 130, "")):
        monkeypatch.setattr(sys, "stdin", typed(rows))
        called: Called = command("guard", *(MAPPED if status == 4 else []))
        assert called.status == status
        assert words in called.out
        assert "resume" not in called.err
    assert "3 steps, the first verdict needs 6" in called.err


def test_the_command_writes_json(tmp_path: Path, command: Any) -> None:
    called: Called = command("guard", write(tmp_path / "bad.jsonl", list(collapse(20))), *MAPPED, "--json")
    *steps, last = [json.loads(line) for line in called.out.splitlines()]
    assert [one["step"] for one in steps] == list(range(1, 21))
    assert set(steps[-1]) == {"step", "action", "findings", "health"}
    assert last["steps"] == 20
    assert last["first_harm"] == next(one["step"] for one in steps if one["action"] == "halt")


def test_the_command_judges_a_run(made_run: Path, command: Any) -> None:
    called: Called = command("guard", made_run, "--json")
    assert called.status == 0, called.out
    assert json.loads(called.out.splitlines()[-1]) == {"steps": 12, "judged": 7, "with_findings": 0, "first_warning": None, "first_harm": None}
    assert_refused(command("guard", made_run, *MAPPED), 2, "its signals have names")


GOES_BACK = {"policy.model": "toy:weak", "labels.source": "majority", "run.checkpoint_every_steps": 2, "probes.num_prompts": 48, "evals.num_problems": 8}
GOES_BACK |= {"guard.window_steps": 3, "guard.baseline_steps": 3, "update.warmup_steps": 0}


@pytest.mark.parametrize(
    ("remedy", "rate", "factor", "every", "from_start"),
    [("lower_rate", 1.5, 0.99, 10, True), ("fewer_votes", 0.4, 0.5, 5, False), ("easier_prompts", 0.2, 0.5, 5, False)],
)
def test_a_run_that_went_back_is_judged_as_its_own_guard_judged_it_what_it_left_behind_included(
    tmp_path: Path, command: Any, remedy: str, rate: float, factor: float, every: int, from_start: bool
) -> None:
    options = GOES_BACK | {"update.learning_rate": rate, "run.num_steps": 30, "probes.every_steps": every, "rollback.max_rollbacks": 3}
    options |= {"rollback.remedy": remedy, "rollback.factor": factor}
    outcome = train_to_end(load_config(overrides={**options, "run.folder": str(tmp_path), "run.name": "a"}))
    ledger = read(outcome.folder)
    assert ledger.branches
    assert from_start or any(record.step for record in ledger.branches), "one goes back to a checkpoint, whose probes count on"
    recorded = [(step.metrics.version.branch, verdict) for step, verdict in zip(ledger.steps(True), ledger.verdicts(True), strict=True)]
    again = list(verdicts_of_run(outcome.folder, GuardSection(action="halt", window_steps=3, baseline_steps=3)))
    assert [(branch, one.step) for branch, one in again] == [(branch, one.step) for branch, one in recorded]
    harms = [[(branch, one.step) for branch, one in found if one.action in (Action.HALT, Action.ROLL_BACK)] for found in (again, recorded)]
    assert harms[0] == harms[1]
    assert [one.health for _, one in again] == [one.health for _, one in recorded]
    called: Called = command("guard", outcome.folder, "--json", "--window-steps", "3", "--baseline-steps", "3")
    assert called.status == 4
    *lines, summary = [json.loads(line) for line in called.out.splitlines()]
    assert [(one.get("branch", 0), one["step"]) for one in lines] == [(branch, one.step) for branch, one in recorded]
    assert (summary["first_harm"], summary.get("first_harm_branch", 0)) == (harms[0][0][1], harms[0][0][0])
    told: Called = command("guard", outcome.folder)  # its own window and first steps
    assert command("guard", outcome.folder, "--window-steps", "6").out != told.out
    assert all(f"step {step}{f' of branch {branch}' if branch else ''}: halt" in told.out for branch, step in harms[1])
    found = [f"step {one.step}{f' of branch {branch}' if branch else ''}" for branch, one in recorded if one.findings]
    assert f"findings in {len(found)} of them, first at {found[0]};" in told.out.splitlines()[-1]


def test_a_run_gets_the_verdicts_that_its_own_guard_gave(tmp_path: Path) -> None:
    """All but the completions that a finding names, which need the groups."""
    options = {
        "policy.model": "toy:weak",
        "labels.source": "majority",
        "update.learning_rate": 3.0,
        "run.num_steps": 16,
        "guard.action": "warn",
        "guard.window_steps": 2,
    }
    options |= {"guard.baseline_steps": 2, "rollout.prompts_per_step": 8, "rollout.num_votes": 8, "evals.num_problems": 8, "evals.num_samples": 4}
    config = load_config(overrides={**options, "prompts.count": 40, "run.folder": str(tmp_path), "run.name": "a"})
    outcome = train_to_end(config)
    recorded = list(read(outcome.folder).verdicts())
    again = list(verdicts(steps_of_run(outcome.folder), config.guard))
    assert any(verdict.findings for verdict in recorded)
    assert [(one.action, one.health) for one in again] == [(one.action, one.health) for one in recorded]
    assert [[replace(finding, examples=()) for finding in one.findings] for one in recorded] == [list(one.findings) for one in again]
    assert any(finding.examples for one in recorded for finding in one.findings)


@pytest.mark.skipif(not TRACES.exists(), reason="the recorded runs of ../shared/traces are not here")
@pytest.mark.parametrize(
    ("name", "latest"),
    [("qwen05_majority_t1.jsonl", 12), ("qwen05_majority_t07.jsonl", 37), ("qwen05_minshare_t07.jsonl", 36), ("qwen05_reference_t1.jsonl", None)],
)
def test_recorded_runs(name: str, latest: int | None) -> None:
    """The collapse onto a constant, the slow hack and the entropy explosion are found in time, the labelled run is left alone."""
    path = str(TRACES / name)
    found = list(verdicts(steps_of_rows(rows_in(path), path, NAMES, None), HALTS))
    if latest is None:
        assert not any(verdict.findings for verdict in found)
    else:
        halted = halted_at(found)
        assert halted is not None
        assert halted <= latest
