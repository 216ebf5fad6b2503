"""Triton kernels, one file per operation, and the host code that launches each.

Loaded only when a tensor lies on a GPU: Triton is an optional package. Nothing here was ever run
on a GPU; `docs/kernels.md` says what is checked without one.
"""
