"""Build the folder of a Space on the Hub: `python -m data.space FOLDER`; uploads nothing."""

from __future__ import annotations

import argparse
import shutil
import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).parents[1]
LEFT_OUT = (".ci/", "tests/", "docs/benchmarks/")
"""What runs only where the program is made; the README's pages and pictures go along."""


def build(folder: Path) -> int:
    """Copy every file that a Space needs, as it lies here; returns how many.

    Raises:
        SystemExit: the folder holds something, or this copy is no checkout.
    """
    if folder.exists() and any(folder.iterdir()):
        raise SystemExit(f"{folder} is not empty; name a new folder.")
    names = [name for name in tracked() if needed(name)]
    for name in names:
        target = folder / name
        target.parent.mkdir(parents=True, exist_ok=True)
        shutil.copyfile(ROOT / name, target)
    return len(names)


def needed(name: str) -> bool:
    """Whether a Space runs or shows this file."""
    return not name.startswith(LEFT_OUT) and not (name.startswith("docs/") and name.endswith(".py"))


def tracked() -> list[str]:
    """Files of this checkout that git knows, so that nothing private goes along.

    Raises:
        SystemExit: git cannot tell.
    """
    listed = subprocess.run(
        ["git", "ls-files", "-z"], cwd=ROOT, capture_output=True, text=True, check=False
    )
    if listed.returncode:
        raise SystemExit("Only a checkout made by git knows which files belong to a Space.")
    return [name for name in listed.stdout.split("\0") if name and (ROOT / name).is_file()]


def main() -> int:
    """Build it, and say how it is sent."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("folder", type=Path, help="a folder that is empty or not there yet")
    folder = parser.parse_args().folder
    count = build(folder)
    sys.stdout.write(
        f"{count} files are in {folder}. Send them: hf upload OWNER/NAME {folder} . "
        "--repo-type space\n"
    )
    return 0


if __name__ == "__main__":
    sys.exit(main())
