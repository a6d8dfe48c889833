"""A name in the config -> the function it stands for: one of ours, or `package.module:function` of the user's, whose values are checked."""

from __future__ import annotations

import difflib
import hashlib
import importlib
import inspect
import sys
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from numbers import Integral, Real
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

from selftrain.errors import ConfigError, SelftrainError
from selftrain.types import AnswerKey, Label, Outcome, Prompt, Role

if TYPE_CHECKING:
    from selftrain.policies.base import ExtraRequest

MOST = 1e100
F = TypeVar("F", bound=Callable[..., Any])
MEND = "Mend the function and start a new run (docs/extending.md has its signature); --debug shows the traceback."


def resolve(option: str, name: str, known: Mapping[str, F]) -> F:
    """The function behind `name`. Raises ConfigError when it is neither known nor importable, and from each call of an outside function that fails."""
    if name in known:
        return known[name]
    return checked(option, f"{option} = {name}", imported(option, name, known))  # type: ignore[return-value]


def requests_of(option: str, name: str, known: Mapping[str, Any]) -> Callable[..., Any] | None:
    """The function `requests` of what `name` stands for, its first phase; None where it has none. Raises ConfigError as `resolve` does."""
    found = known[name] if name in known else imported(option, name, known)
    requests = getattr(found, "requests", None)
    if requests is None or name in known:
        return requests
    given = f"{option} = {name}"
    if not callable(requests):
        raise ConfigError(given, "its `requests` is not a function", "Give it the signature in docs/extending.md.")
    return checked("requests", given, requests)


def imported(option: str, name: str, known: Mapping[str, Any]) -> Callable[..., Any]:
    """The function that `package.module:function` names. Raises ConfigError when there is none, or none whose source can be recorded."""
    if ":" not in name:
        near = difflib.get_close_matches(name, known, n=1)
        hint = f"did you mean {near[0]}? " if near else ""
        raise ConfigError(f"{option} = {name}", "there is no such name", f"{hint}Choose one of {', '.join(known)}, or package.module:function.")
    given = f"{option} = {name}"
    module_name, _, attribute = name.rpartition(":")
    if module_name.endswith(".py") or "/" in module_name or "\\" in module_name:
        do = f"Write {Path(module_name).stem}:{attribute} and call it in the folder of that file, or put the folder into PYTHONPATH."
        raise ConfigError(given, "a module is named as it is imported, not by its file", do)
    try:
        module = importlib.import_module(module_name)
        found = getattr(module, attribute)
    except AttributeError as error:
        raise not_imported(given, error, elsewhere(module_name)) from error
    except (Exception, SystemExit) as error:  # whatever the user's module raises while it is imported
        raise not_imported(given, error) from error
    if not callable(found):
        raise ConfigError(given, "it is not a function", "Name a function with the signature in docs/extending.md.")
    source_of(given, module_name)
    return found  # type: ignore[no-any-return]


def source_hash(name: str, known: Mapping[str, Any]) -> str | None:
    """SHA-256 of the source of the module that holds outside code, for the run header; None for our own names."""
    if name in known or ":" not in name:
        return None
    return hashlib.sha256(source_of(name, name.partition(":")[0]).encode("utf-8")).hexdigest()


def source_of(given: str, module_name: str) -> str:
    """The source of a module. Raises ConfigError when there is none: the record could not say which code decided."""
    try:
        return inspect.getsource(importlib.import_module(module_name))
    except (OSError, TypeError) as error:
        do = "Write a function in a Python file of yours that calls it, and name that one."
        raise ConfigError(given, f"the module {module_name} has no Python source, so the record could not say which code decided", do) from error
    except (Exception, SystemExit) as error:  # whatever the user's module raises while it is imported
        raise not_imported(given, error) from error


def elsewhere(module_name: str) -> str:
    """What to do where a file of this folder is meant, and another module has its name."""
    here, found = Path(f"{module_name}.py"), getattr(sys.modules.get(module_name), "__file__", None)
    if found is None or not here.is_file() or here.resolve() == Path(found).resolve():
        return ""
    return f"The module of that name is {found}: give {here} of this folder another name."


def not_imported(given: str, error: BaseException, do: str = "") -> ConfigError:
    do = do or "Check the name and that the module is installed or lies in this folder."
    return ConfigError(given, f"it cannot be imported ({type(error).__name__}: {error})", do)


