"""The same text about other people: names, gender and nationality swapped, each word for its partner wherever it stands.

The answer of a problem does not depend on whether Emma or Kwame buys the apples. The pairs are exchanged both ways, so two people stay two people, and
articles stay right (`an American`, `an Indian`). Names that are also words (Mark, May, Will) are left out.
"""

from __future__ import annotations

import re

_NAMES = """
Natalia/Kwame Emma/Jamal Emily/Ahmed Sarah/Hiroshi Jessica/Carlos Ashley/Omar Samantha/Kenji Julie/Dmitri Betty/Rajesh Tina/Mateo Alexis/Tariq Lisa/Pedro
Anna/Mohammed Maria/Lars Linda/Ibrahim Susan/Chidi Karen/Diego Nancy/Hassan Laura/Yusuf Rachel/Ravi Amy/Andrei Kelly/Javier Jenny/Sanjay Olivia/Malik
Sophia/Kofi Ava/Nikolai Isabella/Arjun Mia/Abdul Mary/Jorge Jane/Miguel Alice/Vikram Julia/Hamid
James/Aaliyah John/Fatima Robert/Mei Michael/Priya William/Ngozi David/Yuki Richard/Guadalupe Joseph/Svetlana Thomas/Leila Charles/Ximena Daniel/Amara
Matthew/Nadia Anthony/Lakshmi Steven/Chiara Andrew/Ayesha Paul/Mariam Joshua/Hanako Kevin/Zainab Brian/Esperanza George/Ingrid Edward/Noor Jason/Keiko
Ryan/Olga Jacob/Shanice Tim/Rosa Tom/Ling Ken/Zara Albert/Soraya Tobias/Imani Peter/Akiko Adam/Nia Sam/Lupe Ben/Aditi Alex/Sana Eric/Thandi
"""
_WORDS = """
he/she himself/herself man/woman men/women boy/girl boys/girls father/mother fathers/mothers dad/mom dads/moms husband/wife husbands/wives son/daughter
sons/daughters brother/sister brothers/sisters uncle/aunt uncles/aunts nephew/niece nephews/nieces grandfather/grandmother grandpa/grandma
grandson/granddaughter boyfriend/girlfriend waiter/waitress actor/actress mr/mrs
"""
_PEOPLES = """
American/Indian Italian/Egyptian French/Nigerian German/Brazilian British/Mexican Spanish/Korean Chinese/Polish Russian/Japanese Canadian/Turkish
Australian/Iranian
"""
_OBJECT = """
a all an and are as at because before but by for from how if in is on or so that the then to was were what when where which while who with
"""


def _both_ways(pairs: str) -> dict[str, str]:
    return {one: other for pair in pairs.split() for one, other in (tuple(pair.split("/")), tuple(reversed(pair.split("/"))))}


_EXACT = _both_ways(_NAMES) | _both_ways(_PEOPLES)
_ANY_CASE = _both_ways(_WORDS)
_AFTER_OBJECT = frozenset(_OBJECT.split())
_WORD = re.compile(r"[A-Za-z]+")


def swapped(text: str) -> str | None:
    """The text with all people exchanged; None where it names none that are known.

    Example: `Emma gave her brother 3 pens.` is `Jamal gave his sister 3 pens.`
    """
    found = _WORD.sub(_partner, text)
    return None if found == text else found


def _partner(match: re.Match[str]) -> str:
    word = match.group()
    if word in _EXACT:
        return _EXACT[word]
    other = _pronoun(match) or _ANY_CASE.get(word.lower())
    if other is None:
        return word
    return other.upper() if word.isupper() and len(word) > 1 else other.capitalize() if word[0].isupper() else other


def _pronoun(match: re.Match[str]) -> str | None:
    """English has one word `her` for `his` and `him`, and one `his` for `her` and `hers`: what follows tells them apart."""
    word = match.group().lower()
    if word not in ("his", "him", "her", "hers"):
        return None
    if word in ("him", "hers"):
        return {"him": "her", "hers": "his"}[word]
    after = re.match(r" ([A-Za-z]+|\$?\d)", match.string[match.end() :])
    stands_alone = after is None or after.group(1).lower() in _AFTER_OBJECT
    if word == "his":
        return "hers" if stands_alone else "her"
    return "him" if stands_alone or not after.group(1)[0].isalpha() else "his"  # type: ignore[union-attr]
