"""The pages that follow from the code are those that the code makes, every option is in them, and the examples run."""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
from pathlib import Path

import pytest
from scripts import make_docs

from selftrain.config_load import option_names
from selftrain.guard import RULES
from selftrain.ledger import read
from selftrain.metrics import METRICS

ROOT = Path(__file__).parent.parent
METHOD_SECTIONS = (
    "vllm.",
    "ema.",
    "stored.",
    "second_view.",
    "views.",
    "self_judge.",
    "reference.",
    "verifier.",
    "step_share.",
    "first_of.",
    "mixture.",
    "gate.",
    "restrained.",
    "novelty.",
    "correction.",
    "rollback.",
    "validation.",
    "probes.",
)
"""sections of one named method, of at most 4 options each"""
DOCS = ROOT / "docs"


@pytest.mark.parametrize("name", ["configuration.md", "metrics.md", "commands.md", "query.md", "guard.md"])
def test_the_page_is_what_the_code_makes(name: str) -> None:
    assert (DOCS / name).read_text("utf-8") == make_docs.pages()[name], "run: python scripts/make_docs.py"


def test_every_option_is_documented() -> None:
    configuration, commands = (DOCS / "configuration.md").read_text("utf-8"), (DOCS / "commands.md").read_text("utf-8")
    for name in option_names():
        assert f"| `{name}` |" in configuration
        assert f"--{name.replace('_', '-')} " in commands


def test_every_metric_and_guard_rule_is_documented() -> None:
    for page, names in (("metrics.md", METRICS), ("guard.md", RULES)):
        text = (DOCS / page).read_text("utf-8")
        assert all(f"| `{name}` |" in text for name in names)


def test_the_option_list_is_frozen() -> None:
    """Adding, removing or renaming an option is a decision: change tests/golden_options.txt in a commit of its own."""
    golden = (ROOT / "tests" / "golden_options.txt").read_text("utf-8").split()
    assert option_names() == golden
    methods = [name for name in golden if name.startswith(METHOD_SECTIONS)]
    assert len(golden) - len(methods) <= 72
    assert all(len([name for name in methods if name.startswith(section)]) <= 4 for section in METHOD_SECTIONS)


def test_links_between_pages_lead_somewhere() -> None:
    for page in DOCS.glob("*.md"):
        for target in re.findall(r"\]\(([^)#:]+)(?:#[^)]*)?\)", page.read_text("utf-8")):
            assert (DOCS / target).exists(), f"{page.name}: {target}"


def test_the_example_of_extending_runs(tmp_path: Path) -> None:
    text = (DOCS / "extending.md").read_text("utf-8")
    (tmp_path / "my_rules.py").write_text(re.findall(r"```python\n(.*?)```", text, re.S)[0])
    words = re.findall(r"```sh\nselftrain (.*?)\n```", text, re.S)[0].split()
    program = "import sys; sys.path.remove(''); from selftrain.cli import call; sys.exit(call(sys.argv[1:]))"  # an installed program has no '' in its path
    quick = ["--run.num-steps", "4", "--rollout.prompts-per-step", "8", "--evals.num-problems", "8", "--log", "json"]
    command = [sys.executable, "-c", program, *words, *quick]
    environment = {name: value for name, value in os.environ.items() if name != "PYTHONPATH"}
    done = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, timeout=60, env=environment)
    assert done.returncode == 0, done.stderr
    ledger = read(tmp_path / "runs" / "train-0001")
    assert set(ledger.header["outside_code"]) == {"labels.source", "reward.rule", "advantage.rule"}
    groups = [group for step in ledger.group_steps() for group in ledger.groups(step)]
    assert {group.label.source for group in groups} == {"likelihood_vote"}
    ties = [group for group in groups if group.voted.vote.is_tie]
    assert ties
    assert all(group.label.key in group.voted.vote.winners or group.label.key is not None for group in ties)
    assert all(abs(value) <= 0.5 for group in groups for value in group.advantages)
    assert json.loads(done.stdout.splitlines()[-1])["reason"] == "done"
