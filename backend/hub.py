"""The Hub: which commit a name stands for, and its files on this machine; imports no torch."""

from __future__ import annotations

import shutil
import time
from collections.abc import Iterator
from contextlib import contextmanager
from fnmatch import fnmatch
from pathlib import Path
from typing import Any

from huggingface_hub import HfApi, constants, errors, snapshot_download

from backend.errors import ModelError, ResourceError
from backend.sources import ModelSource

FILES = ["*.safetensors", "*.json", "tokenizer.model", "*.txt"]
PATIENCE = 10  # seconds for a question about a model
TRIES = 3  # where the Hub is busy or has trouble of its own
BYTES_LIMIT = 40 * 10**9  # of one model


def pinned(source: ModelSource) -> str:
    """The commit that a source stands for now; without a network, the one fetched before.

    Raises:
        ModelError: the Hub does not know it, it has no safetensors, or it cannot be asked and was
            not fetched before.
        ResourceError: it is larger than what may be fetched.
    """
    with _explained(source):
        try:
            found = _ask(source)
        except (errors.RepositoryNotFoundError, errors.RevisionNotFoundError):
            raise
        except Exception as error:  # noqa: BLE001 - whatever a network can do
            return _fetched_before(source, error)
        _check_files(source, found)
        return found.sha or source.revision


def fetch(source: ModelSource) -> Path:
    """The folder of a model's files, downloaded if they are not here; safetensors only.

    Raises:
        ModelError: says what is missing, and what to do.
    """
    with _explained(source):
        try:
            path = snapshot_download(
                source.name, revision=source.revision or None, allow_patterns=FILES
            )
        except (errors.RepositoryNotFoundError, errors.RevisionNotFoundError):
            raise
        except Exception as error:
            raise ModelError(
                f"{source.name} was not fetched whole ({_why(error)}); nothing of a file that is "
                "not whole is used."
            ) from error
    return Path(path)


def room() -> int:
    """Bytes that a model may take: 40 GB, or half of the disk that is free, if that is less."""
    cache = Path(constants.HF_HUB_CACHE)
    while not cache.exists():
        cache = cache.parent
    return min(BYTES_LIMIT, shutil.disk_usage(cache).free // 2)


def _ask(source: ModelSource) -> Any:
    """What the Hub says of a model; asked again, a little later, where it is only busy."""
    for tried in range(1, TRIES + 1):
        try:
            return HfApi().model_info(
                source.name,
                revision=source.revision or None,
                timeout=PATIENCE,
                files_metadata=True,
            )
        except errors.HfHubHTTPError as error:
            if tried == TRIES or not _passes(_status(error)):
                raise
            time.sleep(0.5 * tried)
    raise AssertionError("the last try returns or raises")


def _check_files(source: ModelSource, found: Any) -> None:
    sizes = {
        one.rfilename: one.size or 0
        for one in found.siblings or ()
        if any(fnmatch(one.rfilename, pattern) for pattern in FILES)
    }
    if not any(name.endswith(".safetensors") for name in sizes):
        raise ModelError(
            f"{source.name} has no .safetensors weights; pickled ones (.bin, .pt) are never read. "
            "Take another copy of the model."
        )
    if sum(sizes.values()) > room():
        raise ResourceError(
            f"{source.name} takes {sum(sizes.values()) / 1e9:,.1f} GB and at most "
            f"{room() / 1e9:,.1f} GB are fetched here (40 GB, or half of the free disk); take a "
            "smaller model or free some space."
        )


def _status(error: Exception) -> int:
    response = getattr(error, "response", None)
    return 0 if response is None else response.status_code


def _passes(status: int) -> bool:
    return status == 429 or status >= 500


def _why(error: Exception) -> str:
    """What is wrong with the Hub or the way to it, in a few words."""
    status = _status(error)
    kind = type(error).__name__
    if status == 429:
        return "it is asked too often from here; wait some minutes"
    if status >= 500:
        return f"it has trouble of its own, status {status}; try again later"
    if "Timeout" in kind:  # by name, for the library changes the one that it asks through
        return f"it did not answer within {PATIENCE} seconds"
    if "JSON" in kind:
        return "what answers speaks no JSON, as the sign-in page of a network does"
    if "Connect" in kind or "Offline" in kind:
        return f"no way there, {kind}"
    return str(error).strip().partition("\n")[0] or kind


def fetched(source: ModelSource) -> Path:
    """The folder of a model's files that `fetch` brought here; asks nobody.

    Raises:
        ModelError: they are not here.
    """
    with _explained(source):
        path = snapshot_download(
            source.name,
            revision=source.revision or None,
            allow_patterns=FILES,
            local_files_only=True,
        )
    return Path(path)


def _fetched_before(source: ModelSource, error: Exception) -> str:
    try:
        path = snapshot_download(
            source.name, revision=source.revision or None, local_files_only=True
        )
    except (OSError, ValueError):
        # What was fetched by its commit has no name of a branch beside it: take the newest.
        kept = Path(constants.HF_HUB_CACHE) / f"models--{source.name.replace('/', '--')}"
        found = [] if source.revision else list((kept / "snapshots").glob("*/config.json"))
        if not found:
            raise ModelError(_unreachable(source, error)) from error
        return max(found, key=lambda one: one.parent.stat().st_mtime).parent.name
    return Path(path).name


def _unreachable(source: ModelSource, error: Exception) -> str:
    return (
        f"The Hub cannot be asked for {source.name} ({_why(error)}), and it is not in "
        f"{constants.HF_HUB_CACHE}. The embedded model `default` and folders work offline."
    )


@contextmanager
def _explained(source: ModelSource) -> Iterator[None]:
    try:
        yield
    except errors.GatedRepoError as error:  # a kind of missing repository, so it comes first
        raise ModelError(
            f"{source.name} is gated: accept its terms on the Hub and set HF_TOKEN."
        ) from error
    except errors.RepositoryNotFoundError as error:
        raise ModelError(
            f"The Hub has no model {source.name!r} that this machine may see; check the name, "
            "or set HF_TOKEN for a private one."
        ) from error
    except errors.RevisionNotFoundError as error:
        raise ModelError(f"{source.name} has no revision {source.revision!r}.") from error
    except (OSError, ValueError) as error:
        raise ModelError(_unreachable(source, error)) from error
