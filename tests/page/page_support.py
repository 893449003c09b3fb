"""What the tests of the page of `quiver serve` share: headless Chromium, a page, what it asked for.

Needs Debian's `chromium` (or QUIVER_CHROMIUM) and the Python package `playwright`; `test_accessibility` also axe-core's axe.min.js
(QUIVER_AXE). The page talks to mock_server.py. With QUIVER_PAGE_URL it talks to a server that runs, and the tests that need the mock's canned
answers are skipped."""

import json
import os
import pathlib
import re
import shutil
import sys
import time
import unittest
import urllib.request

ROOT = pathlib.Path(__file__).resolve().parents[2]
sys.path[:0] = [str(ROOT / "tests/cli"), str(ROOT / "tests/page")]
from mock_server import MockServer  # noqa: E402
from test_support import main  # noqa: E402, F401

CHROMIUM = os.environ.get("QUIVER_CHROMIUM") or shutil.which("chromium")
AXE = pathlib.Path(os.environ.get("QUIVER_AXE", ROOT / ".venv/axe-core/axe.min.js"))
URL = os.environ.get("QUIVER_PAGE_URL", "").rstrip("/")
PATIENCE = 30000  # milliseconds; a machine may be busy
REVIEW = "Is this review positive or negative? The food was cold, but our waiter was kind."
try:
    from playwright.sync_api import expect, sync_playwright
    MISSING = "" if CHROMIUM else "there is no chromium (Debian: apt-get install chromium), nor does QUIVER_CHROMIUM name one"
except ImportError:
    MISSING = "Python's playwright is not installed (pip install playwright)"


def needs_mock(test):
    return unittest.skipIf(URL, "the test needs the canned answers of mock_server.py")(test)


def needs_browser(case):
    return unittest.skipIf(MISSING, MISSING)(case)


class PageCase(unittest.TestCase):
    @classmethod
    def setUpClass(cls):
        cls.playwright = sync_playwright().start()
        expect.set_options(timeout=PATIENCE)
        cls.browser = cls.playwright.chromium.launch(executable_path=CHROMIUM, args=["--no-sandbox"])

    @classmethod
    def tearDownClass(cls):
        cls.browser.close()
        cls.playwright.stop()

    def setUp(self):
        self.mock = None if URL else MockServer().serve()
        self.url = URL or self.mock.url
        self.requested, self.sent, self.console, self.refused = [], [], [], False

    def tearDown(self):
        # Whatever a test did: nothing left this machine, the policy held, no script failed.
        host = re.match(r"(https?://[^/]+)", self.url)[1]
        self.assertEqual([url for url in self.requested if not url.startswith((host + "/", "data:", "blob:" + host))], [])
        # Chromium writes a line for each answer that is an error; tests that provoke some say so.
        lines = [line for line in self.console if not (self.refused and "Failed to load resource" in line)]
        self.assertEqual(lines, [])
        if self.mock:
            self.mock.shutdown()
            self.mock.server_close()

    def open(self, fragment="", width=1280, height=900, wait=True, **options):
        context = self.browser.new_context(viewport={"width": width, "height": height}, permissions=["clipboard-read", "clipboard-write"], **options)
        self.addCleanup(context.close)
        context.set_default_timeout(PATIENCE)
        page = context.new_page()
        page.on("request", lambda request: self.requested.append(request.url))
        page.on("request", lambda request: self.sent.append((request.url.removeprefix(self.url), request.post_data_json)) if request.method == "POST" else None)
        page.on("console", lambda message: self.console.append(message.text) if message.type == "error" else None)
        page.on("pageerror", lambda error: self.console.append(f"exception: {error}"))
        page.goto(f"{self.url}/{fragment}")
        if wait:
            page.wait_for_selector("#models option", state="attached")
        return page

    def ask(self, page, text, wait=True):
        page.fill("#prompt", text)
        page.press("#prompt", "Control+Enter")
        if wait:
            self.wait_for_end(page)

    def wait_for_end(self, page):
        page.wait_for_selector(".answer")
        expect(page.locator(".answer[aria-busy=true]")).to_have_count(0, timeout=4 * PATIENCE)
        page.wait_for_selector("#send", state="visible")

    def answer_text(self, page, answer=0):
        """The text of an answer's tokens; those without text are shown as a dot."""
        return page.evaluate("""n => [...document.querySelectorAll('.answer')[n].querySelectorAll('.run')].map(run =>
            [...run.childNodes].filter(node => !node.classList?.contains('bare')).map(node => node.textContent).join('')).join('')""", answer)

    def posted(self, path=None):
        """The bodies that the page has posted."""
        return [body for at, body in self.sent if path in (None, at)]

    def fetch(self, path, body=None):
        """What the server answers to the test itself."""
        data = None if body is None else json.dumps(body).encode()
        with urllib.request.urlopen(urllib.request.Request(self.url + path, data, {"Content-Type": "application/json"}), timeout=60) as answer:
            return json.load(answer)

    def eventually(self, claim, seconds=5):
        end = time.time() + seconds
        while not claim():
            self.assertLess(time.time(), end, "it did not come about in time")
            time.sleep(0.03)

    def clipboard(self, page, button):
        page.click(button)
        expect(page.locator("#toast.shown")).to_contain_text("Copied")
        text = page.evaluate("navigator.clipboard.readText()")
        page.evaluate("document.getElementById('toast').classList.remove('shown')")
        return text
