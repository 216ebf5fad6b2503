"""Bytes, memory, speed, quality and generations of an artefact, by protocol cq-2.

Importing this package imports nothing heavy: `reading`, `statistics`, `scores` and `hardware`
do without torch, so the web process may use them.
"""
