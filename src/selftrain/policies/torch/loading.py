"""From a folder or hub id to a tokenizer and a model that can be sampled and trained."""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch

from selftrain.config import PolicySection
from selftrain.errors import ModelError

WEIGHT_FILES = ("*.safetensors", "*.safetensors.index.json", "pytorch_model*.bin", "pytorch_model.bin.index.json")
TOKENIZER_FILES = ("tokenizer.json", "tokenizer.model", "vocab.json", "vocab.txt", "tokenizer_config.json")


@dataclass(frozen=True, slots=True)
class LoadedModel:
    """A model with float32 weights in evaluation mode, its tokenizer, and the token ids that matter.

    pad_id: fills batches; the end token stands in where a tokenizer has none. stop_ids: every token that ends a completion.
    """

    model: Any
    tokenizer: Any
    pad_id: int
    stop_ids: frozenset[int]


def load_model(source: str, config: PolicySection) -> LoadedModel:
    """Raises ModelError when the folder, its tokenizer or its weights cannot serve, or the device is not there. A folder needs no network."""
    device = checked_device(config.device)
    is_folder = checked_source(source)
    tokenizer = load_tokenizer(source, is_folder)
    pad_id, end_id = checked_special_ids(source, tokenizer)
    if config.prompt_format == "chat" and not tokenizer.chat_template:
        raise ModelError(
            f"the tokenizer of {source}",
            "it has no chat template, and policy.prompt_format is chat",
            "set --policy.prompt-format plain for a base model, or give an instruction-tuned one",
        )
    model = load_weights(source, is_folder).to(device)
    if pad_id >= model.get_input_embeddings().weight.shape[0]:
        pad_id = 0  # a pad token added to the tokenizer alone; what stands in padding is never seen
    return LoadedModel(model, tokenizer, pad_id, stop_ids_of(source, model, end_id))


def checked_device(name: str) -> torch.device:
    """Raises ModelError when cuda is asked for and not there."""
    if name == "cuda" and not torch.cuda.is_available():
        raise ModelError(
            "policy.device = cuda", "this torch sees no CUDA device", "set --policy.device cpu, or install a CUDA build of torch on a machine with a GPU"
        )
    return torch.device(name)


def checked_source(source: str) -> bool:
    """Whether `source` is a folder (else a hub id). Raises ModelError for a path that does not exist or a folder without weights or tokenizer."""
    folder = Path(source)
    if not folder.is_dir():
        if source.startswith((".", "/", "~")) or source.count("/") != 1 or folder.exists():
            raise ModelError(source, "there is no such model folder", "give a folder with config.json, weights and tokenizer, or a hub id such as ORG/NAME")
        return False
    if (folder / "adapter_config.json").exists():
        raise ModelError(
            f"the model folder {source}",
            "it holds an adapter (adapter_config.json), which is not a model of its own",
            "merge it into its base model (merge_and_unload of peft), save that and give its folder",
        )
    needed = (("config.json", ("config.json",)), ("weights", WEIGHT_FILES), ("a tokenizer", TOKENIZER_FILES))
    for what, patterns in needed:
        if not any(any(folder.glob(pattern)) for pattern in patterns):
            raise ModelError(
                f"the model folder {source}",
                f"it has no {what.removeprefix('a ')} (looked for {', '.join(patterns)})",
                "give a complete Hugging Face folder, as written by save_pretrained",
            )
    return True


def load_tokenizer(source: str, is_folder: bool) -> Any:
    """Raises ModelError when transformers cannot make a tokenizer of it."""
    from transformers import AutoTokenizer

    try:
        return AutoTokenizer.from_pretrained(source, local_files_only=is_folder, trust_remote_code=False)
    except Exception as error:
        raise unloadable(f"the tokenizer of {source}", "it", is_folder, error) from error


