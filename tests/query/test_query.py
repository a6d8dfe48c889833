"""SQL over a run gives what the Python reader gives; it reads only; its errors name the nearest thing."""

from __future__ import annotations

import csv
import json
import os
import subprocess
import sys
from collections import Counter, defaultdict
from dataclasses import replace
from itertools import pairwise
from pathlib import Path
from typing import Any

import pyarrow.parquet as pq
import pytest

from selftrain import query
from selftrain.cli import call
from selftrain.config_load import load_config, recipe
from selftrain.control import ask
from selftrain.errors import ConfigError, FailureError, LedgerError, RunFolderError
from selftrain.evals import Evaluation, gained_and_lost
from selftrain.ledger import LedgerWriter, read
from selftrain.query.database import Database
from selftrain.report.labels import labels_of
from selftrain.run import read_config, start, train_to_end
from selftrain.train import StepReport
from selftrain.types import Admission, AnswerKey, Answers, Label, Outcome, Rewards, ScoredGroup, Vote, VotedGroup
from tests.builders import group

TOY = {
    "policy.model": "toy",
    "labels.source": "majority",
    "update.learning_rate": 0.1,
    "update.warmup_steps": 0,
    "rollout.prompts_per_step": 6,
    "rollout.num_votes": 8,
    "evals.num_problems": 24,
    "evals.num_samples": 4,
    "probes.num_prompts": 0,
}
FORMAT_1 = Path(__file__).parent.parent / "ledger" / "format_1"
COLLAPSES = {**TOY, "policy.model": "toy:weak", "update.learning_rate": 1.5, "run.num_steps": 60, "run.checkpoint_every_steps": 2, "guard.action": "halt"}
EMBEDDED = {
    "labels.source": "majority",
    "rollout.prompts_per_step": 4,
    "rollout.num_votes": 8,
    "evals.num_problems": 4,
    "evals.num_samples": 4,
    "run.num_steps": 2,
    "prompts.count": 32,
    "policy.num_threads": 1,
    "probes.num_prompts": 0,
}


def flat(sections: Any) -> dict[str, Any]:
    return {f"{section}.{name}": value for section, values in sections.items() for name, value in values.items()}


