"""What is chosen by name and turned by settings: methods and allocators; knows neither.

A frozen dataclass in a file of its own: its key is the file's name, its summary the first line
of its docstring, its settings the fields made with `setting`. The form on the page, the command
line, the tables and the tests derive from that.
"""

from __future__ import annotations

import dataclasses
import difflib
import inspect
import math
from collections.abc import Iterator
from dataclasses import dataclass, fields
from types import ModuleType
from typing import Any, ClassVar, Self, TypeVar

from backend.errors import SettingError

LONGEST_RECIPE = 500  # letters
Chosen = TypeVar("Chosen")


def setting(
    default: Any,
    help: str,
    *,
    low: float | None = None,
    high: float | None = None,
    choices: tuple[Any, ...] | None = None,
    recipe: bool = False,
) -> Any:
    """A field: default, one line of help, and a range or a list of positions.

    With `recipe` it is the short form of a recipe, which `backend.recipes` checks.
    """
    about = {"help": help, "low": low, "high": high, "choices": choices, "recipe": recipe}
    return dataclasses.field(default=default, metadata=about)


@dataclass(frozen=True)
class Configured:
    """Settings that are checked when made, and what documents say of them."""

    version: ClassVar[int] = 1
    paper: ClassVar[str] = ""
    claim: ClassVar[str] = ""
    limits: ClassVar[str] = ""

    def __post_init__(self) -> None:
        for field in fields(self):
            value = self._checked(field, getattr(self, field.name))
            object.__setattr__(self, field.name, value)

    @classmethod
    def key(cls) -> str:
        """Name of the method: that of its file."""
        return cls.__module__.rsplit(".", 1)[1].replace("_", "-")

    @classmethod
    def summary(cls) -> str:
        """First line of the docstring."""
        return (cls.__doc__ or "").strip().splitlines()[0]

    @classmethod
    def make(cls, settings: dict[str, Any]) -> Self:
        """One with these settings, and defaults for the others.

        Raises:
            SettingError: unknown name or value out of range.
        """
        known = [field.name for field in fields(cls)]
        for name in settings:
            if name not in known:
                near = difflib.get_close_matches(name, known, n=1) or sorted(known)
                raise SettingError(
                    f"{cls.key()} has no setting {name!r}. Did you mean {', '.join(near)}?"
                    if near
                    else f"{cls.key()} has no settings."
                )
        return cls(**settings)

    def settings(self) -> dict[str, Any]:
        """Values of the fields."""
        return {field.name: getattr(self, field.name) for field in fields(self)}

    @classmethod
    def _checked(cls, field: dataclasses.Field[Any], value: Any) -> Any:
        """A value in the type of the field's default, so that 4 and 4.0 are the same recipe."""
        about, kind = field.metadata, type(field.default)
        choices, low, high = about["choices"], about["low"], about["high"]
        place = f"{cls.key()}: {field.name}"
        number = isinstance(value, int | float) and not isinstance(value, bool)
        if kind in (int, float) and number and math.isfinite(value) and kind(value) == value:
            value = kind(value)
        if about["recipe"]:
            if type(value) is not str or len(value) > LONGEST_RECIPE:
                raise SettingError(f"{place} is a recipe such as {field.default}; not {value}.")
        elif choices is not None:
            if type(value) is not kind or value not in choices:
                allowed = ", ".join(str(choice) for choice in choices)
                raise SettingError(f"{place} is one of {allowed}; not {value}.")
        elif type(value) is not kind or not low <= value <= high:
            whole = "is a whole number in" if kind is int else "lies in"
            raise SettingError(f"{place} {whole} {low:g} to {high:g}; not {value}.")
        return value


def concrete(module: ModuleType, kind: type[Chosen]) -> Iterator[type[Chosen]]:
    """The classes of a kind that a module itself defines, abstract ones left out."""
    for value in vars(module).values():
        own = isinstance(value, type) and value.__module__ == module.__name__
        if own and issubclass(value, kind) and not inspect.isabstract(value):
            yield value


def describe(cls: type[Configured]) -> dict[str, Any]:
    """All that the page, the command line and the documents say about any of them."""
    return {
        "key": cls.key(),
        "summary": cls.summary(),
        "text": inspect.cleandoc(cls.__doc__ or ""),
        "paper": cls.paper,
        "claim": cls.claim,
        "limits": cls.limits,
        "version": cls.version,
        "settings": [_describe_field(field) for field in dataclasses.fields(cls)],
    }


def _describe_field(field: Any) -> dict[str, Any]:
    about = dict(field.metadata)
    choices = about.get("choices")
    about["choices"] = None if choices is None else list(choices)
    return {"name": field.name, "default": field.default, **about}
