"""Any Hugging Face causal language model as a policy: one set of weights, sampled from and learned with.

    loading.py    a folder or hub id -> tokenizer and model, with an error for each way it can fail
    encoding.py   a prompt -> token ids (chat template or plain template)
    text.py       token ids -> text, and where each token's characters end
    cache.py      keys and values of the sequences being sampled
    draw.py       logits and a uniform number -> a token, its log-probability, the entropy
    forward.py    prefill, decode step, hidden states and head
    stops.py      stop texts
    sampler.py    requests -> groups
    scoring.py    token ids -> log-probabilities of the completion tokens
    learner.py    samples -> gradient -> optimizer step
    optimizer.py  AdamW, with its state in 32 or 8 bits (extra `optimizers`)
    lora.py       adapters (extra `lora`)
    checkpoint.py weights, moments and version to and from a folder
    policy.py     TorchPolicy: all of it behind the `Policy` protocol

Only this package imports torch.
"""

from selftrain.policies.torch.policy import TorchPolicy, load_policy

__all__ = ["TorchPolicy", "load_policy"]
