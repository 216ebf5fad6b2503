"""Models and artefacts: the only package that imports transformers.

The project's folder `kernels` bears the name of a package that transformers asks for. Its
question is answered here, once, with that name hidden, before anything else is loaded.
"""

from __future__ import annotations

import sys


def _settle_kernels() -> None:
    own = sys.modules.get("kernels")
    sys.modules["kernels"] = None  # ty: an import of this name finds nothing meanwhile
    try:
        from transformers.utils import import_utils, logging

        import_utils.is_kernels_available()
        logging.disable_progress_bar()
    finally:
        del sys.modules["kernels"]
        if own is not None:
            sys.modules["kernels"] = own


_settle_kernels()
