"""Procedural tasks: families of problems with levels, drawn without repeats, checked without a stored answer.

    train, held_out = split("add", level=4, num_train=1024, num_held_out=1000, seed=7)
    task("add").check("45+87", "132")       # True
    second_wording("45+87")                 # "87+45"
    mixture("add:4,sort:3", count=64, seed=7)

A prompt's id is `NAME-LEVEL/HASH`, the hash of its text: the same problem has the same id in every set.
"""

from __future__ import annotations

import difflib
import hashlib
from collections.abc import Collection, Iterator
from dataclasses import dataclass

from selftrain.answers import key
from selftrain.errors import PromptError
from selftrain.prompts.tasks.arithmetic import ADD, DIGITS, MUL, SUB
from selftrain.prompts.tasks.family import Family, Form, Problem, exact, slipping
from selftrain.prompts.tasks.logic import TRUTH
from selftrain.prompts.tasks.order import SORT, TALL
from selftrain.seeds import Stream
from selftrain.types import AnswerSheet, Message, Prompt, PromptSet, question_of

__all__ = ["TASKS", "Form", "Problem", "Task", "available", "ids_of_forms", "mixture", "same_in_symbols", "second_wording", "split", "task"]

_SHUFFLED_WHOLE = 20_000
"""Levels up to this many problems are shuffled as a whole; larger ones are drawn until enough distinct problems are there."""


