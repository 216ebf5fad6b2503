"""The page in a real browser: what a person sees, clicks and links to."""

from __future__ import annotations

import re
import urllib.error
import urllib.request

import pytest

from tests.browser import (
    NEEDS_BROWSER,
    PATIENCE,
    box,
    click_dot,
    drawn,
    expect,
    look_now,
    says,
    settled,
)
from tests.page_results import BEATEN, MIDDLE, SMALL
from ui import programs

pytestmark = NEEDS_BROWSER


def test_the_first_screen_draws_the_frontier(visit):
    page = drawn(visit())
    roles = page.evaluate("document.querySelector('.ps-plot').data.map((t) => t.meta?.role)")
    assert roles.count("frontier") == 1
    assert roles.count("dots") == 3
    expect(page.locator(".ps-below")).to_contain_text("two cores")
    expect(page.locator(".ps-sense")).to_be_hidden()  # no run here has a ratio of perplexities
    expect(page.locator("h1")).to_have_count(1)


def test_a_click_on_a_dot_opens_its_card_and_names_it_in_the_address(visit):
    page = drawn(visit())
    click_dot(page, MIDDLE)
    card = page.locator(f".ps-card[data-run='{MIDDLE}']")
    expect(card.locator("h2")).to_contain_text("gptq@4")
    expect(card).to_contain_text("0.0200 nats/token")
    expect(card.locator("mark.ps-first").first).to_have_text("home")
    expect(page).to_have_url(re.compile(rf"\?run={MIDDLE}$"))
    expect(page.locator(".ps-link")).to_have_value(page.url)


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


def test_the_axes_are_chosen_told_and_kept_in_the_address(visit):
    page = drawn(visit())
    told = re.compile("^Mean distance from the dense model")
    expect(page.locator("label:has(select[data-axis=y])")).to_have_attribute("title", told)
    page.locator("select[data-axis=y]").select_option("top1_agree")
    page.wait_for_function(
        "document.querySelector('.ps-plot').layout.yaxis.title.text.includes('Same first choice')"
    )
    expect(page).to_have_url(says("y=top1_agree"))


def test_zoom_survives_a_click_new_data_and_a_link(visit):
    page = settled(visit())
    before = page.evaluate("document.querySelector('.ps-plot').layout.xaxis.range")
    place = box(page.locator(".ps-plot"))
    page.mouse.move(place["x"] + 100, place["y"] + 60)
    page.mouse.down()
    page.mouse.move(place["x"] + 400, place["y"] + 380, steps=4)
    page.mouse.up()
    ranges = "document.querySelector('.ps-plot').layout.xaxis.range"
    page.wait_for_function(f"{ranges}[1] < {before[1]} - 0.05")
    near = page.evaluate(ranges)
    with page.expect_response(lambda answer: "page/figure" in answer.url):
        page.evaluate("window.dispatchEvent(new CustomEvent('paretoscope-runs', {detail: []}))")
    page.wait_for_timeout(600)  # a click while it is drawn, or the second of two, opens nothing
    click_dot(page, MIDDLE)
    page.wait_for_selector(f".ps-card[data-run='{MIDDLE}']")
    assert page.evaluate(ranges) == pytest.approx(near, rel=1e-4)
    other = settled(visit(page.url.removeprefix(page.evaluate("location.origin"))))
    for side in ("xaxis", "yaxis"):
        seen = f"document.querySelector('.ps-plot').layout.{side}.range"
        assert other.evaluate(seen) == pytest.approx(page.evaluate(seen), rel=1e-4)
    page.get_by_role("button", name="Reset zoom").click()
    page.wait_for_function(f"{ranges}[1] === {before[1]}")
    expect(page).not_to_have_url(says("zoom"))


def test_a_run_without_its_model_offers_to_make_it(visit):
    page = visit(f"/?compare={SMALL}&mode=live")
    expect(page.locator(".ps-offer")).to_contain_text("not on this machine")
    expect(page.locator("[data-write]")).to_be_disabled()
    page.locator(f"[data-remake='{SMALL}']").click()
    expect(page.locator(".ps-offer")).to_contain_text("is being made here")
    expect(page.locator(".ps-job", has_text="gptq@3").first).to_contain_text("waits for its turn")
    page.get_by_role("button", name="Cancel gptq@3").first.click()


def test_a_bound_shades_the_chart_and_is_kept_in_the_address(visit):
    page = drawn(visit())
    limits = "document.querySelector('.ps-plot').layout.shapes.filter((s) => s.name === 'limit')"
    for side, text, count in (("x", "1 MB", 1), ("y", "0.1", 2)):
        page.locator(f"input[data-limit={side}]").fill(text)
        page.keyboard.press("Enter")
        page.wait_for_function(f"{limits}.length === {count}")
    expect(page).to_have_url(says("limit=1000000&ylimit=0.1"))


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
    expect(barred).to_have_attribute("title", re.compile("both quantise"))
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
    expect(page).to_have_url(says("budget=825+kB"))
    box.locator("li button").first.click()
    expect(page.locator(f".ps-card[data-run='{MIDDLE}']")).to_be_visible()
    box.get_by_label("Fits in").fill("very little")
    box.get_by_role("button", name="Answer").click()
    expect(box.locator("[role=alert]")).to_contain_text("6 GB")
    expect(box.get_by_role("button", name="Search further")).to_have_count(0)
    box.get_by_label("Fits in").fill("825 kB at 20 tokens a second")
    box.get_by_role("button", name="Answer").click()
    expect(box).to_contain_text("No run has the readings that this asks for.")


def test_how_surely_a_run_stands_follows_the_first_drawing(visit):
    page = settled(visit())
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
    expect(page).to_have_url(says("expected=1"))


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
    one.get_by_role("button", name="Show the log of gptq@4").click()
    expect(one.locator(".ps-log")).to_have_text("It printed nothing.")
    one.get_by_role("button", name="Close log").click()
    expect(one.locator(".ps-log")).to_have_count(0)


def test_an_unknown_run_is_a_friendly_sentence(visit):
    page = visit("/?run=ffffffffffffffff")
    expect(page.locator(".ps-card [role=alert]")).to_be_visible()
    assert "Traceback" not in page.content()
    visit.wrong.clear()  # the browser notes the 404 itself in its console


def test_dark_colours_reach_the_chart(visit):
    page = settled(visit("/?__theme=dark"))
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
    expect(waiting.locator(".ps-plot .point")).not_to_have_count(0)
    server.start()
    look_now(waiting)
    expect(waiting.locator(".ps-offline")).to_be_hidden(timeout=PATIENCE)
    visit.wrong.clear()  # the browser notes refused connections itself
    page = drawn(visit(path))
    expect(page.locator(f".ps-card[data-run='{MIDDLE}']")).to_contain_text("gptq@4")
    expect(page.locator("select[data-axis=x]")).to_have_value("footprint_bytes")
    expect(page.locator("select[data-axis=y]")).to_have_value("top1_agree")
    shown = page.get_by_role("group", name="Families shown")
    pressed = shown.locator("[aria-pressed=true]")
    expect(pressed).to_have_text([re.compile(r"\bquantise\s*$")], use_inner_text=True)
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
