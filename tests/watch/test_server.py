"""The live page's server without a browser: what it says, what it refuses, and that it reads on instead of again."""

from __future__ import annotations

import json
import os
import re
import shutil
import signal
import subprocess
import sys
import time
from collections import Counter
from pathlib import Path
from typing import Any

import pytest
from starlette.testclient import TestClient

from selftrain import control
from selftrain.cli import call
from selftrain.errors import RunFolderError
from selftrain.ledger import LedgerWriter, RequestRecord, read
from selftrain.metrics import METRICS
from selftrain.run import StepReport, resume, start
from selftrain.watch.runs import Runs
from selftrain.watch.security import HEADERS, Rules
from selftrain.watch.series import columns, extremes, spark
from selftrain.watch.server import make_app, static_files
from selftrain.watch.tail import RunTail
from tests.watch import runs as made

TOKEN = "t0ken-t0ken"
HERE = {"host": "127.0.0.1:8765"}
MAY_ASK = {**HERE, "x-selftrain-token": TOKEN, "origin": "http://127.0.0.1:8765", "sec-fetch-site": "same-origin"}


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Four runs: finished after a rollback, collapsed, empty, with markup in it."""
    home = tmp_path_factory.mktemp("runs")
    run = start(made.toy(home / "back"))
    for event in run.events():
        if isinstance(event, StepReport) and event.metrics.step == 7 and not event.metrics.version.branch:
            control.ask(run.folder, control.ROLL_BACK, "Ada", "a test", "step-000003")
    made.write_collapsed(home / "deeper" / "collapsed")
    made.write_empty(home / "empty")
    made.write_hostile(home / "hostile")
    return home


def client(folder: Path, host: str = "127.0.0.1") -> TestClient:
    return TestClient(make_app(Runs(folder), Rules(host, TOKEN)), base_url="http://127.0.0.1:8765", headers=HERE)


def get(folder: Path, path: str, **query: object) -> Any:
    found = client(folder).get(f"/api/{path}", params={key: str(value) for key, value in query.items()})
    assert found.status_code == 200, found.text
    return found.json()


def test_the_list_has_every_run_with_its_state(folder: Path) -> None:
    listed = {run["id"]: run for run in get(folder, "runs")["runs"]}
    assert {name: run["state"] for name, run in listed.items()} == {
        "back": "done",
        "deeper/collapsed": "halted",
        "empty": "unfinished",
        "hostile": "unfinished",
    }
    back = listed["back"]
    assert (back["steps_done"], back["num_steps"], back["branch"], back["handed_over"]) == (12, 12, 1, "branch-01-step-000012")
    assert len(back["spark"]) == 12
    assert 0 < back["accuracy"]["before"]["avg@4"]["value"] < 1
    assert listed["empty"]["steps_done"] == 0


def test_a_run_tells_what_happened_and_where_it_could_go_back_to(folder: Path) -> None:
    run = get(folder, "run", run="back")
    assert [(one["action"], one["step"], one["refused"]) for one in run["requests"]] == [("roll_back", 8, "")]
    assert run["branches"][0] | {"who": "Ada"} == run["branches"][0]
    counted = {one["name"]: one["counts"] for one in run["checkpoints"]}
    assert counted["start"]
    assert counted["branch-01-step-000012"]
    assert not counted.get("step-000006", False)
    collapsed = get(folder, "run", run="deeper/collapsed")
    assert collapsed["verdicts"][-1]["action"] == "halt"
    assert collapsed["verdicts"][-1]["findings"][0]["rule"] == "constant_answer"
    assert get(folder, "run", run="empty")["evaluations"] == []


def test_curves_have_the_live_branch_and_what_was_left(folder: Path) -> None:
    found = get(folder, "series", run="back")
    ledger = read(folder / "back")
    assert found["live"]["steps"] == list(range(12))
    assert found["live"]["values"]["vote/share_mean_frac"] == [step.metrics.values["vote/share_mean_frac"] for step in ledger.steps()]
    assert [(one["branch"], one["steps"]) for one in found["left"]] == [(0, [3, 4, 5, 6, 7])]
    assert get(folder, "series", run="back", first=4, last=6)["live"]["steps"] == [4, 5, 6]
    assert get(folder, "series", run="empty")["live"] == {"steps": [], "values": {}, "decimated": False, "stretches": []}


def test_a_group_is_the_one_in_the_ledger(folder: Path) -> None:
    scored = read(folder / "back").groups(5)[2]
    found = get(folder, "group", run="back", branch=1, step=5, index=2)
    assert found["prompt_id"] == scored.voted.group.prompt.id
    assert [(one["key"], one["count"]) for one in found["votes"]] == [*scored.voted.vote.counts]
    assert (found["label_key"], found["label_decided_by"]) == (scored.label.key, scored.label.decided_by)
    assert [one["step"] for one in found["history"] if one["branch"] == 1] == sorted(one["step"] for one in found["history"] if one["branch"] == 1)
    listed = get(folder, "completions", run="back", branch=1, step=5, index=2)
    assert ["".join((one["before"], one["answer"], one["after"])) for one in listed["completions"]] == [one.text for one in scored.voted.group.completions]
    assert [one["answer"] for one in listed["completions"]] == [text or "" for text in scored.voted.answers.texts]
    assert [one["advantage"] for one in listed["completions"]] == [*scored.advantages]
    winner = scored.voted.vote.counts[0]
    assert get(folder, "completions", run="back", branch=1, step=5, index=2, cluster=winner[0], limit=2)["total"] == winner[1]
    assert client(folder).get("/api/group", params={"run": "back", "branch": 0, "step": 11, "index": 0}).status_code == 404
    some = get(folder, "groups", run="deeper/collapsed", filters="unread")["rows"][0]
    unread = get(folder, "completions", run="deeper/collapsed", branch=0, step=some["step"], index=some["index"], cluster="")
    assert unread["total"] == some["num_votes"] - some["num_read"] > 0
    assert {one["answer_key"] for one in unread["completions"]} == {None}


def test_prompts_with_something_to_compare(folder: Path) -> None:
    ledger = read(folder / "back")
    visits = Counter(one.voted.group.prompt.id for branch, steps in ((0, range(8)), (1, range(3, 12))) for step in steps for one in ledger.groups(step, branch))
    found = get(folder, "prompts", run="back", limit=200)
    assert {row["id"]: row["visits"] for row in found["rows"]} == {one: times for one, times in visits.items() if times > 1}
    assert found["total"] == len(found["rows"]) > 3
    times = [row["visits"] for row in found["rows"]]
    assert times == sorted(times, reverse=True)
    wanted = found["rows"][2]["id"]
    assert wanted in [row["id"] for row in get(folder, "prompts", run="back", text=wanted.upper())["rows"]]
    assert get(folder, "prompts", run="hostile")["rows"] == []


def test_groups_are_searched_filtered_and_ordered(folder: Path) -> None:
    whole = get(folder, "groups", run="back", limit=200)
    assert whole["total"] == 12 * 16
    assert get(folder, "groups", run="back", rolled_back=1)["total"] == 17 * 16
    assert [(row["step"], row["index"]) for row in whole["rows"][:2]] == [(11, 0), (11, 1)]
    for name, fits in {
        "flip": lambda row: row["flipped"],
        "unread": lambda row: row["num_read"] < row["num_votes"],
        "disagreement": lambda row: row["num_keys"] > 1 and row["margin"] < 0.25,
        "undecided": lambda row: row["outcome"] != "decided",
    }.items():
        found = get(folder, "groups", run="back", filters=name, limit=200)["rows"]
        assert found == [row for row in whole["rows"] if fits(row)]
    assert any(row["flipped"] for row in whole["rows"])
    margins = [row["margin"] for row in get(folder, "groups", run="back", order="margin", limit=200)["rows"]]
    assert margins == sorted(margins)
    one = whole["rows"][3]["prompt_id"]
    assert {row["prompt_id"] for row in get(folder, "groups", run="back", text=f"{one} ".upper())["rows"]} >= {one}
    last = get(folder, "run", run="deeper/collapsed")["verdicts"][-1]["step"]
    assert {row["step"] for row in get(folder, "groups", run="deeper/collapsed", filters="finding")["rows"]} == {last - 2, last - 1, last}
    assert client(folder).get("/api/groups", params={"run": "back", "filters": "magic"}).status_code == 400


def test_a_run_of_another_machine_on_a_shared_folder(folder: Path, tmp_path: Path) -> None:
    """Its lock cannot be seen, so the growth of its record tells; a pause lasts until it is taken back."""
    shared = tmp_path / "shared"
    run = start(made.toy(shared))
    for event in run.events():
        if isinstance(event, StepReport) and event.metrics.step == 3:
            break
    run.ledger.close()
    assert RunTail("x", shared).state_name() == "unfinished"
    there = json.loads((shared / "run.json").read_text())
    (shared / "run.json").write_text(json.dumps({**there, "environment": {**there["environment"], "host": "elsewhere"}}))
    now = time.time()

    def state(grew_s: float, begun_s: float) -> str:
        os.utime(shared / "ledger" / "chain.jsonl", (now - grew_s, now - grew_s))
        os.utime(shared / "run.json", (now - begun_s, now - begun_s))
        return RunTail("x", shared).state_name()

    assert state(grew_s=10, begun_s=20) == "running"
    assert state(grew_s=100, begun_s=120) == "unfinished"
    assert state(grew_s=500, begun_s=500 + 4 * 120) == "running", "steps of two minutes"
    with LedgerWriter.resume(shared, read(shared).head, exact=True) as writer:
        writer.append_request(RequestRecord(1, "pause", None, "", "Ada", 4, ""))
    assert state(grew_s=10_000, begun_s=20_000) == "paused"


def test_a_run_that_is_resumed_after_a_stop_runs_or_waits(tmp_path: Path) -> None:
    run = start(made.toy(tmp_path / "a"))
    for event in run.events():
        if isinstance(event, StepReport) and event.metrics.step == 3:
            control.ask(run.folder, control.STOP, "Ada", "")
    assert RunTail("a", run.folder).state_name() == "stopped"
    again = resume(run.folder)
    assert RunTail("a", run.folder).state_name() == "running"
    again.ledger.append_request(RequestRecord(2, "pause", None, "", "Ada", 5, ""))
    assert RunTail("a", run.folder).state_name() == "paused"
    again.ledger.close()
    assert RunTail("a", run.folder).state_name() == "unfinished", "it ended while it waited"


def test_labels_flip_against_the_history_of_their_branch(folder: Path) -> None:
    ledger = read(folder / "back")
    expected = set()
    for history, own in (([(0, step) for step in range(8)], 0), ([(0, 0), (0, 1), (0, 2), *((1, step) for step in range(3, 12))], 1)):
        last: dict[str, str] = {}
        for branch, step in history:
            for one in ledger.groups(step, branch):
                name, label = one.voted.group.prompt.id, one.label.key
                if label is not None and last.get(name, label) != label and branch == own:
                    expected.add((branch, step, one.voted.group.index))
                if label is not None:
                    last[name] = label
    found = get(folder, "groups", run="back", filters="flip", rolled_back=1, limit=200)
    assert {(row["branch"], row["step"], row["index"]) for row in found["rows"]} == expected
    assert len(expected) > 2


def test_pages_of_a_list_fit_together_while_the_record_grows(folder: Path) -> None:
    whole = [get(folder, "groups", run="back", rolled_back=1, limit=200, offset=offset) for offset in (0, 200)]
    rows = [row for part in whole for row in part["rows"]]
    assert [part["branches"] for part in whole] == [1, 1]
    assert whole[0]["total"] == whole[0]["until"] == len(rows) == 8 * 16 + 9 * 16
    assert {(row["branch"], row["step"]) for row in rows if not row["counts"]} == {(0, step) for step in range(3, 8)}
    then = get(folder, "groups", run="back", rolled_back=1, limit=5, until=20)
    later = get(folder, "groups", run="back", rolled_back=1, limit=50, offset=5, until=then["until"])
    places = [(row["branch"], row["step"], row["index"]) for row in [*then["rows"], *later["rows"]]]
    assert places == sorted(places, key=lambda one: (-one[0], -one[1], one[2]))
    assert len({*places}) == len(places) == 20


def test_markup_and_half_characters_come_as_text(folder: Path) -> None:
    listed = get(folder, "completions", run="hostile", branch=0, step=0, index=0)["completions"]
    assert ["".join((one["before"], one["answer"], one["after"])) for one in listed] == [*made.HOSTILE]
    assert client(folder).get("/api/completions?run=hostile&branch=0&step=0&index=0").headers["content-type"] == "application/json"


def test_two_evaluations_on_one_problem(folder: Path) -> None:
    prompts = get(folder, "example", run="back", name="before")["prompts"]
    sides = [get(folder, "example", run="back", name=name, prompt=prompts[0]["id"])["example"] for name in ("before", "after")]
    assert [side["prompt_id"] for side in sides] == [prompts[0]["id"]] * 2
    assert all(side["completions"] for side in sides)
    assert client(folder).get("/api/example", params={"run": "back", "name": "never"}).status_code == 404


@pytest.mark.parametrize(
    ("headers", "status"),
    [
        ({"host": "evil.example"}, 421),
        ({"host": "evil.example:8765"}, 421),
        ({"host": "192.168.1.7:8765"}, 421),
        ({"host": "127.0.0.1:8765", "origin": "http://evil.example"}, 403),
        ({"host": "127.0.0.1:8765", "sec-fetch-site": "cross-site"}, 403),
        ({"host": "127.0.0.1:8765", "sec-fetch-site": "same-site"}, 403),
        ({"host": "localhost:8765"}, 200),
        ({"host": "[::1]:8765"}, 200),
    ],
)
def test_only_this_servers_own_page_may_read(folder: Path, headers: dict[str, str], status: int) -> None:
    assert client(folder).get("/api/runs", headers=headers).status_code == status


def test_beyond_loopback_reading_needs_the_token(folder: Path) -> None:
    far = client(folder, "0.0.0.0")
    assert far.get("/api/runs").status_code == 401
    assert far.get("/api/runs", headers={"x-selftrain-token": "wrong"}).status_code == 401
    assert far.get("/api/runs", headers={"x-selftrain-token": TOKEN}).status_code == 200
    assert far.get("/api/events").status_code == 401
    assert far.get("/").status_code == 200
    assert "back" not in far.get("/").text


@pytest.mark.parametrize(
    ("change", "status"),
    [
        ({"x-selftrain-token": "wrong"}, 403),
        ({"x-selftrain-token": ""}, 403),
        ({"origin": "http://localhost:9999"}, 403),
        ({"origin": "null"}, 403),
        ({"sec-fetch-site": "cross-site"}, 403),
        ({"host": "evil.example"}, 421),
        ({"content-type": "text/plain"}, 415),
        ({"content-type": "application/x-www-form-urlencoded"}, 415),
    ],
)
def test_asking_needs_token_origin_and_json(folder: Path, change: dict[str, str], status: int) -> None:
    body = json.dumps({"action": "stop", "who": "Eve", "reason": ""})
    answer = client(folder).post("/api/requests?run=empty", content=body, headers={**MAY_ASK, "content-type": "application/json", **change})
    assert answer.status_code == status
    assert not control.numbers(folder / "empty")


@pytest.mark.parametrize(
    ("body", "status"),
    [
        ({"action": "dance", "who": "Ada"}, 400),
        ({"action": "roll_back", "who": "Ada", "checkpoint": "step-000003"}, 400),
        ({"action": "stop", "who": ["Ada"]}, 400),
        (["stop"], 400),
        ({"action": "stop", "reason": "x" * 20_000}, 413),
        ({"action": "stop", "reason": "x" * 3_000}, 400),
        ({"action": "stop", "reason": "cut emoji \ud83d"}, 400),
        ({"action": "stop", "who": "\x1b[2J"}, 400),
    ],
)
def test_a_request_that_makes_no_sense_is_refused(folder: Path, body: object, status: int) -> None:
    assert (
        client(folder).post("/api/requests?run=empty", content=json.dumps(body), headers={**MAY_ASK, "content-type": "application/json"}).status_code == status
    )
    assert not control.numbers(folder / "empty")


def test_a_request_is_written_and_the_run_takes_it_up(folder: Path, tmp_path: Path) -> None:
    shutil.copytree(folder / "empty", tmp_path / "empty")
    page = client(tmp_path)
    answer = page.post("/api/requests?run=empty", json={"action": "stop", "who": "", "reason": "enough "}, headers=MAY_ASK)
    assert (answer.status_code, answer.json()) == (202, {"number": 1, "action": "stop"})
    list(resume(tmp_path / "empty").events())
    run = page.get("/api/run?run=empty").json()
    assert run["state"] == "stopped"
    assert [(one["who"], one["reason"], one["step"]) for one in run["requests"]] == [("somebody at the page", "enough", 0)]
    assert client(folder).post("/api/requests?run=back", json={"action": "stop"}, headers=MAY_ASK).status_code == 409


@pytest.mark.parametrize(
    "path", ["/../run.json", "/..%2f..%2frun.json", "/vendor/../../server.py", "/%2e%2e/pyproject.toml", "/server.py", "/vendor/", "//etc/passwd", "/api/none"]
)
def test_nothing_but_the_page_is_served(folder: Path, path: str) -> None:
    assert client(folder).get(path).status_code == 404


@pytest.mark.parametrize("run", ["../back", "..", "/etc", "back/../back", "deeper", "", "back/ledger", "back\x00"])
def test_a_run_is_looked_up_and_never_a_path(folder: Path, run: str) -> None:
    assert client(folder).get("/api/run", params={"run": run}).status_code == 404


@pytest.mark.parametrize("query", ["step=-1", "step=x", "step=99999999999999", "offset=1e3", "limit=%d9%a3"])
def test_numbers_of_an_address_are_checked(folder: Path, query: str) -> None:
    assert client(folder).get(f"/api/groups?run=back&{query}").status_code == 400


def test_every_answer_has_the_strict_headers(folder: Path) -> None:
    for path in ("/", "/app.js", "/api/runs", "/api/run?run=nope", "/none"):
        answer = client(folder).get(path)
        assert {name: answer.headers[name] for name in HEADERS} == HEADERS
    policy = HEADERS["content-security-policy"]
    assert "unsafe" not in policy
    assert "default-src 'none'" in policy


def test_the_page_is_small_whole_and_asks_nobody_else() -> None:
    files = static_files()
    assert {"index.html", "app.js", "style.css", "vendor/uPlot.iife.min.js", "vendor/LICENSE.uPlot.txt"} <= set(files)
    assert b"MIT" in files["vendor/LICENSE.uPlot.txt"]
    assert sum(map(len, files.values())) < 200_000
    for name, data in files.items():
        text = data.decode()
        if name.startswith("vendor/"):
            continue
        assert "http://" not in text.replace("http://www.w3.org/2000/svg", "")
        assert "https://" not in text
        assert "innerHTML" not in text
        assert len(text.splitlines()) <= 400
    assert b" style=" not in files["index.html"]
    assert b"onclick" not in files["index.html"]


def test_a_tail_reads_on_and_not_again(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    run = start(made.toy(tmp_path / "a"))
    events = run.events()
    tail = RunTail("a", tmp_path / "a")
    seen = 0
    for event in events:
        if isinstance(event, StepReport):
            before = tail.advance()
            change = tail.changes(seen)
            assert [one["step"] for one in change["steps"]] == [event.metrics.step]
            assert change["state"]["steps_done"] == event.metrics.step + 1
            assert change["state"]["state"] == "running"
            assert change["state"]["head"] == read(tmp_path / "a").head
            seen = before
    size = (tmp_path / "a" / "ledger" / "chain.jsonl").stat().st_size
    offsets: list[int] = []
    from selftrain.ledger import storage

    real = storage.lines
    monkeypatch.setattr(storage, "lines", lambda path, start=0: offsets.append(start) or real(path, start))
    tail.advance()
    tail.advance()
    assert offsets[-1] == size
    assert tail.state_name() == "done"


def test_a_fork_is_read_anew(tmp_path: Path) -> None:
    from dataclasses import replace

    shape = made.toy(tmp_path / "a")
    run = start(shape)
    for event in run.events():
        if isinstance(event, StepReport) and event.metrics.step == 4:
            break
    run.ledger.close()
    tail = RunTail("a", tmp_path / "a")
    with LedgerWriter.resume(tmp_path / "a", next(iter(read(tmp_path / "a").checkpoints())).head, exact=False) as writer:
        first = read(tmp_path / "a").groups(3)
        writer.append_groups(3, [replace(one, advantages=tuple(value + 1 for value in one.advantages)) for one in first])
    tail.advance()
    assert tail.generation == 1
    assert len(tail.steps) == 3
    assert tail.curves(None, None, 100)["live"]["steps"] == [0, 1, 2]


def test_a_stream_says_what_changed(folder: Path) -> None:
    app = make_app(Runs(folder), Rules("127.0.0.1", TOKEN), closing=iter([False, True, True]).__next__)
    with TestClient(app, base_url="http://127.0.0.1:8765", headers=HERE) as page:
        answer = page.get("/api/events?run=back&seq=0")
    assert answer.headers["content-type"].startswith("text/event-stream")
    name, data = answer.text.strip().split("\n")
    assert name == "event: change"
    change = json.loads(data.removeprefix("data: "))
    assert len(change["steps"]) == 17
    assert change["state"]["state"] == "done"
    assert change["happenings"]["branches"][0]["checkpoint"] == "step-000003"
    app = make_app(Runs(folder), Rules("127.0.0.1", TOKEN), closing=iter([False, True]).__next__)
    with TestClient(app, base_url="http://127.0.0.1:8765", headers=HERE) as page:
        assert page.get("/api/events?run=back&seq=0&generation=7").text == "event: reload\ndata: {}\n\n"


def test_a_damaged_record_is_named_and_hides_no_other_run(folder: Path, tmp_path: Path) -> None:
    for name in ("back", "hostile"):
        shutil.copytree(folder / name, tmp_path / name)
    chain = tmp_path / "back" / "ledger" / "chain.jsonl"
    chain.write_bytes(chain.read_bytes().replace(b'"step":3', b'"step":4', 1))
    listed = {run["id"]: run for run in get(tmp_path, "runs")["runs"]}
    assert listed["back"]["state"] == "damaged"
    assert "does not have the hash" in listed["back"]["error"]
    assert listed["hostile"]["state"] == "unfinished"
    assert client(tmp_path).get("/api/run?run=back").status_code == 500


def test_damaged_groups_are_said_to_who_asks_for_them(folder: Path, tmp_path: Path) -> None:
    """The index that is made ahead of that keeps quiet."""
    shutil.copytree(folder / "back", tmp_path / "back")
    (tmp_path / "back" / "ledger" / "segments" / "000005.groups.parquet").unlink()
    page = client(tmp_path)
    assert page.get("/api/run?run=back").json()["state"] == "done"
    answer = page.get("/api/groups?run=back")
    assert (answer.status_code, "000005.groups.parquet" in answer.json()["error"]) == (500, True)


def test_a_stream_says_what_is_damaged(folder: Path, tmp_path: Path) -> None:
    shutil.copytree(folder / "back", tmp_path / "back")
    page = client(tmp_path)
    assert page.get("/api/run?run=back").status_code == 200
    with (tmp_path / "back" / "evals.jsonl").open("a") as file:
        file.write('{"broken\n')
    answer = page.get("/api/events?run=back")
    name, data = answer.text.strip().split("\n")
    assert name == "event: failed"
    assert "evals.jsonl" in json.loads(data.removeprefix("data: "))["error"]


def test_evaluations_that_were_left_behind_are_marked(tmp_path: Path) -> None:
    run = start(made.toy(tmp_path / "a", **{"evals.every_steps": 3}))
    for event in run.events():
        if isinstance(event, StepReport) and event.metrics.step == 7 and not event.metrics.version.branch:
            control.ask(run.folder, control.ROLL_BACK, "Ada", "a test", "step-000003")
    found = [(one["name"], one["branch"], one["counts"]) for one in get(tmp_path, "run", run="a")["evaluations"]]
    here = [("branch-01-step-000006", 1, True), ("branch-01-step-000009", 1, True), ("after", 1, True)]
    assert sorted(found) == sorted([("before", 0, True), ("step-000003", 0, True), ("step-000006", 0, False), *here])


def test_the_checkpoint_that_a_branch_began_with_counts(tmp_path: Path) -> None:
    run = start(made.toy(tmp_path / "a"))
    made.sent_back(run, 7, "step-000003")
    found = {one["name"]: one["counts"] for one in RunTail("a", tmp_path / "a").checkpoints()}
    assert found["branch-01-step-000003"]
    assert found["step-000003"]
    assert not found["step-000006"]


def test_every_metric_has_a_title_of_its_own() -> None:
    source = static_files()["format.js"].decode()
    titles = dict(re.findall(r'"(\w+/\w+)": "([^"]+)"', source))
    assert set(titles) == set(METRICS)
    for stage in {key.partition("/")[0] for key in METRICS}:
        mine = [title for key, title in titles.items() if key.startswith(f"{stage}/")]
        assert len(set(mine)) == len(mine)
        assert re.search(rf'\b{stage}: "[A-Z]', source), f"a heading for {stage}"
    assert all(title[0].isupper() and len(title) <= 26 and "_" not in title for title in titles.values())


def test_long_curves_keep_their_peaks() -> None:
    rows = [(step, {"a": 1.0 if step == 777 else step / 10_000, **({"b": -1.0} if step == 4000 else {})}) for step in range(5000)]
    found = columns(rows, 200)
    assert found["decimated"]
    assert len(found["steps"]) <= 200
    assert len(found["steps"]) == len(found["values"]["a"]) == len(found["values"]["b"])
    assert max(found["values"]["a"]) == 1.0
    assert min(value for value in found["values"]["b"] if value is not None) == -1.0
    assert found["steps"] == sorted(found["steps"])
    assert (found["steps"][0], found["values"]["a"][0], found["steps"][-1], found["values"]["a"][-1]) == (0, 0.0, 4999, 0.4999)
    assert [step for first, last in found["stretches"] for step in range(first, last + 1)] == list(range(5000))
    assert set(found["steps"]) == {step for stretch in found["stretches"] for step in stretch}
    assert extremes([3.0, None, 1.0, 2.0]) == [3.0, 1.0]
    assert columns([(0, {"a": float("nan")})])["values"] == {"a": [None]}
    assert spark([0.0, None, 1.0, 1.0], points=2) == [0.5, 1.0]


def test_a_folder_that_is_not_there_and_a_port_that_is_taken(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(RunFolderError, match="no such folder"):
        Runs(tmp_path / "none")
    assert call(["watch", str(tmp_path / "none")]) == 2
    assert "there is no such folder" in capsys.readouterr().err
    import socket

    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        assert call(["watch", str(tmp_path), "--port", str(taken.getsockname()[1])]) == 2
    assert "Give another --port" in capsys.readouterr().err
    for host in ("notahost.invalid", "203.0.113.7", "x" * 300):
        assert call(["watch", str(tmp_path), "--host", host]) == 2
        assert "Give an address of this machine as --host" in capsys.readouterr().err


def test_ctrl_c_ends_the_page_without_words_of_a_run(folder: Path) -> None:
    words = [sys.executable, "-m", "selftrain", "watch", str(folder), "--port", "0"]
    with subprocess.Popen(words, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None
        assert process.stdout.readline().startswith("http://")
        time.sleep(1.0)
        process.send_signal(signal.SIGINT)
        _, said = process.communicate(timeout=30)
    assert (process.returncode, said) == (130, "")


def test_a_run_of_its_own_is_opened_by_itself(folder: Path) -> None:
    found = get(folder / "back", "runs")
    assert (found["single"], [run["id"] for run in found["runs"]]) == (True, ["back"])


def test_a_large_run_answers_quickly(tmp_path: Path) -> None:
    """40 steps x 512 completions; benchmarks/watch.py measures 1,000."""
    import time

    made.write_large(tmp_path / "large", 40, (16, 32), 10)
    page = client(tmp_path)
    for address in ("runs", "run?run=large", "series?run=large", "groups?run=large&filters=disagreement", "group?run=large&branch=0&step=20&index=3"):
        begun = time.perf_counter()
        assert page.get(f"/api/{address}").status_code == 200
        assert time.perf_counter() - begun < 2


@pytest.mark.parametrize(("option", "role"), [({"labels.source": "frozen"}, "teacher"), ({"labels.clustering": "judge"}, "judge")])
def test_extra_samples_stand_with_the_group_they_serve(tmp_path: Path, option: dict[str, str], role: str) -> None:
    list(start(made.toy(tmp_path / "a", **{"run.num_steps": 2, **option})).events())
    assert get(tmp_path, "groups", run="a")["total"] == 2 * 16
    scored = next(one for step in range(2) for one in read(tmp_path / "a").groups(step) if one.voted.group.extras)
    group = scored.voted.group
    found = get(tmp_path, "group", run="a", branch=0, step=group.step, index=group.index)
    assert found["size"] == 16
    assert [(one["role"], one["group_index"]) for one in found["extras"]] == [(role, extra.group.index) for extra in group.extras]
    extra = group.extras[0]
    assert found["extras"][0]["votes"] == [{"key": key, "count": count} for key, count in extra.vote.counts]
    listed = get(tmp_path, "completions", run="a", branch=0, step=group.step, index=extra.group.index)["completions"]
    assert ["".join((one["before"], one["answer"], one["after"])) for one in listed] == [one.text for one in extra.group.completions]
    assert client(tmp_path).get("/api/group", params={"run": "a", "branch": 0, "step": group.step, "index": extra.group.index}).status_code == 404


def test_a_record_of_format_1_is_shown(tmp_path: Path) -> None:
    shutil.copytree(Path(__file__).parent.parent / "ledger" / "format_1", tmp_path / "old")
    tail = RunTail("old", tmp_path / "old")
    found = tail.index.search({}, set())
    assert found["total"] == sum(len(tail.ledger.groups(step)) for step in tail.ledger.group_steps()) > 0
