"""The page in a real browser: what a person sees, clicks, links to, and is safe from."""

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

from tests.page_results import BEATEN, HOSTILE, MIDDLE, PAYLOADS, SMALL, fill
from ui import programs

CHROMIUM = next(
    filter(None, map(shutil.which, ("chromium", "chromium-browser", "google-chrome", "chrome"))),
    None,
)
try:
    from playwright.sync_api import expect, sync_playwright
except ImportError:
    sync_playwright = None

pytestmark = [
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


@pytest.fixture(autouse=True, scope="module")
def patience():
    """A busy machine is slow, not wrong."""
    expect.set_options(timeout=PATIENCE)
    yield
    expect.set_options(timeout=None)


@pytest.fixture(scope="module")
def server(tmp_path_factory):
    started = Server(fill(tmp_path_factory.mktemp("home"))).start()
    yield started
    started.stop()


@pytest.fixture(scope="module")
def chromium():
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


def look_now(page):
    """Have a page ask for news as if it had just been brought to the front."""
    page.evaluate("document.dispatchEvent(new Event('visibilitychange'))")


def click_dot(page, run_id):
    """Click where a run is drawn, as a person would."""
    place = page.evaluate(
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


def test_the_first_screen_draws_the_frontier(visit):
    page = drawn(visit())
    roles = page.evaluate("document.querySelector('.ps-plot').data.map((t) => t.meta?.role)")
    assert roles.count("frontier") == 1
    assert roles.count("dots") == 3
    expect(page.locator(".ps-below")).to_contain_text("two cores")
    expect(page.locator("h1")).to_have_count(1)


def test_a_click_on_a_dot_opens_its_card_and_names_it_in_the_address(visit):
    page = drawn(visit())
    click_dot(page, MIDDLE)
    card = page.locator(f".ps-card[data-run='{MIDDLE}']")
    expect(card.locator("h2")).to_contain_text("gptq@4")
    expect(card).to_contain_text("0.0200 nats/token")
    expect(card.locator("mark.ps-first").first).to_have_text("home")
    assert page.url.endswith(f"?run={MIDDLE}")
    assert page.locator(".ps-link").input_value() == page.url


def test_a_card_can_be_opened_from_the_keyboard(visit):
    page = drawn(visit())
    page.locator(".ps-table summary").focus()
    page.keyboard.press("Enter")
    page.locator(".ps-table button", has_text="svd@8").focus()
    page.keyboard.press("Enter")
    expect(page.locator(f".ps-card[data-run='{BEATEN}']")).to_contain_text("Beaten by")


def test_a_recipe_goes_from_the_card_into_the_form(visit):
    page = drawn(visit(f"/?run={SMALL}"))
    page.get_by_role("button", name="Use recipe").click()
    expect(page.locator("[data-recipe-text]")).to_have_value("gptq@3")
    expect(page.locator("[data-stage=gptq] [data-setting=bits]")).to_have_value("3")


def test_the_axes_are_chosen_and_kept_in_the_address(visit):
    page = drawn(visit())
    page.locator("select[data-axis=y]").select_option("top1_agree")
    page.wait_for_function(
        "document.querySelector('.ps-plot').layout.yaxis.title.text.includes('Same first choice')"
    )
    assert "y=top1_agree" in page.url


def test_zoom_survives_a_click_and_new_data(visit):
    page = drawn(visit())
    before = page.evaluate("document.querySelector('.ps-plot').layout.xaxis.range")
    box = page.locator(".ps-plot").bounding_box()
    page.mouse.move(box["x"] + 100, box["y"] + 60)
    page.mouse.down()
    page.mouse.move(box["x"] + 400, box["y"] + 380, steps=4)
    page.mouse.up()
    ranges = "document.querySelector('.ps-plot').layout.xaxis.range"
    page.wait_for_function(f"{ranges}[1] < {before[1]} - 0.05")
    near = page.evaluate(ranges)
    with page.expect_response(lambda answer: "page/figure" in answer.url):
        page.evaluate("window.dispatchEvent(new CustomEvent('paretoscope-runs', {detail: []}))")
    page.wait_for_timeout(600)  # a click while it is drawn, or the second of two, opens nothing
    click_dot(page, MIDDLE)
    page.wait_for_selector(f".ps-card[data-run='{MIDDLE}']")
    assert page.evaluate(ranges) == near
    page.get_by_role("button", name="Reset zoom").click()
    page.wait_for_function(f"{ranges}[1] === {before[1]}")


def test_a_comparison_marks_the_first_word_that_differs(visit):
    page = visit(f"/?compare={MIDDLE},{SMALL}&prompt=1")
    panes = page.locator(".ps-compare .ps-pane")
    expect(panes).to_have_count(3)
    expect(panes.nth(0).locator("h3")).to_contain_text("dense")
    expect(panes.nth(0).locator("mark")).to_have_count(0)
    expect(panes.nth(1).locator("mark.ps-first")).to_have_text("away")
    expect(panes.nth(1).locator("footer")).to_contain_text("nearly a tie")
    expect(page.locator("select[data-prompt]")).to_have_value("1")


def test_a_blind_question_is_answered_counted_and_shown_beside_the_divergence(visit):
    page = visit(f"/?compare={SMALL}&mode=blind")
    sides = page.locator(".ps-blind [data-side]")
    expect(sides).to_have_count(2)
    assert "gptq" not in page.locator(".ps-blind").inner_text()
    left = page.locator("[data-side=left] .ps-text").inner_text()
    told = "right" if "slept well" in left else "left"
    page.locator(f"[data-choice={told}]").click()
    expect(page.locator(".ps-verdict")).to_contain_text("Right.")
    expect(page.locator(f"[data-side={told}] h3")).to_contain_text("gptq@3")
    row = page.locator(".ps-tally tbody tr", has_text="gptq@3")
    expect(row).to_contain_text("0.200 nats/token")
    expect(row).to_contain_text("1 of 1")
    page.locator("[data-next]").click()
    expect(page.locator(".ps-verdict")).to_contain_text("0 more")


def test_a_run_without_its_model_offers_to_make_it(visit):
    page = visit(f"/?compare={SMALL}&mode=live")
    expect(page.locator(".ps-offer")).to_contain_text("not on this machine")
    expect(page.locator("[data-write]")).to_be_disabled()
    page.locator(f"[data-remake='{SMALL}']").click()
    expect(page.locator(".ps-offer")).to_contain_text("is being made here")
    expect(page.locator(".ps-job", has_text="gptq@3").first).to_contain_text("waits for its turn")
    page.get_by_role("button", name="Cancel gptq@3").first.click()


def test_a_short_link_opens_the_view_that_was_kept(visit, server):
    page = visit(f"/?compare={MIDDLE},{SMALL}&prompt=1")
    expect(page.locator(".ps-compare .ps-pane")).to_have_count(3)
    page.get_by_role("button", name="Short link").click()
    expect(page.locator(".ps-link")).to_have_value(re.compile(r"/\?share=[0-9a-f]{16}$"))
    short = page.locator(".ps-link").input_value().removeprefix(server.address)
    other = visit(short)
    expect(other.locator(".ps-compare .ps-pane")).to_have_count(3)
    assert f"compare={MIDDLE},{SMALL}" in other.url


def test_a_space_tells_the_page_around_it_what_is_seen(visit):
    page = visit("/health")  # stands for the Hub, whose page holds the Space in a frame

    def as_on_a_space(route):
        answer = route.fetch()
        link = {"link": "https://huggingface.co/spaces/someone/name"}
        route.fulfill(response=answer, json=answer.json() | link)

    page.route("**/page/start", as_on_a_space)
    page.evaluate(
        """() => {
          window.told = [];
          window.postMessage = (what, where, ports) => {
            if (what.queryString) told.push([what.queryString, where]);
            if (what === "zerogpu-headers") ports[0].postMessage({ "X-IP-Token": where });
          };
          const frame = document.createElement("iframe");
          frame.src = "/";
          document.body.append(frame);
        }"""
    )
    inside = page.frame_locator("iframe")
    expect(inside.locator(".ps-link")).to_have_value(
        "https://huggingface.co/spaces/someone/name", timeout=PATIENCE
    )
    inside.locator("body").evaluate(
        f"() => import('/page/static/view.js').then((view) => view.change({{ run: '{SMALL}' }}))"
    )
    assert page.evaluate("told.at(-1)") == [f"run={SMALL}", "https://huggingface.co"]
    expect(inside.locator(".ps-link")).to_have_value(
        f"https://huggingface.co/spaces/someone/name?run={SMALL}"
    )
    inside.locator("body").evaluate("window.supports_zerogpu_headers = true")
    with page.expect_request("**/api/v1/share") as asked:
        inside.get_by_role("button", name="Short link").click()
    assert asked.value.header_value("x-ip-token") == "https://huggingface.co"


def test_a_bound_shades_the_chart_and_is_kept_in_the_address(visit):
    page = drawn(visit())
    limits = "document.querySelector('.ps-plot').layout.shapes.filter((s) => s.name === 'limit')"
    for side, text, count in (("x", "1 MB", 1), ("y", "0.1", 2)):
        page.locator(f"input[data-limit={side}]").fill(text)
        page.keyboard.press("Enter")
        page.wait_for_function(f"{limits}.length === {count}")
    assert "limit=1000000&ylimit=0.1" in page.url


def test_every_method_is_told_beside_what_was_measured(visit):
    page = visit("/?tab=methods")
    expect(page.locator("#method-gptq")).to_contain_text("arXiv 2210.17323")
    expect(page.locator("#method-gptq table")).to_contain_text("gptq@3")
    expect(page.locator("#method-gptq svg circle")).to_have_count(2)
    page.get_by_role("searchbox", name="Find a method", exact=True).fill("nearest to zero")
    expect(page.locator("#method-gptq")).to_be_hidden()
    expect(page.locator("#method-magnitude")).to_be_visible()


def add_stage(page, key):
    page.locator("[data-add]").select_option(label=key)
    expect(page.locator(f"[data-stage={key}]")).to_be_visible()


def test_a_recipe_is_built_of_legal_stages_and_what_cannot_be_says_why(visit):
    page = drawn(visit())
    page.get_by_role("button", name="Recipe", exact=True).click()
    add_stage(page, "gptq")
    barred = page.locator("[data-add] option[disabled]", has_text="rtn")
    assert "both quantise" in barred.get_attribute("title")
    page.locator("summary", has_text="cannot be added").click()
    expect(page.locator(".ps-why")).to_contain_text("gptq and rtn both quantise")
    add_stage(page, "kv-int")
    page.locator("[data-stage=gptq] [data-setting=bits]").fill("3")
    page.keyboard.press("Tab")
    expect(page.locator("[data-recipe-text]")).to_have_value("gptq@3 + kv-int@5")
    page.locator("[data-stage=gptq] summary").click()
    page.locator("[data-stage=gptq] [data-setting=group_size]").select_option("64")
    expect(page.locator("[data-recipe-text]")).to_have_value(
        "gptq(bits=3.0, group_size=64) + kv-int@5"
    )
    page.locator("[data-recipe-text]").fill("gptq@4 + rtn@4")
    page.keyboard.press("Enter")
    expect(page.locator(".ps-setup [role=alert]")).to_contain_text("both quantise")


def test_the_size_and_time_of_a_budget_are_told_before_anything_runs(visit):
    page = drawn(visit())
    plan = page.locator(".ps-plan")
    expect(plan).to_contain_text("of 1.71 MB")
    page.locator("[data-budget-kind]").select_option("weights")
    page.locator("[data-budget]").fill("900 kB")
    expect(page.locator(".ps-go")).to_contain_text("Compress (≈")
    expect(plan).to_contain_text("900 kB of 1.71 MB")
    page.locator("[data-budget]").fill("1 kB")
    expect(plan.locator(".ps-error")).to_contain_text("over the budget")
    page.locator("[data-budget]").fill("nothing")
    expect(plan.locator(".ps-error")).to_contain_text("limits nothing")
    expect(page.locator(".ps-go")).to_be_disabled()


def test_what_is_about_to_run_stands_hollow_on_the_chart(visit):
    page = drawn(visit())
    page.locator("[data-budget]").fill("3.5")
    page.wait_for_function(
        """() => {
          const { data } = document.querySelector(".ps-plot");
          const found = data.find((trace) => trace.name === "planned");
          return found?.text[0] === "gptq@3.5" && found.marker.symbol[0] === "circle-open";
        }"""
    )


def test_a_budget_is_answered_from_measured_runs_and_kept_in_the_address(visit):
    page = drawn(visit())
    box = page.locator(".ps-answer")
    box.get_by_label("Fits in").fill("825 kB")
    box.get_by_role("button", name="Answer").click()
    expect(box.locator("li").first).to_contain_text("least divergence of 2 runs")
    expect(box).to_contain_text("What binds: Resident memory at most 825 kB")
    assert "budget=825+kB" in page.url
    box.locator("li button").first.click()
    expect(page.locator(f".ps-card[data-run='{MIDDLE}']")).to_be_visible()
    box.get_by_label("Fits in").fill("very little")
    box.get_by_role("button", name="Answer").click()
    expect(box.locator("[role=alert]")).to_contain_text("6 GB")


def test_how_surely_a_run_stands_follows_the_first_drawing(visit):
    page = drawn(visit())
    expect(page.locator(".ps-foot")).to_contain_text("The front covers")
    shares = page.evaluate(
        "document.querySelector('.ps-plot').data.flatMap((t) => t.hovertext || [])"
        ".filter((text) => text.includes('of draws')).length"
    )
    assert shares >= 3


def test_estimates_stand_hollow_on_request(visit):
    page = drawn(visit())
    page.get_by_role("button", name="Show estimates").click()
    page.wait_for_function(
        "document.querySelector('.ps-plot').data.some((t) => t.meta?.role === 'expected')"
    )
    assert "expected=1" in page.url


def test_a_job_appears_in_every_tab_and_can_be_cancelled(visit):
    one, other = drawn(visit()), drawn(visit())
    one.locator("[data-budget]").fill("4")
    expect(one.locator(".ps-go")).to_have_text(re.compile(r"^Compress \(≈"))
    one.locator(".ps-go").click()
    expect(one.locator(".ps-job", has_text="gptq@4")).to_contain_text("waits for its turn")
    look_now(other)
    expect(other.locator(".ps-job", has_text="gptq@4")).to_contain_text("waits for its turn")
    other.get_by_role("button", name="Cancel gptq@4").click()
    look_now(one)
    for page in (one, other):
        expect(page.locator(".ps-job", has_text="gptq@4")).to_contain_text("cancelled")


def test_an_unknown_run_is_a_friendly_sentence(visit):
    page = visit("/?run=ffffffffffffffff")
    expect(page.locator(".ps-card [role=alert]")).to_be_visible()
    assert "Traceback" not in page.content()
    visit.wrong.clear()  # the browser notes the 404 itself in its console


def test_dark_colours_reach_the_chart(visit):
    page = drawn(visit("/?__theme=dark"))
    colours = page.evaluate(
        """() => { const plot = document.querySelector('.ps-plot');
        return [plot.layout.font.color, plot.layout.paper_bgcolor,
                getComputedStyle(document.querySelector('.ps-field select')).backgroundColor]; }"""
    )
    text, ground, control = colours
    assert ground == "rgba(0,0,0,0)"
    assert control != "rgb(255, 255, 255)"
    page.evaluate("document.body.classList.remove('dark')")
    page.wait_for_function(f"document.querySelector('.ps-plot').layout.font.color !== '{text}'")


@pytest.mark.parametrize(
    ("path", "shown"),
    [
        ("/", ".ps-plot[data-drawn]"),
        (f"/?run={MIDDLE}", ".ps-card[data-run]"),
        (f"/?compare={MIDDLE}", ".ps-compare .ps-pane"),
        ("/?tab=methods", ".ps-method"),
    ],
)
def test_a_narrow_screen_has_nothing_beside_it(visit, path, shown):
    page = visit(path, width=390, height=844)
    page.wait_for_selector(shown)
    assert page.evaluate("document.documentElement.scrollWidth") <= 390
    beyond = page.evaluate(
        """(shown) => [...document.querySelectorAll(`${shown}, ${shown} *`)]
          .filter((one) => !one.closest(".ps-scroll, .ps-plot") && one.checkVisibility()
            && one.getBoundingClientRect().right > 391)
          .map((one) => one.outerHTML.slice(0, 100))""",
        shown,
    )
    assert beyond == []


def test_programs_ask_the_same_through_gradios_client(server):
    gradio_client = pytest.importorskip("gradio_client")
    client = gradio_client.Client(server.address, verbose=False)
    points = client.predict("resident_bytes", "kld_mean", "default", api_name="/frontier")
    assert {one["run_id"]: one["on_frontier"] for one in points}[SMALL] is True
    assert client.predict(MIDDLE, api_name="/run")["recipe"] == "gptq@4"
    assert client.predict("gptq@4", "default", api_name="/estimate")["dense_bytes"] == 1_706_368
    with pytest.raises(gradio_client.exceptions.AppError, match="not on this machine"):
        client.predict(MIDDLE, "Once", 8, api_name="/write")


def test_language_models_find_the_tools_where_the_extra_is_installed(server):
    if not programs.speaks_mcp():
        pytest.skip("the optional package mcp 1.x is not installed")
    with urllib.request.urlopen(f"{server.address}/gradio_api/mcp/schema") as answer:
        assert "frontier" in answer.read().decode()


def test_six_tabs_work_at_once(visit):
    pages = [visit() for _ in range(6)]
    for page in pages:
        drawn(page)


def test_a_stopped_server_is_told_and_a_link_opens_the_same_view_after_a_restart(visit, server):
    path = f"/?run={MIDDLE}&x=footprint_bytes&y=top1_agree&family=dense,quantise"
    waiting = drawn(visit())
    server.stop()
    look_now(waiting)
    expect(waiting.locator(".ps-offline")).to_be_visible()
    assert waiting.locator(".ps-plot .point").count()
    server.start()
    look_now(waiting)
    expect(waiting.locator(".ps-offline")).to_be_hidden(timeout=PATIENCE)
    visit.wrong.clear()  # the browser notes refused connections itself
    page = drawn(visit(path))
    expect(page.locator(f".ps-card[data-run='{MIDDLE}']")).to_contain_text("gptq@4")
    assert page.locator("select[data-axis=x]").input_value() == "footprint_bytes"
    assert page.locator("select[data-axis=y]").input_value() == "top1_agree"
    shown = page.get_by_role("group", name="Families shown")
    pressed = shown.locator("[aria-pressed=true]").all_inner_texts()
    assert [text.split()[-1] for text in pressed] == ["quantise"]
    expect(page.locator(".ps-link")).to_have_value(server.address + path)


def test_a_report_opens_from_disk(visit, server, tmp_path):
    path = tmp_path / "report.html"
    with urllib.request.urlopen(f"{server.address}/page/report") as answer:
        path.write_bytes(answer.read())
    page = visit()
    page.goto(path.as_uri())
    page.wait_for_selector("#plot .scatterlayer .point")
    assert visit.wrong == [path.as_uri()]
    visit.wrong.clear()


@pytest.fixture
def working(context, tmp_path):
    """Visits to a page whose jobs run."""
    server = Server(fill(tmp_path), "work").start()
    yield from visits(context, server)
    server.stop()


@pytest.mark.slow
def test_a_run_draws_a_new_dot_and_its_model_writes_beside_the_dense_one(working):
    page = drawn(working())
    page.get_by_role("button", name="rtn", exact=True).click()
    page.get_by_role("button", name="gptq", exact=True).click()
    page.locator("[data-budget]").fill("3")
    page.get_by_label("Measure").select_option("smoke")
    page.get_by_label("Time it too").uncheck()
    expect(page.locator(".ps-go")).to_have_text(re.compile(r"^Compress \(≈"))
    page.locator(".ps-go").click()
    # A ring around what is new tells that the dot is there, without a reload.
    page.wait_for_function(
        "document.querySelector('.ps-plot').data.some((t) => t.name === 'fresh')", timeout=120_000
    )
    made = page.locator(".ps-job.ps-is-done").get_attribute("data-run")
    page = working(f"/?compare={made}&mode=live&tokens=32")
    page.locator("[data-say]").fill("Once upon a time, there was a")
    page.locator("[data-write]").click()
    panes = page.locator(".ps-live .ps-pane")
    expect(panes).to_have_count(2)
    expect(panes.nth(1).locator(".ps-tokens span").nth(4)).to_be_attached()
    page.reload()  # a text goes on, and is found again
    expect(page.locator(".ps-live[data-state=done]")).to_be_visible(timeout=30_000)
    assert page.locator("[data-say]").input_value() == "Once upon a time, there was a"
    dense, small = (panes.nth(n).locator(".ps-tokens span").all_inner_texts() for n in range(2))
    at = int(panes.nth(1).locator(".ps-tokens .ps-first").get_attribute("data-at"))
    assert small[:at] == dense[:at]
    assert small[at] != dense[at]
    expect(panes.nth(1).locator("footer")).to_contain_text(f"at token {at + 1}: there")
    expect(panes.nth(1).locator(".ps-numbers")).to_contain_text("tokens/s")
    strip = panes.nth(1).locator(".ps-heat")
    strip.focus()
    page.keyboard.press("Home")
    page.keyboard.press("ArrowRight")
    detail = page.locator(".ps-detail")
    expect(detail.locator("h3")).to_contain_text("Token 2 of rtn@3")
    expect(detail.locator(".ps-top")).to_have_count(2)
    expect(detail.locator(".ps-top").first.locator("li")).to_have_count(5)
    assert strip.get_attribute("aria-valuenow") == "2"
    page.reload()
    expect(page.locator(".ps-live[data-state=done]")).to_be_visible()


@pytest.fixture(scope="module")
def hostile(chromium, tmp_path_factory):
    """Visits to a home where every text of unknown origin is all payloads at once."""
    server = Server(fill(tmp_path_factory.mktemp("hostile"), " ".join(PAYLOADS))).start()
    context = chromium.new_context(viewport={"width": 1440, "height": 900}, base_url=server.address)
    context.set_default_timeout(PATIENCE)
    page = context.new_page()

    def visited(path):
        if "report" in path:
            with urllib.request.urlopen(server.address + path) as answer:
                page.set_content(answer.read().decode())
        else:
            page.goto(server.address + path)
        return page

    yield visited
    context.close()
    server.stop()


@pytest.mark.security
@pytest.mark.parametrize(
    ("path", "shown"),
    [
        (f"/?run={HOSTILE}", ".ps-card[data-run]"),
        (f"/?run={HOSTILE}&x=decode_speedup", ".ps-card[data-run]"),
        (f"/?compare={HOSTILE}", ".ps-compare .ps-pane"),
        ("/?tab=methods", ".ps-method"),
        (f"/r/{HOSTILE}", ".ps-card[data-run]"),
        ("/page/report", "#plot .point"),
        (f"/?run={PAYLOADS[0]}&x={PAYLOADS[2]}&family={PAYLOADS[1]}", "[role=alert]"),
    ],
)
def test_hostile_text_stays_text(hostile, path, shown):
    page = hostile(path)
    page.wait_for_selector(shown)
    page.evaluate("for (const one of document.querySelectorAll('details')) one.open = true")
    page.wait_for_timeout(150)  # for whatever a payload would have loaded
    assert page.evaluate("window.pwned") is None
    assert page.locator("img[onerror], svg[onload], a[href^='javascript']").count() == 0


STRANGE = """() => {
  const found = [...document.querySelectorAll("*")];
  const handlers = found.flatMap((one) => [...one.attributes].filter((each) =>
    each.name.startsWith("on") || /^\\s*javascript:/i.test(each.value)));
  const added = found.filter((one) =>
    one.matches("iframe[srcdoc], math, img[src=x], svg[onload]") ||
    (one.matches("script") && one.textContent.includes("pwned")));
  return [window.pwned ?? null, handlers.length, added.length];
}"""


@pytest.mark.security
def test_what_is_sent_to_the_interface_adds_nothing_to_the_page(hostile):
    """Each payload, kept as a view by the interface and opened by its short link."""

    def opened(text):
        kept = dict.fromkeys(("run", "budget", "say", "prompt", "x", "tab", "writing"), text)
        kept |= {name: [text] for name in ("model", "family", "protocol", "compare")}
        answer = page.request.post("/api/v1/share", data={"view": kept})
        page.goto(f"/?share={answer.json()['slug']}")
        page.wait_for_selector("[role=alert]")
        page.wait_for_function("location.search.includes('budget')")
        page.wait_for_timeout(150)
        seen = page.evaluate(STRANGE)
        refused = page.request.post("/api/v1/jobs", data={"recipe": text, "model": text})
        assert 400 <= refused.status < 500
        assert refused.headers["content-type"] == "application/json"
        assert refused.headers["x-content-type-options"] == "nosniff"
        return seen

    page = hostile("/health")
    assert len(PAYLOADS) == 12
    assert {text: opened(text) for text in PAYLOADS} == {text: [None, 0, 0] for text in PAYLOADS}
