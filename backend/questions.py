"""Which questions an artefact is asked; those of the embedded world only of its own model."""

from __future__ import annotations

from collections.abc import Sequence

from backend.measure import abilities
from data.texts import abilities as embedded_abilities

COUNTS = {"smoke": 16, "quick": 64, "full": 256}  # questions to each ability


def items(
    documents: Sequence[tuple[str, str, str]], tier: str, *, embedded: bool
) -> list[abilities.Item]:
    """The questions of a tier.

    Args:
        documents: held-out text, of which every model is asked how it goes on.
        tier: how many: smoke, quick or full.
        embedded: whether the model is the embedded one, which knows the embedded world.
    """
    asked: dict[str, list[abilities.Item]] = {}
    for one in embedded_abilities() if embedded else ():
        wrong = (one.alternative,) if one.alternative else ()
        item = abilities.Item(one.ability, one.prompt, one.answer, wrong)
        asked.setdefault(one.ability, []).append(item)
    chosen = [item for items in asked.values() for item in items[: COUNTS[tier]]]
    return chosen + abilities.choice_items(documents, COUNTS[tier])