@dataclass(frozen=True, slots=True)
class Task:
    """A family of problems, by level and form. All methods are pure: the same arguments give the same problems in every process."""

    family: Family

    @property
    def name(self) -> str:
        return self.family.name

    @property
    def about(self) -> str:
        """One line for people: what a level means."""
        return self.family.about

    def size(self, level: int) -> int:
        """The number of distinct problems of a level (in each form). PromptError for a level that does not exist."""
        if not 1 <= level <= self.family.max_level:
            raise PromptError(f"task {self.name}:{level}", f"{self.name} has levels 1 to {self.family.max_level}", "give a level in this range")
        return self.family.size(level)

    def draw(self, stream: Stream, level: int, form: Form | str = Form.SYMBOLS) -> Problem:
        """The one problem that a stream's address stands for, uniform over the level."""
        index = int.from_bytes(stream.generator().bytes(16), "big") % self.size(level)
        return self.family.problem(self.family.pick(level, index), _form(form))

    def problems(self, count: int, level: int, seed: int, form: Form | str = Form.SYMBOLS, exclude: Collection[str] = ()) -> PromptSet:
        """`count` distinct problems of a level in random order, none with an id in `exclude`.

        PromptError when the level has fewer.
        """
        return _prompt_set(self.listed(count, level, seed, form, exclude), f"task {self.name}:{level}:{form} seed {seed}")

    def listed(self, count: int, level: int, seed: int, form: Form | str = Form.SYMBOLS, exclude: Collection[str] = ()) -> list[tuple[str, Problem]]:
        """The problems of `problems` as (prompt id, problem), with their solutions."""
        form, barred = _form(form), frozenset(exclude)
        found: list[tuple[str, Problem]] = []
        for index in self._order(level, seed, form) if count else ():
            problem = self.family.problem(self.family.pick(level, index), form)
            prompt_id = self.prompt_id(level, problem.text)
            if prompt_id not in barred:
                found.append((prompt_id, problem))
            if len(found) == count:
                return found
        raise PromptError(
            f"{count} problems of task {self.name}:{level}, {len(barred)} ids excluded",
            f"the level has {self.size(level)} distinct problems, {len(found)} of them free",
            "ask for at least one problem" if count < 1 else "take a higher level, or ask for fewer: prompts.count to train on, evals.num_problems held out",
        )

    def free(self, level: int, form: Form, exclude: Collection[str], enough: int) -> int:
        """How many problems of a level have no id in `exclude`; `enough` where the level is sure to have as many."""
        size = self.size(level)
        if size >= enough + len(exclude):
            return enough
        ids = {self.prompt_id(level, self.family.problem(self.family.pick(level, index), form).text) for index in range(size)}
        return len(ids - set(exclude))

    def _order(self, level: int, seed: int, form: Form) -> Iterator[int]:
        """Indices of the level's problems in random order, each once."""
        generator = Stream(seed).at(stream="task", prompt_id=f"{self.name}:{level}:{form}").generator()
        size = self.size(level)
        if size <= _SHUFFLED_WHOLE:
            yield from (int(index) for index in generator.permutation(size))
            return
        seen: set[int] = set()
        while len(seen) < size:
            index = int.from_bytes(generator.bytes(32), "big") % size
            if index not in seen:
                seen.add(index)
                yield index

    def prompt_id(self, level: int, text: str) -> str:
        """`NAME-LEVEL/HASH` with 16 hex digits of the text's hash."""
        return f"{self.name}-{level}/{hashlib.blake2b(text.encode(), digest_size=8).hexdigest()}"

    def solve(self, text: str) -> Problem | None:
        """The problem that a prompt text of this family states, in either form; None for any other text."""
        numbers = self.family.read(text)
        if numbers is None:
            return None
        steps, answer = self.family.solve(numbers, exact)
        return Problem(text, answer, f"{steps}####{answer}")

    def slipped(self, text: str, stream: Stream, rate_frac: float) -> tuple[str, str]:
        """A solution by somebody who writes a wrong value in a share `rate_frac` of the steps and goes on from there: (solution, its answer).

        PromptError where the text is no problem of this family.
        """
        numbers = self.family.read(self._read(text).text)
        assert numbers is not None
        steps, answer = self.family.solve(numbers, slipping(stream.generator(), rate_frac))
        return f"{steps}####{answer}", answer

    def check(self, text: str, answer: str) -> bool:
        """Whether an answer to a prompt text is right, by answer keys. PromptError where the text is no problem of this family."""
        return key(answer) == key(self._read(text).answer)

    def reword(self, text: str) -> str:
        """The same problem in the other form. PromptError where the text is no problem of this family."""
        self._read(text)
        numbers = self.family.read(text)
        assert numbers is not None
        symbols = self.family.write(numbers, Form.SYMBOLS)
        return self.family.write(numbers, Form.WORDS) if text == symbols else symbols

    def second_wording(self, text: str) -> str:
        """The same problem with its parts in another order, in the form it has; in the other form where it has no other order.

        Example: `80+57` for `57+80`. PromptError where the text is no problem of this family.
        """
        self._read(text)
        numbers = self.family.read(text)
        assert numbers is not None
        form = Form.SYMBOLS if text == self.family.write(numbers, Form.SYMBOLS) else Form.WORDS
        turned = text if self.family.turn is None else self.family.write(self.family.turn(numbers), form)
        return self.reword(text) if turned == text else turned

    def _read(self, text: str) -> Problem:
        problem = self.solve(text)
        if problem is None:
            raise PromptError(f"prompt {text[:80]!r}", f"it is not a problem of task {self.name}", "give a prompt that this task wrote")
        return problem


TASKS: dict[str, Task] = {
    "add": Task(ADD),
    "sub": Task(SUB),
    "mul": Task(MUL),
    "digits": Task(DIGITS),
    "sort": Task(SORT),
    "tall": Task(TALL),
    "truth": Task(TRUTH),
}


def task(name: str) -> Task:
    """The task of this name. PromptError for an unknown one, with the nearest name."""
    if name not in TASKS:
        near = difflib.get_close_matches(name, TASKS, n=1, cutoff=0.0)[0]
        raise PromptError(f"task {name!r}", f"the tasks are {', '.join(TASKS)}", f"did you mean {near}?")
    return TASKS[name]


def split(name: str, level: int, num_train: int, num_held_out: int, seed: int, form: Form | str = Form.SYMBOLS) -> tuple[PromptSet, PromptSet]:
    """Two disjoint sets of a task's problems: (train, held out). The held-out set does not depend on `num_train`."""
    problems = task(name).listed(num_train + num_held_out, level, seed, form)
    origin = f"task {name}:{level}:{form} seed {seed}"
    return _prompt_set(problems[num_held_out:], f"{origin} train"), _prompt_set(problems[:num_held_out], f"{origin} held-out")


