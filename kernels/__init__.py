"""Operations on packed weights and caches: one file per operation, torch and Triton only.

This file holds no import: the folder's name is also that of a package on PyPI which
transformers looks for, and `backend.models` settles that question before it loads anything.
"""
