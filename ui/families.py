"""How each family of methods is drawn; knows no numbers."""

from __future__ import annotations

# Colour and symbol together tell a family, so that neither is needed alone.
FAMILIES: dict[str, tuple[str, str]] = {
    "quantise": ("#4f6bed", "circle"),
    "prune": ("#d9480f", "triangle-up"),
    "factorise": ("#0b9384", "square"),
    "structure": ("#b5179e", "pentagon"),
    "cache": ("#b7860b", "star"),
    "decode": ("#2f9e44", "cross"),
    "mixed": ("#8a5cf6", "hexagram"),
    "dense": ("#64748b", "diamond"),
    "attend": ("#0c8ec4", "triangle-down"),
    "encode": ("#a8572a", "bowtie"),
    "rotate": ("#c2255c", "triangle-left"),
    "distil": ("#66801a", "triangle-right"),
}
_SPARE = ("#4c6e8a", "hexagon")


def mark(family: str) -> tuple[str, str]:
    """Colour and symbol of a family."""
    return FAMILIES.get(family, _SPARE)
