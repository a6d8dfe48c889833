"""Every name and argument that is used of vLLM is in the source of the vLLM that is installed; it is read, not imported, so no GPU is needed."""

from __future__ import annotations

import ast
from dataclasses import fields
from importlib.util import find_spec
from pathlib import Path

import pytest

from selftrain.policies.vllm.engine import EngineSettings, engine_arguments
from selftrain.policies.vllm.fake import FakeParams


@pytest.fixture(scope="module")
def source() -> Path:
    spec = find_spec("vllm")
    if spec is None or not spec.submodule_search_locations:
        pytest.skip("vllm is not installed")
    return Path(spec.submodule_search_locations[0])


def class_in(path: Path, name: str) -> ast.ClassDef:
    return next(node for node in ast.walk(ast.parse(path.read_text("utf-8"))) if isinstance(node, ast.ClassDef) and node.name == name)


def arguments(of: ast.ClassDef, method: str) -> set[str]:
    function = next(node for node in of.body if isinstance(node, ast.FunctionDef) and node.name == method)
    return {one.arg for one in (*function.args.args, *function.args.kwonlyargs)}


def annotated(of: ast.ClassDef) -> set[str]:
    return {node.target.id for node in of.body if isinstance(node, ast.AnnAssign) and isinstance(node.target, ast.Name)}


def test_the_engine_has_the_methods_and_arguments(source: Path) -> None:
    engine = class_in(source / "entrypoints" / "llm.py", "LLM")
    for method, used in {
        "generate": {"prompts", "sampling_params", "use_tqdm"},
        "collective_rpc": {"method", "timeout", "args", "kwargs"},
        "sleep": {"level"},
        "wake_up": {"tags"},
        "reset_prefix_cache": set(),
    }.items():
        assert used <= arguments(engine, method), method


def test_the_engine_takes_our_settings(source: Path) -> None:
    known = annotated(class_in(source / "engine" / "arg_utils.py", "EngineArgs"))
    assert set(engine_arguments("model", EngineSettings("bfloat16", 512, 64, 0.4))) <= known


def test_the_parameters_and_outputs_have_our_fields(source: Path) -> None:
    assert {field.name for field in fields(FakeParams)} <= annotated(class_in(source / "sampling_params.py", "SamplingParams"))
    assert {"token_ids", "logprobs", "finish_reason", "stop_reason"} <= annotated(class_in(source / "outputs.py", "CompletionOutput"))
    assert {"prompt_token_ids", "outputs"} <= arguments(class_in(source / "outputs.py", "RequestOutput"), "__init__")
    assert {"token_ids", "logprobs"} <= annotated(class_in(source / "logprobs.py", "FlatLogprobs"))


def test_a_worker_reloads_weights_from_an_iterator(source: Path) -> None:
    runner = class_in(source / "v1" / "worker" / "gpu_model_runner.py", "GPUModelRunner")
    assert {"weights_iterator", "is_checkpoint_format"} <= arguments(runner, "reload_weights")
    assert "processed_logprobs" in (source / "config" / "model.py").read_text("utf-8")
    assert '"stop", "length"' in " ".join((source / "v1" / "engine" / "__init__.py").read_text("utf-8").split())
