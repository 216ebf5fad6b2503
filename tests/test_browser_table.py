"""The table of runs in a real browser: sorted by click and by keyboard, and sent as a link."""

from __future__ import annotations

import re

import pytest

from tests.browser import NEEDS_BROWSER, Server, drawn, expect
from tests.page_results import fill

pytestmark = NEEDS_BROWSER


@pytest.fixture(scope="module")
def server(tmp_path_factory):
    started = Server(fill(tmp_path_factory.mktemp("home"))).start()
    yield started
    started.stop()


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
        assert heading.get_attribute("aria-sort") == sorted_by
        assert (f"order={order}" in page.url) == bool(order)
        heading.locator("button").click()


def test_the_keyboard_sorts_and_stays_on_the_heading_and_a_link_opens_the_same_order(visit, server):
    page = drawn(visit())
    page.locator(".ps-table summary").focus()
    page.keyboard.press("Enter")
    page.locator("[data-sort=decode_speedup]").focus()
    page.keyboard.press("Enter")
    expect(page.locator("[aria-sort=descending] [data-sort=decode_speedup]")).to_be_focused()
    expect(recipes(page)).to_have_text(["svd@8", "dense", "gptq@4", "gptq@3", "rtn@2"])
    arrow = "getComputedStyle(document.activeElement, '::after').content"
    assert "↓" in page.evaluate(arrow)
    page.get_by_role("button", name="Short link").click()
    expect(page.locator(".ps-link")).to_have_value(re.compile("share="))
    short = visit(page.locator(".ps-link").input_value().removeprefix(server.address))
    expect(short.locator("[aria-sort=descending] [data-sort=decode_speedup]")).to_be_visible()
    other = drawn(visit(page.url.removeprefix(page.evaluate("location.origin"))))
    expect(other.locator(".ps-table")).to_have_attribute("open", "")
    expect(recipes(other)).to_have_text(["svd@8", "dense", "gptq@4", "gptq@3", "rtn@2"])


def test_a_phone_shows_numbers_beside_the_recipe_and_keeps_it_in_sight(visit):
    page = drawn(visit("/?order=kld_mean", width=390, height=844))
    cell = page.locator(".ps-table tbody tr").nth(1)
    expect(cell.locator("td").nth(3)).to_have_text("820 kB")
    box = cell.locator("td").nth(3).bounding_box()
    assert box["x"] + box["width"] <= 390
    page.locator(".ps-table .ps-scroll").evaluate("(one) => { one.scrollLeft = 200; }")
    assert cell.locator("td").first.bounding_box()["x"] < 30
