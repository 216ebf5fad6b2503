"""A small home full of results for tests of the page: a frontier, ties, a broken run, payloads."""

from __future__ import annotations

import io
import json
import zipfile
from pathlib import Path
from typing import Any

from backend.store.store import Store
from tests.result_documents import document, reading

PAYLOADS = (
    '<img src=x onerror="window.pwned=1">',
    "<script>window.pwned=1</script>",
    "${window.pwned=1}",
    "{{constructor.constructor('window.pwned=1')()}}",
    '"><svg onload=window.pwned=1>',
    "<a href='javascript:window.pwned=1'>x</a>",
    "$\\href{javascript:window.pwned=1}{x}$",
    "\u202eevil\u0007",
    "<iframe srcdoc='<script>parent.pwned=1</script>'></iframe>",
    "<details open ontoggle=window.pwned=1><summary>x</summary></details>",
    "<math><a xlink:href='javascript:window.pwned=1'>x</a></math>",
    "[x](javascript:window.pwned=1)",
)
DENSE, SMALL, MIDDLE, BEATEN, BROKEN, HOSTILE = (f"{n:016x}" for n in range(0xA1, 0xA7))
TEXT = " she walked home and slept well."
SOUND = {"format": 1, "shares": []}
RUNS = (
    (DENSE, "dense", "dense", 1_700_000, 0.0, 1.0),
    (SMALL, "gptq@3", "quantise", 700_000, 0.2, 0.8),
    (MIDDLE, "gptq@4", "quantise", 820_000, 0.02, 0.9),
    (BEATEN, "svd@8", "factorise", 1_100_000, 1.5, 1.1),
)


def readings(size: float, distance: float, speed: float) -> list[dict[str, Any]]:
    spread = {"low": distance * 0.8, "high": distance * 1.2}
    counted = {"unit": "B", "kind": "counted", "low": None, "high": None}
    return [
        reading("resident_bytes", size, **counted),
        reading("footprint_bytes", size + 4_000_000, **counted),
        reading("kld_mean", distance, unit="nats/token", **spread),
        reading("top1_agree", 100 - 10 * distance, "higher", unit="%"),
        reading("decode_speedup", speed, "higher", unit="×", low=None, high=None),
        reading("kld_floor", 0.0001, "none", unit="nats/token"),
        reading("ability_copy", 80.0, "higher", unit="%", low=70.0, high=88.0),
    ]


def writing(text: str, dense: str = TEXT, prompt: str = "Once upon a time,") -> list[dict]:
    parted = None if text == dense else 3
    return [
        {
            "prompt": name,
            "prompt_text": prompt,
            "text": text,
            "tokens": [1, 2, 3, 4],
            "dense_text": dense,
            "dense_tokens": [1, 2, 3, 5],
            "first_divergence": parted,
            "gap": None if parted is None else 0.25,
        }
        for name in ("a tale", "another")
    ]


def result(run_id: str, recipe: str, family: str, values: tuple, **other: Any) -> dict[str, Any]:
    stage = {"method": recipe.split("@")[0], "family": family, "settings": {"bits": 4.0}}
    given = {
        "model": {"name": "default", "parameters": 850_000},
        "recipe": recipe,
        "family": family,
        "stages": [stage],
        "readings": readings(*values),
        "generations": writing(TEXT if recipe == "dense" else " she walked away and slept ill."),
        "notes": [],
    }
    return document(run_id, **(given | other))


def hostile(payload: str) -> dict[str, Any]:
    """A result that carries a payload wherever text of unknown origin can stand."""
    found = result(
        HOSTILE,
        f"gptq@2 {payload}",
        "quantise",
        (600_000, 0.9, 0.7),
        model={"name": f"model {payload}"},
        generations=writing(f" so {payload} it went", f" so {payload} it was", payload),
        notes=[payload],
        layers=[{"name": payload, "role": payload, "format": payload, "bits": 2.0, "bytes": 9,
                 "parts": {payload: 9}}],
    )  # fmt: skip
    found["readings"][0]["note"] = payload
    found["readings"].append(reading(f"ability_{payload}"[:200], 1.0, "higher", unit=payload))
    found["manifest"]["hardware"] = {"cpu": payload, "cores": 2}
    found["manifest"]["software"] = {"commit": payload}
    return found


def fill(home: Path, payload: str = "") -> Path:
    """A home with the results of `RUNS`, a broken one, and a hostile one on request."""
    with Store(home) as store:
        for run_id, recipe, family, *values in RUNS:
            store.results.add(result(run_id, recipe, family, tuple(values)))
        broken = result(BROKEN, "rtn@2", "quantise", (650_000, 5.0, 0.5), status="broken")
        store.results.add(broken)
        if payload:
            store.results.add(hostile(payload))
    return home


def packed(*documents, manifest=SOUND, **more):
    """A zip as an export makes it."""
    body = io.BytesIO()
    with zipfile.ZipFile(body, "w", zipfile.ZIP_DEFLATED) as file:
        file.writestr("manifest.json", json.dumps(manifest))
        for one in documents:
            file.writestr(f"results/{one['run_id']}.json", json.dumps(one))
        for name, text in more.items():
            file.writestr(f"results/{name}.json", text)
    return body.getvalue()
