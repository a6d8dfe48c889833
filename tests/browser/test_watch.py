"""The live page in a real browser: a run that goes, groups, filters, requests, markup, keys, phone, dark, faults that axe finds."""

from __future__ import annotations

import re
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from selenium.webdriver.common.action_chains import ActionChains
from selenium.webdriver.common.by import By
from selenium.webdriver.common.keys import Keys

from selftrain import control
from selftrain.ledger import read
from selftrain.run import StepReport, start, train_to_end
from selftrain.watch.tail import RunTail
from tests.browser.conftest import PHONE, Page
from tests.watch import runs as made

pytestmark = [pytest.mark.browser, pytest.mark.timeout(300)]
Open = Callable[[Path], Page]


@pytest.fixture
def running(tmp_path: Path) -> Iterator[tuple[Path, subprocess.Popen[bytes]]]:
    """A toy run that goes on for minutes."""
    options = [
        "--policy.model",
        "toy",
        "--run.num-steps",
        "20000",
        "--rollout.prompts-per-step",
        "32",
        "--prompts.count",
        "64",
        "--update.learning-rate",
        "0.002",
    ]
    options += [
        "--run.checkpoint-every-steps",
        "5",
        "--evals.num-problems",
        "16",
        "--guard.action",
        "warn",
        "--run.folder",
        str(tmp_path),
        "--run.name",
        "live",
    ]
    process = subprocess.Popen([sys.executable, "-m", "selftrain", "train", *options], stdout=subprocess.PIPE, stderr=subprocess.STDOUT)
    yield tmp_path / "live", process
    process.kill()
    process.communicate()


def steps_shown(page: Page) -> int:
    words = page.text("#where").split()
    return int(words[1]) if len(words) > 1 else 0


def test_a_run_is_followed_paused_rolled_back_and_stopped(page: Open, running: tuple[Path, subprocess.Popen[bytes]]) -> None:
    folder, process = running
    while not (folder / "run.json").exists():
        time.sleep(0.1)
    shown = page(folder)
    shown.open()
    shown.wait(lambda: steps_shown(shown) >= 6, "some steps")
    before = steps_shown(shown)
    shown.wait(lambda: steps_shown(shown) > before, "a new step")
    assert "running" in shown.text(".run-head")
    shown.wait(lambda: len(shown.all(".chart canvas")) >= 10, "the curves")
    label = shown.need(".chart").get_attribute("aria-label")
    shown.wait(lambda: shown.need(".chart").get_attribute("aria-label") != label or steps_shown(shown) > before + 5, "a new value")

    # of the marks the newest: the oldest is that of a checkpoint which the run may drop meanwhile
    script = "window.kept = ['#stop', '#roll-back', '.tabs a', '#crumbs a', '.mark', '.pill'].map((one) => [...document.querySelectorAll(one)]"
    script += ".at(one === '.mark' ? -1 : 0)); kept[2].focus()"
    shown.driver.execute_script(script)
    before = steps_shown(shown)
    shown.wait(lambda: steps_shown(shown) > before + 1, "two more steps")
    assert shown.driver.execute_script("return kept.map((one) => one.isConnected)") == [True] * 6, "a click on them is not lost"
    assert shown.driver.execute_script("return document.activeElement === kept[2]")

    shown.need("#pause").send_keys(Keys.ENTER)
    shown.wait(lambda: "paused" in shown.text(".run-head .pill"), "the pause")
    shown.wait(lambda: shown.driver.switch_to.active_element.get_attribute("id") == "resume", "the focus on what the button has become")
    held = len(list(read(folder).steps()))
    time.sleep(0.8)
    assert len(list(read(folder).steps())) == held
    shown.click("#resume")
    shown.wait(lambda: "running" in shown.text(".run-head .pill"), "going on")
    shown.wait(lambda: len(list(read(folder).steps())) > held, "a step after the pause")

    shown.click("#roll-back")
    shown.wait(lambda: shown.find("dialog[open]"))
    shown.need("#ask-go").click()
    assert shown.find("dialog[open]"), "a rollback without a reason is not sent"
    shown.need("#ask-reason").send_keys("it <b>guesses</b>")
    shown.need("#ask-who").send_keys("Ada")
    shown.need("#ask-go").click()
    shown.wait(lambda: "branch 1" in shown.text("#where"), "the new branch")
    shown.wait(lambda: "it <b>guesses</b>" in shown.text(".happened"), "the reason")
    branch = read(folder).branches[0]
    assert (branch.who, branch.reason, branch.parent) == ("Ada", "it <b>guesses</b>", 0)

    shown.click("#stop")
    shown.need("#ask-reason").send_keys("seen enough")
    shown.need("#ask-go").click()
    shown.wait(lambda: "stopped" in shown.text(".run-head .pill"), "the stop")
    out, _ = process.communicate(timeout=60)
    assert process.returncode == 130
    assert b"Go on with: selftrain resume" in out
    assert [one.action for one in read(folder).requests()] == ["pause", "resume", "roll_back", "stop"]