def mixture(names: str, count: int, seed: int, form: Form | str = Form.SYMBOLS, exclude: Collection[str] = ()) -> PromptSet:
    """`count` distinct problems of several tasks in turn. `names` is `NAME:LEVEL[:FORM]`, separated by commas; a form there goes before `form`.

    Example: `mixture("add:4,sort:3:words", 64, seed=7)` has 32 problems of each. PromptError where the names cannot be read.
    """
    parts = [_part(part.strip(), form) for part in names.split(",")]
    taken = set(exclude)
    turns: list[tuple[int, int, tuple[str, Problem]]] = []
    for place, (name, level, part_form) in enumerate(parts):
        part_count = count // len(parts) + (place < count % len(parts))
        problems = task(name).listed(part_count, level, seed, part_form, taken)
        taken.update(prompt_id for prompt_id, _ in problems)
        turns += [(turn, place, problem) for turn, problem in enumerate(problems)]
    return _prompt_set([problem for _, _, problem in sorted(turns, key=lambda entry: entry[:2])], f"task {names} seed {seed}")


def available(names: str, count: int, exclude: Collection[str] = ()) -> int:
    """`count`, or as many problems as a mixture has in equal parts where that is less; at least 1."""
    parts = [_part(part.strip(), Form.SYMBOLS) for part in names.split(",")]
    fewest = min(task(name).free(level, form, exclude, count) for name, level, form in parts)
    return max(1, min(count, fewest * len(parts)))


def same_in_symbols(text: str) -> str:
    """A problem of any task in its symbol form; any other text as it is."""
    for one in TASKS.values():
        numbers = one.family.read(text)
        if numbers is not None:
            return one.family.write(numbers, Form.SYMBOLS)
    return text


def second_wording(text: str) -> str | None:
    """A second wording, with the same answer, of a problem of any task; None for any other text."""
    return next((one.second_wording(text) for one in TASKS.values() if one.solve(text) is not None), None)


def is_problem_where(before: str, after: str) -> bool:
    """Whether a text that takes the place of another is a problem where that one was: of the same task; any text where that one was of no task."""
    found = next((one for one in TASKS.values() if one.solve(before) is not None), None)
    return found is None or found.solve(after) is not None


def solved(text: str) -> str:
    """The answer to a problem of any task. PromptError for any other text."""
    problem = next((problem for one in TASKS.values() if (problem := one.solve(text)) is not None), None)
    if problem is None:
        raise PromptError(f"prompt {text[:80]!r}", f"it is not a problem of the tasks {', '.join(TASKS)}", "give a prompt that a task wrote")
    return problem.answer


def ids_of_forms(prompts: PromptSet) -> frozenset[str]:
    """The ids of these prompts and, for those of a task, of the same problems in the other form."""
    found = {prompt.id for prompt in prompts}
    for prompt in prompts:
        name, _, level = prompt.id.partition("/")[0].rpartition("-")
        text = question_of(prompt, prompts.questions)
        if name in TASKS and level.isdecimal() and TASKS[name].solve(text) is not None:
            found.add(TASKS[name].prompt_id(int(level), TASKS[name].reword(text)))
    return frozenset(found)


def _prompt_set(problems: list[tuple[str, Problem]], origin: str) -> PromptSet:
    prompts = tuple(Prompt(prompt_id, (Message("user", problem.text),)) for prompt_id, problem in problems)
    return PromptSet(prompts, AnswerSheet({prompt_id: problem.answer for prompt_id, problem in problems}), origin)


def _part(text: str, form: Form | str) -> tuple[str, int, Form]:
    """One `NAME:LEVEL[:FORM]` of a mixture."""
    name, _, rest = text.partition(":")
    level, _, part_form = rest.partition(":")
    if not level.isascii() or not level.isdigit():
        raise PromptError(f"task {text!r}", "a task is NAME:LEVEL or NAME:LEVEL:FORM", "write for example add:4 or sort:3:words")
    return name, int(level), _form(part_form or form)


def _form(form: Form | str) -> Form:
    if form not in set(Form):
        raise PromptError(f"form {form!r}", f"the forms are {', '.join(Form)}", "give one of them")
    return Form(form)
