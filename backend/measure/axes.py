"""What two papers ask of a compressed model, in the readings that answer it here.

Standard library only. What each reading is called is said in `catalogue`.
"""

ABILITIES = {
    "knowledge": ("facts-head", "facts-middle", "facts-tail"),
    "retrieval": ("recall", "copy"),
    "reasoning": ("tracking", "order", "arithmetic", "arithmetic-unseen"),
    "generation": ("language", "agreement", "choice"),
}
"""Abilities by what LLM-KICK (arXiv 2310.01382) asks of a compressed model."""

AXES = {
    "knowledge and capacity": "What it knows and can do, and how well it foresees text.",
    "alignment": "Whether it still answers and writes as the dense model does.",
    "efficiency": "What it takes, and how fast it is; smaller can be slower.",
}
"""The axes of A Comprehensive Evaluation of Quantization Strategies (arXiv 2402.16775).

Harm and bias, which that paper counts under alignment, take tasks of one's own choice.
"""

READINGS = {
    "knowledge and capacity": (
        *(f"kick_{group}" for group in ABILITIES), "ppl_ratio", "wt2_ppl_ratio", "bpb",
    ),
    "alignment": (
        "kld_mean", "top1_agree", "conf_flip", "flips", "ident_rate", "exact_len", "loop",
    ),
    "efficiency": (
        "disk_bytes", "resident_bytes", "footprint_bytes", "peak_bytes", "prefill_speedup",
        "decode_speedup", "decode_speedup_8", "ttft_ms", "tpot_ms",
    ),
}  # fmt: skip