def checked(option: str, given: str, function: Callable[..., Any]) -> Callable[..., Any]:
    """An outside function whose exceptions and impossible values become ConfigErrors that name the option."""
    check = CHECKS.get(option)

    def called(*args: Any) -> Any:
        try:
            value = function(*(tuple(one) if isinstance(one, list) else one for one in args))  # whatever it does with it, the loop keeps its own
        except SelftrainError:
            raise
        except (Exception, SystemExit, GeneratorExit) as error:
            raise ConfigError(given, f"it raised {type(error).__name__}: {error}", MEND) from error
        return check(given, value, *args) if check else value

    return called


def labels_checked(given: str, value: Any, voted: Any, _bounds: Any) -> list[Label]:
    """One label per group, one target per completion, and none that a true answer touched: only labels.source = reference may use those."""
    if not isinstance(value, list | tuple) or not all(isinstance(one, Label) for one in value):
        raise ConfigError(given, f"it returned {shown(value)}, not a list of labels", MEND)
    if len(value) != len(voted):
        raise ConfigError(given, f"it returned {len(value)} labels for {len(voted)} groups", MEND)
    found = []
    for label, one in zip(value, voted, strict=True):
        where = f"its label for prompt {one.group.prompt.id}"
        if label.uses_truth:
            do = "Take true answers out of the function, or train on them by name: --labels.source reference."
            raise ConfigError(given, f"{where} says that a true answer touched it (uses_truth), and the run is recorded as label-free", do)
        check_sequences(given, where, label)
        if len(label.targets) != one.vote.num_votes:
            raise ConfigError(given, f"{where} has {len(label.targets)} targets for {one.vote.num_votes} completions", MEND)
        check_texts(given, where, label)
        check_numbers(given, where, label)
        found.append(as_recorded(label))
    return found


def as_recorded(label: Label) -> Label:
    """As it is read back from the record: tuples, where a list was given, and floats, where another kind of number was."""
    values = tuple(map(float, label.values))
    return replace(label, targets=tuple(label.targets), values=values, notes=tuple(label.notes), weight=float(label.weight), offset=float(label.offset))


def check_sequences(given: str, where: str, label: Label) -> None:
    """An outcome, and one target, value and note for each completion in a list or tuple: a text has characters and not targets."""
    if not isinstance(label.outcome, Outcome):
        raise ConfigError(given, f"{where} has the outcome {shown(label.outcome)}, not one of Outcome, such as Outcome.DECIDED", MEND)
    for name in ("targets", "values", "notes"):
        if not isinstance(getattr(label, name), list | tuple):
            raise ConfigError(given, f"{where} has the {name} {shown(getattr(label, name))}, not a tuple", MEND)


def check_texts(given: str, where: str, label: Label) -> None:
    """Targets are answer keys or None, and named is who decided: the record has texts there."""
    wrong = [target for target in label.targets if target is not None and not isinstance(target, str)]
    if wrong:
        raise ConfigError(given, f"{where} has the target {shown(wrong[0])}, not the text of an answer key or None", MEND)
    notes = [note for note in label.notes if not isinstance(note, str)]
    if notes:
        raise ConfigError(given, f"{where} has the note {shown(notes[0])}, not a text", MEND)
    if not isinstance(label.source, str) or not isinstance(label.decided_by, str):
        raise ConfigError(given, f"{where} has source {shown(label.source)} and decided_by {shown(label.decided_by)}, and both are texts", MEND)


def check_numbers(given: str, where: str, label: Label) -> None:
    """A finite weight of at least 0, a finite offset, and rewards with their reasons for all completions or for none."""
    if not is_finite(label.weight) or label.weight < 0 or not is_finite(label.offset):
        why = f"{where} has weight {shown(label.weight)} and offset {shown(label.offset)}; both are finite, at most 1e100, and a weight is at least 0"
        raise ConfigError(given, why, MEND)
    if not len(label.values) == len(label.notes) in (0, len(label.targets)):
        why = f"{where} has {len(label.values)} values and {len(label.notes)} notes for {len(label.targets)} completions"
        raise ConfigError(given, why, MEND)
    wrong = [value for value in label.values if not is_finite(value)]
    if wrong:
        raise ConfigError(given, f"{where} has the value {shown(wrong[0])}, not a finite number of at most 1e100", MEND)


