"""A model with fewer blocks than it was trained with."""

from __future__ import annotations

from torch import nn

from backend.models.view import View


def keep_blocks(view: View, kept: list[int]) -> None:
    """Leave only some blocks in a model, renumbered so that each has a cache of its own."""
    config = view.model.config.get_text_config()
    types = getattr(config, "layer_types", None)
    view.replace(view.blocks_name, nn.ModuleList(view.blocks[block] for block in kept))
    view.blocks = view.model.get_submodule(view.blocks_name)
    for place, block in enumerate(view.blocks):
        for module in block.modules():
            if isinstance(getattr(module, "layer_idx", None), int):
                module.layer_idx = place
    if types is not None:
        config.layer_types = [types[block] for block in kept]
    config.num_hidden_layers = len(kept)
