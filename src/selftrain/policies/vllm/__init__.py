"""vLLM as the sampler of large models (extra `vllm`), in the process and on the GPU of the learner, which stays torch.

engine.py    what is used of vLLM: a protocol of five methods with vLLM's own names, and the start of a real engine
sampler.py   requests -> groups, from an engine that holds the weights of the asked version and no other
policy.py    VllmPolicy: a torch policy whose samples come from the engine
fake.py      an engine without a GPU that draws from any function of tokens to logits, strict about the order of calls
"""

from selftrain.policies.vllm.policy import VllmPolicy, check_installed, with_vllm

__all__ = ["VllmPolicy", "check_installed", "with_vllm"]
