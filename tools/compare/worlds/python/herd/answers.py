"""The second part of a WHATSAT's answer: Google's own text, cut to the bound, or an error in
Google's format.

Google's layout varies, so its text is never written anew. `raw_decode` finds the end of each value,
and results beyond the bound are cut out of the text.
"""

import json
import re
from typing import NoReturn

_space = re.compile(r"[ \t\n\r]*").match
_newlines = re.compile(r"(\r\n|[\r\n])[\r\n]*").sub


class NotJson(ValueError):
    """The text is not a JSON object."""


def _refuse(constant: str) -> NoReturn:
    # Python accepts NaN and Infinity, but they are not JSON.
    raise ValueError(constant)


_value_at = json.JSONDecoder(parse_constant=_refuse).raw_decode


def cut(text: str, bound: int) -> str:
    """Google's answer with at most `bound` results, no blank line, and no newline at either end."""
    try:
        surplus = list(_surplus(text, bound))
    except (ValueError, RecursionError) as why:
        raise NotJson from why
    kept = []
    start = 0
    for cut_from, cut_to in surplus:
        kept.append(text[start:cut_from])
        start = cut_to
    kept.append(text[start:])
    return _newlines(r"\1", "".join(kept)).strip("\r\n")


def error(message: str) -> str:
    """The server's own error, if Google gives no answer."""
    quoted = json.dumps(message, ensure_ascii=False)
    return f'{{"html_attributions" : [], "results" : [], "status" : "UNKNOWN_ERROR", "error_message" : {quoted}}}'


def _surplus(text: str, bound: int) -> list[tuple[int, int]]:
    """The ranges of the results beyond the bound, with the comma before them. It reads and so
    checks the whole text.
    """
    found = []
    at = _expect(text, _skip(text, 0), "{")
    is_first = True
    while not text.startswith("}", at):
        if not is_first:
            at = _expect(text, at, ",")
        is_first = False
        key, at = _value_at(text, at)
        if not isinstance(key, str):
            raise ValueError("a key that is no string")
        at = _expect(text, _skip(text, at), ":")
        if key == "results" and text.startswith("[", at):
            ends, at = _elements(text, at)
            if len(ends) > bound:
                found.append((ends[bound - 1], ends[-1]))
        else:
            _, at = _value_at(text, at)
        at = _skip(text, at)
    if _skip(text, at + 1) != len(text):
        raise ValueError("more than one value")
    return found


def _elements(text: str, at: int) -> tuple[list[int], int]:
    """The end of each element of the list at `at`, and the end of the list."""
    ends: list[int] = []
    at = _expect(text, at, "[")
    while not text.startswith("]", at):
        if ends:
            at = _expect(text, at, ",")
        _, at = _value_at(text, at)
        ends.append(at)
        at = _skip(text, at)
    return ends, at + 1


def _skip(text: str, at: int) -> int:
    """The end of the white space at `at`."""
    found = _space(text, at)
    return found.end() if found else at


def _expect(text: str, at: int, mark: str) -> int:
    """The beginning of the text after the mark and white space."""
    if not text.startswith(mark, at):
        raise ValueError(f"{mark} expected at {at}")
    return _skip(text, at + 1)
