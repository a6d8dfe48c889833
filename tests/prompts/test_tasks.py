"""Procedural tasks: worked examples by hand, distinctness, disjointness, the checker."""

from __future__ import annotations

import re
from itertools import islice

import pytest

from selftrain.answers import extract, key
from selftrain.errors import PromptError
from selftrain.prompts.tasks import TASKS, Form, Problem, mixture, split, task
from selftrain.prompts.tasks.family import arrangement
from selftrain.seeds import Stream

WORKED = [
    ("add", "45+87", "sum of 45 and 87", "5+7+0=12;4+8+1=13####132"),
    ("add", "95+5", "sum of 95 and 5", "5+5+0=10;9+0+1=10####100"),
    ("sub", "62-35", "take 35 from 62", "12-5-0=7;6-3-1=2####27"),
    ("sub", "30-29", "take 29 from 30", "10-9-0=1;3-2-1=0####1"),
    ("mul", "34*7", "7 times 34", "4*7+0=28;3*7+2=23####238"),
    ("digits", "(4+8+2)%5", "digit sum of 482 mod 5", "0+4=4>4;4+8=12>2;2+2=4>4####4"),
    ("sort", "sort 3175", "3 1 7 5 in order", "3;13;137;1357####1,3,5,7"),
    ("tall", "d>j j>h b>d", "d over j, j over h, b over d", "b>d;d>j;j>h####b,d,j,h"),
    ("truth", "j- d:j- g:j+ a:d-", "j is false, d says j is false, g says j is true, a says d is false", "j-;d+;g-;a-####d"),
    ("truth", "d- f:d+", "d is false, f says d is true", "d-;f-####none"),
]


@pytest.mark.parametrize(("name", "symbols", "words", "solution"), WORKED)
def test_worked_examples(name: str, symbols: str, words: str, solution: str) -> None:
    answer = solution.partition("####")[2]
    assert task(name).solve(symbols) == Problem(symbols, answer, solution)
    assert task(name).solve(words) == Problem(words, answer, solution)
    assert task(name).reword(symbols) == words
    assert task(name).reword(words) == symbols
    assert task(name).check(words, f" {answer} ")
    assert not task(name).check(symbols, f"{answer}0")


@pytest.mark.parametrize("name", TASKS)
@pytest.mark.parametrize("form", Form)
def test_every_level_reads_back_what_it_wrote(name: str, form: Form) -> None:
    for level in (1, 2, 3, 5):
        for prompt_id, problem in task(name).listed(30, level, 5, form):
            assert task(name).solve(problem.text) == problem
            assert extract(problem.solution) == problem.answer
            assert re.fullmatch(rf"{name}-{level}/[0-9a-f]{{16}}", prompt_id)
            assert problem.text.isascii()
            assert "\n" not in problem.text


@pytest.mark.parametrize("name", TASKS)
def test_distinct_problems_have_distinct_texts(name: str) -> None:
    size = task(name).size(1)
    assert len({problem.text for _, problem in task(name).listed(size, 1, 0)}) == size
    with pytest.raises(PromptError, match=f"{size} distinct problems") as caught:
        task(name).problems(size + 1, 1, 0)
    assert "higher level" in caught.value.do


@pytest.mark.parametrize("name", TASKS)
def test_wrong_answers_have_other_keys(name: str) -> None:
    """Distinct answers of a level stay distinct as keys."""
    answers = {problem.answer for _, problem in task(name).listed(60, 3, 1)}
    assert len({key(answer) for answer in answers}) == len(answers)


def test_sums_are_right_by_python() -> None:
    for _, problem in islice(task("add").listed(200, 6, 2), 200):
        a, b = problem.text.split("+")
        assert len(a) == len(b) == 6
        assert int(problem.answer) == int(a) + int(b)
    for _, problem in task("sub").listed(200, 3, 2):
        a, b = problem.text.split("-")
        assert int(problem.answer) == int(a) - int(b) > 0


def test_same_seed_same_problems_and_other_seed_others() -> None:
    first, again, other = (task("sort").problems(50, 3, seed) for seed in (1, 1, 2))
    assert first == again
    assert first.prompts != other.prompts
    assert first.prompts[0].id == "sort-3/" + first.prompts[0].id[7:]
    assert task("add").problems(3, 4, 7).prompts[0].text == task("add").problems(9, 4, 7).prompts[0].text


def test_a_problem_has_the_same_id_in_every_set() -> None:
    whole = {prompt.text: prompt.id for prompt in task("add").problems(100, 1, 1)}
    other = {prompt.text: prompt.id for prompt in task("add").problems(100, 1, 2)}
    assert whole == other


def test_frozen_id() -> None:
    assert task("add").prompt_id(2, "45+87") == "add-2/ae6e583e20d91ceb"