def test_the_page_of_a_finished_run(page: Open, default_run: Path, tmp_path: Path, keeps_pictures: bool) -> None:
    shown = page(default_run.parent)
    shown.open("/run/additions")
    shown.wait(lambda: len(shown.all(".chart canvas")) >= 12, "the curves")
    assert "finished" in shown.text(".run-head")
    shown.wait(lambda: "avg@16" in shown.text(".stages"), "the accuracy")
    time.sleep(0.5)
    shown.picture("watch-curves", tmp_path, keeps_pictures)
    assert shown.faults() == []

    chart = shown.all(".chart")[2]
    shown.driver.execute_script("arguments[0].focus()", chart)
    shown.keys(Keys.HOME, Keys.ARROW_RIGHT, Keys.ARROW_RIGHT)
    shown.wait(lambda: "at 2" in chart.text, "the cursor")
    others = [one.text for one in shown.all(".chart .now") if "at 2" in one.text]
    assert len(others) > 10, "all curves show the same step"
    ActionChains(shown.driver).move_to_element(shown.all(".chart .u-over")[3]).perform()
    shown.wait(lambda: len({one.text.split(" at ")[-1] for one in shown.all(".chart .now")[1:] if " at " in one.text}) == 1, "one cursor")
    plot = shown.all(".chart .u-over")[4]
    ActionChains(shown.driver).move_to_element_with_offset(plot, -60, 0).click_and_hold().move_by_offset(80, 0).release().perform()
    shown.wait(lambda: shown.text("#zoom-out").startswith("Steps "), "the zoom by dragging")
    ActionChains(shown.driver).double_click(plot).perform()
    shown.wait(lambda: shown.need("#zoom-out").get_property("hidden"), "all steps by a double click")
    shown.driver.execute_script("arguments[0].focus()", chart)
    shown.keys("+")
    shown.wait(lambda: not shown.need("#zoom-out").get_property("hidden"), "the zoom")
    shown.keys("0")
    shown.wait(lambda: shown.need("#zoom-out").get_property("hidden"), "all steps again")
    shown.keys(Keys.HOME, Keys.ARROW_RIGHT, Keys.ARROW_RIGHT, Keys.ENTER)
    shown.wait(lambda: shown.find("#lines [data-line]"), "the groups of the step")
    assert {one.text for one in shown.all("#lines [data-line] .when")} == {"step 2"}


def test_groups_are_filtered_inspected_and_compared(page: Open, default_run: Path, tmp_path: Path, keeps_pictures: bool) -> None:
    shown = page(default_run)
    shown.open("/run/additions/groups")
    shown.wait(lambda: len(shown.all("#lines [data-line]")) == 50, "the first page")
    assert shown.text("#count").startswith("192 groups")
    shown.click("#filter-disagreement")
    shown.wait(lambda: not shown.text("#count").startswith("192"), "the filter")
    close = sum(group.voted.vote.margin_frac < 0.25 and len(group.voted.vote.counts) > 1 for step in range(16) for group in read(default_run).groups(step))
    assert shown.text("#count").split()[0] == str(close)
    assert shown.need("#filter-disagreement").get_attribute("aria-pressed") == "true"
    shown.click("#filter-disagreement")
    wanted = read(default_run).groups(9)[4].voted.group.prompt
    shown.need("#search").send_keys(wanted.text)
    visits = sum(group.voted.group.prompt.id == wanted.id for step in range(16) for group in read(default_run).groups(step))
    shown.wait(lambda: len(shown.all("#lines [data-line]")) == visits, "the search")
    shown.picture("watch-groups", tmp_path, False)
    assert shown.faults() == []
    shown.keys(Keys.ESCAPE)
    shown.need("#main").send_keys("j")
    shown.wait(lambda: shown.driver.switch_to.active_element.get_attribute("data-line"), "the first line by key")
    shown.keys(Keys.ENTER)
    shown.wait(lambda: len(shown.all(".completion")) == 16, "the completions")
    assert wanted.text in shown.text(".asked")

    scored = read(default_run).groups(9)[4]
    shown.go("/run/additions/group/0/9/4")
    shown.wait(lambda: "step 9" in shown.text(".inspect-nav") and len(shown.all(".completion")) == 16, "the group")
    assert shown.text(".decided").count(str(scored.label.key)) >= 2
    assert scored.label.decided_by in shown.text(".decided")
    marks = [one.text for one in shown.all(".completion mark")]
    assert marks == [text for text in scored.voted.answers.texts if text is not None]
    assert len(shown.all(".visits tbody tr")) == visits
    shown.picture("watch-group", tmp_path, keeps_pictures)
    assert shown.faults() == []
    parts = shown.all(".bar-parts button")
    assert [int(one.get_attribute("aria-label").split(": ")[1].split()[0]) for one in parts][: len(scored.voted.vote.counts)] == [
        count for _, count in scored.voted.vote.counts
    ]
    parts[0].click()
    shown.wait(lambda: len(shown.all(".completion")) == scored.voted.vote.counts[0][1], "one cluster")
    shown.keys("n")
    shown.wait(lambda: "group 6 of 12" in shown.text(".inspect-nav"), "the next group by key")

    shown.go("/run/additions/compare?kind=steps")
    shown.wait(lambda: shown.all("#choices [data-line]"), "prompts to choose from")
    assert shown.faults() == []
    shown.need("#find-prompt").send_keys(wanted.text)
    listed = "return [...document.querySelectorAll('#choices [data-line]')].map((one) => one.dataset.line)"
    shown.wait(lambda: shown.driver.execute_script(listed) == [wanted.id], "the prompt that was looked for")
    shown.click("#choices [data-line]")
    shown.wait(lambda: len(shown.all(".side .completion")) >= 12, "two visits side by side")
    assert shown.faults() == []
    shown.go("/run/additions/compare?kind=evaluations&a=before&b=after")
    shown.wait(lambda: len(shown.all(".side .completion")) >= 2, "two evaluations side by side")
    chosen = [option.text for side in "ab" for option in shown.all(f"#side-{side} option") if option.is_selected()]
    assert chosen == ["before (the start)", "after (checkpoint step-000016)"]
    shown.picture("watch-compare", tmp_path, keeps_pictures)
    assert shown.faults() == []
    shown.go("/run/additions/record")
    shown.wait(lambda: "Configuration" in shown.text(".record"), "the record")
    assert shown.faults() == []


