"""Probes: a few prompts that are never trained on, asked at intervals in several wordings, and what the answers say about the policy without a label.

    probe_set   which prompts are asked: held-aside prompts, the same with a number, the wording or the people changed, off-domain texts, canaries
    signals     votes and log-probabilities -> `probe/...` values, pure
    probing     asks a policy and its start: offline on checkpoints, and in the loop

docs/probes.md has each signal's formula, unit, direction and the failure it catches.
"""

from selftrain.probes.base import Base
from selftrain.probes.probe_set import Kind, Probe, ProbeSet, make_probe_set
from selftrain.probes.probing import Drawing, Prober, ProbeResult, ask_base, base_of, better, probe

__all__ = [
    "Base",
    "Drawing",
    "Kind",
    "Probe",
    "ProbeResult",
    "ProbeSet",
    "Prober",
    "ask_base",
    "base_of",
    "better",
    "make_probe_set",
    "probe",
]