@pytest.fixture(scope="module")
def runs(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    """A short run of the recipe, a collapsed one, an empty one, and one under way with a step that nobody recorded as done."""
    place = {"run.folder": str(tmp_path_factory.mktemp("runs"))}
    found = {
        "default": train_to_end(load_config((), {**flat(recipe("embedded")), **EMBEDDED, **place})).folder,
        "collapsed": train_to_end(load_config((), {**COLLAPSES, **place})).folder,
    }
    empty = start(load_config((), {**TOY, **place}))
    empty.ledger.close()
    under_way = start(load_config((), {**TOY, **place}))
    for event in under_way.events():
        if isinstance(event, StepReport) and event.metrics.step == 3:
            break
    segments = under_way.folder / "ledger/segments"
    (segments / "000009.groups.parquet").write_bytes((segments / "000001.groups.parquet").read_bytes())  # published, not yet chained
    under_way.ledger.close()
    return {**found, "empty": empty.folder, "under way": under_way.folder}


@pytest.mark.parametrize("name", ["default", "collapsed", "empty", "under way"])
def test_every_view_holds_what_the_reader_gives(runs: dict[str, Path], name: str) -> None:
    ledger = read(runs[name])
    groups = [group for step in ledger.group_steps() for group in ledger.groups(step)]
    with query.open_run(runs[name]) as database:

        def rows(sql: str) -> list[tuple[Any, ...]]:
            return list(database.query(sql).rows)

        assert rows("select step, group_index, prompt_id, prompt, vote_share_frac, vote_margin_frac, label_key, admission from groups order by 1, 2") == [
            (g.step, g.index, g.prompt.id, g.prompt.text, one.voted.vote.share_frac, one.voted.vote.margin_frac, one.label.key, one.admission.value)
            for one in groups
            for g in (one.voted.group,)
        ]
        assert rows("select step, group_index, vote_keys, vote_counts, vote_winner from groups order by 1, 2") == [
            (
                one.voted.group.step,
                one.voted.group.index,
                [key for key, _ in one.voted.vote.counts],
                [count for _, count in one.voted.vote.counts],
                one.voted.vote.winners[0] if len(one.voted.vote.winners) == 1 else None,
            )
            for one in groups
        ]
        assert rows(
            "select text, token_ids, answer_key, reward, advantage, trained, num_tokens from completions order by step, group_index, completion_index"
        ) == [
            (
                completion.text,
                list(completion.token_ids),
                one.voted.answers.keys[at],
                one.rewards.values[at] if one.rewards.values else None,
                one.advantages[at] if one.advantages else None,
                at in one.trained,
                len(completion.token_ids),
            )
            for one in groups
            for at, completion in enumerate(one.voted.group.completions)
        ]
        drawn = Counter(one.voted.group.prompt.id for one in groups)
        assert rows("select prompt_id, num_groups from prompts order by 1") == sorted(drawn.items())
        key = "vote/share_mean_frac"
        assert rows("select step, vote_share_mean_frac from steps") == [(one.metrics.step, one.metrics.values[key]) for one in ledger.steps()]
        losses = [(one.metrics.step, int(at), stats["loss"]) for one in ledger.steps() for at, stats in one.updates.items()]
        assert rows("select step, update_index, loss from updates") == losses
        scores = [one.health and (one.health.value, one.health.low, one.health.high) for one in ledger.verdicts()]
        assert rows("select health, health_low, health_high from verdicts") == [one or (None, None, None) for one in scores]
        assert rows("select step, action, rules from verdicts") == [(one.step, one.action.value, [f.rule for f in one.findings]) for one in ledger.verdicts()]
        assert rows("select step, rule, value, limit_value from findings") == [
            (v.step, f.rule, f.value, f.limit) for v in ledger.verdicts() for f in v.findings
        ]
        assert rows("select name, step, weights_hash, head from checkpoints") == [(c.name, c.step, c.weights_hash, c.head) for c in ledger.checkpoints()]
        assert rows("select seq, kind, step, branch, prev, hash from records") == [(e.seq, e.kind, e.step, e.branch, e.prev, e.hash) for e in ledger.entries]
        evaluations = {one["name"]: Evaluation.from_json(one["evaluation"]) for one in ledger.evals()}
        assert rows("select name, num_problems, avg_frac, maj_low_frac, pass_high_frac from evaluations") == [
            (each, len(one.results), one.avg.value, one.maj.low, one.any_right.high) for each, one in evaluations.items()
        ]
        results = [(each, result.prompt_id, result.num_right, result.vote.value) for each, one in evaluations.items() for result in one.results]
        assert rows("select evaluation, prompt_id, num_right, vote from problems") == results
        seconds = [(one["step"], one["name"], stage, value) for one in ledger.timings() for stage, value in one["seconds"].items()]
        assert rows("select step, name, stage, seconds from timings") == seconds
        model = read_config(runs[name]).policy.model
        assert rows("select value from config where option = 'policy.model'") == [(json.dumps(model),)]


def test_a_record_of_an_older_format_is_brought_to_the_present_one() -> None:
    ledger = read(FORMAT_1)
    groups = [group for step in ledger.group_steps() for group in ledger.groups(step)]
    assert groups
    with query.open_run(FORMAT_1) as database:
        assert database.query("select role, count(*) from groups group by 1").rows == (("vote", len(groups)),)
        texts = tuple((one.text,) for group in groups for one in group.voted.group.completions)
        assert database.query("select text from completions order by step, group_index, completion_index").rows == texts
        assert all(database.query(named.sql).columns for named in query.NAMED.values())


def test_after_a_rollback_the_views_show_the_newest_branch(tmp_path: Path) -> None:
    run = start(load_config((), {**TOY, "run.folder": str(tmp_path), "run.num_steps": 6, "run.checkpoint_every_steps": 2}))
    events, rolled_back = run.events(), False
    for event in events:
        if isinstance(event, StepReport) and event.metrics.step == 3 and not rolled_back:
            rolled_back = True
            ask(run.folder, "roll_back", "a test", "to see it", "step-000002")
    ledger = read(run.folder)
    assert len(ledger.branches) == 1
    groups = [group for step in ledger.group_steps() for group in ledger.groups(step)]
    with query.open_run(run.folder) as database:
        assert database.query("select step, policy_version from groups order by step, group_index").rows == tuple(
            (one.voted.group.step, str(one.voted.group.completions[0].version)) for one in groups
        )
        assert database.query("select step from steps order by 1").rows == tuple((step,) for step in range(6))
        assert database.query("select max(branch), count(*) filter (where kind = 'branch') from records").rows == ((1, 1),)
        assert database.query("select distinct name from timings order by 1").rows == (("branch-01",), ("step",))


def test_probes_stand_apart_from_votes(tmp_path: Path) -> None:
    options = {**TOY, "run.num_steps": 3, "probes.num_prompts": 8, "probes.every_steps": 2, "run.folder": str(tmp_path)}
    ledger = read(train_to_end(load_config((), options)).folder)
    probed = [one for step in ledger.group_steps() for one in ledger.probed(step)]
    first = next(iter(ledger.steps())).metrics.values
    with Database(ledger) as database:
        assert database.query("select role, count(*) from groups group by 1 order by 1").rows == (("probe", len(probed)), ("vote", 18))
        assert database.query("select count(*) from prompts where prompt_id like '%:%'").rows == ((0,),)
        found = database.query("select step, probe_base_agree_frac from steps where probe_base_agree_frac is not null order by 1").rows
        assert [row[0] for row in found] == [0, 2]
        assert found[0][1] == first["probe/base_agree_frac"]
        assert database.query("select count(*) from records where kind = 'probe'").rows == ((2,),)


def test_extra_samples_stand_apart_from_votes(tmp_path: Path) -> None:
    options = {**TOY, "labels.source": "frozen", "run.num_steps": 2, "run.folder": str(tmp_path)}
    ledger = read(train_to_end(load_config((), options)).folder)
    votes = [group for step in ledger.group_steps() for group in ledger.groups(step)]
    extras = [extra for one in votes for extra in one.voted.group.extras]
    assert extras
    with Database(ledger) as database:
        assert database.query("select role, count(*) from groups group by 1 order by 1").rows == (("teacher", len(extras)), ("vote", len(votes)))
        assert database.query("select count(*) from prompts").rows == ((len({one.voted.group.prompt.id for one in votes}),),)
        num = sum(len(one.group.completions) for one in extras)
        assert database.query("select count(*) from completions where role = 'teacher' and reward is null").rows == ((num,),)
        reasons = database.query(query.NAMED["reward-reasons"].sql).rows
        assert sum(row[1] for row in reasons) == sum(len(one.voted.group.completions) for one in votes)
        found = labels_of(database)
    assert found.num_groups == len(votes)
    assert {one.decided_by for one in found.provenance} == {"teacher"}


def test_the_views_are_those_that_are_documented(runs: dict[str, Path]) -> None:
    with query.open_run(runs["under way"]) as database:
        for view in query.VIEWS.values():
            found = [(row[0], row[1]) for row in database.query(f"describe {view.name}").rows]
            assert found == [(column.name, column.type) for column in view.columns], view.name
            keys = ", ".join(view.key)
            assert database.query(f"select {keys} from {view.name} group by {keys} having count(*) > 1").rows == (), view.name


@pytest.mark.parametrize("run", ["default", "collapsed", "empty", "under way"])
def test_every_named_question_has_an_answer(runs: dict[str, Path], run: str) -> None:
    assert len(query.NAMED) >= 12
    with query.open_run(runs[run]) as database:
        for named in query.NAMED.values():
            result = database.query(named.sql)
            assert result.columns
            if run == "empty" and named.name not in ("accuracy",):
                assert result.rows == (), named.name


def test_named_questions_agree_with_the_reader(runs: dict[str, Path]) -> None:
    ledger = read(runs["collapsed"])
    groups = [group for step in ledger.group_steps() for group in ledger.groups(step)]
    with query.open_run(runs["collapsed"]) as database:

        def named(name: str) -> list[dict[str, Any]]:
            result = database.query(query.NAMED[name].sql)
            return [dict(zip(result.columns, row, strict=True)) for row in result.rows]

        labels: dict[str, list[str]] = defaultdict(list)
        for one in groups:
            if one.label.key is not None:
                labels[one.voted.group.prompt.id].append(one.label.key)
        changes = {prompt: sum(a != b for a, b in pairwise(keys)) for prompt, keys in labels.items()}
        assert {row["prompt_id"]: row["num_changes"] for row in named("most-changed-labels")} == {p: n for p, n in changes.items() if n}
        found = named("most-common-labels")[0]
        per_key = {key: {p for p, keys in labels.items() if key in keys} for key in {k for keys in labels.values() for k in keys}}
        assert found["num_prompts"] == max(map(len, per_key.values()))
        reasons = Counter(reason for one in groups for reason in one.rewards.reasons)
        assert {row["reason"]: row["num_completions"] for row in named("reward-reasons") if row["reason"] != "undecided group"} == dict(reasons)
        assert sum(row["share_frac"] for row in named("label-provenance")) == pytest.approx(1)
        margins = [row["vote_margin_frac"] for row in named("most-contested-groups")]
        assert margins == sorted(margins)
        assert margins[0] == min(one.voted.vote.margin_frac for one in groups if len(one.voted.vote.counts) > 1)
        assert named("guard-findings")[0]["rule"] == "constant_answer"
        evaluations = {one["name"]: Evaluation.from_json(one["evaluation"]) for one in ledger.evals()}
        changed = gained_and_lost(evaluations["before"], evaluations["after"])
        verdicts = {row["prompt_id"]: (row["before"], row["after"]) for row in named("gained-and-lost")}
        assert {prompt for prompt, pair in verdicts.items() if pair[1] == "right"} == set(changed.gained)
        assert {prompt for prompt, pair in verdicts.items() if pair[0] == "right"} == set(changed.lost)


TEXTS = ("half \ud800 a character", "U+FDD0 itself: \ufdd0", "nul \x00 and ␛\x1b[31m", 'quotes "," and\nlines')


def write_texts(folder: Path) -> ScoredGroup:
    """One group whose completions hold what UTF-8, terminals and CSV do not."""
    keys = (AnswerKey("a\ud800"), AnswerKey("a\ud800"), AnswerKey("b\ud800"), None)
    asked = group(("a", "a", "b", None))
    completions = tuple(replace(one, text=text, token_ends=(0, len(text))) for one, text in zip(asked.completions, TEXTS, strict=True))
    found = VotedGroup(replace(asked, completions=completions), Answers(keys, keys), Vote(4, 3, ((keys[0], 2), (keys[2], 1))))
    scored = ScoredGroup(found, Label(Outcome.TIE, (None,) * 4, "majority", "vote 0:0"), Rewards((), ()), (), (), (), Admission.UNDECIDED, ())
    with LedgerWriter.create(folder, {"config": {}}) as writer:
        writer.append_groups(0, [scored])
    return scored


def test_texts_come_back_as_they_were(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    written = write_texts(tmp_path / "run")
    sql = "select text, answer_key from completions order by completion_index"
    with query.open_run(tmp_path / "run") as database:
        assert database.query(sql).rows == tuple(zip(TEXTS, written.voted.answers.keys, strict=True))
        assert database.query("select answer_key, count(*) from completions where answer_key is not null group by 1 order by 2 desc").rows == (
            ("a\ud800", 2),
            ("b\ud800", 1),
        )
    for form in ("csv", "json", "parquet", "table"):
        assert call(["query", str(tmp_path / "run"), sql, "--format", form, "--output", str(tmp_path / f"x.{form}")]) == 0
    assert [row["text"] for row in json.loads((tmp_path / "x.json").read_text())] == list(TEXTS)
    with (tmp_path / "x.csv").open(newline="") as stream:
        assert [row["text"] for row in csv.DictReader(stream)] == ["half \\ud800 a character", *TEXTS[1:]]
    assert pq.read_table(tmp_path / "x.parquet").column("text").to_pylist()[0] == "half \ufdd0d800 a character"
    table = (tmp_path / "x.table").read_text()
    assert "\x1b" not in table
    assert len(table.splitlines()) == 1 + 4 + 1
    assert call(["query", str(tmp_path / "run"), sql]) == 0
    assert "\\ud800" in capsys.readouterr().out


@pytest.mark.parametrize(
    ("sql", "words"),
    [
        ("select * from grups", "grups: there is no such view\n  The nearest one is groups."),
        ("select rewrd from completions", "rewrd: there is no such column\n  The nearest one is reward."),
        ("select c.rewrd from completions c", "rewrd: there is no such column\n  The nearest one is reward."),
        ("selct 1", 'syntax error at or near "selct"'),
        ("", "0 statements: a record is only read"),
        ("select '\udcff'", "the query: it is no UTF-8 text"),
        ("select 1; select 2", "2 statements: a record is only read"),
        ("drop table steps", "a statement of type DROP: a record is only read"),
        ("copy steps to 'x.csv'", "a statement of type COPY: a record is only read"),
        ("insert into steps select * from steps", "a statement of type INSERT"),
        ("explain analyze copy steps to 'x.csv'", "a statement of type EXPLAIN"),
        ("set threads = 1", "a statement of type SET"),
        ("attach 'x.db'", "a statement of type ATTACH"),
        ("select * from read_text('/etc/passwd')", "reaches no files and no network"),
        ("select * from read_csv('http://127.0.0.1:9/x')", "reaches no files and no network"),
        ("select * from glob('/*')", "reaches no files and no network"),
        ("select * from '/etc/passwd'", "there is no such view"),
        ("select * from runs", "there is no such view"),
        ("select cast('a' as int)", "Could not convert string 'a'"),
        ("select nothing(1)", "nothing does not exist"),
    ],
)
def test_what_cannot_work_is_told(runs: dict[str, Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch, sql: str, words: str) -> None:
    monkeypatch.chdir(tmp_path)
    with query.open_run(runs["empty"]) as database, pytest.raises(ConfigError) as caught:
        database.query(sql)
    assert words in str(caught.value)
    assert list(tmp_path.iterdir()) == []


def test_too_much_memory_is_an_error_and_the_database_goes_on(runs: dict[str, Path], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("selftrain.query.database.MEMORY_LIMIT", "100MB")
    with query.open_run(runs["empty"]) as database:
        with pytest.raises(FailureError, match="more memory than 100MB"):
            database.query("select list(range) from range(1000000000)")
        assert database.query("select 1").rows == ((1,),)


def test_a_lost_segment_is_told(tmp_path: Path) -> None:
    write_texts(tmp_path / "run")
    with query.open_run(tmp_path / "run") as database:
        (tmp_path / "run/ledger/segments/000001.groups.parquet").unlink()
        with pytest.raises(LedgerError, match=r"000001\.groups\.parquet: it is missing\n .*verify"):
            database.query("select prompt_id from groups")
    with pytest.raises(LedgerError, match=r"000001\.groups\.parquet: it is missing\n .*verify"):
        query.open_run(tmp_path / "run")
    with pytest.raises(RunFolderError):
        query.open_run(tmp_path / "nowhere")


def test_a_damaged_segment_is_told_by_its_name(tmp_path: Path) -> None:
    write_texts(tmp_path / "run")
    segment = tmp_path / "run/ledger/segments/000001.groups.parquet"
    segment.write_bytes(segment.read_bytes()[:4] + b"\xff" * 200 + segment.read_bytes()[204:])
    with query.open_run(tmp_path / "run") as database:
        for ask in (database.query, lambda sql: list(database.batches(sql)[1])):
            with pytest.raises(LedgerError, match=r"000001\.groups\.parquet: its bytes are not those that were written"):
                ask("select * from groups")


def test_the_command(runs: dict[str, Path], tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> None:
    run = str(runs["collapsed"])
    assert call(["query", run, "select step, avg(reward) as reward from completions group by step order by step", "--max-rows", "3"]) == 0
    out = capsys.readouterr().out.splitlines()
    assert out[0].split() == ["step", "reward"]
    assert len(out) == 5
    assert "the first 3 shown" in out[-1]
    assert call(["query", run, "--named", "most-changed-labels", "--format", "json"]) == 0
    with query.open_run(runs["collapsed"]) as database:
        expected = database.query(query.NAMED["most-changed-labels"].sql)
    assert [tuple(row.values()) for row in json.loads(capsys.readouterr().out)] == list(expected.rows)
    target = tmp_path / "all.parquet"
    assert call(["query", run, "select * from completions", "--output", str(target)]) == 0
    ledger = read(runs["collapsed"])
    num = sum(len(group.voted.group.completions) for step in ledger.group_steps() for group in ledger.groups(step))
    assert pq.read_metadata(target).num_rows == num
    assert call(["query", "--list"]) == 0
    listed = capsys.readouterr().out
    assert all(name in listed for name in [*query.VIEWS, *query.NAMED])
    assert call(["query", "--list", "--named", "accuracy"]) == 0
    assert "from evaluations" in capsys.readouterr().out


@pytest.mark.parametrize(
    ("args", "words"),
    [
        ((), "RUN is missing"),
        (("RUN",), "needs exactly one of SQL and --named"),
        (("RUN", "select 1", "--named", "accuracy"), "needs exactly one of SQL and --named"),
        (("RUN", "--named", "accurate"), "nearest one is accuracy"),
        (("RUN", "select 1", "--format", "parquet"), "Name a file with --output"),
        (("RUN", "select 1", "--output", "x.xls"), "names no form"),
        (("RUN", "select 1", "--output", "no/where.csv"), "cannot be written"),
    ],
)
def test_mistakes_on_the_command_line(
    runs: dict[str, Path], tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch, args: tuple[str, ...], words: str
) -> None:
    monkeypatch.chdir(tmp_path)
    assert call(["query", *(str(runs["empty"]) if arg == "RUN" else arg for arg in args)]) in (1, 2)
    captured = capsys.readouterr()
    assert words in captured.err
    assert captured.out == ""


def test_sql_from_stdin_and_a_reader_that_leaves(runs: dict[str, Path]) -> None:
    command = [sys.executable, "-m", "selftrain", "query", str(runs["collapsed"]), "-", "--format", "csv"]
    done = subprocess.run(command, input="select count(*) as n from steps", capture_output=True, text=True, timeout=60)
    assert done.stdout.splitlines() == ["n", str(len(list(read(runs["collapsed"]).steps())))]
    utf8 = {**os.environ, "PYTHONUTF8": "1", "PYTHONIOENCODING": "utf-8:strict"}
    unread = subprocess.run(command, input=b"select '\xff'", capture_output=True, timeout=60, env=utf8)
    assert (unread.returncode, unread.stdout) == (2, b"")
    assert b"the query on stdin: it is no UTF-8 text (invalid start byte at byte 8)" in unread.stderr


def test_a_database_holds_no_more_than_one_run(runs: dict[str, Path]) -> None:
    with Database(read(runs["default"])) as one, Database(read(runs["empty"])) as other:
        assert one.query("select count(*) from groups").rows == ((8,),)
        assert other.query("select count(*) from groups").rows == ((0,),)
