"""Holds embedding and head in a format, once where they are tied."""

from __future__ import annotations

from typing import TYPE_CHECKING

from torch import nn

if TYPE_CHECKING:
    from backend.methods.base import TableMethod
    from backend.models.view import View


def hold_tables(view: View, method: TableMethod) -> list[str]:
    """Hold the tables of tokens by a method; what stays as it is, in words."""
    embedding, head = view.embedding, view.head
    if not isinstance(embedding, nn.Embedding):
        return ["The tables of tokens are held already; they stayed as they were."]
    weight = embedding.weight
    tied = head is not None and head.weight is weight
    view.hold_embedding(method.hold(weight.detach().float()))
    if tied or head is None:
        return []
    if not isinstance(head, nn.Linear):
        return [f"The head is a {type(head).__name__}; it stayed as it was."]
    view.hold_head(method.hold(head.weight.detach().float()))
    return []