def load_weights(source: str, is_folder: bool) -> Any:
    """The causal language model in float32, evaluation mode. Raises ModelError when it is none or its files do not fit."""
    from transformers import AutoConfig, AutoModelForCausalLM

    options: dict[str, Any] = {"local_files_only": is_folder, "trust_remote_code": False}
    try:
        config = AutoConfig.from_pretrained(source, **options)
    except Exception as error:
        raise unloadable(source, "the model", is_folder, error) from error
    if type(config) not in AutoModelForCausalLM._model_mapping:
        raise ModelError(source, f"a model of type {config.model_type!r} is not a causal language model", "give a model that AutoModelForCausalLM loads")
    method = quantisation_of(config)
    try:
        with quiet():
            model, info = AutoModelForCausalLM.from_pretrained(source, dtype=torch.float32, output_loading_info=True, **options)
    except Exception as error:
        raise (unloadable(source, "the model", is_folder, error) if method is None else quantised(source, method)) from error
    if info["missing_keys"]:
        some = ", ".join(sorted(info["missing_keys"])[:3])
        raise ModelError(
            source, f"{len(info['missing_keys'])} weights are missing from its files ({some})", "give the complete folder of a causal language model"
        )
    check_known(source, model, info["unexpected_keys"])
    check_unquantised(source, model)
    for weight in model.parameters():
        weight.data = weight.data.clone()  # from the mapped file into aligned memory of our own
    check_finite(source, model)
    without_dropout(model)
    leave_untrained(model)
    check_padding(source, model)
    return model.eval()


def check_padding(source: str, model: Any) -> None:
    """Raises ModelError where loading sets the row of the padding token to zero, whatever the files hold (Youtu), and training moves it: a head that is tied
    to the embeddings does, and then what is loaded is not what was saved.
    """
    embeddings, head = model.get_input_embeddings(), model.get_output_embeddings()
    at = getattr(embeddings, "padding_idx", None)
    if at is None or head is None or head.weight is not embeddings.weight:
        return
    probe = torch.nn.Embedding(2, 1, padding_idx=0)
    torch.nn.init.ones_(probe.weight)
    probe.weight._is_hf_initialized = True  # type: ignore[attr-defined]
    model._init_weights(probe)
    if not probe.weight[0].any():
        why = f"its library sets the row of the padding token {at} to zero at every load, and training would move it"
        raise ModelError(source, why, "set pad_token_id to null in its config.json")


def leave_untrained(model: Any) -> None:
    """Weights that the architecture does not train, such as the bias by which a router of experts balances them, stay so: loading forgets it, and the
    optimizer would let them decay.
    """
    with torch.device("meta"), quiet():
        built = type(model)(model.config)
    for name, weight in built.named_parameters():
        if not weight.requires_grad:
            model.get_parameter(name).requires_grad_(False)


def unloadable(given: str, what: str, is_folder: bool, error: Exception) -> ModelError:
    """What transformers raised, whatever it is: its own errors, those of its libraries, and plain ones from files that hold what nobody expected."""
    if "ignore_mismatched_sizes" in str(error):
        return ModelError(given, "its files hold weights of other shapes than its config.json says", advice(is_folder))
    if "trust_remote_code" in str(error):
        return ModelError(given, "it comes with code of its own, which is not run", "give a model of an architecture that transformers itself has")
    return ModelError(given, f"{what} cannot be loaded: {first_line(error)}", advice(is_folder))


def quantisation_of(config: Any) -> str | None:
    """How weights are kept in fewer bits; None where they are not."""
    given = getattr(config, "quantization_config", None)
    if given is None:
        return None
    method = given.get("quant_method") if isinstance(given, dict) else getattr(given, "quant_method", None)
    return f"quantization_config with method {getattr(method, 'value', method)}"


def quantised(source: str, how: str) -> ModelError:
    return ModelError(source, f"its weights are quantised ({how}), and such weights cannot be trained", "give the model it was made from, unquantised")


def check_unquantised(source: str, model: Any) -> None:
    """Raises ModelError for weights in fewer bits; those that transformers made floating point numbers of are welcome."""
    names = (f"{name} is {weight.dtype}" for name, weight in model.named_parameters() if not weight.dtype.is_floating_point)
    how = quantisation_of(model.config) or next(names, None)
    if how is not None:
        raise quantised(source, how)


