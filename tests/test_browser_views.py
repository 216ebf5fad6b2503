"""Texts side by side in a real browser: compared, blind, linked, and written by a new run."""

from __future__ import annotations

import re

import pytest

from tests.browser import NEEDS_BROWSER, PATIENCE, Server, drawn, expect, says
from tests.page_results import BEATEN, MIDDLE, SMALL, fill

pytestmark = NEEDS_BROWSER


@pytest.fixture(scope="module")
def server(tmp_path_factory):
    started = Server(fill(tmp_path_factory.mktemp("home")), "work").start()
    yield started
    started.stop()


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


def test_a_short_link_opens_the_view_that_was_kept(visit, server):
    page = visit(f"/?compare={MIDDLE},{SMALL}&prompt=1")
    expect(page.locator(".ps-compare .ps-pane")).to_have_count(3)
    page.get_by_role("button", name="Short link").click()
    expect(page.locator(".ps-link")).to_have_value(re.compile(r"/\?share=[0-9a-f]{16}$"))
    short = page.locator(".ps-link").input_value().removeprefix(server.address)
    other = visit(short)
    expect(other.locator(".ps-compare .ps-pane")).to_have_count(3)
    expect(other).to_have_url(says(f"compare={MIDDLE},{SMALL}"))


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


def test_a_live_pane_gives_the_paired_ratio_and_its_own_seconds_as_no_rate(visit):
    """What this writing took, 5 seconds against 2, says the contrary of what was measured."""
    writers = [{"run_id": "", "recipe": "dense"}, {"run_id": BEATEN, "recipe": "svd@8"}]
    step = {"token": 7, "text": " so", "top": [[" so", 0.9]], "cache_bytes": 9}
    events = [{"pane": 0, "seconds": 2.0} | step, {"pane": 1, "seconds": 5.0, "kl": 0.5} | step]
    told = {"prompt": "Once", "panes": writers, "state": "done", "reason": "", "count": 2}
    page = visit("/health")
    page.route(
        "**/api/v1/writings/told*", lambda route: route.fulfill(json=told | {"events": events})
    )
    page.goto(page.url.replace("/health", f"/?compare={BEATEN}&mode=live&writing=told"))
    panes = page.locator(".ps-live .ps-pane")
    expect(panes.nth(1).locator(".ps-numbers")).to_contain_text("Decode speed-up1.10×")
    assert "speed" not in panes.nth(0).locator(".ps-numbers").inner_text()
    expect(panes.nth(1).locator("footer")).to_contain_text("1 token in 5 s this time")
    assert "/s" not in page.locator(".ps-live .ps-panes").inner_text()


@pytest.mark.slow
def test_a_run_draws_a_new_dot_and_its_model_writes_beside_the_dense_one(visit):
    page = drawn(visit())
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
    page = visit(f"/?compare={made}&mode=live&tokens=32")
    page.locator("[data-say]").fill("Once upon a time, there was a")
    page.locator("[data-write]").click()
    panes = page.locator(".ps-live .ps-pane")
    expect(panes).to_have_count(2)
    expect(panes.nth(1).locator(".ps-tokens span").nth(4)).to_be_attached()
    page.reload()  # a text goes on, and is found again
    expect(page.locator(".ps-live[data-state=done]")).to_be_visible(timeout=30_000)
    expect(page.locator("[data-say]")).to_have_value("Once upon a time, there was a")
    expect(panes.nth(1).locator("[data-wrote]")).to_contain_text("32 tokens in ")
    dense, small = (panes.nth(n).locator(".ps-tokens span").all_inner_texts() for n in range(2))
    at = int(panes.nth(1).locator(".ps-tokens .ps-first").get_attribute("data-at"))
    assert small[:at] == dense[:at]
    assert small[at] != dense[at]
    expect(panes.nth(1).locator("footer")).to_contain_text(f"at token {at + 1}: there")
    assert "/s" not in panes.nth(1).inner_text()
    strip = panes.nth(1).locator(".ps-heat")
    strip.focus()
    page.keyboard.press("Home")
    page.keyboard.press("ArrowRight")
    detail = page.locator(".ps-detail")
    expect(detail.locator("h3")).to_contain_text("Token 2 of rtn@3")
    expect(detail.locator(".ps-top")).to_have_count(2)
    expect(detail.locator(".ps-top").first.locator("li")).to_have_count(5)
    expect(strip).to_have_attribute("aria-valuenow", "2")
    page.reload()
    expect(page.locator(".ps-live[data-state=done]")).to_be_visible()
