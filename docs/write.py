"""Write what the documents say of the methods, from the catalogue: `python -m docs.write`."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from backend import methods, search
from backend.measure.reading import metric
from backend.settings import describe
from docs.benchmarks.claims import kept

ROOT = Path(__file__).parents[1]
START, END = "| method | family | what it does |\n|---|---|---|\n", "\n\n[docs/methods.md]"


def methods_table() -> str:
    """The table of the README."""
    rows = [methods.describe(cls) for cls in methods.catalogue().values()]
    return "\n".join(f"| `{one['key']}` | {one['family']} | {one['summary']} |" for one in rows)


def methods_page() -> str:
    """The whole of docs/methods.md."""
    parts = [
        "# Methods\n\nGenerated from the code by `python -m docs.write`. Bits are bits held per "
        "original number, everything counted; the dense model holds 16.\n\n"
        "Beside a paper's claim stands what was measured here: its own number, the rival's at the "
        "same budget, and the 95 % interval of the difference. `yes` and `no` where the interval "
        "says so, `open` where it holds no difference. The embedded model is far smaller than the "
        "papers', and what a method spends beside its codes weighs more in narrow matrices.\n"
    ]
    parts += [_section(methods.describe(cls)) for cls in methods.catalogue().values()]
    parts.append(
        "# Allocators\n\nA recipe that ends in ` by evopress` and the like divides its budget over "
        "layers; without, every layer gets the same.\n"
    )
    parts += [_allocator(describe(cls)) for cls in search.catalogue().values()]
    return "\n".join(parts)


def readme() -> str:
    """The README with its table brought up to date."""
    text = (ROOT / "README.md").read_text()
    head, rest = text.split(START, 1)
    return head + START + methods_table() + END + rest.split(END, 1)[1]


def _section(one: dict[str, Any]) -> str:
    lines = [f"## {one['key']}", "", one["text"], ""]
    lines.append(f"- Family {one['family']}, stage {one['stage']}; needs {_needs(one)}.")
    lines.append(f"- Paper: {one['paper']}. Its claim: {one['claim']}")
    if one["limits"]:
        lines.append(f"- Limits: {one['limits']}")
    if found := [each for each in kept() if each["claim"]["method"] == one["key"]]:
        lines += ["", "| here | on | measured | against | difference | shows |"]
        lines += ["|---|---|---|---|---|---|", *map(_outcome, found)]
    return "\n".join([*lines, *_settings(one), ""])


def _allocator(one: dict[str, Any]) -> str:
    lines = [f"## {one['key']}", "", one["text"], ""]
    lines.append(f"- Paper: {one['paper']}. Its claim: {one['claim']}")
    if one["limits"]:
        lines.append(f"- Limits: {one['limits']}")
    return "\n".join([*lines, *_settings(one), ""])


def _settings(one: dict[str, Any]) -> list[str]:
    if not one["settings"]:
        return []
    head = ["", "| setting | default | range | |", "|---|---|---|---|"]
    return [*head, *(_setting(setting) for setting in one["settings"])]


def _outcome(one: dict[str, Any]) -> str:
    """A line of what was measured: own number, rival's, and the interval of the difference."""
    claim = one["claim"]
    rival = f"`{claim['rival']}`" if claim["rival"] else "the number"
    title = metric(claim["metric"]).title
    model = "embedded" if one["model"] == "default" else one["model"]
    cells = [
        f"{claim['says']} ({title})",
        f"{model}, {one['parameters'] / 1e6:.3g} M",
        f"`{claim['own']}`: {one['own']:.4g}",
        f"{rival}: {one['rival']:.4g}",
        f"[{one['low']:.3g}, {one['high']:.3g}]",
        one["shows"],
    ]
    return f"| {' | '.join(cells)} |"


def _needs(one: dict[str, Any]) -> str:
    return " and ".join(one["needs"]).replace("_", " ") or "no data"


def _setting(one: dict[str, Any]) -> str:
    if one["choices"] is not None:
        reach = ", ".join(str(choice) for choice in one["choices"])
    elif one["recipe"]:
        reach = "any recipe"
    else:
        reach = f"{one['low']:g} to {one['high']:g}"
    return f"| `{one['name']}` | {one['default']} | {reach} | {one['help']} |"


if __name__ == "__main__":
    (ROOT / "docs" / "methods.md").write_text(methods_page())
    (ROOT / "README.md").write_text(readme())
