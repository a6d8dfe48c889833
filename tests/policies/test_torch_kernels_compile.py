"""The kernels compile for cards of several generations and fit the shared memory of small ones; no GPU is needed for that (`make test-kernels`)."""

from __future__ import annotations

import importlib.util
import os
from typing import Any

import pytest

pytestmark = pytest.mark.skipif(
    importlib.util.find_spec("triton") is None or os.environ.get("TRITON_INTERPRET") == "1", reason="needs triton, not interpreted: `make test-kernels`"
)
SMALLEST_SHARED_BYTES = 99 << 10
"""of cards with compute capability 8.6 and 8.9"""


def shared_bytes(name: str, pointers: str, capability: int, constants: dict[str, Any], **options: int) -> int:
    """Compile one kernel; the shared memory that a block of it takes. pointers: type of the logits, states, keys and values."""
    import triton
    from triton.backends.compiler import GPUTarget
    from triton.compiler import ASTSource

    from selftrain.policies.torch import kernels

    function = getattr(kernels, name)
    types = {"uniforms_ptr": "*fp64", "temperature": "fp32", "scaling": "fp32", "softcap": "fp32"}
    types |= dict.fromkeys(("tokens_ptr", "targets_ptr", "places_ptr", "prompt_lengths_ptr", "own_lengths_ptr"), "*i64")
    types |= dict.fromkeys(("logprobs_ptr", "entropies_ptr", "means_ptr", "totals_ptr", "slopes_ptr"), "*fp32")
    signature = {one: "constexpr" if one in constants else types.get(one, f"*{pointers}" if one.endswith("_ptr") else "i32") for one in function.arg_names}
    places = {(function.arg_names.index(one),): value for one, value in constants.items()}
    made = triton.compile(ASTSource(fn=function, signature=signature, constexprs=places), target=GPUTarget("cuda", capability, 32), options=options)
    return int(made.metadata.shared)


@pytest.mark.parametrize("capability", [80, 90])
@pytest.mark.parametrize("pointers", ["bf16", "fp32"])
def test_kernels_compile_and_fit(pointers: str, capability: int) -> None:
    from selftrain.policies.torch.kernels import tile

    heads = {"HEADS": 14, "HEADS_PADDED": 16, "KV_HEADS": 2, "KV_HEADS_PADDED": 2, "HALF": 32}
    found = [
        shared_bytes("_draw", pointers, capability, {"WANTS_MEAN": True, "BLOCK": 4096, "BLOCKS": 38, "BLOCKS_PADDED": 64}, num_warps=8),
        shared_bytes("_logprobs", pointers, capability, {"BLOCK": 4096, "BLOCKS": 38}, num_warps=8),
        shared_bytes("_slopes", pointers, capability, {"BLOCK": 4096}, num_warps=8),
        *(shared_bytes("_rotate", pointers, capability, {"IS_BACK": is_back, **heads}, num_warps=2) for is_back in (False, True)),
        *(shared_bytes(name, pointers, capability, {"BLOCK": 1024}) for name in ("_gate", "_gate_back")),
    ]
    for size, softcap in ((16, False), (64, False), (128, False), (256, True)):
        block, stages = tile(size, 2 if pointers == "bf16" else 4)
        constants = {"GROUP": 7, "GROUP_PADDED": 16, "SIZE": size, "BLOCK": block, "HAS_SOFTCAP": softcap}
        found.append(shared_bytes("_attend", pointers, capability, constants, num_stages=stages))
    assert max(found) <= SMALLEST_SHARED_BYTES
