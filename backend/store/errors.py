"""What can go wrong with stored things, as a tree: every message is a sentence for a person."""

from __future__ import annotations


class StoreError(Exception):
    """Something about stored results; the message may be shown as it is."""

    user_facing = True


class HomeBusyError(StoreError):
    """Another process owns this home folder."""


class NewerSchemaError(StoreError):
    """The database was written by a newer version of the program."""


class ResultRefusedError(StoreError):
    """A result document breaks its contract."""
