"""Imports that transformers puts off until a model is loaded; a fork server pays for them once."""

from __future__ import annotations

import importlib

LATE = (
    "transformers.models.llama.modeling_llama",
    "transformers.tokenization_utils_tokenizers",
    "transformers.models.auto.modeling_auto",
    "transformers.models.auto.tokenization_auto",
)

for _name in LATE:
    importlib.import_module(_name)
