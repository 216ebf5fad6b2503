"""How quick the page is, `python -m docs.benchmarks.page`; needs Chromium; prints JSON.

Cold load, click to card, redraw of 2,000 dots, a frontier over 100,000 runs, what five viewers
cost, and the first token of a live text. Times are medians with the range of the repeats.
"""

from __future__ import annotations

import argparse
import json
import os
import shutil
import socket
import statistics
import subprocess
import sys
import tempfile
import time
import urllib.request
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import psutil
from playwright.sync_api import Browser, Page, sync_playwright

from backend.service import Service
from backend.store import frontier
from backend.store.results import EVERYTHING

ROOT = Path(__file__).parents[2]
DRAWN = ".ps-plot[data-drawn] .scatterlayer .point"
WATCHED = 20.0  # seconds that viewers look on


def main() -> None:
    """Measure everything and print it."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--repeats", type=int, default=5)
    repeats = parser.parse_args().repeats
    chromium = shutil.which("chromium") or shutil.which("chromium-browser")
    if chromium is None:
        raise SystemExit("Install Chromium with the system first.")
    found = Told({"load_before": os.getloadavg()[0]})
    with tempfile.TemporaryDirectory() as folder, sync_playwright() as playwright:
        home = Path(folder)
        browser = playwright.chromium.launch(
            executable_path=chromium, args=["--no-sandbox", "--disable-gpu"]
        )
        with serving(home / "first") as (address, process):
            found.update(load(browser, address, repeats))
            found["click_to_card_ms"] = told(repeat(clicks(browser, address), 2 * repeats))
            found["viewers_percent_of_a_core"] = viewers(browser, address, process)
            found.update(live(address, repeats))
        fill(home / "many", 2_000)
        with serving(home / "many") as (address, _):
            found["redraw_2000_ms"] = told(repeat(redraws(browser, address), repeats))
        browser.close()
        fill(home / "most", 100_000)
        with Service(home / "most", run_jobs=False) as service:
            found["frontier_100000_ms"] = told(repeat(lambda: timed(query(service)), repeats))
            cost = repeat(lambda: timed(query(service), time.process_time), repeats)
            found["frontier_100000_processor_ms"] = told(cost)
    json.dump(found, sys.stdout, indent=1)
    sys.stdout.write("\n")


class Told(dict[str, Any]):
    """Figures that are also told as soon as they are known."""

    def __setitem__(self, name: str, value: Any) -> None:
        """Keep one and tell it."""
        super().__setitem__(name, value)
        sys.stderr.write(f"{name} {value}\n")

    def update(self, more: dict[str, Any]) -> None:  # type: ignore[override]
        """Keep several."""
        for name, value in more.items():
            self[name] = value


def load(browser: Browser, address: str, repeats: int) -> dict[str, Any]:
    """From an empty cache to the drawn chart, and bytes of script on the wire."""
    scripts = 0

    def once() -> float:
        nonlocal scripts
        context = browser.new_context(viewport={"width": 1440, "height": 900})
        page = context.new_page()
        network = context.new_cdp_session(page)
        network.send("Network.enable")
        sizes: dict[str, int] = {}
        kinds: dict[str, str] = {}
        network.on("Network.responseReceived", lambda e: kinds.update({e["requestId"]: e["type"]}))
        network.on(
            "Network.loadingFinished",
            lambda e: sizes.update({e["requestId"]: int(e["encodedDataLength"])}),
        )
        began = time.perf_counter()
        page.goto(address)
        page.wait_for_selector(DRAWN)
        seconds = time.perf_counter() - began
        page.wait_for_timeout(500)
        scripts = sum(size for key, size in sizes.items() if kinds.get(key) == "Script")
        context.close()
        return 1000 * seconds

    return {"cold_load_ms": told(repeat(once, repeats)), "script_bytes": scripts}


def clicks(browser: Browser, address: str) -> Callable[[], float]:
    """A click on one dot after another, until its card stands."""
    page = browser.new_page(viewport={"width": 1440, "height": 900})
    page.goto(address)
    page.wait_for_selector(DRAWN)
    runs = page.evaluate(
        "document.querySelector('.ps-plot').data.flatMap((trace) => trace.customdata || [])"
    )

    def once() -> float:
        run = runs.pop()
        began = time.perf_counter()
        page.evaluate(
            "(run) => document.querySelector('.ps-plot').emit('plotly_click', "
            "{points: [{customdata: run}]})",
            run,
        )
        page.wait_for_selector(f".ps-card[data-run='{run}']")
        return 1000 * (time.perf_counter() - began)

    return once


def redraws(browser: Browser, address: str) -> Callable[[], float]:
    """The whole chart drawn again."""
    page: Page = browser.new_page(viewport={"width": 1440, "height": 900})
    page.goto(address)
    page.wait_for_selector(DRAWN)
    return lambda: page.evaluate(
        """async () => {
          const began = performance.now();
          window.dispatchEvent(new CustomEvent("paretoscope-plan", { detail: [] }));
          await new Promise((done) => requestAnimationFrame(() => setTimeout(done)));
          return performance.now() - began;
        }"""
    )


def viewers(browser: Browser, address: str, process: subprocess.Popen) -> dict[str, float]:
    """Processor time of the server with no viewer and with five."""
    server = psutil.Process(process.pid)

    def used() -> float:
        before = server.cpu_times()
        time.sleep(WATCHED)
        after = server.cpu_times()
        return 100 * (after.user + after.system - before.user - before.system) / WATCHED

    alone = used()
    context = browser.new_context()
    for _ in range(5):
        page = context.new_page()
        page.goto(address)
        page.wait_for_selector(DRAWN)
    watched = used()
    context.close()
    return {"none": round(alone, 2), "five": round(watched, 2)}


def live(address: str, repeats: int) -> dict[str, Any]:
    """Seconds to the first token of a text, the models loaded already and not."""
    wish = {"recipe": "rtn@4", "tier": "smoke", "speed": ""}
    job = ask(f"{address}/api/v1/jobs", wish)
    while ask(f"{address}/api/v1/jobs/{job['job_id']}")["active"]:
        time.sleep(0.2)
    count = 0

    def once() -> float:
        nonlocal count
        count += 1
        began = time.perf_counter()
        wish = {"runs": [job["run_id"]], "prompt": f"Tale {count}. Once", "new_tokens": 32}
        writing = ask(f"{address}/api/v1/writings", wish)
        first = 0.0
        while writing["state"] not in ("done", "failed"):
            path = f"{address}/api/v1/writings/{writing['writing_id']}"
            writing = ask(path)
            if not first and any("token" in event for event in writing["events"]):
                first = time.perf_counter() - began
            time.sleep(0.01)
        return 1000 * first

    return {"first_token_cold_ms": round(once(), 1), "first_token_ms": told(repeat(once, repeats))}


@contextmanager
def serving(home: Path) -> Iterator[tuple[str, subprocess.Popen]]:
    """The page over a home, in a process of its own."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    command = [sys.executable, "app.py", "--home", str(home), "--port", str(port)]
    address = f"http://127.0.0.1:{port}"
    with subprocess.Popen(command, cwd=ROOT, stdout=subprocess.PIPE) as process:
        assert process.stdout is not None
        process.stdout.readline()
        time.sleep(10)  # the warm-up is not what is measured
        yield address, process
        process.terminate()


