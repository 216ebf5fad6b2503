"""The Hub: which commit a name stands for, and its files on this machine; imports no torch."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from huggingface_hub import HfApi, constants, errors, snapshot_download

from backend.errors import ModelError
from backend.sources import ModelSource

FILES = ["*.safetensors", "*.json", "tokenizer.model", "*.txt"]
PATIENCE = 10  # seconds for a question about a model


def pinned(source: ModelSource) -> str:
    """The commit that a source stands for now; without a network, the one fetched before.

    Raises:
        ModelError: the Hub does not know it, or cannot be asked and it was not fetched before.
    """
    with _explained(source):
        try:
            found = HfApi().model_info(
                source.name, revision=source.revision or None, timeout=PATIENCE
            )
        except errors.RepositoryNotFoundError:
            raise
        except Exception as error:  # noqa: BLE001 - whatever a network can do
            return _fetched_before(source, error)
        return found.sha or source.revision


def fetch(source: ModelSource) -> Path:
    """The folder of a model's files, downloaded if they are not here; safetensors only.

    Raises:
        ModelError: says what is missing, and what to do.
    """
    with _explained(source):
        path = snapshot_download(
            source.name, revision=source.revision or None, allow_patterns=FILES
        )
    return Path(path)


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
        raise ModelError(_unreachable(source, error)) from error
    return Path(path).name


def _unreachable(source: ModelSource, error: Exception) -> str:
    return (
        f"The Hub cannot be asked for {source.name} ({type(error).__name__}), and it is not in "
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