def test_markup_in_a_run_stays_text(page: Open, tmp_path: Path) -> None:
    made.write_hostile(tmp_path / "hostile")
    shown = page(tmp_path)
    for place in (
        "/",
        "/run/hostile",
        "/run/hostile/groups",
        "/run/hostile/group/0/0/0",
        "/run/hostile/record",
        "/run/hostile/compare?prompt=%3Ci%3Ep%2F0%3C%2Fi%3E",
    ):
        shown.open(place)
        shown.wait(lambda: len(shown.text("main")) > 60, place)
        time.sleep(0.5)
        assert shown.driver.execute_script("return window.hacked === undefined")
        assert shown.all("main :is(script, img, iframe, object, svg[onload], a[href^=javascript])") == []
    shown.go("/run/hostile/group/0/0/0")
    shown.wait(lambda: len(shown.all(".completion")) == 4, "the completions")
    texts = shown.driver.execute_script("return [...document.querySelectorAll('.completion pre')].map((one) => one.textContent.toWellFormed())")
    assert texts == [text.replace("\ud800", "\ufffd") for text in made.HOSTILE]
    assert shown.text(".asked pre") == made.HOSTILE_PROMPT


def test_without_the_token_it_can_only_be_read(page: Open, default_run: Path, tmp_path: Path) -> None:
    made.write_empty(tmp_path / "empty")
    shown = page(tmp_path)
    shown.driver.get(shown.base)
    shown.driver.execute_script("sessionStorage.clear()")
    shown.open("/run/empty", token=False)
    shown.wait(lambda: "Open the page by the printed link" in shown.text(".controls"), "the note")
    assert shown.find("#stop") is None
    answer = shown.driver.execute_async_script("""
        const done = arguments[0], headers = {'Content-Type': 'application/json'};
        fetch('api/requests?run=empty', {method: 'POST', headers, body: '{"action":"stop"}'}).then((found) => done(found.status));
    """)
    assert answer == 403
    shown.driver.get_log("browser")  # the browser itself logs the refusal


def test_the_list_follows_runs_that_come(page: Open, default_run: Path, tmp_path: Path, keeps_pictures: bool) -> None:
    folder = default_run.parent
    shown = page(folder)
    shown.open("/")
    shown.wait(lambda: "additions" in shown.text(".runs"), "the runs")
    shown.driver.execute_script("window.kept = document.querySelector('.run .name'); kept.focus()")
    made.write_collapsed(folder / "constant")
    shown.wait(lambda: "halted by the guard" in shown.text(".runs"), "the new run")
    made.write_empty(folder / "empty")
    shown.wait(lambda: len(shown.all(".run")) == 3, "the empty run")
    assert shown.driver.execute_script("return kept.isConnected && document.activeElement === kept"), "a click on it is not lost"
    assert shown.faults() == []
    shown.picture("watch-runs", tmp_path, keeps_pictures)
    shown.go("/run/constant")
    shown.wait(lambda: "The guard halts" in shown.text(".happened"), "the finding")
    time.sleep(0.4)
    assert shown.faults() == []
    shown.picture("watch-collapse", tmp_path, keeps_pictures)
    first = next(verdict.step for verdict in read(folder / "constant").verdicts() if verdict.findings)
    shown.go(f"/run/constant/curves?first=0&last={first - 1}")
    shown.wait(lambda: shown.text("#zoom-out").startswith("Steps ") and shown.find(".mark.checkpoint"), "the steps before the finding")
    assert not shown.all(".mark:not(.checkpoint)")
    groups = read(folder / "constant").groups(0)
    index, vote = next((index, one.voted.vote) for index, one in enumerate(groups) if 0 < one.voted.vote.num_read < one.voted.vote.num_votes)
    shown.go(f"/run/constant/group/0/0/{index}")
    shown.wait(lambda: len(shown.all(".completion")) == vote.num_votes, "the completions")
    shown.all(".bar-parts button")[-1].click()
    shown.wait(lambda: len(shown.all(".completion")) == vote.num_votes - vote.num_read, "the unread completions alone")
    assert {one.text for one in shown.all(".completion .key")} == {"unread"}
    shown.go("/run/empty")
    shown.wait(lambda: "No step is recorded yet" in shown.text(".stages"), "the empty run's page")
    assert shown.faults() == []


