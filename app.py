"""Starts the page: `python app.py`, then open the address that it prints."""

from __future__ import annotations

import argparse
import os
from contextlib import ExitStack
from pathlib import Path


def parse() -> argparse.Namespace:
    """The flags."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--host", default=None, help="address to listen on")
    parser.add_argument("--port", type=int, default=None, help="port to listen on")
    parser.add_argument("--home", type=Path, default=None, help="folder of all results and jobs")
    parser.add_argument("--cluster", default="", help="run jobs on a Ray cluster: http://HEAD:8265")
    parser.add_argument("--gpus", type=float, default=0, help="GPUs that a job of a cluster takes")
    parser.add_argument("--public", action="store_true", help="embedded model only, small limits")
    return parser.parse_args()


def main() -> None:
    """Open the service, start the page, and wait until it is stopped."""
    flags = parse()
    space = bool(os.environ.get("SPACE_ID"))
    os.environ["GRADIO_ANALYTICS_ENABLED"] = "False"  # read once, while packages are imported
    os.environ.setdefault("HF_HUB_DISABLE_TELEMETRY", "1")

    from backend.errors import ParetoscopeError
    from backend.limits import AT_HOME, IN_PUBLIC
    from backend.opening import check_port, ending, lends, opened, settings
    from ui import page

    limits, lent = IN_PUBLIC if flags.public or space else AT_HOME, space and lends()
    host, told = flags.host or ("0.0.0.0" if space else "127.0.0.1"), ending()
    with ExitStack() as stack:
        try:
            check_port(host, flags.port)
            chosen = settings(limits, flags.cluster, flags.gpus, lent=lent)
            service = stack.enter_context(opened(flags.home, **chosen))
        except ParetoscopeError as error:
            raise SystemExit(str(error)) from None
        blocks = page.build(service, limits)
        _, address, _ = blocks.launch(
            server_name=host,
            server_port=flags.port,
            prevent_thread_lock=True,
            **page.launching(service, limits, lent=lent),
        )
        os.write(1, f"Paretoscope is at {address}\n".encode())
        page.warm(address)
        service.warm_up()
        told.get()
    os._exit(0)  # all is in its files; what threads of the server still hold is not waited for


if __name__ == "__main__":
    main()
