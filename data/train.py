"""Trains the embedded model on the invented world: `python -m data.train --help`.

A run has no fixed end. It stays on the plateau of its learning rate, resumes by itself from its
last checkpoint, and `--finish` decays any such checkpoint and exports it to `data/model/`.
Everything it writes on the way lies in `.state/training/<preset>/`.
"""

import argparse
import json
import time
from collections.abc import Callable, Sequence
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass, replace
from pathlib import Path

import torch
from tokenizers import Tokenizer

from data.network import Network, Shape
from data.optimise import Schedule, optimiser, restore, save
from data.tokenizer import MODEL_FOLDER, learn
from data.tokens import Library, read_prose, sample

SEED = 1
LARGEST_GRADIENT = 1.0
LOG_STEPS = 50
CHECKPOINT_STEPS = 250
TOKENIZER_CHARACTERS = 6_000_000
STATE_FOLDER = Path(".state/training")


@dataclass(frozen=True)
class Preset:
    """A shape of network and how it is trained."""

    shape: Shape
    schedule: Schedule
    step_tokens: int
    chapter_steps: int


PRESETS = {
    "cpu": Preset(
        Shape(),
        Schedule(peak=3e-3, warm_steps=200, decay_steps=1500),
        step_tokens=16 * 256,
        chapter_steps=500,
    ),
    "gpu": Preset(
        Shape(vocabulary=4096, hidden=256, layers=8, feed_forward=768, heads=8, key_heads=4),
        Schedule(peak=1.5e-3, warm_steps=500, decay_steps=4000),
        step_tokens=256 * 512,
        chapter_steps=128,
    ),
}


def main(arguments: Sequence[str] | None = None) -> None:
    """Run the command line."""
    parser = argparse.ArgumentParser(prog="python -m data.train", description=__doc__)
    parser.add_argument("--preset", choices=PRESETS, default="cpu")
    parser.add_argument("--prose", type=Path, help="folder of .txt books to learn from as well")
    parser.add_argument("--steps", type=int, help="stop after this many steps in all")
    parser.add_argument("--minutes", type=float, help="stop after this long")
    parser.add_argument("--no-compile", action="store_true", help="do without torch.compile")
    parser.add_argument("--finish", action="store_true", help="decay the checkpoint and export it")
    parser.add_argument("--decay-steps", type=int, help="length of the decay of --finish")
    parser.add_argument("--export", action="store_true", help="export the checkpoint as it is")
    parser.add_argument("--prepare", type=int, help="only write this many chapters of tokens")
    options = parser.parse_args(arguments)
    preset = PRESETS[options.preset]
    if options.decay_steps:
        schedule = replace(preset.schedule, decay_steps=options.decay_steps)
        preset = replace(preset, schedule=schedule)
    run = Run(preset, STATE_FOLDER / options.preset, options.prose)
    if options.prepare:
        run.prepare(options.prepare)
    elif options.export:
        run.export(MODEL_FOLDER)
    else:
        run.train(options.steps, options.minutes, options.finish, not options.no_compile)
        if options.finish:
            run.export(MODEL_FOLDER)