def fill(home: Path, count: int) -> None:
    """A home whose database knows `count` runs of four families; their files are left out."""
    with Service(home, run_jobs=False) as service, service.store.database.writing() as cursor:
        cursor.execute(
            "INSERT INTO results SELECT format('{:016x}', i + 1), 'default', "
            "'made@' || i, ['quantise', 'prune', 'factorise', 'cache'][1 + i % 4], 'done', 'made', "
            "'made', '2026-01-01T00:00:00+00:00', 1, '{}', '[]', '{}', '[]', '[]', '{}', '{}' "
            "FROM range(?) made(i)",
            [count],
        )
        for name, value in (("resident_bytes", "1e5 * exp(3 * random())"),
                            ("kld_mean", "exp(-6 * random())")):  # fmt: skip
            cursor.execute(
                "INSERT INTO readings SELECT format('{:016x}', i + 1), ?, "
                f"{value}, NULL, NULL, '', 'lower', 'measured', NULL, '' FROM range(?) made(i)",
                [name, count],
            )


def ask(address: str, content: dict[str, Any] | None = None) -> Any:
    """JSON of an address, with a body if there is one."""
    body = None if content is None else json.dumps(content).encode()
    request = urllib.request.Request(address, body, {"Content-Type": "application/json"})
    with urllib.request.urlopen(request) as answer:
        return json.load(answer)


def query(service: Service) -> Callable[[], Any]:
    """The window query over all runs, its rows only counted."""
    limits = EVERYTHING.bound() | {"x": "resident_bytes", "y": "kld_mean", "by_hardware": True}

    def deed() -> Any:
        with service.store.database.reading() as cursor:
            text = f"SELECT count(*) FILTER (on_frontier) FROM ({frontier.QUERY})"
            return cursor.execute(text, limits).fetchone()

    return deed


def timed(deed: Callable[[], Any], clock: Callable[[], float] = time.perf_counter) -> float:
    """Milliseconds that a deed takes, by a clock."""
    began = clock()
    deed()
    return 1000 * (clock() - began)


def repeat(deed: Callable[[], float], times: int) -> list[float]:
    """What a deed gives each time, the first left out."""
    return [deed() for _ in range(times + 1)][1:]


def told(values: list[float]) -> list[float]:
    """Median, least and most."""
    return [round(one, 1) for one in (statistics.median(values), min(values), max(values))]


if __name__ == "__main__":
    main()
