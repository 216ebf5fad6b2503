"""A page in a real browser: the server, visits to it, and where a dot is drawn."""

from __future__ import annotations

import contextlib
import os
import re
import shutil
import socket
import subprocess
import sys
import time
import urllib.error
import urllib.request
from pathlib import Path

import pytest

CHROMIUM = next(
    filter(None, map(shutil.which, ("chromium", "chromium-browser", "google-chrome", "chrome"))),
    None,
)
try:
    from playwright.sync_api import expect, sync_playwright
except ImportError:
    sync_playwright = expect = None

NEEDS_BROWSER = [
    pytest.mark.browser,
    pytest.mark.skipif(
        CHROMIUM is None or sync_playwright is None,
        reason="THE PAGE IS NOT TESTED IN A BROWSER: install playwright and chromium",
    ),
]
ROOT = Path(__file__).parents[1]
FLAGS = (
    "--no-sandbox", "--disable-gpu", "--disable-background-networking", "--no-first-run",
    "--disable-component-update", "--disable-sync",
)  # fmt: skip
PATIENCE = 60_000  # milliseconds


class Server:
    """A page in a process of its own, which can be stopped and started again."""

    def __init__(self, home, *more):
        self.home, self.more = home, more
        with socket.socket() as free:
            free.bind(("127.0.0.1", 0))
            self.port = free.getsockname()[1]
        self.address = f"http://127.0.0.1:{self.port}"

    def start(self):
        self.process = subprocess.Popen(
            [sys.executable, "-m", "tests.page_server", str(self.home), str(self.port), *self.more],
            cwd=ROOT,
            env=os.environ
            | {"PYTHONPATH": os.pathsep.join([str(ROOT), os.environ.get("PYTHONPATH", "")])},
            stdout=subprocess.DEVNULL,
        )
        for _ in range(240):
            with contextlib.suppress(urllib.error.URLError, ConnectionError):
                urllib.request.urlopen(f"{self.address}/health", timeout=5).close()
                return self
            assert self.process.poll() is None, "the page ended while it started"
            time.sleep(0.25)
        raise TimeoutError("the page did not start in a minute")

    def stop(self):
        self.process.terminate()
        try:
            self.process.wait(15)
        except subprocess.TimeoutExpired:
            self.process.kill()
            self.process.wait()


@pytest.fixture(scope="module")
def patience():
    """A busy machine is slow, not wrong."""
    expect.set_options(timeout=PATIENCE)
    yield
    expect.set_options(timeout=None)


@pytest.fixture(scope="module")
def chromium(patience):
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=CHROMIUM, args=list(FLAGS))
        yield browser
        browser.close()


@pytest.fixture(scope="module")
def context(chromium):
    opened = chromium.new_context()
    opened.set_default_timeout(PATIENCE)
    yield opened
    opened.close()


@pytest.fixture(scope="module")
def server(tmp_path_factory):
    """A home of a few results, where no jobs run; a module with one of its own says so."""
    from tests.page_results import fill

    started = Server(fill(tmp_path_factory.mktemp("home"))).start()
    yield started
    started.stop()


@pytest.fixture
def visit(context, server):
    """Opens pages, and at the end finds neither errors nor requests to other hosts."""
    yield from visits(context, server)


def visits(context, server):
    pages, wrong = [], []
    local = (server.address, "data:", "blob:")

    def opened(path="/", width=1440, height=900):
        page = context.new_page()
        pages.append(page)
        page.set_viewport_size({"width": width, "height": height})
        page.on("console", lambda m: wrong.append(m.text) if m.type == "error" else None)
        page.on("pageerror", lambda error: wrong.append(str(error)))
        page.on("request", lambda r: None if r.url.startswith(local) else wrong.append(r.url))
        page.goto(server.address + path)
        return page

    opened.wrong = wrong
    yield opened
    for page in pages:
        page.close()
    assert wrong == []


def drawn(page):
    page.wait_for_selector(".ps-plot[data-drawn] .scatterlayer .point")
    return page


def settled(page):
    """A page whose chart and table are drawn for the last time: how surely runs stand is told."""
    drawn(page).wait_for_selector(".ps-foot:not(:empty)")
    return page


def says(text):
    """An address that holds this text; what is pressed may reach it after a moment."""
    return re.compile(re.escape(text))


def box(locator):
    """Where something is drawn; asked again where the page just draws it anew."""
    for _ in range(PATIENCE // 100):
        if found := locator.bounding_box():
            return found
        locator.page.wait_for_timeout(100)
    raise TimeoutError(f"{locator} is not drawn")


def look_now(page):
    """Have a page ask for news as if it had just been brought to the front."""
    page.evaluate("document.dispatchEvent(new Event('visibilitychange'))")


def click_dot(page, run_id):
    """Click where a run is drawn, as a person would who waits until nothing moves."""
    place = settled(page).evaluate(
        """(run) => {
          const plot = document.querySelector(".ps-plot");
          for (const trace of plot.data) {
            const at = (trace.customdata || []).indexOf(run);
            if (at < 0) continue;
            const { xaxis, yaxis, margin } = plot._fullLayout;
            const box = plot.getBoundingClientRect();
            return [box.x + xaxis._offset + xaxis.c2p(xaxis.d2c(trace.x[at])),
                    box.y + yaxis._offset + yaxis.c2p(yaxis.d2c(trace.y[at]))];
          }
        }""",
        run_id,
    )
    page.mouse.click(*place)
