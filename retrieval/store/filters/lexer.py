"""Filter text to tokens."""

from __future__ import annotations

import re
from dataclasses import dataclass

from retrieval.store.filters.expression import problem

MAX_LENGTH = 100_000
KEYWORDS = frozenset(
    ["and", "between", "false", "has", "in", "is", "like", "not", "null", "or", "true"]
)
_TOKEN = re.compile(
    r"""(?P<space>\s+)
      | (?P<text>'(?:[^']|'')*')
      | (?P<quoted>"(?:[^"]|"")+")
      | (?P<number>[+-]?(?:[0-9]+(?:\.[0-9]*)?|\.[0-9]+)(?:[eE][+-]?[0-9]+)?(?!\w))
      | (?P<name>[^\W\d]\w*)
      | (?P<operator><=|>=|<>|!=|=(?!=)|<|>)
      | (?P<mark>[(),.])""",
    re.VERBOSE,
)
_HINTS = {
    "'": "a text that is not closed",
    '"': "a quoted column that is not closed or empty",
    "‘": "a typographic quote; write '",
    "’": "a typographic quote; write '",
    "“": "a typographic quote; write ' around text",
    "”": "a typographic quote; write ' around text",
    "=": "'=='; write =",
    "`": 'a backtick; write " around a column with an odd name',
    ";": "';': a filter is one condition, not a statement",
    "*": "'*': there is no arithmetic",
    "-": "'-': comments and arithmetic are not part of a filter",
    "/": "'/': comments and arithmetic are not part of a filter",
}


@dataclass(frozen=True, slots=True)
class Token:
    """One word of a filter.

    Attributes:
        kind: ``text``, ``number``, ``name``, ``keyword``, ``operator``, ``mark`` or ``end``.
        value: the word; without its quotes; a keyword in lower case.
        at: where it begins in the filter.
    """

    kind: str
    value: str
    at: int


def tokens(text: str) -> list[Token]:
    """The words of ``text``, and an ``end``.

    Raises:
        FilterError: for text that is too long, or a character that begins no word.
    """
    if len(text) > MAX_LENGTH:
        raise problem(f"the filter is longer than {MAX_LENGTH:,} characters", "", 0)
    found, at = [], 0
    while at < len(text):
        match = _TOKEN.match(text, at)
        if match is None:
            what = _HINTS.get(text[at], repr(text[at]))
            raise problem(f"the filter has {what}", text, at)
        if match.lastgroup != "space":
            found.append(_token(str(match.lastgroup), match.group(), at))
            _check_characters(found[-1].value, text, at)
        at = match.end()
    return [*found, Token("end", "", len(text))]


def _token(kind: str, word: str, at: int) -> Token:
    if kind == "text":
        return Token(kind, word[1:-1].replace("''", "'"), at)
    if kind == "quoted":
        return Token("name", word[1:-1].replace('""', '"'), at)
    if kind == "name" and word.lower() in KEYWORDS:
        return Token("keyword", word.lower(), at)
    return Token(kind, word, at)


def _check_characters(word: str, text: str, at: int) -> None:
    if "\0" in word:
        raise problem("the filter has a NUL character", text, at)
    try:
        word.encode()
    except UnicodeEncodeError as error:
        raise problem("the filter has half a character (a lone surrogate)", "", 0) from error