def test_many_tabs_do_not_starve_each_other(page: Open, tmp_path: Path) -> None:
    """A browser has six connections for a server; pages that nobody sees hold none."""
    made.write_empty(tmp_path / "empty")
    shown = page(tmp_path)
    first = shown.driver.current_window_handle
    for _ in range(8):
        shown.driver.switch_to.new_window("tab")
        shown.driver.get(f"{shown.base}#/run/empty")
        shown.wait(lambda: "No step is recorded yet" in shown.text(".stages"), "the page in another tab")
    for tab in shown.driver.window_handles:
        if tab != first:
            shown.driver.switch_to.window(tab)
            shown.driver.close()
    shown.driver.switch_to.window(first)


def test_keys_theme_and_help(page: Open, default_run: Path) -> None:
    shown = page(default_run)
    shown.open("/run/additions/curves")
    shown.wait(lambda: shown.find(".chart canvas"), "the curves")
    shown.need("body").send_keys("2")
    shown.wait(lambda: shown.find("#lines"), "the groups by key")
    shown.need("body").send_keys("/")
    shown.wait(lambda: shown.driver.switch_to.active_element.get_attribute("id") == "search", "the search by key")
    shown.keys(Keys.ESCAPE)
    shown.need("body").send_keys("?")
    shown.wait(lambda: shown.find("dialog[open]"), "the keys")
    assert shown.faults() == []
    shown.keys(Keys.ESCAPE)
    shown.wait(lambda: not shown.find("dialog[open]"), "the keys closed")
    background = shown.need("body").value_of_css_property("background-color")
    shown.need("body").send_keys("t")
    shown.need("body").send_keys("t")
    shown.wait(lambda: shown.need("body").value_of_css_property("background-color") != background, "dark by choice")
    shown.driver.execute_script("localStorage.clear()")


def test_an_address_that_is_none_leaves_the_page_working(page: Open, default_run: Path) -> None:
    shown = page(default_run.parent)
    shown.open("/run/%")
    shown.wait(lambda: "This cannot be shown" in shown.text("main"), "the words for it")
    shown.driver.get_log("browser")  # that the server knows no such run
    shown.go("/run/additions/record")
    shown.wait(lambda: "Evaluations" in shown.text(".tab"), "the next page")


def test_a_run_that_hands_over_an_earlier_checkpoint(page: Open, tmp_path: Path) -> None:
    """Its last evaluation is of that one, and what happened on a branch names it, in a column of its own."""
    options = {"policy.model": "toy:weak", "update.learning_rate": 1.5, "run.num_steps": 30, "run.checkpoint_every_steps": 2, "evals.num_problems": 8}
    options |= {"probes.num_prompts": 48, "probes.every_steps": 10, "guard.window_steps": 3, "guard.baseline_steps": 3}
    options |= {"rollback.max_rollbacks": 3, "rollback.factor": 0.99}
    outcome = train_to_end(made.toy(tmp_path / "a", **options))
    assert read(outcome.folder).branches
    shown = page(tmp_path)
    shown.open("/run/a/record")
    shown.wait(lambda: shown.find(".record table"), "the tables")
    script = """
        const done = arguments[0], module = import(new URL("record.js", document.baseURI)), body = document.createElement("div");
        Promise.all([module, fetch("api/run?run=a").then((one) => one.json())]).then(([{ recordTab }, run]) => {
          const evaluations = [...run.evaluations, { ...run.evaluations[0], name: "after", step: 12 }];
          recordTab(body, { run: { ...run, handed_over: "branch-01-step-000008", evaluations } });
          done([...body.querySelectorAll("section.evaluations tbody tr")].map((row) => [row.children[0].textContent, row.children[1].textContent]));
        }, (error) => done(String(error)));
    """
    assert shown.driver.execute_async_script(script) == [["before", "0"], ["after", "8"]]
    script = (
        "return [...document.querySelectorAll('.record td.figure')].every((one) => one.getClientRects().length === 1 && one.scrollWidth <= one.clientWidth)"
    )
    assert shown.driver.execute_script(script)
    script = "const tabs = document.querySelector('.tabs'); return tabs.scrollHeight <= tabs.clientHeight || getComputedStyle(tabs).overflowY === 'hidden'"
    assert shown.driver.execute_script(script)
    script = """
        const done = arguments[0], module = import(new URL("record.js", document.baseURI)), body = document.createElement("div");
        Promise.all([module, fetch("api/run?run=a").then((one) => one.json())]).then(async ([{ recordTab }, run]) => {
          const context = { run }, tab = await recordTab(body, context), head = () => body.querySelector(".facts code").textContent, before = head();
          context.run = { ...run, head: "f".repeat(64) };
          tab.update({});
          done([before, head()]);
        }, (error) => done(String(error)));
    """
    assert shown.driver.execute_async_script(script) == [f"{read(outcome.folder).head[:16]}…", f"{'f' * 16}…"]
    shown.go("/run/a/curves")
    shown.wait(lambda: shown.all(".happened li"), "what happened")
    whens = shown.all(".happened li .when")
    assert any(re.fullmatch(r"steps \d+–\d+, branch \d", one.text) for one in whens), [one.text for one in whens]
    assert all(one.get_property("scrollWidth") <= one.get_property("clientWidth") or one.get_property("clientWidth") == 0 for one in whens)
    starts = {round(one.rect["x"]) for one in shown.all(".happened li span:last-child")}
    assert len(starts) == 1, "the words begin in one column"
    assert min(starts) >= max(one.rect["x"] + one.rect["width"] for one in whens)


