"""Bytes: storages once, files, caches and peaks."""

from dataclasses import dataclass

import pytest
import torch

from backend.measure import size
from tests.tiny_model import TinyModel


class Packed(torch.nn.Module):
    """Holds its numbers in every way a module can."""

    def __init__(self):
        super().__init__()
        self.weight = torch.nn.Parameter(torch.zeros(10, 10))
        self.register_buffer("scales", torch.zeros(10, dtype=torch.float16))
        self._codes = Codes(torch.zeros(50, dtype=torch.uint8), [torch.zeros(3)])


@dataclass(frozen=True)
class Codes:
    codes: torch.Tensor
    others: list


@dataclass(frozen=True, slots=True)
class Slotted:
    codes: torch.Tensor


def test_every_kind_of_storage_is_counted():
    assert size.resident(Packed()).total == 400 + 20 + 50 + 12
    assert size.resident(Slotted(torch.zeros(4))).total == 16


def test_tied_tensors_and_views_count_once():
    model = TinyModel(vocabulary=16, width=16, blocks=1, positions=20)
    assert model.head is model.embedding
    assert size.resident(model).total == 4 * (16 * 16 + 20 * 16 + 4 * 16 * 16)
    whole = torch.zeros(8)
    assert size.resident([whole, whole[:2], whole.view(2, 4), whole.detach()]).total == 32


def test_a_view_keeps_its_whole_storage_alive():
    assert size.resident([torch.zeros(100)[:1]]).total == 400


def test_sparse_tensors_count_indices_and_values():
    coo = torch.eye(4).to_sparse()
    assert size.resident([coo]).total == 2 * 4 * 8 + 4 * 4


def test_meta_tensors_hold_nothing():
    assert size.resident([torch.zeros(9, device="meta")]).total == 0


def test_a_circle_of_containers_ends():
    circle = [torch.zeros(1)]
    circle.append(circle)
    assert size.resident(circle).total == 4


def test_parts_add_up_and_a_shared_storage_belongs_to_one():
    model = Packed()
    held = size.resident(model, lambda name: name.split(".")[0])
    assert held.parts == {"weight": 400, "scales": 20, "_codes": 62}
    assert sum(held.parts.values()) == held.total


def test_bits_are_per_parameter_of_the_dense_model(tmp_path):
    (tmp_path / "part").mkdir()
    (tmp_path / "a.safetensors").write_bytes(b"x" * 100)
    (tmp_path / "part" / "b.json").write_bytes(b"y" * 11)
    found = {
        each.name: each
        for each in size.size_readings(
            Packed(),
            tmp_path,
            241,
            linear_parameters=100,
            is_linear=lambda name: "weight" in name or "scales" in name,
        )
    }
    assert found["resident_bytes"].value == 482
    assert found["bpw_eff"].value == 16
    assert found["bpw_linear"].value == pytest.approx(33.6)
    assert found["disk_bytes"].value == 111
    assert {each.kind for each in found.values()} == {"counted"}
    assert size.folder_bytes(tmp_path, ["a.safetensors"]) == 100


@pytest.mark.security
def test_memory_is_real_only_if_it_is_less():
    assert (size.memory_kind(99, 100), size.memory_kind(100, 100)) == ("real", "simulated")


def test_dense_cache_has_the_slope_of_its_shape_and_no_fixed_part():
    found = {each.name: each for each in size.cache_readings(TinyModel(width=16, blocks=2), 8)}
    assert found["kv_bytes_per_token"].value == 2 * 2 * 16 * 4
    assert found["kv_fixed_bytes"].value == 0


class Fake:
    """A cache of 1000 bytes and 3 per token, which keeps at most `window` tokens."""

    device, window = torch.device("cpu"), 10**9

    def session(self, batch, length):
        return self

    def read(self, tokens):
        self.length = tokens.shape[1]

    def cache_bytes(self):
        return 1000 + 3 * min(self.length, self.window)


def test_slope_and_intercept_of_a_planted_cache():
    found = {each.name: each.value for each in size.cache_readings(Fake())}
    assert found == {"kv_bytes_per_token": 3, "kv_fixed_bytes": 1000}


def test_a_window_has_no_slope_beyond_its_length():
    model = Fake()
    model.window = 10
    found = {each.name: each.value for each in size.cache_readings(model)}
    assert found == {"kv_bytes_per_token": 0, "kv_fixed_bytes": 1030}


@pytest.mark.skipif(size._high_water() is None, reason="no /proc on this system")
def test_peak_sees_memory_that_is_given_back():
    with size.watch_peak() as peak:
        block = torch.ones(16 * 2**20)
        del block
    assert peak.bytes == pytest.approx(64 * 2**20, rel=0.2)


def test_peak_is_absent_where_the_system_cannot_tell(monkeypatch):
    monkeypatch.setattr(size, "_reset_high_water", lambda: None)
    monkeypatch.setattr(size, "_highest_ever", lambda: 5)
    with size.watch_peak() as peak:
        pass
    assert peak.bytes is None
