"""Text of strangers in a real browser stays text."""

from __future__ import annotations

import urllib.error
import urllib.request

import pytest

from tests.browser import NEEDS_BROWSER, PATIENCE, Server
from tests.page_results import HOSTILE, PAYLOADS, fill

pytestmark = NEEDS_BROWSER


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
