"""Checks settings against the types that their dataclasses declare."""

import dataclasses
import types
import typing
from collections.abc import Sequence
from typing import Any

from deeplab_tf.errors import InputError

_WORDS = {
    bool: "true or false",
    int: "a whole number",
    float: "a number",
    str: "text",
    type(None): "none",
}


class _UnfitError(Exception):
    """A value is of none of the types asked for."""


def check_types(record: Any) -> None:
    """Brings the fields of a frozen dataclass to their declared types.

    Whole numbers become floats and lists become tuples where those are declared.

    Raises:
        InputError: a value is of another type; names the field.
    """
    hints = typing.get_type_hints(type(record))
    for field in dataclasses.fields(record):
        value = fitted(getattr(record, field.name), hints[field.name], field.name)
        object.__setattr__(record, field.name, value)


def fitted(value: Any, hint: Any, name: str) -> Any:
    """The value in the declared type.

    Args:
        value: as given.
        hint: a type hint of numbers, text, tuples, dicts, dataclasses and unions of them.
        name: of the setting, for the message.

    Raises:
        InputError: it doesn't fit; says what would.
    """
    try:
        return _fit(value, hint)
    except _UnfitError:
        raise InputError(f"{name} is {in_words(hint)}; got {value!r}.") from None


def in_words(hint: Any) -> str:
    """A type hint for people: "a list of numbers, or none"."""
    arguments = typing.get_args(hint)
    if _is_union(hint):
        return ", or ".join(in_words(part) for part in arguments)
    if typing.get_origin(hint) is tuple:
        items = [in_words(part).removeprefix("a ") for part in arguments if part is not ...]
        if ... in arguments:
            return f"a list of {items[0]}s"
        return f"[{', '.join(items)}]"
    return _WORDS.get(hint, f"of type {getattr(hint, '__name__', hint)}")


def _is_union(hint: Any) -> bool:
    return typing.get_origin(hint) in (typing.Union, types.UnionType)


def _fit(value: Any, hint: Any) -> Any:
    origin, arguments = typing.get_origin(hint), typing.get_args(hint)
    if hint is Any:
        return value
    if _is_union(hint):
        for part in arguments:
            try:
                return _fit(value, part)
            except _UnfitError:
                continue
        raise _UnfitError
    if origin is tuple:
        return _fit_tuple(value, arguments)
    if hint is float and isinstance(value, int) and not isinstance(value, bool):
        return float(value)
    # 1e3 is a float to Python, and a good number of steps.
    if hint is int and isinstance(value, float) and value.is_integer():
        return int(value)
    if isinstance(value, bool) and hint is not bool:
        raise _UnfitError
    if not isinstance(value, origin or hint):
        raise _UnfitError
    return value


def _fit_tuple(value: Any, parts: tuple) -> tuple:
    if not isinstance(value, list | tuple):
        raise _UnfitError
    if ... in parts:
        parts = (parts[0],) * len(value)
    if len(parts) != len(value):
        raise _UnfitError
    return tuple(_fit(item, part) for item, part in zip(value, parts, strict=True))


def listed(names: Sequence[str], most: int = 5) -> str:
    """The first of them, with commas between."""
    return ", ".join(names[:most]) + (", …" if len(names) > most else "")