def test_every_metric_with_values_shows_them(page: Open, tmp_path: Path) -> None:
    """Those of probes and glances too, which stand alone between steps without them."""
    options = {"probes.num_prompts": 48, "probes.every_steps": 8, "run.num_steps": 20}
    train_to_end(made.toy(tmp_path / "a", **options))
    shown = page(tmp_path)
    shown.open("/run/a/curves")
    shown.wait(lambda: len(shown.all(".chart canvas")) >= 30, "the curves")
    time.sleep(0.5)
    script = """
        const probe = document.createElement("i");
        probe.style.color = "var(--accent)";
        document.body.append(probe);
        const [red, green, blue] = getComputedStyle(probe).color.match(/\\d+/g).map(Number);
        const drawn = (canvas) => {
          const { data } = canvas.getContext("2d").getImageData(0, 0, canvas.width, canvas.height);
          let count = 0;
          for (let at = 0; at < data.length; at += 4)
            count += Math.abs(data[at] - red) + Math.abs(data[at + 1] - green) + Math.abs(data[at + 2] - blue) < 24 && data[at + 3] > 200;
          return count;
        };
        return [...document.querySelectorAll(".chart")].map((one) => [one.title.split(":")[0], drawn(one.querySelector("canvas"))]);
    """
    drawn = dict(shown.driver.execute_script(script))
    assert {"probe/base_agree_frac", "support/base_share_frac", "glance/fallen_frac", "cost/probe_tokens"} <= set(drawn)
    assert {name: count for name, count in drawn.items() if count < 12} == {}


def test_axes_show_all_values_and_whole_labels(page: Open, default_run: Path) -> None:
    shown = page(default_run)
    shown.open("/run/additions/record")
    shown.wait(lambda: shown.find(".record"), "the record")
    script = """
        const done = arguments[0], load = (name) => import(new URL(name, document.baseURI));
        Promise.all([load("chart.js"), load("format.js")]).then(async ([{ Chart, Linked, span }, { fixed, tickLabels }]) => {
          const axis = async (values) => {
            const chart = new Chart(new Linked(() => {}), { title: "t", unit: "", series: [{ color: "accent" }] });
            document.body.append(chart.element);
            chart.set([values.map((_, at) => at), values]);
            await new Promise((next) => setTimeout(next, 100));
            const { _values, _size, gap } = chart.plot.axes[1];
            const longest = Math.max(..._values.map((label) => chart.plot.ctx.measureText(label).width));
            return { labels: _values, fits: longest + gap <= _size };
          };
          done({
            tiny: await axis([-1e-8, 0, 1.2e-8]), near: await axis([1, 1 + 2e-7, 1]), plain: await axis([-1.5, 0, 0.7]), large: await axis([0, 2500000, 900]),
            below: span(-0.033, 0.03, [0, 1]), above: span(0.2, 1.1, [0, 1]), within: span(0.02, 0.03, [0, 1]), filled: span(0.1, 0.9, [0, 1]),
            quarters: tickLabels([0, 0.025, 0.05], 0.025), halves: [0.5, 1.5, 2.5].map((one) => fixed(one, 0)),
            ties: [31.25, 31.75, 31.3, 0.25, 100, 8.05, -31.25].map((one) => fixed(one, 1)),
          });
        }).catch((error) => done({ error: String(error) }));
    """
    found = shown.driver.execute_async_script(script)
    for name in ("tiny", "near", "plain", "large"):
        labels = found[name]["labels"]
        assert found[name]["fits"]
        assert len(set(labels)) == len(labels) >= 2, labels
        values = [float(label.replace(",", "")) for label in labels]
        assert values == sorted(values)
    assert found["tiny"]["labels"][0].startswith("-")
    assert found["below"][0] < -0.033 < 0.03 < found["below"][1]
    assert found["above"][0] < 0.2 < 1.1 < found["above"][1]
    assert 0 < found["within"][0] < 0.02 < 0.03 < found["within"][1] < 0.04
    assert found["filled"] == [0, 1]
    assert found["quarters"] == ["0", "0.025", "0.05"]
    assert found["ties"] == [f"{one:.1f}" for one in (31.25, 31.75, 31.3, 0.25, 100.0, 8.05, -31.25)]
    assert found["halves"] == [f"{one:.0f}" for one in (0.5, 1.5, 2.5)]


