"""Folders that are kept by content give up the one used longest ago, and never one in use."""

from __future__ import annotations

import os
import time

import pytest

from backend import shelf


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


def test_to_note_the_use_of_what_is_gone_is_no_error(tmp_path):
    shelf.used(tmp_path / "gone")
