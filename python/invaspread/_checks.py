"""Checks of arguments, with errors that name the argument, what was found and what was expected."""

from __future__ import annotations

import math
import operator
import reprlib
from typing import Any

import numpy as np


def kind(value: Any) -> str:
    """Returns what a value is: `str 'a'`, `list of list of float`, `ndarray`."""
    if isinstance(value, (list, tuple)):
        name = type(value).__name__
        if not value:
            return f"an empty {name}"
        kinds = sorted({type(one).__name__ for one in value})
        return f"{name} of {kind(value[0]) if kinds in (['list'], ['tuple']) else ' and '.join(kinds)}"
    if value is None:
        return "None"
    if isinstance(value, (str, bytes, bool, int, float)):
        return f"{type(value).__name__} {reprlib.repr(value)}"
    return type(value).__name__


def wrong_type(name: str, value: Any, expected: str) -> TypeError:
    """Returns the error of an argument of another type."""
    return TypeError(f"{name}: found {kind(value)}, expected {expected}")


def flag(value: Any, name: str) -> bool:
    """Returns True or False."""
    if not isinstance(value, (bool, np.bool_)):
        raise wrong_type(name, value, "True or False")
    return bool(value)


def whole(value: Any, name: str, least: int = 0, most: int = 2**63) -> int:
    """Returns a whole number from `least` on and below `most`."""
    try:
        if isinstance(value, (bool, np.bool_)):
            raise TypeError
        number = operator.index(value)
    except TypeError:
        raise wrong_type(name, value, "a whole number") from None
    if not least <= number < most:
        raise ValueError(f"{name}: found {number}, expected at least {least} and below {most}")
    return number


def number(value: Any, name: str) -> float:
    """Returns a finite number."""
    if isinstance(value, (str, bytes, bool, np.bool_)):
        raise wrong_type(name, value, "a number")
    try:
        found = float(value)
    except (TypeError, ValueError):
        raise wrong_type(name, value, "a number") from None
    if not math.isfinite(found):
        raise ValueError(f"{name}: found {'NaN' if math.isnan(found) else 'an infinity'}, expected a finite number")
    return found


def numbers(values: Any, name: str, count: int | None = None) -> list[float]:
    """Returns finite numbers, `count` of them if that is given."""
    expected = "numbers in a list or a tuple" if count is None else f"{count} numbers in a list or a tuple"
    if isinstance(values, (str, bytes, dict)):
        raise wrong_type(name, values, expected)
    try:
        found = list(values)
    except TypeError:
        raise wrong_type(name, values, expected) from None
    if count is not None and len(found) != count:
        raise ValueError(f"{name}: found {len(found)} numbers, expected {count}")
    return [number(one, name) for one in found]


def word(value: Any, name: str, expected: str = "a word") -> str:
    """Returns a word."""
    if not isinstance(value, str):
        raise wrong_type(name, value, expected)
    return value


def as_array(value: Any, name: str, expected: str) -> np.ndarray:
    """Returns what numpy makes of a value, all of whose elements must be there."""
    if np.ma.is_masked(value):
        raise ValueError(f"{name}: found masked values, expected none; use .filled() or leave the rows out")
    try:
        return np.asarray(value)
    except (TypeError, ValueError, RuntimeError) as error:
        of_type = TypeError if isinstance(error, TypeError) else ValueError
        found = f"{kind(value)}, of which numpy makes no array ({error})"
        raise of_type(f"{name}: found {found}; expected {expected}") from error