def test_draw_is_the_problem_of_an_address() -> None:
    stream = Stream(3).at(stream="self", index=4)
    assert task("add").draw(stream, 2) == task("add").draw(stream, 2)
    assert task("add").draw(stream, 2, "words").answer == task("add").draw(stream, 2).answer
    assert len({task("add").draw(stream.at(index=index), 2).text for index in range(20)}) > 15


def test_split_is_disjoint_and_keeps_its_held_out_problems() -> None:
    train, held_out = split("digits", 1, 100, 200, seed=3)
    assert (len(train), len(held_out)) == (100, 200)
    assert not {prompt.id for prompt in train} & {prompt.id for prompt in held_out}
    assert split("digits", 1, 10, 200, seed=3)[1] == held_out
    assert all(prompt.id in held_out.sheet for prompt in held_out)
    with pytest.raises(PromptError):
        split("digits", 1, 101, 200, seed=3)


def test_exclude_bars_ids() -> None:
    barred = {prompt.id for prompt in task("add").problems(90, 1, 1)}
    rest = task("add").problems(10, 1, 2, exclude=barred)
    assert not {prompt.id for prompt in rest} & barred
    with pytest.raises(PromptError, match="10 of them free"):
        task("add").problems(11, 1, 2, exclude=barred)


def test_mixture_takes_turns() -> None:
    mixed = mixture("add:4, sort:3:words,truth:2", 8, seed=7)
    assert [prompt.id.partition("/")[0] for prompt in mixed] == ["add-4", "sort-3", "truth-2"] * 2 + ["add-4", "sort-3"]
    assert mixed.prompts[1].text.endswith(" in order")
    assert len(mixed.sheet) == 8
    assert len({prompt.id for prompt in mixture("add:1,add:1", 100, seed=1)}) == 100


@pytest.mark.parametrize(
    ("act", "words"),
    [
        (lambda: task("ad"), "did you mean add"),
        (lambda: task("add").problems(5, 0, 1), "levels 1 to 30"),
        (lambda: task("tall").size(9), "levels 1 to 8"),
        (lambda: task("add").problems(0, 1, 1), "at least one"),
        (lambda: task("add").problems(5, 1, 1, form="prose"), "symbols, words"),
        (lambda: mixture("add", 5, 1), "NAME:LEVEL"),
        (lambda: mixture("add:x", 5, 1), "NAME:LEVEL"),
        (lambda: task("add").check("what is love", "1"), "not a problem of task add"),
        (lambda: task("add").reword("1-1"), "not a problem of task add"),
    ],
)
def test_errors_say_what_to_do(act: object, words: str) -> None:
    with pytest.raises(PromptError) as caught:
        act()  # type: ignore[operator]
    assert words in str(caught.value)


@pytest.mark.parametrize(
    ("name", "text"),
    [("sub", "3-5"), ("tall", "a>b b>a"), ("tall", "a>b c>d"), ("truth", "a+ b:c+"), ("truth", "a+ a:a+"), ("sort", "sort 12"), ("add", "1+2\n")],
)
def test_texts_of_no_problem_are_refused(name: str, text: str) -> None:
    assert task(name).solve(text) is None


def test_arrangements_are_a_bijection() -> None:
    assert arrangement(0, 3, 2) == ([0, 1], 0)
    assert arrangement(6, 3, 2) == ([0, 1], 1)
    assert len({tuple(arrangement(index, 4, 3)[0]) for index in range(24)}) == 24


@pytest.mark.parametrize("name", TASKS)
def test_slips_change_about_as_many_solutions_as_asked(name: str) -> None:
    stream, chosen = Stream(1), task(name)
    texts = [problem.text for _, problem in chosen.listed(200, 3, 1)]
    exact = [chosen.slipped(text, stream.at(index=index), 0.0)[0] for index, text in enumerate(texts)]
    assert exact == [chosen.solve(text).solution for text in texts]  # type: ignore[union-attr]
    slipped = [chosen.slipped(text, stream.at(index=index), 0.2) for index, text in enumerate(texts)]
    assert all(solution.endswith(f"####{answer}") for solution, answer in slipped)
    wrong = sum(not chosen.check(text, answer) for text, (_, answer) in zip(texts, slipped, strict=True))
    assert 60 <= wrong <= 150, wrong


def test_a_slip_is_carried_on() -> None:
    solutions = {task("add").slipped("45+87", Stream(2).at(index=index), 0.5)[0] for index in range(300)}
    assert "5+7+0=12;4+8+1=13####132" in solutions
    for solution in solutions:
        found = re.fullmatch(r"5\+7\+0=(\d+);4\+8\+([01])=(\d+)####(\d+)", solution)
        assert found is not None
        low, carry, high, total = (int(part) for part in found.groups())
        assert (carry, total) == (low // 10, low % 10 + 10 * high)
