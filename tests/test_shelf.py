"""Folders that are kept by content give up the one used longest ago, and never one in use."""

from __future__ import annotations

import os
import time
from types import SimpleNamespace

import pytest

from backend import attempt, shelf
from backend.service import Service


def _keep(folder, name, size, hours_ago):
    (folder / name).mkdir()
    (folder / name / "part").write_bytes(bytes(size))
    then = time.time() - 3600 * hours_ago
    os.utime(folder / name, (then, then))


def _names(folder):
    return sorted(path.name for path in folder.iterdir())


@pytest.mark.faults
def test_the_longest_unused_make_room_until_all_fit(tmp_path):
    for name, hours in (("old", 9), ("older", 10), ("new", 5)):
        _keep(tmp_path, name, 100, hours)
    shelf.tidy(tmp_path, 300, in_use=3600)
    assert _names(tmp_path) == ["new", "old", "older"]
    shelf.tidy(tmp_path, 250, in_use=3600)
    assert _names(tmp_path) == ["new", "old"]
    shelf.used(tmp_path / "old")
    shelf.tidy(tmp_path, 150, in_use=3600)
    assert _names(tmp_path) == ["old"]


@pytest.mark.faults
def test_what_a_long_job_has_finished_stays_while_it_goes_on(tmp_path):
    _keep(tmp_path, "mine.blocks", 100, 2)
    _keep(tmp_path, "another", 100, 3)
    told = []
    progress = attempt.holding(lambda *one: told.append(one), tmp_path / "mine.blocks")
    progress("compress", 1, 2)
    shelf.tidy(tmp_path, 0, in_use=attempt.IDLE)
    assert _names(tmp_path) == ["mine.blocks"]
    assert told == [("compress", 1, 2)]


@pytest.mark.faults
def test_files_among_the_folders_go_in_their_turn(tmp_path):
    for name, hours in (("old", 9), ("new", 5)):
        _keep(tmp_path, name, 100, hours)
    beside = tmp_path / "old.tokens.safetensors"
    beside.write_bytes(bytes(100))
    os.utime(beside, (0, 0))
    shelf.tidy(tmp_path, 250, in_use=3600)
    assert _names(tmp_path) == ["new", "old"]


def test_what_was_used_a_moment_ago_stays_whatever_it_takes(tmp_path):
    _keep(tmp_path, "large", 1000, 0.5)
    shelf.tidy(tmp_path, 10, in_use=3600)
    assert _names(tmp_path) == ["large"]


def test_what_another_process_removes_meanwhile_is_no_error(tmp_path, monkeypatch):
    for name, hours in (("old", 9), ("new", 5)):
        _keep(tmp_path, name, 100, hours)
    listed = [*tmp_path.iterdir(), tmp_path / "gone"]
    monkeypatch.setattr(type(tmp_path), "iterdir", lambda _: iter(listed))
    shelf.tidy(tmp_path, 150, in_use=3600)
    monkeypatch.undo()
    assert _names(tmp_path) == ["new"]


def test_a_model_that_is_only_looked_at_is_not_used(tmp_path):
    """Whoever opens card after card would keep all models in use, and no limit would hold."""
    key = "0123456789abcdef"
    run = SimpleNamespace(artefact={"key": key})
    service = SimpleNamespace(home=tmp_path, run=lambda _: run)
    (tmp_path / "artefacts").mkdir()
    assert Service.artefact_folder(service, key, use=True) is None
    _keep(tmp_path / "artefacts", key, 100, 5)
    (tmp_path / "artefacts" / key / "recipe.json").touch()
    os.utime(tmp_path / "artefacts" / key, (0, 0))
    folder = Service.artefact_folder(service, key)
    assert folder.stat().st_mtime == 0
    assert Service.artefact_folder(service, key, use=True) == folder
    assert folder.stat().st_mtime > time.time() - 60


def test_to_note_the_use_of_what_is_gone_is_no_error(tmp_path):
    shelf.used(tmp_path / "gone")
