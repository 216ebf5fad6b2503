"""Runs in a real browser: sorted by click and keyboard, sent as a link, taken in from a file."""

from __future__ import annotations

import re

from tests.browser import NEEDS_BROWSER, box, drawn, expect, says, settled
from tests.page_results import BEATEN, PAYLOADS, hostile, packed, result

pytestmark = NEEDS_BROWSER


def recipes(page):
    return page.locator(".ps-table tbody td:first-child")


def test_a_press_on_a_heading_sorts_a_second_turns_it_and_a_third_takes_it_back(visit):
    page = drawn(visit())
    page.locator(".ps-table summary").click()
    heading = page.locator("th:has([data-sort=kld_mean])")
    usual = ["gptq@3", "gptq@4", "dense", "rtn@2", "svd@8"]
    for order, sorted_by, shown in (
        ("", None, usual),
        ("kld_mean", "ascending", ["dense", "gptq@4", "gptq@3", "svd@8", "rtn@2"]),
        ("-kld_mean", "descending", ["rtn@2", "svd@8", "gptq@3", "gptq@4", "dense"]),
        ("", None, usual),
    ):
        expect(recipes(page)).to_have_text(shown)
        if sorted_by:
            expect(heading).to_have_attribute("aria-sort", sorted_by)
            expect(page).to_have_url(says(f"order={order}"))
        else:
            expect(heading).not_to_have_attribute("aria-sort", re.compile(""))
            expect(page).not_to_have_url(says("order="))
        heading.locator("button").click()


def test_the_keyboard_sorts_and_stays_on_the_heading_and_a_link_opens_the_same_order(visit, server):
    page = drawn(visit())
    page.locator(".ps-table summary").focus()
    page.keyboard.press("Enter")
    page.locator("[data-sort=decode_speedup]").focus()
    page.keyboard.press("Enter")
    expect(page.locator("[aria-sort=descending] [data-sort=decode_speedup]")).to_be_focused()
    expect(recipes(page)).to_have_text(["svd@8", "dense", "gptq@4", "gptq@3", "rtn@2"])
    page.wait_for_function(
        "getComputedStyle(document.activeElement, '::after').content.includes('↓')"
    )
    page.get_by_role("button", name="Short link").click()
    expect(page.locator(".ps-link")).to_have_value(re.compile("share="))
    short = visit(page.locator(".ps-link").input_value().removeprefix(server.address))
    expect(short.locator("[aria-sort=descending] [data-sort=decode_speedup]")).to_be_visible()
    other = drawn(visit(page.url.removeprefix(page.evaluate("location.origin"))))
    expect(other.locator(".ps-table")).to_have_attribute("open", "")
    expect(recipes(other)).to_have_text(["svd@8", "dense", "gptq@4", "gptq@3", "rtn@2"])


def test_a_phone_shows_numbers_beside_the_recipe_and_keeps_it_in_sight(visit):
    page = settled(visit("/?order=resident_bytes", width=390, height=844))
    cell = page.locator(".ps-table tbody tr").nth(1)
    expect(cell.locator("td").nth(3)).to_have_text("700 kB")
    number = box(cell.locator("td").nth(3))
    assert number["x"] + number["width"] <= 390
    page.locator(".ps-table .ps-scroll").evaluate("(one) => { one.scrollLeft = 200; }")
    assert box(cell.locator("td").first)["x"] < 30


def test_what_a_phone_sorts_by_is_in_sight_and_a_run_of_the_table_opens_at_its_head(visit):
    page = settled(visit("/?order=-decode_speedup", width=390, height=844))
    row = page.locator(".ps-table tbody tr").first
    for cell, text in ((row.locator("td").first, "svd@8"), (row.locator("td").last, "1.10×")):
        expect(cell).to_have_text(text)
        place = box(cell)
        assert 0 <= place["x"] < place["x"] + place["width"] <= 390
    row.locator("button").scroll_into_view_if_needed()
    row.locator("button").click()
    card = page.locator(f".ps-card[data-run='{BEATEN}']")
    expect(card.locator("h2")).to_be_in_viewport()


def test_a_file_chosen_on_the_page_is_taken_in_and_told_in_a_sentence(visit, server, tmp_path):
    """Which is text, whatever the file holds; its run is drawn without a reload."""
    new, wrong = "b" * 16, "c" * 16
    run = result(new, "rtn@5", "quantise", (900_000, 0.01, 1.0))
    (tmp_path / "whole.zip").write_bytes(packed(run, hostile(PAYLOADS[0]), **{wrong: "{"}))
    (tmp_path / (name := "<img src=x onerror=window.pwned=1>.zip")).write_bytes(b"no zip")
    page = drawn(visit())
    told = page.locator(".ps-taken")
    page.locator("[data-import]").set_input_files(tmp_path / "whole.zip")
    expect(told).to_contain_text(
        "2 runs came, 0 were here already and 1 was refused: cccccccccccccccc"
    )
    page.wait_for_function(
        f"document.querySelector('.ps-plot').data.some((t) => t.customdata?.includes('{new}'))"
    )
    expect(page.locator(".ps-table summary")).to_have_text("All 7 runs as a table")
    page.locator("[data-import]").set_input_files(tmp_path / "whole.zip")
    expect(told).to_contain_text("0 runs came, 2 were here already and 1 was refused")
    page.locator("[data-import]").set_input_files(tmp_path / name)
    expect(told.locator("[role=alert]")).to_have_text("This file holds no exported results.")
    visit.wrong.clear()  # the browser notes the status of what was refused itself
    page.route("**/page/start", lambda route: as_on_a_copy(route, largest=5))
    drawn(page.goto(server.address) and page)
    page.locator("[data-import]").set_input_files(tmp_path / name)
    expect(told.locator("[role=alert]")).to_have_text(
        f"{name} holds 6 B; up to 5 B are taken in at once."
    )
    assert page.evaluate("window.pwned") is None
    page.unroute("**/page/start")
    page.route("**/page/start", lambda route: as_on_a_copy(route, largest=0))
    drawn(page.goto(server.address) and page)
    expect(page.get_by_role("link", name="Export all results")).to_be_visible()
    expect(page.get_by_role("button", name="Import results")).to_be_hidden()


def as_on_a_copy(route, **settings):
    answer = route.fetch()
    route.fulfill(response=answer, json=answer.json() | settings)
