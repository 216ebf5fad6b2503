"""What should hold of each method, as data; `docs.benchmarks.claims` runs and judges it.

To add a claim, append to CLAIMS.
"""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class Claim:
    """One thing that should hold.

    Attributes:
        method: whose claim it is, by key.
        says: what should hold, without a full stop.
        own: the recipe that should be better.
        rival: the recipe that it should beat; empty where `than` is given.
        metric: the reading that decides.
        than: a number to be better than, in place of a rival.
    """

    method: str
    says: str
    own: str
    rival: str = ""
    metric: str = "kld_mean"
    than: float | None = None


ROW = "group_size=0"
PRESSURE = "kld_pressure_mean"
BY_TOKEN = "kv-int(bits=3, keys=by token)"
CLAIMS = (
    Claim("gptq", "beats rounding to nearest at 3 bits", "gptq@3", "rtn@3"),
    Claim("gptq", "beats rounding to nearest at 4 bits", "gptq@4", "rtn@4"),
    Claim(
        "embedding",
        "tables in 8 bits add less than a thousandth of a nat",
        "embedding@8.25",
        than=0.001,
    ),
    Claim(
        "embedding",
        "with tables in 6 bits, 5 for the blocks beat 4 bits and tables in 16 bits",
        "gptq@5 + embedding@6.25",
        "gptq@4",
    ),
    Claim("finequant", "beats one group a row at 3 bits", "finequant@3", f"rtn(bits=3, {ROW})"),
    Claim("finequant", "beats one group a row at 4 bits", "finequant@4", f"rtn(bits=4, {ROW})"),
    Claim("spqr", "beats GPTQ at 3 bits", "spqr@3", "gptq@3"),
    Claim("spqr", "beats GPTQ at 4 bits", "spqr@4", "gptq@4"),
    Claim(
        "spqr",
        "stays under 1 % more perplexity at 4.6 bits",
        "spqr@4.6",
        metric="ppl_ratio",
        than=1.01,
    ),
    Claim("squeezellm", "beats rounding to nearest at 3 bits", "squeezellm@3", "rtn@3"),
    Claim("squeezellm", "beats GPTQ at 3 bits", "squeezellm@3", "gptq@3"),
    Claim("vptq", "beats GPTQ at 2.5 bits", "vptq@2.5", "gptq@2.5"),
    Claim("vptq", "beats tables of single numbers at 2.5 bits", "vptq@2.5", "squeezellm@2.5"),
    Claim("gqsa", "half of the groups beat plain 2 bits at equal bytes", "gqsa@2.69", "gptq@2.69"),
    Claim(
        "gqsa",
        "half of the groups in 4 bits beat 2:4 with 4 bits",
        "gqsa@3.25",
        "sparsegpt(pattern=2:4) + gptq@4.25",
    ),
    Claim("ptq161", "beats GPTQ at 1.8 bits", "ptq161@1.8", "gptq@1.8"),
    Claim("ptq161", "beats vectors in codebooks at 1.8 bits", "ptq161@1.8", "vptq@1.8"),
    Claim("mixllm", "beats GPTQ with a tenth more bits than 4", "mixllm@4.65", "gptq@4.65"),
    Claim("mixllm", "beats GPTQ at 4.25 bits with a tenth more", "mixllm@4.65", "gptq@4.25"),
    Claim("db-llm", "beats rounding to nearest at 2.5 bits", "db-llm@2.5", "rtn@2.5"),
    Claim("db-llm", "beats GPTQ at 2.5 bits", "db-llm@2.5", "gptq@2.5"),
    Claim("dgq", "beats rounding to nearest at 4.25 bits", "dgq@4.25", "rtn@4.25"),
    Claim("dgq", "stays within 1 % more perplexity at 4.5 bits", "dgq@4.5", "", "ppl_ratio", 1.01),
    Claim(
        "flatquant",
        "learned transforms beat those drawn by chance, inputs and weights of 4 bits",
        "flatquant@4.5",
        "flatquant(bits=4.5, steps=0)",
    ),
    Claim("flatquant", "beats blocks of two widths", "flatquant@4.75", "comet@4.75"),
    Claim("flatquant", "stays within 10 % more perplexity", "flatquant@4.5", "", "ppl_ratio", 1.1),
    Claim(
        "comet",
        "a quarter of the blocks in 8 bits beats none",
        "comet@4.75",
        "comet(bits=4.75, wide=0.0)",
    ),
    Claim("comet", "stays within 10 % more perplexity", "comet@4.75", "", "ppl_ratio", 1.1),
    Claim(
        "prepack",
        "prompts of mixed lengths are read faster than padded",
        "prepack",
        metric="prefill_speedup_mixed",
        than=1.0,
    ),
    Claim(
        "prepack",
        "so are they by weights of 4 bits",
        "gptq@4 + prepack",
        metric="prefill_speedup_mixed",
        than=1.0,
    ),
    Claim("cbq", "beats GPTQ at 3 bits", "cbq@3", "gptq@3"),
    Claim("cbq", "beats GPTQ at 2.25 bits", "cbq@2.25", "gptq@2.25"),
    Claim(
        "cbq",
        "two blocks together beat each alone at 2.25 bits",
        "cbq@2.25",
        "cbq(bits=2.25, window=1)",
    ),
    Claim(
        "cbq",
        "beats transforms learned by layer, inputs and weights of 4 bits",
        "cbq(bits=4.5, inputs=4)",
        "flatquant@4.5",
    ),
    Claim("lq-lora", "beats rounding to nearest at 3 bits", "lq-lora@3", "rtn@3"),
    Claim(
        "lq-lora",
        "bits by an integer program beat the same for all at 3 bits",
        "lq-lora@3 by integer-program",
        "lq-lora@3",
    ),
    Claim("nupes", "beats rounding to nearest at 3 bits", "nupes@3", "rtn@3"),
    Claim("nupes", "beats ranges found by gradient at 4 bits", "nupes@4", "easyquant@4"),
    Claim("ap-int", "beats rounding to nearest at 3 bits", "ap-int@3", "rtn@3"),
    Claim(
        "ap-int",
        "inputs of 8 bits cost next to nothing at 4 bits",
        "ap-int@4.25",
        "",
        "ppl_ratio",
        1.02,
    ),
    Claim("lut-gemm", "beats rounding to nearest at 3 bits", "lut-gemm@3", "rtn@3"),
    Claim("lut-gemm", "decodes faster than dense", "lut-gemm@3", "", "decode_speedup", 1.0),
    Claim(
        "easyquant",
        "beats rounding to nearest by row at 4 bits",
        "easyquant@4",
        f"rtn(bits=4, {ROW})",
    ),
    Claim(
        "llm-fp4", "beats integers at 4 bits", "llm-fp4@4.125", "rtn(bits=4.125, symmetric=True)"
    ),
    Claim("adadim", "beats the GPTQ that it wraps at 3 bits", "adadim@3", "gptq@3"),
    Claim(
        "adadim",
        "beats the rounding that it wraps at 3 bits",
        "adadim(bits=3, within=rtn)",
        "rtn@3",
    ),
    Claim("bitstack", "beats rounding to nearest at 2 bits", "bitstack@2", "rtn@2"),
    Claim("bitstack", "beats GPTQ at 2 bits", "bitstack@2", "gptq@2"),
    Claim("dfloat11", "takes at most 70 % of the bits", "dfloat11", metric="bpw_eff", than=11.2),
    Claim("dfloat11", "leaves no tensor changed", "dfloat11", metric="lossless_l0", than=0.5),
    Claim("eora", "mends GPTQ of 3 bits", "gptq@3 + eora@1", "gptq@3"),
    Claim(
        "eora",
        "mends 2:4 with GPTQ in 4 bits",
        "sparsegpt(pattern=2:4) + gptq@4.25 + eora@1",
        "sparsegpt(pattern=2:4) + gptq@4.25",
    ),
    Claim("sparsegpt", "beats Wanda at half of the weights", "sparsegpt@9", "wanda@9"),
    Claim("m-fac", "beats magnitude at half of the weights", "m-fac@9", "magnitude@9"),
    Claim("m-fac", "beats weights times inputs at half of the weights", "m-fac@9", "wanda@9"),
    Claim("wanda", "beats magnitude at half of the weights", "wanda@9", "magnitude@9"),
    Claim(
        "magnitude",
        "gradual steps beat one at half of the weights",
        "magnitude(bits=9, steps=16)",
        "magnitude@9",
    ),
    Claim(
        "magnitude",
        "a large sparse model beats a small dense one",
        "magnitude(bits=9, steps=16)",
        "slicegpt@9",
    ),
    Claim("lord", "beats the weights' own low rank at 12 bits", "lord@12", "svd@12"),
    Claim("afm", "beats the weights' own low rank at 12 bits", "afm@12", "svd@12"),
    Claim("afm", "beats outputs about zero, not about their mean, at 12 bits", "afm@12", "lord@12"),
    Claim("monarch", "beats low rank at 12 bits", "monarch@12", "svd@12"),
    Claim("compactifai", "beats low rank at 12 bits", "compactifai@12", "svd@12"),
    Claim(
        "compactifai",
        "cores of 8 bits beat those of 16 at 8 bits",
        "compactifai(bits=8, precision=8)",
        "compactifai@8",
    ),
    Claim("modegpt", "beats turning and slicing at 13 bits", "modegpt@13", "slicegpt@13"),
    Claim("modegpt", "beats FLAP at 13 bits", "modegpt@13", "flap@13"),
    Claim("modegpt", "reads faster than dense", "modegpt@12", "", "prefill_speedup", 1.0),
    Claim("prunenet", "beats turning and slicing at 13 bits", "prunenet@13", "slicegpt@13"),
    Claim("prunenet", "beats dropping layers at 13 bits", "prunenet@13", "layer-drop@13"),
    Claim("ziplm", "beats turning and slicing at 13 bits", "ziplm@13", "slicegpt@13"),
    Claim("ziplm", "beats FLAP at 13 bits", "ziplm@13", "flap@13"),
    Claim(
        "ziplm",
        "half as fast again reads faster than dense",
        "ziplm(bits=16, speedup=1.5)",
        "",
        "prefill_speedup",
        1.0,
    ),
    Claim("gqa-fold", "half of the heads keep perplexity", "gqa-fold@15.5", "", "ppl_ratio", 1.1),
    Claim("perp", "mends half of the weights pruned", "wanda@9 + perp", "wanda@9"),
    Claim("perp", "mends 2:4 pruning", "wanda(pattern=2:4) + perp", "wanda(pattern=2:4)"),
    Claim("flap", "beats turning and slicing at 13 bits", "flap@13", "slicegpt@13"),
    Claim("flap", "beats dropping layers at 13 bits", "flap@13", "layer-drop@13"),
    Claim("cfsp", "beats dropping layers at 13 bits", "cfsp@13", "layer-drop@13"),
    Claim("cfsp", "beats turning and slicing at 13 bits", "cfsp@13", "slicegpt@13"),
    Claim("cfsp", "beats FLAP at 13 bits", "cfsp@13", "flap@13"),
    Claim(
        "layer-drop",
        "decodes faster than the dense model",
        "layer-drop@13",
        metric="decode_speedup",
        than=1.0,
    ),
    Claim(
        "vocab-trim",
        "half of the tokens keep perplexity within 5 %",
        "vocab-trim@13.5",
        metric="ppl_ratio",
        than=1.05,
    ),
    Claim("rtn", "stays within 1 % more perplexity at 8 bits", "rtn@8", "", "ppl_ratio", 1.01),
    Claim("svd", "stays within 10 % more perplexity at 14 bits", "svd@14", "", "ppl_ratio", 1.1),
    Claim("slicegpt", "a quarter less reads faster", "slicegpt@12", "", "prefill_speedup", 1.0),
    Claim("slicegpt", "a quarter less keeps perplexity", "slicegpt@12", "", "ppl_ratio", 1.1),
    Claim("kv-int", "keys by channel beat keys by token at 3 bits", "kv-int@3", BY_TOKEN, PRESSURE),
    Claim("gear", "beats plain integers at 4 bits", "gear@4", "kv-int@4", PRESSURE),
    Claim("zipcache", "beats plain integers at 4 bits", "zipcache@4", "kv-int@4", PRESSURE),
    Claim("rotatekv", "beats plain integers at 3 bits", "rotatekv@3", "kv-int@3", PRESSURE),
    Claim("rotatekv", "beats keys by token at 3 bits", "rotatekv@3", BY_TOKEN, PRESSURE),
    Claim("cskv", "beats pruned channels at 8 bits", "cskv@8", "mustafar@8", PRESSURE),
    Claim("razor", "finds more needles than a window", "razor@4", "window@4", "needle_all"),
    Claim("ems", "beats forgetting tokens at 4 bits", "ems@4", "window@4", PRESSURE),
    Claim("ems", "finds more needles than a window at 4 bits", "ems@4", "window@4", "needle_all"),
    Claim(
        "double-sparse",
        "all tokens held and few attended beat forgetting the others at 6 bits",
        "double-sparse@6",
        "window@6",
        PRESSURE,
    ),
    Claim(
        "double-sparse",
        "finds more needles than a window at 6 bits",
        "double-sparse@6",
        "window@6",
        "needle_all",
    ),
    Claim("mustafar", "beats forgetting tokens at 8 bits", "mustafar@8", "window@8", PRESSURE),
    Claim("mustafar", "decodes faster than dense", "mustafar@8", "", "decode_speedup", 1.0),
    Claim("window", "decodes faster than dense", "window@8", "", "decode_speedup", 1.0),
    Claim("copyspec", "decodes faster than dense", "copyspec", "", "decode_speedup", 1.0),
    Claim("speculative", "decodes faster than dense", "speculative", "", "decode_speedup", 1.0),
    Claim("swift", "decodes faster than dense", "swift", "", "decode_speedup", 1.0),
    Claim(
        "token-recycling",
        "decodes faster than dense",
        "token-recycling",
        "",
        "decode_speedup",
        1.0,
    ),
    Claim("aded", "decodes faster than dense", "aded", "", "decode_speedup", 1.0),
    Claim("aded", "gains over two tokens a call", "aded", "", "mean_accepted", 2.0),
    Claim("rsd", "keeps more of a draft than a chain", "rsd", "speculative", "mean_accepted"),
    Claim("dyspec", "keeps more of a draft than a chain", "dyspec", "speculative", "mean_accepted"),
    Claim("spectr", "keeps more of a draft than a chain", "spectr", "speculative", "mean_accepted"),
    Claim("mdsd", "keeps more of a draft than a chain", "mdsd", "speculative", "mean_accepted"),
    Claim("smartspec", "beats fixed lengths", "smartspec", "speculative", "decode_speedup"),
    Claim(
        "specdec-threshold",
        "beats fixed lengths",
        "specdec-threshold",
        "speculative",
        "decode_speedup",
    ),
    Claim(
        "token-recycling",
        "gains over two tokens a call",
        "token-recycling",
        "",
        "mean_accepted",
        2.0,
    ),
)