def check_known(source: str, model: Any, unexpected: Iterable[str]) -> None:
    """Raises ModelError when files hold layers, or biases of layers, that the config does not know: without them it is another model. Other tensors that the
    model has no place for are left out, as transformers does: tables of positions, masks, heads for other uses.
    """
    names = {name for name, _ in model.named_parameters()}
    kinds = {re.sub(r"\.\d+\.", ".N.", name) for name in names}
    lost = sorted(
        name for name in unexpected if re.sub(r"\.\d+\.", ".N.", name) in kinds or (name.endswith(".bias") and f"{name.removesuffix('bias')}weight" in names)
    )
    if lost:
        raise ModelError(
            source,
            f"its files hold {len(lost)} weights of layers that its config.json does not know ({', '.join(lost[:3])})",
            "give the config.json that belongs to the weights",
        )


def check_finite(source: str, model: Any) -> None:
    """Raises ModelError when a weight is infinite or no number."""
    broken = [name for name, weight in model.named_parameters() if not bool(torch.isfinite(weight).all())]
    if broken:
        raise ModelError(
            source,
            f"{len(broken)} of its tensors hold weights that are infinite or no numbers ({', '.join(broken[:3])})",
            "give a model whose training did not diverge and whose files were not converted to a type that is too small for it",
        )


def without_dropout(model: Any) -> None:
    """Switch every dropout off for good: a policy that samples without it must learn without it."""
    for module in model.modules():
        if isinstance(module, torch.nn.Dropout):
            module.p = 0.0
        if isinstance(getattr(module, "attention_dropout", None), float):
            module.attention_dropout = 0.0


@contextmanager
def quiet() -> Iterator[None]:
    """No progress bars and load reports of transformers inside: only `cli` writes to the terminal, and what is wrong becomes an error."""
    from transformers.utils import logging

    was_on, verbosity = logging.is_progress_bar_enabled(), logging.get_verbosity()
    logging.disable_progress_bar()
    logging.set_verbosity_error()
    try:
        yield
    finally:
        logging.set_verbosity(verbosity)
        if was_on:
            logging.enable_progress_bar()


def first_line(error: BaseException) -> str:
    """What an error says, in a line; with the next one where the first ends in a colon, and its kind where it says no more than a key."""
    lines = [line.strip() for line in str(error).splitlines() if line.strip()] or [type(error).__name__]
    words = " ".join(lines[:2]) if lines[0].endswith(":") else lines[0]
    return f"{type(error).__name__}: {words}" if isinstance(error, KeyError) else words


def advice(is_folder: bool) -> str:
    if is_folder:
        return "check that the folder is complete and readable, as written by save_pretrained"
    return (
        "there is no folder of that name here: check its path, or the spelling of the hub id and the network; a model that was downloaded is given as a folder"
    )


def checked_special_ids(source: str, tokenizer: Any) -> tuple[int, int | None]:
    """(pad id, end id). Raises ModelError when the tokenizer has neither a pad nor an end token."""
    pad_id, end_id = tokenizer.pad_token_id, tokenizer.eos_token_id
    if pad_id is None and end_id is None:
        raise ModelError(f"the tokenizer of {source}", "it has neither a pad nor an end token", "set pad_token and eos_token in its tokenizer_config.json")
    return (pad_id if pad_id is not None else end_id), end_id


def stop_ids_of(source: str, model: Any, end_id: int | None) -> frozenset[int]:
    """The end tokens of the tokenizer, the model config and the generation config (which may list several). Raises ModelError for what is no token id."""
    found: set[int] = set() if end_id is None else {end_id}
    for name, config in (("config.json", model.config), ("generation_config.json", getattr(model, "generation_config", None))):
        given = getattr(config, "eos_token_id", None)
        ids = [] if given is None else given if isinstance(given, list | tuple) else [given]
        if not all(isinstance(one, int) for one in ids):
            raise ModelError(
                f"{name} of {source}", f"its eos_token_id is {given!r}, which is no token id", "write the number of the token, or a list of numbers"
            )
        found.update(ids)
    return frozenset(found)