CURVES = """
    const done = arguments[0], load = (name) => import(new URL(name, document.baseURI));
    const rest = () => new Promise((next) => setTimeout(next, 80)), press = (chart, key) => chart.key({ key, preventDefault() {}, stopPropagation() {} });
    Promise.all([load("chart.js"), load("curves.js"), load("dom.js")]).then(async ([{ Chart, Linked }, { happenings }, { h }]) => {
      const linked = new Linked(() => {}), made = (steps, isWhole) => {
        const chart = new Chart(linked, { title: "t", unit: "", series: [{ color: "accent" }], isWhole });
        document.body.append(chart.element);
        chart.set([steps, steps.map((step) => step / 100)]);
        return chart;
      };
      const chart = made([...Array(21).keys()]), coarse = made([0, 20]), measured = made([1, 4, 9], true), found = {};
      await rest();
      linked.whole = [0, 20];
      linked.point(7);
      press(chart, "+");
      await rest();
      found.kept = [linked.at, chart.value.textContent, linked.range];
      press(chart, "ArrowRight");
      found.next = linked.at;
      press(chart, "End");
      press(chart, "ArrowRight");
      found.edge = [linked.at, linked.range[1]];
      linked.zoom([8, 12]);
      press(chart, "-");
      await rest();
      found.wider = linked.range;
      linked.zoom(null);
      linked.at = null;
      await rest();
      const over = chart.plot.over, box = over.getBoundingClientRect();
      const move = (type, x) => over.dispatchEvent(new MouseEvent(type, { bubbles: true, clientX: box.x + x * box.width, clientY: box.y + 20 }));
      move("mouseenter", 0.15); move("mousemove", 0.15);
      await rest();
      found.under = [linked.at, chart.value.textContent];
      move("mouseleave", 2);
      await rest();
      found.left = [linked.at, chart.value.textContent, coarse.value.textContent];
      linked.stretches = new Map([[1, [1, 4]], [4, [1, 4]]]);
      chart.read(4);
      found.stretch = [chart.value.textContent, chart.element.getAttribute("aria-label")];
      measured.read(4);
      found.measured = measured.value.textContent;
      linked.stretches = new Map([[17, [17, 20]], [20, [17, 20]]]);
      coarse.read(20);
      found.exact = coarse.value.textContent;
      const back = { reason: "r", who: "the guard", remedy: {} };
      const branch = (number, parent, step, left_at) => ({ branch: number, parent, step, left_at, checkpoint: `step-00000${step}`, ...back });
      const asked = (of, step, reason) => ({ branch: of, step, action: "stop", reason, who: "Ada", refused: "" });
      const requests = [asked(0, 7, "first"), asked(1, 5, "second"), asked(2, 4, "last")];
      const verdicts = [{ branch: 0, step: 7, action: "warn", findings: [{ rule: "odd", words: "odd" }] }];
      const run = { verdicts, checkpoints: [], branches: [branch(1, 0, 2, 9), branch(2, 0, 3, 8)], requests };
      found.told = happenings(run).map((one) => [one.branch, one.words.replace(/.*because: /, "").replace(/ by the guard.*/, "")]);
      const text = "12\u202e21 \u05d0", made_of = h("b", { title: text }, text);
      found.plain = [made_of.textContent, made_of.title];
      done(found);
    }).catch((error) => done({ error: `${error} ${error.stack}` }));
"""


def test_curves_under_keys_and_mouse(page: Open, default_run: Path) -> None:
    shown = page(default_run)
    shown.open("/run/additions/record")
    shown.wait(lambda: shown.find(".record"), "the record")
    found = shown.driver.execute_async_script(CURVES)
    assert "error" not in found, found["error"]
    assert found["kept"] == [7, "0.07 at 7", [2, 12]]
    assert found["next"] == 8
    assert found["edge"] == [12, 12]
    assert found["wider"] == [8, 16], "about the step, and not everything at once"
    assert found["under"] == [3, "0.03 at 3"]
    assert found["left"] == [None, "0.2", "0.2"], "the newest again"
    assert found["stretch"] == ["0.01–0.04 at 1–4", "t: 0.01 to 0.04  at steps 1 to 4"]
    assert found["told"] == [
        *([0, "first"], [0, "The guard warns: odd"], [0, "Rolled back to step-000002"]),
        *([1, "second"], [1, "Rolled back to step-000003"], [2, "last"]),
    ], "what was asked for after 7 steps came before step 7; each rollback leads to the branch that was left, whatever it went back to"
    assert found["measured"] == "0.04 at 4", "an evaluation is that of its step"
    assert found["exact"] == "0.2 at 20", "a value at one end of a stretch is that of its step"
    assert found["plain"] == ["12\\u202e21 \u05d0"] * 2


def test_a_series_that_could_not_be_fetched_is_asked_for_again(page: Open, default_run: Path) -> None:
    shown = page(default_run)
    shown.open("/run/additions/curves")
    shown.wait(lambda: shown.find(".chart canvas"), "the curves")
    shown.driver.execute_script("""
        window.asked = 0;
        const fetched = window.fetch, failed = () => Promise.reject(new TypeError("Failed to fetch"));
        window.fetch = (address, ...more) => (String(address).includes("series") && (asked += 1) < 2 ? failed() : fetched(address, ...more));
    """)
    shown.need(".chart").send_keys("+")
    shown.need(".chart").send_keys("0")
    shown.wait(lambda: shown.driver.execute_script("return asked") >= 2, "the second try")


