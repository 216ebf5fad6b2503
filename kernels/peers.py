"""Products of other libraries, for `python -m kernels.bench --peer PYTHON`.

Runs under an interpreter that has one of them, beside torch and numpy, and knows nothing of ours.
Says its products in a line of JSON, then times one of them once for every line that it is sent,
going through copies that no cache holds: at the second of two, when the threads are awake. With
one thread it is the processor's time that counts.
"""

from __future__ import annotations

import ctypes
import functools
import importlib.util
import itertools
import json
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import numpy
import torch

GROUP = 128
ROTATED = 160 * 2**20
Product = Callable[[], object]
Offer = tuple[str, int, Callable[[int], Product]]
"""Name, bytes of the weight, and what makes a copy for a number of activations."""


def main(size: int, threads: int) -> None:
    """Answer until the input ends."""
    torch.set_num_threads(threads)
    torch.set_grad_enabled(False)
    found = [
        offer
        for library, offers in LIBRARIES.items()
        if importlib.util.find_spec(library)
        for offer in offers(size, threads)
    ]
    _say([{"product": name, "nbytes": nbytes} for name, nbytes, _ in found])
    clock = time.process_time if threads == 1 else time.perf_counter
    copies: dict[tuple[int, int], itertools.cycle] = {}
    for line in sys.stdin:
        which, count = json.loads(line)
        if (which, count) not in copies:
            _, nbytes, make = found[which]
            several = max(2, min(24, ROTATED // nbytes))
            copies[which, count] = itertools.cycle([make(count) for _ in range(several)])
        next(copies[which, count])()
        product = next(copies[which, count])
        began = clock()
        product()
        _say(clock() - began)


def _say(what: object) -> None:
    sys.__stdout__.write(json.dumps(what) + "\n")
    sys.__stdout__.flush()


def _onnxruntime(size: int, threads: int) -> Iterator[Offer]:
    for bits in (8, 4, 2):
        nbytes = size * size * bits // 8 + size * size // GROUP * 4
        yield (
            f"onnxruntime, {bits} bits, activations of 8",
            nbytes,
            lambda count, bits=bits: _session(size, bits, count, threads),
        )


def _session(size: int, bits: int, count: int, threads: int) -> Product:

    import onnxruntime
    from onnx import TensorProto, helper, numpy_helper

    groups = size // GROUP
    random = numpy.random.default_rng(0)
    codes = random.integers(0, 256, (size, groups, GROUP * bits // 8), dtype=numpy.uint8)
    scales = random.random((size, groups), dtype=numpy.float32)
    node = helper.make_node(
        "MatMulNBits", ["A", "B", "S"], ["Y"], domain="com.microsoft",
        K=size, N=size, bits=bits, block_size=GROUP, accuracy_level=4,
    )  # fmt: skip
    shapes = [
        helper.make_tensor_value_info(name, TensorProto.FLOAT, [count, size]) for name in "AY"
    ]
    held = [numpy_helper.from_array(codes, "B"), numpy_helper.from_array(scales, "S")]
    graph = helper.make_graph([node], "product", shapes[:1], shapes[1:], held)
    sets = [helper.make_opsetid("", 17), helper.make_opsetid("com.microsoft", 1)]
    model = helper.make_model(graph, opset_imports=sets, ir_version=9)
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads, options.inter_op_num_threads = threads, 1
    session = onnxruntime.InferenceSession(
        model.SerializeToString(), options, providers=["CPUExecutionProvider"]
    )
    x = random.standard_normal((count, size), dtype=numpy.float32)
    return lambda: session.run(None, {"A": x})


def _torchao(size: int, threads: int) -> Iterator[Offer]:  # noqa: ARG001 - torch has them already
    from torchao.quantization import (
        Int8DynamicActivationInt8WeightConfig,
        Int8WeightOnlyConfig,
        quantize_,
    )

    def made(config: object) -> Callable[[int], Product]:
        def make(count: int) -> Product:
            layer = torch.nn.Sequential(torch.nn.Linear(size, size, bias=False))
            layer = layer.to(torch.bfloat16)
            quantize_(layer, config)
            x = torch.randn(count, size, dtype=torch.bfloat16)
            return lambda: layer(x)

        return make

    yield "torchao, 8 bits", size * size, made(Int8WeightOnlyConfig())
    both = Int8DynamicActivationInt8WeightConfig()
    yield "torchao, 8 bits, activations of 8", size * size, made(both)


def _bitsandbytes(size: int, threads: int) -> Iterator[Offer]:  # noqa: ARG001
    import bitsandbytes

    def make(count: int) -> Product:
        layer = bitsandbytes.nn.Linear4bit(
            size, size, bias=False, compute_dtype=torch.bfloat16, quant_type="nf4",
            compress_statistics=False,
        )  # fmt: skip
        weight = torch.randn(size, size, dtype=torch.bfloat16)
        layer.weight = bitsandbytes.nn.Params4bit(
            weight, requires_grad=False, quant_type="nf4", compress_statistics=False, blocksize=64
        )
        layer = layer.to("cpu").eval()
        x = torch.randn(count, size, dtype=torch.bfloat16)
        return lambda: layer(x)

    yield "bitsandbytes, NF4", size * size // 2 + size * size // 64 * 4, make


def _openvino(size: int, threads: int) -> Iterator[Offer]:
    for kind, bits in (("u8", 8), ("u4", 4)):
        nbytes = size * size * bits // 8 + size * size // GROUP * 2
        yield (
            f"openvino, {bits} bits",
            nbytes,
            lambda count, kind=kind: _compiled(size, kind, count, threads),
        )


def _compiled(size: int, kind: str, count: int, threads: int) -> Product:
    import openvino
    from openvino import opset13

    random = numpy.random.default_rng(0)
    groups = size // GROUP
    x = opset13.parameter([count, size], openvino.Type.f32)
    shape = openvino.Shape([size, groups, GROUP])
    if kind == "u8":
        codes = random.integers(0, 256, tuple(shape), dtype=numpy.uint8)
        held = opset13.constant(codes)
    else:
        codes = random.integers(0, 256, size * size // 2, dtype=numpy.uint8)
        held = opset13.constant(openvino.Tensor(codes, shape, openvino.Type.u4))
    scales = opset13.constant(random.random((size, groups, 1)).astype(numpy.float16))
    wide = opset13.multiply(opset13.convert(held, "f16"), scales)
    flat = opset13.reshape(wide, opset13.constant(numpy.array([size, size])), special_zero=False)
    product = opset13.matmul(x, opset13.convert(flat, "f32"), False, True)
    settings = {"INFERENCE_NUM_THREADS": threads, "PERFORMANCE_HINT": "LATENCY"}
    compiled = openvino.compile_model(openvino.Model([product], [x]), "CPU", settings)
    numbers = random.standard_normal((count, size), dtype=numpy.float32)
    request = compiled.create_infer_request()
    return lambda: request.infer([numbers])


GGML_KINDS = {
    "Q8_0": 8, "Q4_0": 2, "Q4_K": 12, "IQ4_NL": 20, "Q3_K": 11, "Q2_K": 10, "TQ2_0": 35,
}  # fmt: skip
"""Types of llama.cpp's tensors, as `ggml.h` numbers them."""


def _llama_cpp(size: int, threads: int) -> Iterator[Offer]:
    ggml = _Ggml(next(iter(importlib.util.find_spec("llama_cpp").submodule_search_locations)))
    for name, kind in GGML_KINDS.items():
        yield (
            f"llama.cpp, {name}, activations of 8",
            size * ggml.row_bytes(kind, size),
            lambda count, kind=kind: ggml.product(kind, size, count, threads),
        )


class _Ggml:
    """The library of tensors that llama.cpp is built on, in rows interleaved where it knows how."""

    class Memory(ctypes.Structure):
        """`ggml_init_params`: room for what tensors are, not for their numbers."""

        _fields_ = (("size", ctypes.c_size_t), ("at", ctypes.c_void_p), ("bare", ctypes.c_bool))

    def __init__(self, package: str) -> None:
        folder = Path(package, "lib")
        loaded = [
            ctypes.CDLL(str(folder / f"lib{name}.so"), mode=ctypes.RTLD_GLOBAL)
            for name in ("ggml-base", "ggml-cpu")
        ]
        self._base, self._cpu = loaded
        self._registered = self._call("cpu_reg")
        self._device = self._call("reg_dev_get", self._registered, ctypes.c_size_t(0))
        self._backend = self._call("cpu_init")

    def _call(self, name: str, *arguments: object, given: type = ctypes.c_void_p) -> object:
        """What a function says, its name without the prefix; addresses in and out."""
        whole = next(
            getattr(library, prefix + name)
            for prefix in ("ggml_backend_", "ggml_")
            for library in (self._base, self._cpu)
            if hasattr(library, prefix + name)
        )
        whole.restype = given
        return whole(*(ctypes.c_void_p(a) if type(a) is int else a for a in arguments))

    def row_bytes(self, kind: int, size: int) -> int:
        """Bytes of a row of so many numbers."""
        number = ctypes.c_int64(size)
        return int(self._call("row_size", ctypes.c_int(kind), number, given=ctypes.c_size_t))

    def product(self, kind: int, size: int, count: int, threads: int) -> Product:
        """A product of a random matrix of a type with so many activations."""
        self._call("cpu_set_n_threads", self._backend, ctypes.c_int(threads))
        room, weights = (self._call("init", self.Memory(1 << 20, None, True)) for _ in range(2))
        weight, x = (
            self._call("new_tensor_2d", *(where, ctypes.c_int(type_), *map(ctypes.c_int64, shape)))
            for where, type_, shape in ((weights, kind, (size, size)), (room, 0, (size, count)))
        )
        found = self._call("mul_mat", room, weight, x)
        graph = self._call("new_graph", room)
        self._call("build_forward_expand", graph, found, given=None)
        self._call("alloc_ctx_tensors_from_buft", weights, self._place(weight, found))
        self._call("alloc_ctx_tensors", room, self._backend)
        numbers = numpy.random.default_rng(1).standard_normal((count, size), dtype=numpy.float32)
        for tensor, part in ((weight, self._quantised(kind, size)), (x, numbers)):
            sizes = ctypes.c_size_t(0), ctypes.c_size_t(part.nbytes)
            self._call("tensor_set", tensor, part.ctypes.data, *sizes, given=None)
        return lambda: self._call("graph_compute", self._backend, graph, given=ctypes.c_int)

    @functools.cache  # noqa: B019 - which takes seconds; there is one library
    def _quantised(self, kind: int, size: int) -> numpy.ndarray:
        """A random matrix as a type holds it."""
        numbers = numpy.random.default_rng(0).standard_normal((size, size), dtype=numpy.float32)
        held = numpy.empty(size * self.row_bytes(kind, size), numpy.uint8)
        shape, scales = (ctypes.c_int64(0), *[ctypes.c_int64(size)] * 2), numpy.ones(size, "f4")
        data = [part.ctypes.data for part in (numbers, held, scales)]
        self._call("quantize_chunk", ctypes.c_int(kind), *data[:2], *shape, data[2])
        return held

    def _place(self, weight: int, product: int) -> int:
        """The kind of buffer that interleaves rows of a weight, or the usual one."""
        asked = ctypes.c_char_p(b"ggml_backend_dev_get_extra_bufts")
        address = self._call("reg_get_proc_address", self._registered, asked)
        kinds = ctypes.CFUNCTYPE(ctypes.POINTER(ctypes.c_void_p), ctypes.c_void_p)(address)
        usual = self._call("cpu_buffer_type")
        held = ctypes.c_void_p.from_address(weight + 8)  # the tensor's buffer, after its type
        for kind in itertools.takewhile(bool, kinds(self._device)):
            held.value = self._call("buft_alloc_buffer", kind, ctypes.c_size_t(0))
            known = self._call("dev_supports_op", self._device, product, given=ctypes.c_bool)
            held.value = None
            if known:
                return kind
        return usual


LIBRARIES = {
    "llama_cpp": _llama_cpp,
    "onnxruntime": _onnxruntime,
    "torchao": _torchao,
    "bitsandbytes": _bitsandbytes,
    "openvino": _openvino,
}

if __name__ == "__main__":
    sys.stdout = sys.stderr  # what the libraries print is no answer
    main(int(sys.argv[1]), int(sys.argv[2]))
