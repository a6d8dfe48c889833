"""Other numbers, other words, other people: which prompts a probe asks."""

from __future__ import annotations

import re

import pytest

from selftrain.probes import Kind, Probe, make_probe_set
from selftrain.probes.counterfactual import swapped
from selftrain.probes.off_domain import OFF_DOMAIN
from selftrain.probes.probe_set import Wordings, address, with_other_number
from selftrain.prompts import tasks
from selftrain.prompts.templates import TEMPLATES, apply_template
from selftrain.seeds import Stream
from selftrain.types import AnswerKey, AnswerSheet, Message, Prompt, PromptSet

CLIPS = "Natalia sold clips to 48 of her friends in April, and then she sold half as many clips in May."


def aside(*texts: str, template: str = "raw") -> PromptSet:
    questions = {f"p{number}": (Message("user", text),) for number, text in enumerate(texts)}
    prompts = tuple(Prompt(name, apply_template(TEMPLATES[template], messages)) for name, messages in questions.items())
    return PromptSet(prompts, AnswerSheet({}), "tests", questions)


@pytest.mark.parametrize(
    ("text", "other"),
    [
        (CLIPS, "Kwame sold clips to 48 of his friends in April, and then he sold half as many clips in May."),
        ("Emma gave her brother 3 pens.", "Jamal gave his sister 3 pens."),
        ("His book is red; the red one is his. Tom likes him.", "Her book is red; the red one is hers. Ling likes her."),
        ("She told her that it was hers.", "He told him that it was his."),
        ("They paid her $5 and her mother 2.", "They paid him $5 and his father 2."),
        ("An American and an Indian", "An Indian and an American"),
        ("MR Smith met the two men", "MRS Smith met the two women"),
        ("12+34", None),
        ("Mark the point in May", None),
    ],
)
def test_people_are_swapped(text: str, other: str | None) -> None:
    assert swapped(text) == other


def test_a_swap_swapped_again_is_the_text() -> None:
    text = "Emma and Jamal met an American girl; she gave Emma his hat, and the waiter thanked himself."
    assert swapped(text) != text
    assert swapped(str(swapped(text))) == text


def test_a_number_becomes_another_of_as_many_digits() -> None:
    stream = Stream(0, stream="test")
    found = [with_other_number(CLIPS, stream.at(prompt_id=str(number))) for number in range(40)]
    numbers = [re.findall(r"\d+", str(text)) for text in found]
    assert all(len(one) == 1 and len(one[0]) == 2 and one[0] != "48" and one[0][0] != "0" for one in numbers)
    assert len({one[0] for one in numbers}) > 20
    assert with_other_number(CLIPS, stream) == with_other_number(CLIPS, stream)
    assert with_other_number("the 1st of x2 and none else", stream) is None
    assert with_other_number("take 5 away", stream, lambda _: False) is None


def test_a_task_stays_the_task() -> None:
    """A difference stays one that is not negative, a modulus stays 5, 7 or 9."""
    for text in ("87-45", "(4+5+7)%7", "45*7", "sum of 12 and 34", "sort 53142"):
        for number in range(20):
            other = with_other_number(text, Stream(number), lambda found, text=text: tasks.is_problem_where(text, found))
            assert other is not None
            assert tasks.is_problem_where(text, other)
            assert other != text
    assert tasks.is_problem_where("a story with 3 pigs", "a story with 4 pigs")
    assert not tasks.is_problem_where("12+34", "12+x")


def test_the_probes_of_a_prompt() -> None:
    wordings = Wordings(TEMPLATES["boxed"], tasks.second_wording, tasks.is_problem_where)
    made = make_probe_set(aside(CLIPS, "12+34", "why?", template="boxed"), wordings, OFF_DOMAIN)
    assert [one.of for one in made.of_kind(Kind.OWN)] == [one.of for one in made.of_kind(Kind.BASE)] == ["p0", "p1", "p2"]
    assert [one.of for one in made.of_kind(Kind.NUMBER)] == ["p0", "p1"]
    assert [one.of for one in made.of_kind(Kind.SWAP)] == ["p0"]
    reworded = {one.of: one.prompt.text for one in made.of_kind(Kind.REWORD)}
    assert reworded["p1"] == TEMPLATES["boxed"].replace("{prompt}", "34+12")
    assert CLIPS in reworded["p0"]
    assert all(text.endswith(r"within \boxed{}.") for text in reworded.values())
    assert len(list(made.of_kind(Kind.OFF_DOMAIN))) == len(OFF_DOMAIN)
    assert not made.canaries
    names = [one.prompt.id for one in made.probes]
    assert len(set(names)) == len(names)


def test_an_address_is_read_back() -> None:
    one = Probe(Kind.NUMBER, "add-4/5f:2", (Message("user", "1"),))
    assert address(one.prompt.id) == (Kind.NUMBER, "add-4/5f:2")


def test_canaries_stand_with_their_keys() -> None:
    prompt = Prompt("add-1/1", (Message("user", "1+2"),))
    made = make_probe_set(aside(), Wordings("{prompt}"), (), {prompt: AnswerKey("3")})
    assert [one.prompt.id for one in made.probes] == ["canary:add-1/1"]
    assert made.canaries == {"add-1/1": "3"}