def test_a_list_keeps_what_was_chosen(page: Open, tmp_path: Path) -> None:
    run = start(made.toy(tmp_path / "a"))
    made.sent_back(run, 8, "step-000003")
    shown = page(tmp_path)
    shown.open("/run/a/groups")
    shown.wait(lambda: shown.all("#lines [data-line]"), "the groups")
    assert shown.need("#rolled-back").is_displayed()
    shown.click("#rolled-back")
    shown.wait(lambda: shown.all("#lines .left-behind"), "those of the branch that was left")
    shown.need("#step").send_keys("5")
    shown.wait(lambda: "step=5" in shown.driver.current_url, "the step")
    shown.click("#lines [data-line]")
    shown.wait(lambda: shown.find(".completion"), "the group")
    shown.keys(Keys.ESCAPE)
    shown.wait(lambda: shown.find("#rolled-back:checked") and shown.find("#step"), "the list as it was")
    assert shown.need("#step").get_attribute("value") == "5"
    shown.need("#step").send_keys("-3")
    shown.wait(lambda: "whole number, not 5-3" in shown.text("#count"), "what is wrong")
    shown.click("#stop")
    shown.need("#ask-reason").send_keys("\u202ereversed")
    shown.need("#ask-go").click()
    shown.wait(lambda: shown.text("dialog[open] #ask-wrong"), "why it was refused, in the dialog")
    shown.driver.get_log("browser")  # that the server refused it
    shown.driver.execute_script("document.querySelector('dialog').close(); location.hash = '#token=other'")
    shown.wait(lambda: shown.driver.execute_script("return sessionStorage.getItem('selftrain-token')") == "other", "the new token")
    assert "token" not in shown.driver.current_url


def test_a_rollback_takes_its_evaluations_out_of_the_accuracy(page: Open, tmp_path: Path) -> None:
    """They are drawn thin, and the record marks them; the newest one that counts is read out."""
    run = start(made.toy(tmp_path / "a", **{"evals.every_steps": 3, "run.num_steps": 30}))
    made.sent_back(run, 10, "step-000003")
    shown = page(tmp_path)
    shown.open("/run/a/curves")
    shown.wait(lambda: "avg@4" in shown.text(".stages"), "the accuracy")
    measured = RunTail("a", tmp_path / "a").evaluations()
    assert [one["name"] for one in measured if not one["counts"]] == ["step-000006", "step-000009"]
    last = next(one for one in measured if one["name"] == "step-000003")
    assert float(shown.text(".chart .now").split()[0]) == pytest.approx(last["measures"]["avg@4"]["value"], rel=1e-3)
    assert any("after 11 steps" in one.text for one in shown.all(".happened .when")), shown.text(".happened")
    asked = next(one for one in shown.all(".mark") if "Ada asked: roll back" in str(one.get_attribute("aria-label")))
    assert "step=10&branch=0" in str(asked.get_attribute("href")), "the last step that was done before it"
    shown.go("/run/a/record")
    shown.wait(lambda: shown.all(".evaluations tbody tr"), "the evaluations")
    rows = {one.text.split()[0]: one.text for one in shown.all(".evaluations tbody tr")}
    assert {name for name, text in rows.items() if "left behind" in text} == {"step-000006", "step-000009"}
    table = shown.need(".evaluations .scroll")
    assert table.get_property("scrollWidth") <= table.get_property("clientWidth")
    assert all(one.rect["height"] < 40 for one in shown.all(".evaluations td")), "names stand in one line"


def test_a_damaged_record_is_named_on_the_page(page: Open, default_run: Path, tmp_path: Path) -> None:
    made.write_empty(tmp_path / "empty")
    (tmp_path / "broken").mkdir()
    (tmp_path / "broken" / "run.json").write_text("{")
    shown = page(tmp_path)
    shown.open("/")
    shown.wait(lambda: "damaged" in shown.text(".runs"), "the damaged run")
    assert "broken damaged" in shown.text(".runs")
    shown.go("/run/empty/record")
    shown.wait(lambda: shown.find(".record"), "the record")
    with (tmp_path / "empty" / "evals.jsonl").open("a") as file:
        file.write('{"broken\n')
    shown.wait(lambda: "the record cannot be read" in shown.text("#link"), "the state of the connection")
    assert "evals.jsonl" in shown.text("#says")
    (tmp_path / "empty" / "evals.jsonl").write_text("")
    shown.wait(lambda: shown.text("#link") == "", "going on")
    shown.driver.get_log("browser")


def test_what_cannot_be_loaded_is_said(page: Open, tmp_path: Path) -> None:
    made.write_large(tmp_path / "a", 3, (60, 4), 1)
    shown = page(tmp_path)
    shown.open("/run/a/groups?step=1")
    shown.wait(lambda: len(shown.all("#lines [data-line]")) == 50, "the groups of the step")
    border = shown.need("#search").value_of_css_property("border-color")
    shown.need("#step").send_keys("-3")
    shown.wait(lambda: "whole number, not 1-3" in shown.text("#count"), "what is wrong")
    assert shown.need("#step").value_of_css_property("border-color") != border
    shown.driver.execute_script("""
        const fetched = window.fetch;
        window.fetch = async (address, ...more) => {
          const found = await fetched(address, ...more);
          if (!String(address).includes("offset=50")) return found;
          window.fetch = fetched;
          return new Response(JSON.stringify({ ...(await found.json()), branches: 1 }));
        };
    """)
    shown.click("#more")
    shown.wait(lambda: shown.driver.execute_script("return !window.fetch.toString().includes('branches')"), "an answer of after a rollback")
    assert len(shown.all("#lines [data-line]")) == 50, "the list begins anew"
    shown.click("#more")
    shown.wait(lambda: len(shown.all("#lines [data-line]")) > 50, "the rest of the list that is shown")
    assert [one.text for one in shown.all("#lines [data-line] .when")] == ["step 1"] * 60
    shown.go("/run/a/group/0/1/0")
    shown.wait(lambda: len(shown.all(".completion")) == 4, "the completions")
    for file in (tmp_path / "a" / "ledger" / "segments").glob("*.completions.parquet"):
        file.unlink()
    shown.click(".bar-parts button")
    shown.wait(lambda: "completions.parquet" in shown.text("#says"), "what could not be read")
    assert len(shown.all(".completion")) == 4
    shown.driver.get_log("browser")  # that the server refused it
    words = shown.driver.execute_async_script("""
        const done = arguments[0], fetched = window.fetch;
        const refused = () => Promise.resolve(new Response("{}", { status: 401 }));
        window.fetch = (address, ...more) => (String(address).includes("events") ? refused() : fetched(address, ...more));
        import(new URL("api.js", document.baseURI)).then(({ follow }) => follow(() => ({}), () => {}, done)).finally(() => (window.fetch = fetched));
    """)
    assert "the token is no longer valid" in words


