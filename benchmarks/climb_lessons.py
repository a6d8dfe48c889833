"""Two tasks of reasoning-gym as a small model can learn them: the steps of a solution, and the texts that are one token each.

    family = CLIMBS["family"]
    family.solution(question)      # 'Ann<Jo,Max;Max=Jo>Ann;Ann<Max;f####daughter'

`family_relationships` is one of the tasks of the level climb in Self-Rewarded Training (arXiv 2505.21444). The questions are reasoning-gym's own, unchanged.
A solution is a chain of look-ups in the question, whose length grows with the level and whose steps do not change.
"""

from __future__ import annotations

import re
from collections.abc import Callable
from dataclasses import dataclass
from functools import cache

from numpy.random import Generator


@dataclass(frozen=True)
class Climb:
    """task: of reasoning-gym. level: k, supervised; k + 1 and k + 2 are climbed without labels.

    size: how much there is to do in a question; a level holds all sizes up to its own. solution: the chain, with `slip_frac` of its steps wrong and
    carried on where a generator is given. words: texts of several characters that are one token.
    """

    task: str
    level: int
    max_new_tokens: int
    size: Callable[[str], int]
    solution: Callable[[str, Generator | None, float], str]
    words: Callable[[], tuple[str, ...]]
    what_size_is: str

    @property
    def levels(self) -> tuple[int, int, int]:
        return (self.level, self.level + 1, self.level + 2)


LETTER = re.compile(r'How many times does the letter "(.)" appear in the text: "(.*)"\?', re.DOTALL)


def letter_words() -> tuple[str, ...]:
    return ('How many times does the letter "', '" appear in the text: "', '"?')


def letter_size(question: str) -> int:
    return len(letter_parts(question)[1])


def letter_parts(question: str) -> tuple[str, list[str]]:
    found = LETTER.fullmatch(question)
    if found is None:
        raise ValueError(f"this is no question of letter_counting: {question!r}")
    return found.group(1), found.group(2).split(" ")


def letter_solution(question: str, random: Generator | None = None, slip_frac: float = 0.0) -> str:
    """Each word with the count so far: `letter "n" in "then and now"` gives `then:1,and:2,now:3####3`."""
    letter, words = letter_parts(question)
    steps, total = [], 0
    for word in words:
        found = word.lower().count(letter)
        if random is not None and random.random() < slip_frac:
            found = found + 1 if found == 0 or random.random() < 0.5 else found - 1
        total += found
        steps.append(f"{word}:{total}")
    return f"{','.join(steps)}####{total}"


MARRIED = re.compile(r"(\w+) is married to (\w+)\.(?: They have (?:a child|children) called ([^.]+)\.)?")
ASKED = (
    re.compile(r"What is (\w+) to (\w+)\? Respond only with the word that describes their relationship\."),
    re.compile(r"How is (\w+) related to (\w+)\? Provide the relationship in one word\."),
    re.compile(r"What relation is (\w+) to (\w+)\? Answer with a single word\."),
)
RELATIONS = {
    "<": ("daughter", "son"),
    ">": ("mother", "father"),
    "=": ("wife", "husband"),
    "<>": ("sister", "brother"),
    ">>": ("grandmother", "grandfather"),
    "=<": ("mother-in-law", "father-in-law"),
    "<>>": ("aunt", "uncle"),
    "<<>": ("niece", "nephew"),
}
"""Path from the first person to the second -> its word for a woman and a man. < to a parent, > to a child, = to the spouse."""
OF_THE_SECOND = ("=<", "<<>")
"""Paths whose word follows the second person's sex in reasoning-gym 0.1: it answers `mother-in-law` for what a son-in-law is to her."""

SLIPS = tuple(steps for steps in RELATIONS if len(steps) < 3)


