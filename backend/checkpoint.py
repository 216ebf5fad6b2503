"""Work on a model's blocks kept on disk, so that a killed run goes on where it stopped."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

from safetensors.torch import load_file, save_file

from backend import formats
from backend.faults import fault_point
from backend.models.view import View


class Checkpoint:
    """Finished blocks on disk, so that a killed run goes on where it stopped."""

    def __init__(self, folder: Path, key: str) -> None:
        """Take up what lies in a folder if it is of the same recipe, shapes and text."""
        self.folder = folder
        mark = folder / "work"
        if folder.is_dir() and (not mark.is_file() or mark.read_text() != key):
            shutil.rmtree(folder)
        folder.mkdir(parents=True, exist_ok=True)
        mark.write_text(key)

    def keep(self, view: View, block: int, remarks: list[str]) -> None:
        """Write the formats of a block; the header last, so that it marks a whole block."""
        headers, tensors = {}, {}
        for site in view.sites(block):
            held = view.held(site)
            if held is None:
                continue
            headers[site.name] = held.header()
            for key, tensor in held.state_dict().items():
                tensors[f"{site.name}/{key}"] = tensor.contiguous()
        save_file(tensors, self.folder / f"{block}.safetensors")
        partial = self.folder / f"{block}.partial"
        partial.write_text(json.dumps({"held": headers, "remarks": remarks}))
        fault_point("compress.block")
        partial.rename(self.folder / f"{block}.json")

    def restore(self, view: View, block: int) -> list[str] | None:
        """Put a finished block in place; its remarks, or None if it is not finished."""
        header = self.folder / f"{block}.json"
        if not header.is_file():
            return None
        record = json.loads(header.read_text())
        tensors = load_file(self.folder / f"{block}.safetensors")
        for site in view.sites(block):
            held = formats.from_header(record["held"][site.name])
            prefix = f"{site.name}/"
            own = {k.removeprefix(prefix): v for k, v in tensors.items() if k.startswith(prefix)}
            held.load_state_dict(own, assign=True)
            view.hold(site, held.to(view.device))
        return record["remarks"]

    def drop(self) -> None:
        """Forget everything, once the artefact no longer needs it."""
        shutil.rmtree(self.folder, ignore_errors=True)