def test_extra_samples_open_beside_the_completions(page: Open, tmp_path: Path) -> None:
    train_to_end(made.toy(tmp_path / "a", **{"run.num_steps": 2, "labels.source": "frozen"}))
    shown = page(tmp_path)
    shown.open("/run/a/group/0/1/0")
    shown.wait(lambda: shown.find(".extras details") and shown.find(".completion"), "the group")
    gap = "return document.querySelector('#completions').getBoundingClientRect().top - document.querySelector('.asked').getBoundingClientRect().bottom"
    before = shown.driver.execute_script(gap)
    shown.click(".extras summary")
    shown.wait(lambda: shown.find(".extras .completion"), "the extra samples")
    assert shown.driver.execute_script(gap) == before
    assert shown.faults() == []


@pytest.mark.parametrize("theme", ["light", "dark"])
def test_on_a_phone(page: Open, default_run: Path, tmp_path: Path, keeps_pictures: bool, theme: str) -> None:
    shown = page(default_run)
    shown.size(*PHONE)
    shown.theme(theme)
    for place in ("curves", "groups", "group/0/9/4", "compare?kind=evaluations", "record"):
        shown.open(f"/run/additions/{place}")
        shown.wait(lambda: len(shown.text(".tab")) > 40, place)
        time.sleep(0.5)
        assert shown.driver.execute_script("return document.documentElement.scrollWidth") <= PHONE[0], f"{place} is wider than the phone"
        assert shown.faults() == []
        if theme == "dark" and place in ("curves", "group/0/9/4"):
            shown.picture(f"watch-phone-{place.partition('/')[0]}", tmp_path, keeps_pictures)


def test_a_long_name_and_many_visits_fit_a_phone(page: Open, tmp_path: Path) -> None:
    name = "a-run-with-quite-a-long-name"
    run = start(made.toy(tmp_path / name))
    for event in run.events():
        if isinstance(event, StepReport) and event.metrics.step == 7 and not event.metrics.version.branch:
            control.ask(run.folder, control.ROLL_BACK, "Ada", "a test", "step-000003")
    shown = page(tmp_path)
    shown.size(*PHONE)
    visits = RunTail(name, tmp_path / name).index
    often = visits.prompts("", 1)["rows"][0]["id"]
    last = visits.history(often)[-1]
    shown.open(f"/run/{name}/group/{last['branch']}/{last['step']}/{last['index']}")
    shown.wait(lambda: shown.all(".visits tbody tr"), "the visits")
    time.sleep(0.3)
    table = shown.need(".visits .scroll")
    assert table.get_property("scrollWidth") <= table.get_property("clientWidth"), "the outcome is in sight"
    lines = "return [...document.querySelectorAll('.bar .brand, .bar button, .crumbs a')].map((one) => one.getBoundingClientRect().height)"
    assert max(shown.driver.execute_script(lines)) < 36, "each in one line"
    assert shown.driver.execute_script("return document.documentElement.scrollWidth") <= PHONE[0]


@pytest.mark.parametrize(("steps", "completions"), [(200, 100_000), pytest.param(1000, 500_000, marks=pytest.mark.slow)])
def test_large_runs_open_at_once(page: Open, tmp_path: Path, steps: int, completions: int) -> None:
    """Every view, the first of each; the limit leaves room for a busy machine. `-s` shows the seconds."""
    made.write_large(tmp_path / "large", steps, (20, 25), 20)
    assert steps * 20 * 25 == completions
    shown = page(tmp_path)
    shown.open("/")
    shown.wait(lambda: "large" in shown.text(".runs"), "the list")
    views = (("curves", ".chart canvas", 12), ("groups", "#lines [data-line]", 50), ("group/0/100/3", ".completion", 24), ("record", ".record", 1))
    for place, selector, count in views:
        begun = time.perf_counter()
        shown.go(f"/run/large/{place}")
        shown.wait(lambda selector=selector, count=count: len(shown.driver.find_elements(By.CSS_SELECTOR, selector)) >= count, place)  # type: ignore[misc]
        seconds = time.perf_counter() - begun
        sys.stdout.write(f"{steps} steps, {place}: {seconds:.2f} s\n")
        assert seconds < 3, f"{place} took {seconds:.2f} s"
