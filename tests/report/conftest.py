import shutil

import pytest


@pytest.fixture(scope="session")
def chromium():
    """Chromium without a window; skips, and says why, where there is none."""
    executable = next(filter(None, map(shutil.which, ("chromium", "chromium-browser", "google-chrome"))), None)
    if executable is None:
        pytest.skip("no chromium, chromium-browser or google-chrome on the PATH to open the page with")
    playwright = pytest.importorskip("playwright.sync_api", reason="playwright, which drives the browser, is missing")
    flags = "--no-sandbox --disable-gpu --disable-background-networking --disable-component-update --disable-sync"
    with playwright.sync_playwright() as driver:
        launched = driver.chromium.launch(executable_path=executable, args=[*flags.split(), "--no-first-run"])
        yield launched
        launched.close()


@pytest.fixture
def tab(chromium):
    """Opens a page in a window of this size; afterwards fails where a page complained or asked for more."""
    contexts, complaints, requests = [], [], []

    def opens(path, width=1280, height=900, **options):
        context = chromium.new_context(viewport={"width": width, "height": height}, **options)
        contexts.append(context)
        page = context.new_page()
        page.set_default_timeout(10_000)
        page.on("console", lambda message: complaints.append(message.text))
        page.on("pageerror", lambda error: complaints.append(str(error)))
        page.on("request", lambda request: requests.append(request.url))
        page.goto(path.as_uri())
        return page

    yield opens
    for context in contexts:
        context.close()
    assert complaints == []
    assert requests and all(url.startswith(("file:", "data:")) for url in requests)
