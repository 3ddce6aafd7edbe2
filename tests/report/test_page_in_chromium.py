"""A browser shows the report: the page fits, asks for nothing and runs nothing."""

import made_up
import pytest
from browser import CHROMIUM, Browser

from ds_jax.report import run as run_report


@pytest.mark.skipif(not CHROMIUM, reason="no chromium on the PATH")
def test_a_browser_shows_an_awkward_page_on_a_phone_in_the_dark(tmp_path):
    path = tmp_path / "report.html"
    run_report.write_page(path, **made_up.awkward())
    with Browser(tmp_path / "profile") as browser:
        page = browser.open(path, 400, dark=True)
        assert page.complaints() == []
        address, *others = page.requests()
        assert address == path.as_uri()
        assert all(other.startswith("data:") for other in others)
        assert page.evaluate("[document.documentElement.scrollWidth, innerWidth]") == [400, 400]
        background = page.evaluate("getComputedStyle(document.body).backgroundColor")
        assert background == "rgb(20, 23, 26)"
        assert page.evaluate("document.scripts.length") == 0
        assert page.evaluate("[...document.images].every(i => i.complete && i.naturalWidth > 0)")
