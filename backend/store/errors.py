"""What can go wrong with stored things, as a tree: every message is a sentence for a person."""

from __future__ import annotations

from backend.errors import ParetoscopeError


class StoreError(ParetoscopeError):
    """Something about stored results; the message may be shown as it is."""


class UnwritableError(StoreError):
    """The home folder cannot be written."""


class HomeBusyError(StoreError):
    """Another process owns this home folder."""


class NewerSchemaError(StoreError):
    """The database was written by a newer version of the program."""


class ResultRefusedError(StoreError):
    """A result document breaks its contract."""