@dataclass(frozen=True)
class Family:
    """Who belongs to whom, in the order of the story."""

    names: tuple[str, ...]
    spouse: dict[str, str]
    parents: dict[str, tuple[str, str]]
    children: dict[str, tuple[str, ...]]

    @classmethod
    def told(cls, story: str) -> Family:
        spouse: dict[str, str] = {}
        parents: dict[str, tuple[str, str]] = {}
        children: dict[str, tuple[str, ...]] = {}
        for one, two, called in MARRIED.findall(story):
            spouse |= {one: two, two: one}
            named = tuple(re.split(r", | and ", called)) if called else ()
            children |= {one: named, two: named}
            parents |= dict.fromkeys(named, (one, two))
        return cls(tuple(dict.fromkeys([*spouse, *parents])), spouse, parents, children)

    def links(self, name: str) -> str:
        """`Max<Ed,Sue=Jo>Ann,Tom`: parents, spouse, children, as far as there are any."""
        up = f"<{','.join(self.parents[name])}" if name in self.parents else ""
        side = f"={self.spouse[name]}" if name in self.spouse else ""
        down = f">{','.join(self.children[name])}" if self.children.get(name) else ""
        return f"{name}{up}{side}{down}"

    def next_to(self, name: str, step: str) -> tuple[str, ...]:
        if step == "=":
            return (self.spouse[name],) if name in self.spouse else ()
        return (self.parents if step == "<" else self.children).get(name, ())

    def path(self, first: str, second: str) -> tuple[str, str]:
        """The path of RELATIONS from one person to another, as its steps and as it is written."""
        for steps in RELATIONS:
            ways = [(first, first)]
            for step in steps:
                ways = [(name, f"{way}{step}{name}") for at, way in ways for name in self.next_to(at, step) if name != first]
            for name, way in ways:
                if name == second:
                    return steps, way
        raise ValueError(f"{first} and {second} are no relations that reasoning-gym has a word for")


def family_asked(question: str) -> tuple[str, str, str]:
    """The story, and the two people who are asked about."""
    story, _, asked = question.partition("\n\n")
    found = next((match for pattern in ASKED if (match := pattern.fullmatch(asked))), None)
    if found is None:
        raise ValueError(f"this is no question of family_relationships: {question!r}")
    return story, found.group(1), found.group(2)


def family_size(question: str) -> int:
    return len(Family.told(family_asked(question)[0]).names)


def family_solution(question: str, random: Generator | None = None, slip_frac: float = 0.0) -> str:
    """What is said of both people, the way between them, whose sex decides, and the word. A slip takes another way, or the other sex."""
    story, first, second = family_asked(question)
    family = Family.told(story)
    steps, way = family.path(first, second)
    said = f"{family.links(first)};{family.links(second)}"
    if random is not None and random.random() < slip_frac:
        steps = SLIPS[int(random.integers(len(SLIPS)))]
        way = f"{first}{steps[0]}{''.join(f'{family.names[int(random.integers(len(family.names)))]}{step}' for step in steps[1:])}{second}"
    is_man = (second if steps in OF_THE_SECOND else first) in names_of_men()
    if random is not None and random.random() < slip_frac:
        is_man = not is_man
    return f"{said};{way};{'m' if is_man else 'f'}####{RELATIONS[steps][is_man]}"


@cache
def names_of_men() -> frozenset[str]:
    from reasoning_gym.graphs.family_relationships import FamilyRelationshipsConfig

    return frozenset(FamilyRelationshipsConfig().male_names)


def family_words() -> tuple[str, ...]:
    from reasoning_gym.graphs.family_relationships import FamilyRelationshipsConfig

    config = FamilyRelationshipsConfig()
    story = (" is married to ", ". They have a child called ", ". They have children called ", ", ", " and ", ". ", ".\n\n")
    asked = ("What is ", " to ", "? Respond only with the word that describes their relationship.", "How is ", " related to ")
    asked += ("? Provide the relationship in one word.", "What relation is ", "? Answer with a single word.")
    return (*config.male_names, *config.female_names, *story, *asked, *(word for both in RELATIONS.values() for word in both))


CLIMBS = {
    "family": Climb("family_relationships", 3, 64, family_size, family_solution, family_words, "people"),
    "letters": Climb("letter_counting", 0, 160, letter_size, letter_solution, letter_words, "words"),
}
