"""Torch that is imported when first used, so that reading the catalogue of methods is cheap."""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any


class _Later:
    def __init__(self, name: str) -> None:
        self._name = name

    def __getattr__(self, attribute: str) -> Any:
        value = getattr(importlib.import_module(self._name), attribute)
        setattr(self, attribute, value)  # asked once: methods use it for every column
        return value


if TYPE_CHECKING:
    import torch
else:
    torch = _Later("torch")

__all__ = ["torch"]