class Run:
    """One training run: its network, optimiser, tokens and checkpoints."""

    def __init__(self, preset: Preset, folder: Path, prose: Path | None = None):
        self.preset, self.folder = preset, folder
        folder.mkdir(parents=True, exist_ok=True)
        self.device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
        generator = torch.Generator().manual_seed(SEED)
        self.network = Network(preset.shape, generator).to(self.device)
        self.adamw = optimiser(self.network)
        self.step = 0
        self.library = self._library(prose)
        self.plateau, self.decayed = folder / "plateau.safetensors", folder / "decayed.safetensors"

    def train(
        self,
        steps: int | None = None,
        minutes: float | None = None,
        finish: bool = False,
        fuse: bool = True,
    ) -> None:
        """Train up to `steps` steps in all, for `minutes`, or with `finish` to the decay's end."""
        decay_start = self._resume(finish)
        last = decay_start + self.preset.schedule.decay_steps if finish else steps
        checkpoint = self.decayed if finish else self.plateau
        loss_of = torch.compile(self.network.loss, dynamic=False) if fuse else self.network.loss
        started = mark = time.monotonic()
        losses: list[torch.Tensor] = []
        while not self._over(started, last, minutes):
            rate = self.preset.schedule.rate(self.step, decay_start if finish else None)
            losses.append(self._advance(loss_of, rate))
            if self.step % LOG_STEPS == 0:
                seconds, mark = time.monotonic() - mark, time.monotonic()
                self._log(losses, rate, seconds)
                losses.clear()
            if self.step % CHECKPOINT_STEPS == 0:
                save(checkpoint, self.network, self.adamw, self.step)
        save(checkpoint, self.network, self.adamw, self.step)

    def prepare(self, chapters: int) -> None:
        """Write the first `chapters` chapters with all processors."""
        with ProcessPoolExecutor() as pool:
            list(pool.map(self.library.write, range(chapters)))

    def export(self, folder: Path) -> None:
        """Write the newest checkpoint, decayed if there is one, as a Llama model into `folder`.

        Raises FileNotFoundError where nothing has been trained.
        """
        from data.export import export

        restore(self._checkpoint(), self.network, self.adamw)
        export(self.network.cpu(), self.library.tokenizer, folder)

    def _checkpoint(self) -> Path:
        newest = self.decayed if self.decayed.exists() else self.plateau
        if not newest.exists():
            raise FileNotFoundError(
                f"{self.folder} holds no checkpoint. Train first: python -m data.train"
            )
        return newest

    def _resume(self, finish: bool) -> int:
        """Restore the checkpoint to go on from, and return where its plateau ended."""
        if finish:
            self._checkpoint()
        else:
            self.decayed.unlink(missing_ok=True)
        if self.plateau.exists():
            self.step = restore(self.plateau, self.network, self.adamw)
        plateau_steps = self.step
        if self.decayed.exists():
            self.step = restore(self.decayed, self.network, self.adamw)
        return plateau_steps

    def _over(self, started: float, last: int | None, minutes: float | None) -> bool:
        late = minutes is not None and time.monotonic() - started > 60 * minutes
        return late or (last is not None and self.step >= last)

    def _advance(
        self, loss_of: Callable[[torch.Tensor], torch.Tensor], rate: float
    ) -> torch.Tensor:
        """Take one step at this learning `rate`, and return its loss."""
        rows = torch.from_numpy(self.library.rows(self.step).astype("int64")).to(self.device)
        for group in self.adamw.param_groups:
            group["lr"] = rate
        with torch.autocast(self.device.type, torch.bfloat16):
            loss = loss_of(rows)
        loss.backward()
        torch.nn.utils.clip_grad_norm_(self.network.parameters(), LARGEST_GRADIENT)
        self.adamw.step()
        self.adamw.zero_grad(set_to_none=True)
        self.step += 1
        return loss.detach()

    def _log(self, losses: list[torch.Tensor], rate: float, seconds: float) -> None:
        record = {
            "step": self.step,
            "tokens": self.step * self.preset.step_tokens,
            "loss": round(torch.stack(losses).mean().item(), 4),
            "rate": rate,
            "tokens_per_second": round(len(losses) * self.preset.step_tokens / seconds),
        }
        line = json.dumps(record)
        print(line, flush=True)
        with (self.folder / "log.jsonl").open("a", encoding="utf-8") as log:
            log.write(line + "\n")

    def _library(self, prose: Path | None) -> Library:
        """Return the tokens to learn from; the first time, make the tokenizer as well."""
        pieces = read_prose(prose) if prose else ()
        path, preset = self.folder / "tokenizer.json", self.preset
        if not path.exists():
            texts = sample(pieces, TOKENIZER_CHARACTERS)
            learn(texts, preset.shape.vocabulary).save(str(path))
        return Library(
            self.folder / "chapters",
            Tokenizer.from_file(str(path)),
            preset.step_tokens,
            preset.chapter_steps,
            pieces,
        )


if __name__ == "__main__":
    main()