def requests_checked(given: str, value: Any, *_: Any) -> list[ExtraRequest]:
    from selftrain.policies.base import ExtraRequest, SamplingParams  # with numpy, which reading answers needs not

    if not isinstance(value, list | tuple) or not all(isinstance(one, ExtraRequest) for one in value):
        raise ConfigError(given, f"its requests are {shown(value)}, not a list of ExtraRequest", MEND)
    roles = (Role.TEACHER, Role.VIEW, Role.JUDGE, Role.PARAPHRASE)
    rules: dict[str, tuple[str, Callable[[Any], bool]]] = {
        "serves": ("the index of a vote group", is_whole),
        "role": ("one of Role.TEACHER, Role.VIEW, Role.JUDGE and Role.PARAPHRASE", lambda one: isinstance(one, Role) and one in roles),
        "prompt": ("a Prompt", lambda one: isinstance(one, Prompt)),
        "count": ("a whole number of completions", lambda one: is_whole(one) and one >= 1),
        "policy": ("current, base or ema", lambda one: one in ("current", "base", "ema")),
        "params": ("SamplingParams or None", lambda one: one is None or isinstance(one, SamplingParams)),
    }
    for request in value:
        for name, (right, is_right) in rules.items():
            if not is_right(getattr(request, name)):
                raise ConfigError(given, f"a request of it has the {name} {shown(getattr(request, name))}, which is not {right}", MEND)
    return [replace(one, serves=int(one.serves), count=int(one.count)) for one in value]


def one_each(given: str, value: Any, others: Sequence[Any], words: tuple[str, str]) -> tuple[Any, ...]:
    """The returned values, one for each of `others`. words: what one of either is called."""
    one, other = words
    try:
        found = tuple(value)
    except TypeError as error:
        raise ConfigError(given, f"it returned {shown(value)}, not one {one} per {other}", MEND) from error
    if len(found) != len(others):
        raise ConfigError(given, f"it returned {len(found)} {one}s for {len(others)} {other}s", MEND)
    return found


def reward_checked(given: str, value: Any, *_: Any) -> float:
    if not is_finite(value):
        raise ConfigError(given, f"it returned {shown(value)}, not a finite number of at most 1e100", MEND)
    return float(value)


def advantages_checked(given: str, value: Any, rewards: Any) -> tuple[float, ...]:
    found = one_each(given, value, rewards, ("advantage", "reward"))
    wrong = [one for one in found if not is_finite(one)]
    if wrong:
        raise ConfigError(given, f"one of its advantages is {shown(wrong[0])}, not a finite number of at most 1e100", MEND)
    return tuple(float(one) for one in found)


def clusters_checked(given: str, value: Any, answers: Any) -> tuple[AnswerKey | None, ...]:
    """One key per answer, a text, and None exactly where there is no answer."""
    keys = one_each(given, value, answers, ("key", "answer"))
    for key, answer in zip(keys, answers, strict=True):
        if key is not None and not isinstance(key, str):
            raise ConfigError(given, f"one of its keys is {shown(key)}, not a text", MEND)
        if (key is None) != (answer is None):
            what = "no key for an answer" if key is None else "a key where there is no answer"
            raise ConfigError(given, f"it gave {what}: {shown(answer if key is None else key)}", MEND)
    return tuple(None if key is None else AnswerKey(key) for key in keys)


CHECKS: Mapping[str, Callable[..., Any]] = {
    "labels.source": labels_checked,
    "first_of.sources": labels_checked,
    "mixture.weights": labels_checked,
    "labels.clustering": clusters_checked,
    "requests": requests_checked,
    "reward.rule": reward_checked,
    "advantage.rule": advantages_checked,
}
"""What the values of an outside function must keep, by option: (what was given, value, the function's arguments) -> the value."""


def is_finite(value: Any) -> bool:
    """Within `MOST`, too: sums of such numbers and of their squares are finite."""
    try:
        return isinstance(value, Real) and -MOST <= (int(value) if isinstance(value, Integral) else float(value)) <= MOST
    except OverflowError:  # a fraction larger than any float
        return False


def is_whole(value: Any) -> bool:
    return isinstance(value, Integral) and not isinstance(value, bool)


def shown(value: Any) -> str:
    text = repr(value)
    return text if len(text) <= 60 else f"{text[:60]}..."
