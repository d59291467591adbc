"""What the grammar finds in a caption: its subject, of which kind, and what stands behind it."""

from __future__ import annotations

from collections.abc import Sequence

from pipeline.clip import Failed, Measurement, Outcome
from stages.grammar import MAX_CHARS, Token, kind_of, noun_runs, singular, tokens, words
from stages.subject import Subject, find_subject

_MAX_OTHERS = 10
_THINGS = ("human", "animal", "vehicle", "building", "object")
_CATEGORIES = {"natural scene": "natural scene", "place": "other", "abstract": "other"}


def read(caption: str) -> Outcome:
    """The columns of `entities`, `raw` being null. Code of failure: no_caption."""
    text = tokens(caption[:MAX_CHARS])
    if not text:
        return Failed("no_caption", "the caption is empty, or holds no word and no mark")
    subject = find_subject(text)
    background = _background(text)
    if subject is None:
        return Measurement(
            {
                "main_entity": None,
                "phrase": None,
                "category": "other",
                "other_entities": [],
                "entity_count": 0,
                "background_complexity": background,
                "reason": "no noun phrase that names a thing",
                "raw": None,
            }
        )
    category, why = category_of(text, subject)
    phrase = subject.phrase
    start, end = text[subject.first].start, text[subject.last].end
    return Measurement(
        {
            "main_entity": _name(text, subject),
            "phrase": caption[start:end],
            "category": category,
            "other_entities": _others(text, subject),
            "entity_count": subject.count,
            "background_complexity": background,
            "reason": f"'{text[phrase.last].text}': {why}, {subject.count} of it",
            "raw": None,
        }
    )


def _name(text: Sequence[Token], subject: Subject) -> str:
    """The head with the nouns before it and what it is of: "toy frog", "bowl of soup"."""
    head = first = subject.phrase.last
    while first > subject.first and kind_of(text[first - 1].text) is not None:
        first -= 1
    words_before = [token.text for token in text[first:head]]
    after = [token.text for token in text[head + 1 : subject.last + 1]]
    return " ".join([*words_before, subject.phrase.noun, *after])


def category_of(text: Sequence[Token], subject: Subject) -> tuple[str, str]:
    """(category, why): "other" for a part of a body, a place, an abstraction, the hardly seen."""
    phrase = subject.phrase
    modifiers = {token.text for token in text[phrase.first : phrase.last]}
    if subject.hidden and phrase.kind in ("human", "part"):
        return "other", f"a {phrase.kind} not seen whole ({subject.hidden})"
    if phrase.kind == "part":
        if phrase.noun in ("face", "head") and kind_of(phrase.whose) in ("human", "animal"):
            return str(kind_of(phrase.whose)), f"the {phrase.noun} of a {phrase.whose}"
        return "other", "a part of a body"
    if phrase.kind in ("human", "animal") and modifiers & words("toys", "living"):
        return "object", f"a made {phrase.kind}"
    if phrase.kind == "vehicle" and modifiers & words("toys", "vehicle"):
        return "object", "a model of a vehicle"
    if phrase.kind in _CATEGORIES:
        return _CATEGORIES[phrase.kind], f"a {phrase.kind}"
    if phrase.kind in _THINGS:
        return phrase.kind, f"a known {phrase.kind}"
    return "object", "an unknown word, taken for an object"


def _others(text: Sequence[Token], subject: Subject) -> list[str]:
    """Other things that the caption names, in order, without clothes, body parts and places."""
    main = {"camera", subject.phrase.noun} | {
        singular(token.text) for token in text[subject.first : subject.last + 1]
    }
    found: dict[str, None] = {}
    for first, last in noun_runs(text):
        noun = singular(text[last].text)
        if kind_of(noun) in _THINGS and noun not in main:
            found[" ".join([*(t.text for t in text[first:last]), noun])] = None
    return list(found)[:_MAX_OTHERS]


def _background(text: Sequence[Token]) -> str:
    """How busy the background is said to be; moderate where nothing is said."""
    simple = False
    for position, token in enumerate(text):
        before = text[position - 1].text if position else ""
        following = text[position + 1].text if position + 1 < len(text) else ""
        if token.text in words("background", "complex") and _holds(before, token.text, following):
            return "complex"
        if token.text in ("filled", "full") and following in ("with", "of"):
            crowded = (kind_of(t.text) == "place" for t in text[max(0, position - 4) : position])
            if any(crowded):
                return "complex"
        if token.text in words("background", "nouns"):
            near = [t.text for t in text[max(0, position - 3) : position + 9]]
            simple |= bool(words("background", "simple").intersection(near))
            simple |= "out of focus" in " ".join(near)
    return "simple" if simple else "moderate"


def _holds(before: str, word: str, following: str) -> bool:
    """Not "isn't crowded"; not "busy with", "busy painting"."""
    if before in ("not", "isn't", "without", "never", "no"):
        return False
    return word != "busy" or not (following == "with" or following.endswith("ing"))
