"""Sound result documents for tests, small and complete."""

from __future__ import annotations

from typing import Any


def reading(name: str, value: float | None, direction: str = "lower", **other: Any) -> dict:
    entry = {
        "name": name,
        "value": value,
        "low": None if value is None else value - 1,
        "high": None if value is None else value + 1,
        "unit": "nats",
        "direction": direction,
        "kind": "measured",
        "samples": 3,
        "note": "",
    }
    return entry | other


def document(run_id: str, readings: list[dict] | None = None, **other: Any) -> dict[str, Any]:
    """A sound result; `other` replaces whole fields, `hardware_id` reaches into the manifest."""
    hardware = other.pop("hardware_id", "aaaa")
    return {
        "schema": 1,
        "run_id": run_id,
        "status": "done",
        "created": "2026-05-01T10:00:00+00:00",
        "protocol": "cq-2",
        "model": {
            "name": "tales",
            "source": "embedded",
            "revision": "1",
            "sha256": "00",
            "parameters": 1000,
        },
        "recipe": "gptq@4",
        "stages": [{"method": "gptq", "family": "quantise", "settings": {"bits": 4}}],
        "family": "quantise",
        "budget": {"bits": 4.0},
        "seconds": 2.5,
        "readings": [reading("kld", 0.5), reading("bytes", 1000)] if readings is None else readings,
        "generations": [
            {
                "prompt": "Once",
                "text": " upon <b>a</b> time",
                "tokens": [1, 2, 3],
                "first_divergence": 2,
                "gap": 0.25,
                "seconds": 0.1,
            },
            {
                "prompt": "Ünlike",
                "text": "",
                "tokens": [],
                "first_divergence": None,
                "gap": None,
            },
        ],
        "layers": [
            {
                "name": "layers.0.q",
                "role": "query",
                "format": "int",
                "bits": 4.5,
                "bytes": 512,
                "parts": {"codes": 500, "scales": 12},
            }
        ],
        "notes": ["one layer was left dense"],
        "artefact": {"key": "k", "bytes": 1000, "files": ["model.safetensors"]},
        "manifest": {
            "hardware": {"cpu": "two cores"},
            "software": {"torch": "2"},
            "keys": {"artefact": "a", "quality": "b", "speed": "c"},
            "hardware_id": hardware,
        },
    } | other
