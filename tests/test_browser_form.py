"""The form in a real browser: what is set stays set, and what is refused is not lost."""

from __future__ import annotations

import shutil

import pytest

from backend.sources import EMBEDDED
from backend.store.store import Store
from tests.browser import NEEDS_BROWSER, Server, drawn, expect, look_now, says, settled
from tests.page_results import fill, result

pytestmark = NEEDS_BROWSER
TALES = "f" * 16


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    found = tmp_path_factory.mktemp("models") / "tales"
    shutil.copytree(EMBEDDED, found)
    return found


@pytest.fixture(scope="module")
def server(tmp_path_factory, folder):
    home = fill(tmp_path_factory.mktemp("home"))
    about = {"name": "tales", "source": str(folder), "revision": "", "parameters": 850_000}
    with Store(home) as store:
        store.results.add(result(TALES, "gptq@4", "quantise", (820_000, 0.02, 0.9), model=about))
    started = Server(home).start()
    yield started
    started.stop()


def model_of(page):
    return page.get_by_role("textbox", name="Model", exact=True)


def test_what_is_set_survives_a_reload(visit):
    page = drawn(visit())
    page.locator("[data-method=gptq]").click()
    page.locator("[data-method=wanda]").click()
    page.locator("[data-budget-kind]").select_option("weights")
    page.locator("[data-budget]").fill("900 kB")
    page.get_by_label("Measure").select_option("smoke")
    expect(page.locator(".ps-plan")).to_contain_text("of 1.71 MB")
    drawn(page).reload()
    expect(page.locator("[data-budget]")).to_have_value("900 kB")
    chosen = page.locator("[data-method][aria-pressed=true]")
    expect(chosen).to_have_text(["wanda"])
    expect(page.get_by_label("Measure")).to_have_value("smoke")
    page.get_by_role("button", name="Recipe", exact=True).click()
    page.locator("[data-recipe-text]").fill("rtn@4 + kv-int@5")
    page.keyboard.press("Enter")
    expect(page.locator("[data-stage=kv-int]")).to_be_visible()
    page.reload()
    expect(page.locator("[data-recipe-text]")).to_have_value("rtn@4 + kv-int@5")


def test_a_link_to_one_model_and_a_recipe_from_a_card_set_the_model_too(visit, folder):
    page = drawn(visit("/?model=tales"))
    expect(model_of(page)).to_have_value("tales")
    page.get_by_role("button", name="Short link").click()
    page.wait_for_function("document.querySelector('.ps-link').value.includes('share=')")
    short = page.locator(".ps-link").input_value()
    page = drawn(visit(f"/?{short.partition('?')[2]}"))
    expect(model_of(page)).to_have_value("tales")
    page = drawn(visit(f"/?run={TALES}"))
    expect(model_of(page)).to_have_value("default")
    page.get_by_role("button", name="Use recipe").click()
    expect(model_of(page)).to_have_value(str(folder))
    expect(page.locator("[data-recipe-text]")).to_have_value("gptq@4")
    page.wait_for_function("location.search.includes('model=tales')")


def test_a_refused_recipe_stays_to_be_mended_and_does_not_run(visit):
    page = drawn(visit())
    page.get_by_role("button", name="Recipe", exact=True).click()
    text = page.locator("[data-recipe-text]")
    text.fill("gptq@4")
    page.keyboard.press("Enter")
    expect(page.locator(".ps-go")).to_be_enabled()
    text.fill("gptq@4 + kv-in@5")
    page.keyboard.press("Enter")
    expect(page.locator("form.ps-setup [role=alert]")).to_contain_text("kv-int")
    expect(text).to_have_value("gptq@4 + kv-in@5")
    expect(page.locator(".ps-go")).to_be_disabled()
    text.fill("gptq@4 + kv-int@5")
    page.keyboard.press("Enter")
    expect(page.locator("form.ps-setup [role=alert]")).to_have_count(0)
    expect(page.locator(".ps-go")).to_be_enabled()


def test_why_no_search_divides_a_recipe_of_two_is_said(visit):
    page = drawn(visit())
    page.get_by_role("button", name="Recipe", exact=True).click()
    page.locator("[data-recipe-text]").fill("wanda@9 + rtn@4")
    page.keyboard.press("Enter")
    expect(page.locator("form.ps-setup")).to_contain_text("exactly one method that treats layers")


def test_many_jobs_are_seen_whole_and_cancelled_together(visit):
    page = drawn(visit())
    for key in ("rtn", "wanda"):
        page.locator(f"[data-method={key}]").click()
    page.locator("[data-budget]").fill("3, 4, 5")
    expect(page.locator(".ps-go")).to_contain_text("Compress 9 variants")
    page.locator(".ps-go").click()
    page.get_by_role("button", name="Show 2 more").click()
    expect(page.locator(".ps-job.ps-is-queued")).to_have_count(10)  # the dense model too
    page.get_by_role("button", name="Cancel the 10 that wait").click()
    expect(page.locator(".ps-job.ps-is-cancelled")).to_have_count(10)
    page.get_by_role("button", name="Show fewer").click()
    expect(page.locator(".ps-job")).to_have_count(8)


def test_a_bound_is_read_in_any_case_and_shown_as_it_was_meant(visit):
    page = drawn(visit())
    bound = page.locator("input[data-limit=x]")
    for written, shown, bytes_ in (("6 gb", "6 GB", 6e9), ("900 kB", "900 kB", 9e5)):
        bound.fill(written)
        page.keyboard.press("Enter")
        expect(bound).to_have_value(shown)
        expect(page).to_have_url(says(f"limit={bytes_:.0f}"))


def test_the_table_needs_no_more_room_for_a_long_reason(visit):
    page = settled(visit())  # or another figure takes this one's place
    page.locator(".ps-table summary").click()
    page.evaluate(
        """async () => {
          const cells = ["–", "–", "–", "–", "–"];
          const row = { run_id: "", recipe: "gptq@4", family: "quantise", model: "tales",
            standing: "failed", reason: "the disk is full; ".repeat(20), cells };
          const { columns } = await (await fetch("page/table")).json();
          columns.splice(1, 0, { name: "model", title: "Model", first: "model" });
          const table = { columns, rows: [row], count: 1, models: true };
          const detail = { table };
          window.dispatchEvent(new CustomEvent("paretoscope-figure", { detail }));
        }"""
    )
    expect(page.locator(".ps-table .ps-reason")).to_contain_text("the disk is full")
    expect(page.locator(".ps-table .ps-standing").last).to_have_text("failed")
    room = "document.querySelector('.ps-table .ps-scroll')"
    assert page.evaluate(f"{room}.scrollWidth") == page.evaluate(f"{room}.clientWidth")


def test_the_keyboard_reaches_the_results_past_the_form(visit):
    page = drawn(visit())
    page.keyboard.press("Tab")
    expect(page.get_by_role("button", name="Skip to the results")).to_be_focused()
    page.keyboard.press("Enter")
    expect(page.get_by_role("tab", name="Explore")).to_be_focused()


def test_a_wish_to_a_stopped_server_is_told_as_lost_until_it_is_back(visit, server):
    page = drawn(visit())
    expect(page.locator(".ps-go")).to_be_enabled()
    server.stop()
    page.locator(".ps-go").click()
    expect(page.locator(".ps-told")).to_contain_text("Nothing was asked of it")
    server.start()
    look_now(page)
    expect(page.locator(".ps-told")).to_be_empty()
    visit.wrong.clear()  # the browser notes refused connections itself
