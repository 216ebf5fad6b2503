"""Errors that a person reads: each states the fact, the limit and the way out."""

from __future__ import annotations


class ParetoscopeError(Exception):
    """Base of all errors whose message is written for the person who caused them."""

    user_facing = True


class UnknownNameError(ParetoscopeError):
    """A method, metric, model or setting of this name does not exist."""


class OutOfReachError(ParetoscopeError):
    """A budget lies outside what a method can hold."""


class SettingError(ParetoscopeError):
    """A setting has a value that its method does not take."""


class RecipeError(ParetoscopeError):
    """The stages of a recipe cannot follow each other."""


class ModelError(ParetoscopeError):
    """A model is missing, unreadable or of a kind that cannot be treated."""


class DataError(ParetoscopeError):
    """A text is empty, too short, or shared between calibration and evaluation."""


class ResourceError(ParetoscopeError):
    """Memory or disk does not suffice."""
