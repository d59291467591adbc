"""Which noun phrase of a caption is what the clip is about."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

from stages.grammar import (
    DETERMINERS,
    MANY,
    NUMBERS,
    PREPOSITIONS,
    NounPhrase,
    Token,
    noun_phrase,
    words,
)

_MAX_STEPS = 24  # of looking for the subject; captions name it within their first two sentences
_LIVING = ("human", "animal")
_BARE = ("human", "animal", "vehicle")  # "and a man", but also "and cats"
_SET_IN = {"set", "takes", "taking", "filmed", "shot", "place"}
_PLACES = {"in", "at", "inside", "from", "on", "within", "outside"}
_OWNERS = {"his", "her", "its", "their"}
_LINKS = {"where", "which", "with", "featuring", "showing", "as", "in"}
_EMPTY = {"there", "we", "you", "it", "one", "i", "he", "she", "they", "can", "will", "be"}


@dataclass(frozen=True, slots=True)
class Subject:
    """The main entity: phrase, of how many things in all, and why it may not be seen whole.

    first, last: token numbers of the words that name it, with what a bowl or a statue is of;
    sentence_end: token number; hidden: "" or what hides it.
    """

    phrase: NounPhrase
    first: int
    last: int
    count: int
    sentence_end: int
    hidden: str


def find_subject(text: Sequence[Token]) -> Subject | None:
    """The first noun phrase that is neither the video, nor a view, nor a place before a comma."""
    position, hidden, place = 0, "", None
    for _ in range(_MAX_STEPS):
        position = _past_fillers(text, position)
        if position >= len(text):
            break
        adverbial = text[position].text in PREPOSITIONS
        phrase = noun_phrase(text, position + adverbial)
        if phrase is None:
            position += 1
        elif phrase.kind == "frame":
            hidden = hidden or _hiding(text, phrase)
            position = _past_frame(text, phrase)
        elif adverbial and _is_scenery(text, phrase):
            place = place or phrase
            position = _past_comma(text, phrase.after)
        elif _hides(text, phrase):
            hidden, position = hidden or phrase.noun, phrase.after + 1
        else:
            return _subject(text, phrase, hidden)
    return None if place is None else _subject(text, place, hidden)


def _past_fillers(text: Sequence[Token], position: int) -> int:
    skipped = _EMPTY | words("grammar", "adverbs") | words("grammar", "auxiliaries")
    while position < len(text):
        token = text[position]
        if token.is_word and token.text not in skipped:
            break
        position += 1
    return position


def _past_frame(text: Sequence[Token], phrase: NounPhrase) -> int:
    """From "the video" past "shows", "is a", "opens on"; past "of" of "a view of"."""
    position = phrase.after
    if position < len(text) and text[position].text in ("of", "with"):
        return position + 1
    seen_verb = False
    while position < len(text):
        token = text[position]
        if not token.is_word:
            return position + 1
        if token.text in _SET_IN:
            return _past_place(text, position + 1)
        if _starts_phrase(token.text) or (seen_verb and not _is_particle(token.text)):
            return position
        if token.text in _PLACES and not seen_verb:
            return _past_place(text, position)
        seen_verb = seen_verb or token.text not in words("grammar", "auxiliaries")
        position += 1
    return position


def _starts_phrase(word: str) -> bool:
    return word in DETERMINERS or word in NUMBERS or word in MANY


def _is_particle(word: str) -> bool:
    particles = PREPOSITIONS | words("grammar", "adverbs") | words("grammar", "auxiliaries")
    return word in particles or word in ("showing", "featuring", "who", "which", "that")


def _past_place(text: Sequence[Token], position: int) -> int:
    """Past "in a kitchen where" if something follows; else the place is what is left to see."""
    while position < len(text) and text[position].text in _PLACES | {"place"}:
        position += 1
    phrase = noun_phrase(text, position)
    if phrase is None:
        return position
    after = phrase.after
    while after < len(text) and text[after].text == ",":
        after += 1
    goes_on = after < len(text) and text[after].text in _LINKS
    if not goes_on:
        return after if phrase.kind in ("place", "frame") else position
    while after < len(text) and text[after].text in _LINKS:
        after += 1
    return after


def _is_scenery(text: Sequence[Token], phrase: NounPhrase) -> bool:
    """Whether "in a kitchen, a man ..." goes on after its place."""
    return any(token.is_word for token in text[phrase.after : _sentence_end(text, phrase.after)])


def _past_comma(text: Sequence[Token], position: int) -> int:
    """Past the comma that ends an adverbial, if the next words hold one."""
    for ahead in range(position, min(len(text), position + 12)):
        if text[ahead].text == "," or text[ahead].ends_sentence:
            return ahead + 1
    return position


def _hides(text: Sequence[Token], phrase: NounPhrase) -> bool:
    """As in "the silhouette of a man": it is about the man, who is not seen."""
    of = phrase.after < len(text) and text[phrase.after].text == "of"
    return of and phrase.noun in words("frames", "hiding")


def _hiding(text: Sequence[Token], phrase: NounPhrase) -> str:
    hiding = words("frames", "hiding")
    found = (t.text for t in text[phrase.start : phrase.after] if t.text in hiding)
    return next(found, "")


def _subject(text: Sequence[Token], phrase: NounPhrase, hidden: str) -> Subject:
    """Looks through groups and portions, into containers and pictures; counts what is joined."""
    first, inner = phrase.first, None
    if phrase.after < len(text) and text[phrase.after].text == "of":
        inner = noun_phrase(text, phrase.after + 1, sure=True)
    if inner is not None and phrase.noun in words("groups", "two") | words("groups", "three"):
        group = 2 if phrase.noun in words("groups", "two") else 3
        group = 1 if group == 2 and inner.noun in words("groups", "one") else group
        phrase, first = replace(inner, count=max(group, inner.count)), inner.first
    elif inner is not None and phrase.noun in words("groups", "portions"):
        phrase, first = inner, inner.first
    elif inner is not None and phrase.kind == "part":
        phrase = replace(phrase, whose=inner.noun)
    elif inner is not None and phrase.noun in (
        words("groups", "containers") | words("groups", "depictions")
    ):
        phrase = replace(phrase, after=inner.after, kind="object")
    end = _sentence_end(text, phrase.after)
    last = phrase.after - 1
    count = phrase.count + _joined(text, phrase, end)
    return Subject(phrase, first, last, count, end, hidden or _unseen(text, phrase, end))


def _sentence_end(text: Sequence[Token], position: int) -> int:
    while position < len(text) and not text[position].ends_sentence:
        position += 1
    return position


def _joined(text: Sequence[Token], phrase: NounPhrase, end: int) -> int:
    """How many more things stand beside the subject: "a man and a woman", "with another man"."""
    more = 0
    for position in range(phrase.after, end):
        word = text[position].text
        if word not in ("and", "another", "other", "alongside", "accompanied"):
            continue
        other = noun_phrase(text, position + 1 + (text[min(position + 1, end)].text == "by"))
        if other is None or other.after > end + 1:
            continue
        if text[position + 1].text in _OWNERS and other.kind not in _LIVING:
            continue  # "an elephant and its trunk"
        here = position == phrase.after
        alike = other.kind == phrase.kind and phrase.kind in _LIVING
        beside = here and word == "and" and other.kind not in ("part", "wearing", "place", "frame")
        marked = _starts_phrase(text[position + 1].text) or other.kind in _BARE
        if (beside and marked) or (alike and (marked or word in ("another", "other"))):
            more += other.count
    return more


def _unseen(text: Sequence[Token], phrase: NounPhrase, end: int) -> str:
    """Words of its own sentence that say it is blurred, turned away, or only hands at work."""
    after = [token.text for token in text[phrase.after : end]]
    joined = " ".join(after)
    if "background" not in after and ("out of focus" in joined or "out-of-focus" in after):
        return "out of focus"
    if "from behind" in joined:
        return "from behind"
    nameless = phrase.noun in ("person", "individual", "someone", "somebody")
    at_work = words("grammar", "handwork").intersection(after[:10])
    if nameless and phrase.count == 1 and at_work:
        return f"hands {min(at_work)}"
    return ""
