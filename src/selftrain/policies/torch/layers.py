"""What a model's settings say about its layers."""

from __future__ import annotations

from typing import Any


def head_sizes(layer: Any) -> tuple[int, int]:
    """Numbers in one head's key and in its value, from a layer's settings. Keys of two parts, of which one has the position, are those of DeepSeek."""
    parts = [getattr(layer, name, None) or 0 for name in ("qk_nope_head_dim", "qk_rope_head_dim")]
    key = sum(parts) if all(parts) else getattr(layer, "head_dim", None) or layer.hidden_size // layer.num_attention_heads
    return int(key), int(getattr(layer, "v_head_dim", None) or key)


def layer_configs(config: Any) -> list[Any]:
    """The settings of each layer: the model's, but where transformers keeps some of them by layer (Gemma 4), that layer's own."""
    text = config.get_text_config(decoder=True)
    return list(getattr(text, "per_layer_config", None) or [text] * text.num_hidden_layers)


def sliding_layers(config: Any) -> list[bool]:
    """For each layer that makes keys and values whether its attention has a window; the last layers of a model may use those of earlier ones (Gemma 3n)."""
    text = config.get_text_config(decoder=True)
    making = layer_configs(config)[: text.num_hidden_layers - (getattr(text, "num_kv_shared_layers", None) or 0)]
    types = getattr(text, "layer_types", None)
    if types is None:
        return [getattr(one, "sliding_window", None) is not None for one in making]
    return [kind == "sliding_attention" for kind in types[: len(making)]]


def windows(config: Any) -> set[int]:
    """The lengths of the windows of layers that have one, in tokens."""
    pairs = zip(layer_configs(config), sliding_layers(config), strict=False)
    return {one.sliding_window for one, is_sliding in pairs if is_sliding and one.sliding_window is not None}


def attends_only(config: Any) -> bool:
    """Whether every layer is full or sliding attention, so that this cache holds all its state."""
    types = getattr(config.get_text_config(decoder=True), "layer_types", None) or ()
    return set(types) <= {"full_attention", "sliding_attention"}
