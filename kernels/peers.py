"""Products of other libraries, for `python -m kernels.bench --peer PYTHON`.

Runs under an interpreter that has one of them, beside torch and numpy, and knows nothing of ours.
Says its products in a line of JSON, then times one of them once for every line that it is sent,
going through copies that no cache holds: at the second of two, when the threads are awake. With
one thread it is the processor's time that counts.
"""

from __future__ import annotations

import importlib.util
import itertools
import json
import sys
import time
from collections.abc import Callable, Iterator

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


LIBRARIES = {
    "onnxruntime": _onnxruntime,
    "torchao": _torchao,
    "bitsandbytes": _bitsandbytes,
    "openvino": _openvino,
}

if __name__ == "__main__":
    sys.stdout = sys.stderr  # what the libraries print is no answer
    main(int(sys.argv[1]), int(sys.argv[2]))
