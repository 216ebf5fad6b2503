"""A compressed model on disk: safetensors, the recipe, and what rebuilds the modules.

Everything needed to run it lies in its folder; nothing of the original is read again.
"""

from __future__ import annotations

import contextlib
import json
import math
import shutil
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file, save_file
from torch import nn
from transformers import (
    AutoModelForCausalLM,
    AutoTokenizer,
    GenerationConfig,
    initialization,
)

from backend.errors import ModelError
from backend.faults import fault_point
from backend.formats import Dense, HeldEmbedding, HeldLinear, from_header
from backend.methods import find
from backend.models.load import LoadedModel, attention, read_config
from backend.models.place import PROCESSOR, put
from backend.models.placed import PlacedLinear
from backend.models.precision import recast
from backend.models.view import View
from backend.recipes import Recipe
from backend.sources import ModelSource

DRAFT = "draft"  # folder of the second model beside an artefact, an artefact itself
SHARD = 2 << 30  # bytes
SMALL = 8  # of a matrix: more numbers than one in so many are no scales
TABLES = "cache.safetensors"  # what a cache method found of the model
SIDE_FILES = (
    "config.json",
    "generation_config.json",
    "tokenizer.json",
    "tokenizer_config.json",
    "tokenizer.model",
    "special_tokens_map.json",
    "vocab.json",
    "merges.txt",
    "chat_template.jinja",
)


@dataclass(frozen=True)
class Artefact:
    """A compressed model, loaded again."""

    loaded: LoadedModel
    view: View
    recipe: Recipe
    folder: Path
    tables: dict[str, torch.Tensor]


def save(
    view: View,
    loaded: LoadedModel,
    recipe: Recipe,
    structure: list[dict[str, Any]],
    folder: Path,
    *,
    tables: dict[str, torch.Tensor] | None = None,
) -> None:
    """Write a model as it is now; the folder appears whole or not at all.

    Args:
        view: the model, its layers held in formats.
        loaded: where its tokenizer and configuration came from.
        recipe: what was done to it.
        structure: records of the methods that changed its shape, in order.
        folder: must not exist.
        tables: what its cache must know of the model, by name.
    """
    partial = folder.with_name(f"{folder.name}.partial")
    shutil.rmtree(partial, ignore_errors=True)
    partial.mkdir(parents=True)
    tensors, tied = unique_tensors(view.model)
    shards = _write_shards(tensors, partial)
    held = {
        name: _describe(module)
        for name, module in view.model.named_modules()
        if isinstance(module, HeldLinear | HeldEmbedding)
    }
    dtype = str(next(view.model.parameters()).dtype).removeprefix("torch.")
    record = {
        "recipe": recipe.to_json(),
        "structure": structure,
        "held": held,
        "tied": tied,
        "dtype": dtype,
        "shards": shards,
        "tables": bool(tables),
    }
    if tables:
        save_file({name: one.contiguous().cpu() for name, one in tables.items()}, partial / TABLES)
    (partial / "recipe.json").write_text(json.dumps(record))
    for name in SIDE_FILES:
        if (loaded.folder / name).is_file():
            shutil.copy(loaded.folder / name, partial / name)
    fault_point("artefact.write")
    partial.rename(folder)


def load(
    folder: Path,
    *,
    packed: bool = True,
    dtype: torch.dtype | None = None,
    device: torch.device = PROCESSOR,
) -> Artefact:
    """Load an artefact, ready to run.

    Args:
        folder: as written by `save`.
        packed: bring weights into the layout of the fastest product here.
        dtype: of what is not held in a format; None as it was saved.
        device: where it is to run.

    Raises:
        ModelError: a file is missing or does not fit the others.
    """
    try:
        record = json.loads((folder / "recipe.json").read_text())
        tensors: dict[str, torch.Tensor] = {}
        for shard in record["shards"]:
            tensors |= load_file(folder / shard)
        tables = load_file(folder / TABLES) if record.get("tables") else {}
    except (OSError, ValueError, KeyError, TypeError, SafetensorError) as error:
        raise ModelError(f"{folder} is no artefact that can be read: {error}") from error
    recipe = Recipe.from_json(record["recipe"])
    model = skeleton(folder, getattr(torch, record["dtype"]))
    view = View(model)
    for step in record["structure"]:
        find(step["method"]).rebuild(view, step)
    places = dict(model.named_modules())
    for name, entry in record["held"].items():
        held = _empty(entry)
        _check_shape(places.get(name), held, f"{folder.name} is damaged at {name}")
        view.replace(name, held)
    _assign(view, tensors, record["tied"], folder)
    _check(model, folder)
    if dtype is not None:
        recast(model, dtype)
    put(model, device)
    if packed:
        for module in model.modules():
            if isinstance(module, HeldLinear):
                module.held = module.held.packed()
    model.eval().requires_grad_(requires_grad=False)
    tokenizer = AutoTokenizer.from_pretrained(folder, trust_remote_code=False)
    source = ModelSource(folder.name, folder)
    parameters = sum(parameter.numel() for parameter in model.parameters())
    loaded = LoadedModel(model, tokenizer, source, folder, parameters)
    return Artefact(loaded, view, recipe, folder, tables)


def _check(model: nn.Module, folder: Path) -> None:
    for name, module in model.named_modules():
        if isinstance(module, HeldLinear | HeldEmbedding | PlacedLinear):
            try:
                (module if isinstance(module, PlacedLinear) else module.held).check()
            except ValueError as error:
                raise ModelError(
                    f"{folder.name} is damaged at {name}: {error} Compress the model again."
                ) from error
        if isinstance(module, HeldLinear | HeldEmbedding):
            _check_finite(name, module, folder)


