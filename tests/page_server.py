"""A page over a home for browser tests: `page_server.py HOME PORT [work]`; jobs run on `work`."""

from __future__ import annotations

import os
import sys
from pathlib import Path

os.environ["GRADIO_ANALYTICS_ENABLED"] = "False"

from backend.service import Service
from ui import page


def main() -> None:
    with Service(Path(sys.argv[1]), run_jobs="work" in sys.argv) as service:
        blocks = page.build(service)
        blocks.launch(
            server_name="127.0.0.1", server_port=int(sys.argv[2]), **page.launching(service)
        )


if __name__ == "__main__":
    main()
