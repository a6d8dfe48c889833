"""The budgets and import rules of the design, read from the source."""

from __future__ import annotations

import ast
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

SOURCE = Path(__file__).parent.parent / "src" / "selftrain"
FILES = sorted(SOURCE.rglob("*.py"))
PURE = (
    "answers",
    "labels",
    "guard",
    "probes",
    "vote.py",
    "reward.py",
    "advantage.py",
    "admission.py",
    "scoring.py",
    "rollout.py",
    "objective.py",
    "metrics.py",
    "correction.py",
)
MAY_READ_ANSWERS = ("evals/", "labels/reference.py", "cli/", "prompts/tasks/", "types.py")
ONLY_GLOBAL = ("policies/torch/lora.py", "prompts/gym_child.py")
"""call libraries that know the global generators only: seeded from a named stream inside a fork of the generator or in a process of their own"""
FORBIDDEN_NAMES = {"utils", "common", "helpers", "core"}


def name(path: Path) -> str:
    return path.relative_to(SOURCE).as_posix()


def tree(path: Path) -> ast.Module:
    return ast.parse(path.read_text("utf-8"))


def functions(path: Path) -> Iterator[ast.FunctionDef | ast.AsyncFunctionDef]:
    return (node for node in ast.walk(tree(path)) if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef))


def imports(path: Path) -> set[str]:
    """Modules that a file imports anywhere, dotted."""
    found = set()
    for node in ast.walk(tree(path)):
        if isinstance(node, ast.Import):
            found |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom) and node.module:
            found |= {node.module, *(f"{node.module}.{alias.name}" for alias in node.names)}
    return found


@pytest.mark.parametrize("path", FILES, ids=name)
def test_sizes(path: Path) -> None:
    assert len(path.read_text("utf-8").splitlines()) <= 400
    for function in functions(path):
        length = (function.end_lineno or 0) - function.lineno + 1
        budget = 80 if (name(path), function.name) == ("train.py", "train") else 60
        assert length <= budget, f"{function.name} has {length} lines"
        args = function.args
        count = len([arg for arg in [*args.posonlyargs, *args.args, *args.kwonlyargs] if arg.arg not in ("self", "cls")])
        is_kernel = any(ast.unparse(one) == "triton.jit" for one in function.decorator_list)  # its arguments are pointers and strides
        assert count <= 7 or is_kernel, f"{function.name} has {count} parameters"


@pytest.mark.parametrize("path", FILES, ids=name)
def test_no_module_is_a_drawer(path: Path) -> None:
    assert not FORBIDDEN_NAMES & set(path.relative_to(SOURCE).with_suffix("").parts)


@pytest.mark.parametrize("module", ["types.py", "kinds.py", "errors.py", "seeds.py"])
def test_the_ground_imports_nothing_of_ours(module: str) -> None:
    """But for the named values, which are a part of the carriers."""
    assert not [one for one in imports(SOURCE / module) if one.startswith("selftrain") and not one.startswith("selftrain.kinds")]


@pytest.mark.parametrize("path", [path for path in FILES if name(path).startswith(PURE)], ids=name)
def test_the_stages_are_pure(path: Path) -> None:
    """No torch and no input or output between answers and guard."""
    assert not {
        one
        for one in imports(path)
        if one.split(".")[0] in {"torch", "transformers", "pyarrow", "pathlib", "os", "io", "subprocess", "socket", "sympy", "signal"}
    }
    calls = {node.func.id for node in ast.walk(tree(path)) if isinstance(node, ast.Call) and isinstance(node.func, ast.Name)}
    assert not calls & {"open", "print", "eval", "exec", "compile", "__import__", "input"}


@pytest.mark.parametrize("path", FILES, ids=name)
def test_torch_lives_in_one_place(path: Path) -> None:
    if not name(path).startswith("policies/torch/"):
        assert not {one for one in imports(path) if one.split(".")[0] in {"torch", "transformers", "peft", "tokenizers"}}


@pytest.mark.parametrize("path", FILES, ids=name)
def test_only_a_few_may_read_true_answers(path: Path) -> None:
    if not name(path).startswith(MAY_READ_ANSWERS):
        touched = {node.attr for node in ast.walk(tree(path)) if isinstance(node, ast.Attribute)}
        assert not touched & {"answer_of", "_answers"}


@pytest.mark.parametrize("path", FILES, ids=name)
def test_only_the_verifier_is_told_what_a_gym_problem_hides(path: Path) -> None:
    """The entry of a reasoning-gym problem holds its true answer."""
    if not name(path).startswith(("prompts/", "compose.py", "types.py")):
        assert "gym_entries" not in {node.attr for node in ast.walk(tree(path)) if isinstance(node, ast.Attribute)}


@pytest.mark.parametrize("path", FILES, ids=name)
def test_only_the_command_line_prints_or_exits(path: Path) -> None:
    if name(path).startswith("cli/") or name(path) == "__main__.py":
        return
    calls = {ast.unparse(node.func) for node in ast.walk(tree(path)) if isinstance(node, ast.Call)}
    assert not calls & {"print", "exit", "quit", "sys.exit", "os._exit"}


@pytest.mark.parametrize("path", FILES, ids=name)
def test_the_global_generators_are_never_used(path: Path) -> None:
    if name(path) in ONLY_GLOBAL:
        return
    assert "random" not in imports(path)
    for node in ast.walk(tree(path)):
        if isinstance(node, ast.Call):
            called = ast.unparse(node.func)
            assert called not in {"torch.manual_seed", "np.random.seed", "torch.rand", "torch.randn", "torch.randint", "torch.multinomial"}
            assert not (called.startswith("np.random.") and called not in {"np.random.Generator", "np.random.Philox"}), called


@pytest.mark.parametrize("path", [path for path in FILES if not name(path).startswith(("ledger/", "checkpoints.py"))], ids=name)
def test_only_the_ledger_writes_the_ledger(path: Path) -> None:
    assert not {one for one in imports(path) if one.startswith(("selftrain.ledger.chain", "selftrain.ledger.segments", "selftrain.ledger.writer"))}


def test_the_package_imports_without_torch_within_a_second() -> None:
    code = "import sys, time; t = time.perf_counter(); import selftrain; print(time.perf_counter() - t, 'torch' in sys.modules, 'pyarrow' in sys.modules)"
    seconds, torch, pyarrow = subprocess.run([sys.executable, "-c", code], check=True, capture_output=True, text=True).stdout.split()
    assert float(seconds) < 1
    assert (torch, pyarrow) == ("False", "False")