def _check_finite(name: str, module: HeldLinear | HeldEmbedding, folder: Path) -> None:
    """Refuse scales and codebooks that are no numbers, which products of integers would hide.

    Large dense matrices are left out, for reading them takes long and products show what they hold.
    """
    least = math.prod(module.held.shape) // SMALL
    for inner, owner in module.held.named_modules(prefix=f"{name}.held"):
        for part, buffer in owner.named_buffers(recurse=False):
            large = isinstance(owner, Dense) and buffer.numel() > least
            if buffer.is_floating_point() and not large and not buffer.float().isfinite().all():
                raise ModelError(
                    f"{folder.name} is damaged at {inner}.{part}: not all that it holds are finite "
                    "numbers. Compress the model again."
                )


def _check_shape(place: nn.Module | None, module: HeldLinear | HeldEmbedding, what: str) -> None:
    """Refuse what is smaller or larger than its place in a model: steps read it as that large."""
    if not isinstance(place, nn.Linear | nn.Embedding):
        return
    wanted = tuple(place.weight.shape)
    if module.held.shape != wanted:
        raise ModelError(
            f"{what}: {module.held.shape} numbers are held where {wanted} are needed. Compress the "
            "model again."
        )


def _describe(module: HeldLinear | HeldEmbedding) -> dict[str, Any]:
    entry: dict[str, Any] = {"header": module.held.header()}
    if isinstance(module, HeldEmbedding):
        dtype = str(module.dtype).removeprefix("torch.")
        return entry | {"embedding": {"dtype": dtype, "scale": module.scale}}
    return entry | {"bias": module.bias is not None}


def _empty(entry: dict[str, Any]) -> HeldLinear | HeldEmbedding:
    held = from_header(entry["header"])
    if about := entry.get("embedding"):
        return HeldEmbedding(held, getattr(torch, about["dtype"]), about["scale"])
    return HeldLinear(held, torch.empty(entry["header"]["rows"]) if entry["bias"] else None)


def skeleton(folder: Path, dtype: torch.dtype) -> nn.Module:
    """The dense model of a folder's configuration, its parameters without memory."""
    config = read_config(folder)
    with _parameters_on_meta(), initialization.no_init_weights():
        model = AutoModelForCausalLM.from_config(
            config, dtype=dtype, attn_implementation=attention(config), trust_remote_code=False
        )
    model.tie_weights()  # which goes with drawing numbers that nobody would read
    if (folder / "generation_config.json").is_file():
        model.generation_config = GenerationConfig.from_pretrained(folder)
    return model


def unique_tensors(model: nn.Module) -> tuple[dict[str, torch.Tensor], dict[str, str]]:
    """Tensors of a model, each storage once, and the names of those that share another's."""
    unique: dict[str, torch.Tensor] = {}
    tied: dict[str, str] = {}
    homes: dict[tuple[int, tuple[int, ...]], str] = {}
    for name, tensor in model.state_dict().items():
        key = tensor.data_ptr(), tuple(tensor.shape)
        if tensor.numel() and key in homes:
            tied[name] = homes[key]
        else:
            homes[key] = name
            unique[name] = tensor.contiguous().cpu()
    return unique, tied


@contextlib.contextmanager
def _parameters_on_meta() -> Iterator[None]:
    """Parameters made inside take no memory; buffers, which are computed, stay real."""
    register = nn.Module.register_parameter

    def on_meta(module: nn.Module, name: str, parameter: nn.Parameter | None) -> None:
        register(module, name, parameter)
        if parameter is not None:
            module._parameters[name] = nn.Parameter(parameter.to("meta"), requires_grad=False)

    nn.Module.register_parameter = on_meta
    try:
        yield
    finally:
        nn.Module.register_parameter = register


def _assign(
    view: View, tensors: dict[str, torch.Tensor], tied: dict[str, str], folder: Path
) -> None:
    whole = tensors | {name: tensors[home] for name, home in tied.items()}
    types = {name: buffer.dtype for name, buffer in _held(view.model)}
    try:
        view.model.load_state_dict(whole, strict=True, assign=True)
    except RuntimeError as error:
        raise ModelError(f"{folder} does not hold what its recipe needs: {error}") from error
    for name, buffer in _held(view.model):  # whose bytes products read as they are meant to be
        if buffer.dtype != types[name]:
            raise ModelError(
                f"{folder.name} is damaged at {name}: {buffer.dtype} lies where {types[name]} is "
                "read. Compress the model again."
            )
    for name, home in tied.items():
        owner, _, attribute = home.rpartition(".")
        parameter = getattr(view.model.get_submodule(owner), attribute)
        parent, _, child = name.rpartition(".")
        setattr(view.model.get_submodule(parent), child, parameter)


def _held(model: nn.Module) -> Iterator[tuple[str, torch.Tensor]]:
    """What formats hold of a model, by name."""
    for name, module in model.named_modules():
        if isinstance(module, HeldLinear | HeldEmbedding):
            yield from module.held.named_buffers(prefix=name)


def _write_shards(tensors: dict[str, torch.Tensor], folder: Path) -> list[str]:
    shards: list[dict[str, torch.Tensor]] = [{}]
    size = 0
    for name, tensor in tensors.items():
        if size and size + tensor.nbytes > SHARD:
            shards.append({})
            size = 0
        shards[-1][name] = tensor
        size += tensor.nbytes
    names = [f"model-{index:05d}.safetensors" for index in range(len(shards))]
    for name, shard in zip(names, shards, strict=True):
        save_file(shard, folder / name, metadata={"format": "pt"})
    return names
