#!/usr/bin/env python3
"""The page of `quiver serve` in headless Chromium: requests, streams, traces, keyboard, hostile texts, accessibility.

Needs Debian's `chromium` (or QUIVER_CHROMIUM) and the Python package `playwright`; `test_accessibility` also axe-core's axe.min.js
(QUIVER_AXE). The page talks to mock_server.py. With QUIVER_PAGE_URL it talks to a server that runs, and the tests that need the mock's canned
answers are skipped."""

import ast
import base64
import collections
import json
import os
import pathlib
import re
import shutil
import subprocess
import sys
import tempfile
import time
import unittest
import urllib.request

ROOT = pathlib.Path(__file__).resolve().parents[2]
sys.path[:0] = [str(ROOT / "tests/cli"), str(ROOT / "tests/page")]
from mock_server import ANSWERS, HOSTILE, HOSTILE_NAMES, LAYERS, MockServer, split_tokens, trace_document  # noqa: E402
from test_support import main  # noqa: E402

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


class Page(unittest.TestCase):
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

    # --- Requests and answers ---

    def test_an_answer_comes_token_by_token(self):
        page = self.open()
        page.evaluate("""() => {
            window.lengths = [];
            new MutationObserver(() => lengths.push(document.querySelector('.answer-text')?.textContent.length ?? 0))
                .observe(document.getElementById('turns'), { childList: true, characterData: true, subtree: true });
        }""")
        self.ask(page, f"slow {REVIEW}")
        counts = page.evaluate("lengths")
        self.assertGreater(len(set(counts)), 3, "the answer came in one piece")
        self.assertEqual(counts, sorted(counts))
        self.assertRegex(page.inner_text(".meta"), r"^first token \d.* · [\d.,]+ tokens/s · \d+ tokens · \d+ of \d+ prompt tokens cached")
        self.assertGreater(len(self.answer_text(page).strip()), 0)
        if self.mock:
            self.assertEqual(self.answer_text(page), ANSWERS[0])
            self.assertEqual(page.locator(".answer .tok").count(), len(split_tokens(ANSWERS[0])))

    def test_a_request_holds_what_the_settings_say(self):
        page = self.open()
        model = page.input_value("#models select")
        self.ask(page, REVIEW)
        self.assertEqual(self.posted()[0], {
            "model": model, "messages": [{"role": "user", "content": REVIEW}], "max_tokens": 256, "temperature": 0, "stream": True,
            "stream_options": {"include_usage": True}, "quiver": {"trace": "layers"}})
        page.fill("#system", "Be brief.")
        for name, value in {"temperature": "0.7", "top_p": "0.9", "max_tokens": "12", "seed": "7", "top_k": "2"}.items():
            page.fill(f"#{name}", value)
        page.fill("#stop", "###\n\\n\\n\n")
        page.uncheck("#trace")
        self.ask(page, "And now?")
        self.assertEqual(self.posted()[1], {
            "model": model, "messages": [{"role": "system", "content": "Be brief."}, {"role": "user", "content": REVIEW},
                                         {"role": "assistant", "content": self.answer_text(page)}, {"role": "user", "content": "And now?"}],
            "max_tokens": 12, "temperature": 0.7, "top_p": 0.9, "seed": 7, "stop": ["###", "\n\n"], "stream": True,
            "stream_options": {"include_usage": True}, "quiver": {"top_k": 2}})
        if not self.mock:
            return
        self.assertIn("seed 7", page.locator(".meta").last.inner_text())
        self.assertIn("cut off at the most tokens", page.locator(".meta").last.inner_text())

    @needs_mock
    def test_models_without_routes_are_asked_for_none(self):
        page = self.open()
        for model in ("SmolLM2-135M-Instruct", "mean", "task591_sciq_answer_generation"):
            page.select_option("#models select", model)
            expect(page.locator("#routing-fields")).to_be_hidden()
            self.ask(page, REVIEW)
            self.assertNotIn("quiver", self.posted()[-1])
        self.assertEqual(page.locator(".routes").count(), 0)
        page.select_option("#models select", "default")
        self.ask(page, REVIEW)
        self.assertEqual(self.posted()[-1]["quiver"], {"trace": "layers"})
        labels = page.locator("#models optgroup").evaluate_all("groups => groups.map(group => group.label)")
        self.assertEqual(labels, ["Methods", "Aliases", "Base model", "Adapters"])

    def test_plain_text_is_continued(self):
        page = self.open()
        page.click("text=Plain text")
        expect(page.locator("#system-field")).to_be_hidden()
        page.fill("#prompt", "Once upon")
        page.press("#prompt", "Enter")
        self.assertEqual(page.input_value("#prompt"), "Once upon\n")
        self.ask(page, "Once upon")
        self.assertEqual(self.posted("/v1/completions")[0]["prompt"], "Once upon")
        page.click("text=Continue")
        self.assertEqual(page.input_value("#prompt"), "Once upon" + self.answer_text(page))

    def test_the_last_turn_is_edited_and_made_anew(self):
        page = self.open()
        self.ask(page, "one")
        self.ask(page, "two")
        page.click("text=Regenerate")
        self.wait_for_end(page)
        self.assertEqual(self.posted()[2], self.posted()[1])
        page.click(".turn >> nth=1 >> text=Edit")
        self.assertEqual(page.input_value("#prompt"), "two")
        page.click("#keep")
        self.assertEqual(page.input_value("#prompt"), "")
        page.click(".turn >> nth=1 >> text=Edit")
        self.ask(page, "three")
        self.assertEqual([message["content"] for message in self.posted()[3]["messages"] if message["role"] == "user"], ["one", "three"])
        self.assertEqual(page.locator(".said p").all_inner_texts(), ["one", "three"])
        page.click("#clear")
        self.assertEqual(page.locator(".turn").count(), 0)
        self.ask(page, "four")
        self.assertEqual(len(self.posted()[4]["messages"]), 1)

    def test_stop_ends_the_request(self):
        page = self.open()
        page.fill("#max_tokens", "1500")
        cancelled = self.fetch("/v1/quiver/status")["requests"]["cancelled"]
        for number, end in enumerate((lambda: page.click("#stop-button"), lambda: page.keyboard.press("Escape"))):
            self.ask(page, f"Write a slow and long 1400 story, number {number}", wait=False)
            page.wait_for_selector(f".turn:nth-child({number + 1}) .run")
            end()
            self.wait_for_end(page)
            self.eventually(lambda: self.fetch("/v1/quiver/status")["requests"]["cancelled"] == cancelled + number + 1)
            self.assertRegex(page.locator(".meta").last.inner_text(), r"stopped$")
        if self.mock:
            self.assertEqual(self.mock.running, 0)

    def test_two_models_side_by_side(self):
        page = self.open()
        page.click("#add-model")
        self.assertEqual(page.locator("#models select").count(), 2)
        models = page.locator("#models select").evaluate_all("list => list.map(select => select.value)")
        self.assertEqual(len(set(models)), 2)
        self.ask(page, REVIEW)
        self.assertEqual(page.locator(".answer h3").all_inner_texts(), models)
        self.assertTrue(self.answer_text(page, 0).strip() and self.answer_text(page, 1).strip())
        if not self.mock:
            return
        self.assertEqual({body["model"] for body in self.posted()}, set(models))
        for _ in range(2):
            page.click("#add-model")
        expect(page.locator("#add-model")).to_be_hidden()
        page.click("[aria-label='Remove model 2']")
        page.locator("#models select").nth(1).select_option("arrow")
        self.ask(page, "odd")
        # A model that joins continues from an answer of another.
        arrow = next(body for body in self.posted() if body["model"] == "arrow")
        self.assertEqual([message["role"] for message in arrow["messages"]], ["user", "assistant", "user"])
        page.click(".turn >> nth=1 >> .answer >> nth=1 >> text=Routes")
        expect(page.locator(".routes h3")).to_have_text("Routes of arrow")
        self.assertEqual(page.locator("[aria-pressed=true]", has_text="Routes").count(), 1)

    @needs_mock
    def test_errors_are_the_servers_words(self):
        self.refused = True
        page = self.open()
        self.ask(page, "refuse")
        expect(page.locator(".answer .notice")).to_have_text("64 requests are waiting; try again in 3 seconds Request req-7a20")
        self.ask(page, "fail")
        expect(page.locator(".answer .notice").last).to_contain_text("the engine has failed: this is a bug")
        self.assertEqual(page.locator(".turn").last.locator(".tok").count(), 5)
        self.ask(page, "cut")
        expect(page.locator(".answer .notice").last).to_contain_text("The connection was cut before the answer ended.")
        self.ask(page, "broken")
        expect(page.locator(".answer .notice").last).to_contain_text("Routes are left out: The route of token 0 has 59 bytes; tokens of 60 bytes were announced.")
        self.assertIn(self.answer_text(page, 3), ANSWERS)
        self.mock.api_key = "key"
        self.ask(page, "locked")
        expect(page.locator(".answer .notice").last).to_contain_text("the API key is missing or wrong")
        page.fill("#prompt", "")
        page.click("nav >> text=Library")
        expect(page.locator("#view-library .notice")).to_have_text("the API key is missing or wrong")

    @needs_mock
    def test_the_key_stays_in_memory(self):
        self.refused = True
        self.mock.api_key = "s3cret"
        page = self.open(wait=False)
        expect(page.locator("#problem")).to_contain_text("the API key is missing or wrong")
        page.fill("#api-key", "s3cret")
        page.press("#api-key", "Enter")
        page.wait_for_selector("#models option", state="attached")
        expect(page.locator("#problem")).to_be_hidden()
        self.ask(page, REVIEW)
        self.assertEqual(self.answer_text(page), ANSWERS[0])
        for button in ("#copy-curl", "#copy-python", "#copy-link"):
            self.assertNotIn("s3cret", self.clipboard(page, button))
        self.assertEqual(page.evaluate("[localStorage.length, sessionStorage.length, document.cookie, location.href.includes('s3cret')]"), [0, 0, "", False])

    @needs_mock
    def test_events_in_any_pieces(self):
        page = self.open()
        self.ask(page, "pieces emoji review")
        tokens = split_tokens(ANSWERS[0])
        self.assertEqual(self.answer_text(page), "".join(tokens[:2] + ["\U0001f642"] + tokens[3:]))
        self.assertEqual(page.locator(".tok").count(), len(tokens) + 2)
        self.assertEqual(page.locator(".tok.bare").count(), 2)
        parsed = page.evaluate("""async () => {
            const { eventParser } = await import('/api.js');
            const text = ': ping\\n\\ndata: a\\r\\n\\r\\nevent: x\\nid: 3\\ndata:b\\r\\ndata: c\\r\\rdata: é🙂\\n\\ndata: cut';
            const all = [];
            for (let size = 1; size < 9; ++size) {
                const got = [], parse = eventParser((data) => got.push(data));
                for (let at = 0; at < text.length; at += size) parse(text.slice(at, at + size));
                all.push(JSON.stringify(got));
            }
            return [...new Set(all)];
        }""")
        self.assertEqual(parsed, ['["a","b\\nc","é🙂"]'])

    # --- The request elsewhere ---

    def test_a_copy_without_a_clipboard(self):
        page = self.open()
        page.evaluate("() => { navigator.clipboard.writeText = () => Promise.reject(new Error('denied')); }")
        page.fill("#prompt", REVIEW)
        page.click("#copy-curl")
        expect(page.locator("#copy")).to_be_visible()
        self.assertEqual(page.inner_text("#copy-title"), "the request as curl")
        selected = page.evaluate("getSelection().toString() || document.activeElement.value.slice(document.activeElement.selectionStart, document.activeElement.selectionEnd)")
        self.assertEqual(selected, page.input_value("#copy-text"))
        self.assertIn("curl -N", selected)
        page.keyboard.press("Escape")
        expect(page.locator("#copy")).to_be_hidden()

    @needs_mock
    def test_copies_that_run(self):
        page = self.open()
        page.fill("#system", "It's \"quoted\" \\ $HOME `x`")
        page.fill("#seed", "3")
        page.fill("#prompt", "review's\nsecond line")
        curl, python = self.clipboard(page, "#copy-curl"), self.clipboard(page, "#copy-python")
        self.ask(page, "review's\nsecond line")
        sent = self.posted()[0]
        done = subprocess.run(["bash", "-c", curl.replace("curl -N", "curl -sN")], capture_output=True, text=True, check=True)
        with self.mock.lock:
            self.assertEqual(self.mock.requests[-1], ("POST", "/v1/chat/completions", sent))
        self.assertTrue(done.stdout.endswith("data: [DONE]\n\n"))
        call = next(node for node in ast.walk(ast.parse(python)) if isinstance(node, ast.Call) and getattr(node.func, "attr", "") == "create")
        given = {keyword.arg: ast.literal_eval(keyword.value) for keyword in call.keywords}
        self.assertEqual({**{name: value for name, value in given.items() if name != "extra_body"}, **given["extra_body"]}, sent)
        # With an empty box, the request that was made last.
        self.assertEqual(self.clipboard(page, "#copy-curl"), curl)

    def test_a_link_holds_the_settings(self):
        page = self.open()
        page.select_option("#models select", index=1)
        page.click("#add-model")
        page.fill("#system", "Größe 🙂")
        for name, value in {"temperature": "0.5", "top_p": "0.8", "max_tokens": "99", "seed": "5", "top_k": "3", "stop": "a\nb", "prompt": "Wörter + / ="}.items():
            page.fill(f"#{name}", value)
        page.uncheck("#trace")
        link = self.clipboard(page, "#copy-link")
        self.assertEqual(page.url, link)
        names = ["system", "temperature", "top_p", "max_tokens", "seed", "top_k", "stop", "prompt"]

        def state(at):
            return [at.input_value(f"#{name}") for name in names] + at.locator("#models select").evaluate_all("list => list.map(select => select.value)") + [
                at.is_checked("#trace")]

        other = self.open(link.removeprefix(self.url + "/"))
        self.assertEqual(state(other), state(page))
        self.assertEqual(self.posted(), [], "a link sends nothing")
        unknown = base64.urlsafe_b64encode(json.dumps({"models": ["gone"], "seed": {"x": 1}, "mode": "evil", "prompt": 3}).encode()).decode().rstrip("=")
        third, usual = self.open(f"#p={unknown}"), self.open().input_value("#models select")
        expect(third.locator("#toast")).to_contain_text("The link names 'gone', which this server does not have.")
        self.assertEqual(third.input_value("#models select"), usual)
        self.assertEqual(third.input_value("#seed"), "")
        for broken in ("#p=%%%", "#p=", "#p=e30", "#nonsense", "#__proto__"):
            third.goto(f"{self.url}/{broken}")
            third.reload()
            third.wait_for_selector("#models option", state="attached")
            self.assertEqual(third.input_value("#models select"), usual)

    # --- Traces ---

    @needs_mock
    def test_a_trace_of_known_bytes(self):
        page = self.open()
        self.ask(page, "known review")
        page.click("summary >> text=The map as a table")
        rows = page.locator(".routes tbody tr").evaluate_all("rows => rows.map(row => [...row.cells].map(cell => cell.textContent))")
        tokens = split_tokens(ANSWERS[0])
        self.assertEqual(len(rows), len(tokens))
        adapters = self.mock.adapters_of("lag")
        for t, (_, text, favourite, share, *layers) in enumerate(rows):
            expected = ["–"] + [f"{'ABC'[(t + layer) % 3]} {int(100 * (255 - layer) / 255 + 0.5)}" for layer in range(1, LAYERS)]
            self.assertEqual(layers, expected)
            counts = collections.Counter((t + layer) % 3 for layer in range(1, LAYERS))
            self.assertEqual(counts[adapters.index(favourite)], max(counts.values()))
            self.assertEqual(share, f"{100 * max(counts.values()) / LAYERS:.0f} %")
            self.assertEqual(text.replace("␣", " "), tokens[t])
        # The canvas has the same: the colour of a cell is the adapter's at its share.
        colours = page.evaluate("""async () => {
            const { coloursOf, shade, grey } = await import('/colours.js');
            const canvas = document.querySelector('.route-map canvas'), ratio = devicePixelRatio, context = canvas.getContext('2d');
            const table = [...document.querySelectorAll('.routes tbody tr')], cells = [];
            const width = parseFloat(canvas.parentElement.style.width) - 30, column = width / table.length;
            const height = (parseFloat(canvas.style.height) - 18) / 30;
            for (const [t, layer] of [[0, 0], [0, 1], [1, 1], [2, 1], [5, 29]]) {
                const [r, g, b] = context.getImageData((30 + t * column + 1.5) * ratio, (layer * height + 1.5) * ratio, 1, 1).data;
                cells.push(`rgb(${r} ${g} ${b})`);
            }
            return cells;
        }""")
        shades = page.evaluate("""async (names) => {
            const { coloursOf, shade, grey } = await import('/colours.js');
            const own = coloursOf(names);
            return [shade(grey, 1).fill, ...[[0, 1], [1, 1], [2, 1], [5, 29]].map(([t, layer]) => shade(own[(t + layer) % 3], (255 - layer) / 255).fill)];
        }""", adapters)
        self.assertEqual(colours, shades)

    def test_maps_follow_the_theme(self):
        page = self.open(color_scheme="light")
        self.ask(page, REVIEW)

        def pixel(selector, x, y):
            page.wait_for_timeout(200)
            return page.evaluate("""([selector, x, y]) => [...document.querySelector(selector).getContext('2d')
                .getImageData(x * devicePixelRatio, y * devicePixelRatio, 1, 1).data.slice(0, 3)]""", [selector, x, y])

        light = pixel(".route-map canvas", 32, 3)
        page.emulate_media(color_scheme="dark")
        self.assertNotEqual(pixel(".route-map canvas", 32, 3), light)
        page.click("nav >> text=Library")
        page.wait_for_selector(".adapters tbody tr")
        if page.locator(".similarity canvas").count():
            def corner():
                width, height = page.evaluate("(({ width, height }) => [width / devicePixelRatio, height / devicePixelRatio])(document.querySelector('.similarity canvas'))")
                return [pixel(".similarity canvas", width - 4, height - 4), page.evaluate("getComputedStyle(document.querySelector('.scale i')).backgroundColor")]

            dark = corner()
            page.emulate_media(color_scheme="light")
            for before, after in zip(dark, corner(), strict=True):
                self.assertNotEqual(before, after)

    def test_routes_of_many_adapters_have_two_bytes(self):
        page = self.open()
        got = page.evaluate("""async () => {
            const { traceOfHeader, appendRoute, choicesAt, favouriteOf } = await import('/trace.js');
            const data = (bytes) => btoa(String.fromCharCode(...bytes)), out = [];
            const wide = traceOfHeader({ adapters: Array.from({ length: 300 }, (_, i) => `a${i}`), layers: 2, ids: 'u16' }, 'm');
            appendRoute(wide, { t0: 0, k: 1, data: data([0x2b, 0x01, 255, 0xff, 0xff, 51, 0x05, 0x00, 0, 0x2c, 0x01, 128]), texts: ['x', 'y'] }, 'xy');
            for (const [t, l] of [[0, 0], [0, 1], [1, 0], [1, 1]]) out.push(choicesAt(wide, t, l));
            const two = traceOfHeader({ adapters: ['a', 'b', 'c'], layers: 1, ids: 'u8' }, 'm');
            appendRoute(two, { t0: 0, k: 2, data: data([2, 204, 0, 51]) }, 'x');
            out.push(choicesAt(two, 0, 0), two.tokens, favouriteOf(two, 0));
            for (const route of [{ t0: 5, k: 2, data: data([2, 204, 0, 51]) }, { t0: 1, k: 2, data: data([1]) }, { t0: 1, k: 2, data: '***' }]) {
                try { appendRoute(two, route, ''); out.push('taken'); } catch (error) { out.push('refused'); }
            }
            return out;
        }""")
        self.assertEqual(got, [[[299, 1]], [], [[5, 0]], [], [[2, 0.800000011920929], [0, 0.20000000298023224]], ["x"], {"adapter": 2, "share": 1},
                               "refused", "refused", "refused"])
        if self.mock:
            page.select_option("#models select", "many")
            self.ask(page, REVIEW)
            self.assertEqual(page.locator(".tok").count(), len(split_tokens(ANSWERS[0])))
            self.assertRegex(page.inner_text(".shares li >> nth=0"), r"adapter\d\d\d")

    @needs_mock
    def test_a_token_shows_its_layers(self):
        page = self.open()
        self.ask(page, REVIEW)
        page.click(".tok >> nth=4")
        expect(page.locator(".token-detail h4")).to_have_text("Token 5 .")
        self.assertEqual(page.locator(".layers li").count(), LAYERS)
        page.hover(".tok >> nth=7")
        expect(page.locator(".reading")).to_contain_text("Token 8")
        page.hover(".route-map canvas", position={"x": 33, "y": 4})
        expect(page.locator(".reading")).to_contain_text("Token 1 “The”, layer 0:")
        page.click(".route-map canvas", position={"x": 33, "y": 4})
        expect(page.locator(".token-detail h4")).to_have_text("Token 1 The")
        # One adapter alone.
        page.click(".shares button >> nth=0")
        dim, all_tokens = page.locator(".tok.dim").count(), page.locator(".tok").count()
        self.assertTrue(0 < dim < all_tokens)
        page.click(".shares button >> nth=0")
        self.assertEqual(page.locator(".tok.dim").count(), 0)
        numbers = [float(text.split()[0]) for text in page.locator(".shares .number").all_inner_texts()]
        self.assertEqual(numbers, sorted(numbers, reverse=True))
        with page.expect_download() as download:
            page.click("text=Save as JSON")
        document = json.loads(pathlib.Path(download.value.path()).read_text())
        self.assertEqual("".join(token["text"] for token in document["tokens"]), ANSWERS[0])
        self.assertEqual(len(document["projections"]), LAYERS)
        self.assertAlmostEqual(sum(document["statistics"]["shares"]), 1)
        page.click("nav >> text=Traces")
        page.set_input_files("#trace-file", {"name": "saved.json", "mimeType": "application/json", "buffer": json.dumps(document).encode()})
        expect(page.locator("#trace-view h3")).to_have_text("saved.json")

    @staticmethod
    def favourites(document, suffix):
        """By token and layer the adapter with the largest mean weight over the layer's projections."""
        layers = {}
        for projection in document["projections"]:
            if projection["path"].endswith(suffix):
                layers.setdefault(int(re.search(r"\.(\d+)\.", projection["path"])[1]), []).append(projection["choices"])
        table = []
        for t in range(len(document["tokens"])):
            row = []
            for _, projections in sorted(layers.items()):
                sums = collections.Counter()
                for choices in projections:
                    for adapter, weight in choices[t]:
                        sums[adapter] += weight / len(projections)
                best = max(sums, key=lambda adapter: (sums[adapter], -adapter))
                row.append((best, sums[best]))
            table.append(row)
        return table

    def check_table(self, root, document, suffix):
        rows = root.locator("tbody tr").evaluate_all("rows => rows.map(row => [...row.cells].slice(4).map(cell => cell.textContent))")
        expected = self.favourites(document, suffix)
        self.assertEqual(len(rows), min(100, len(expected)))
        for row, wanted in zip(rows, expected):
            for cell, (adapter, share) in zip(row, wanted, strict=True):
                letters, number = cell.split()
                self.assertEqual(letters, chr(65 + adapter) if adapter < 26 else "A" + chr(39 + adapter))
                self.assertAlmostEqual(int(number), 100 * share, delta=0.51)

    def test_a_trace_of_the_prompt(self):
        page = self.open()
        page.fill("#prompt", REVIEW)
        page.click("#trace-prompt")
        card, model = page.locator(".prompt-trace"), page.input_value("#models select")
        expect(card.locator("h3")).to_have_text(f"Routes of the prompt, {model}")
        self.assertEqual(self.posted("/v1/quiver/route"), [{"model": model, "messages": [{"role": "user", "content": REVIEW}]}])
        document = self.fetch("/v1/quiver/route", self.posted("/v1/quiver/route")[0])
        self.assertEqual(card.locator(".tok").count(), len(document["tokens"]))
        card.locator("summary", has_text="The map as a table").click()
        self.check_table(card, document, "")
        types = list(dict.fromkeys(projection["path"].split(".")[-1] for projection in document["projections"]))
        self.assertEqual(card.locator("select option").all_inner_texts(), ["all projections", *types])
        for one in types:
            card.locator("select").select_option(one)
            self.check_table(card, document, one)
        card.locator(".tok").nth(3).click()
        expect(card.locator(".token-detail h4")).to_contain_text("Token 4 ")
        if not self.mock:
            return
        expect(card.locator(".extra .sub")).to_have_text("private adapters · entropy 1.10 of 1.39 · margin 0.29 · agreement of projections 41 %")
        self.assertRegex(card.locator(".layers li").first.get_attribute("title"), r"^layer 0: (\S+ \d+ %, ){3}\S+ \d+ %$")
        card.locator("text=Close the trace").click()
        self.assertEqual(card.count(), 0)
        page.click("text=Plain text")
        page.click("#trace-prompt")
        page.wait_for_selector(".prompt-trace")
        self.assertEqual(self.posted("/v1/quiver/route")[1], {"model": "lag", "prompt": REVIEW})
        page.select_option("#models select", "mean")
        page.click("#trace-prompt")
        expect(page.locator("#toast")).to_contain_text("route nothing")

    @needs_mock
    def test_a_trace_from_a_file(self):
        page = self.open("#traces")
        document = trace_document(ANSWERS[2] * 2, self.mock.adapters_of("cluster-lag"), "cluster-lag")

        def load(text, name="trace.json"):
            page.set_input_files("#trace-file", {"name": name, "mimeType": "application/json", "buffer": text.encode()})

        load(json.dumps(document))
        view = page.locator("#trace-view")
        expect(view.locator("h3")).to_have_text("trace.json")
        view.locator("summary").click()
        self.check_table(view, document, "")
        view.locator("text=Later").click()
        expect(view.locator("tbody th").first).to_have_text("101")
        for text, words in (("{", "'x.json' is no JSON."), ("{}", "This is no trace of routes"), ("[]", "This is no trace of routes"), ("null", "This is no trace of routes"),
                            ('{"quiver_trace": 2}', "version 2"), ('{"quiver_trace": 1, "adapters": [], "tokens": 3, "projections": []}', "'tokens' is no list"),
                            (json.dumps({**document, "projections": [{"path": "layers.0.q", "choices": []}]}), "has no choices for each of"),
                            (json.dumps({**document, "adapters": ["one"]}), "it names adapter")):
            load(text, "x.json")
            expect(view.locator(".notice")).to_contain_text(words)
        self.assertEqual(self.posted(), [])

    # --- Library, server ---

    def test_the_library_is_sorted_and_filtered(self):
        page = self.open("#library")
        library = self.fetch("/v1/quiver/library")["adapters"]
        names = page.locator(".adapters tbody th .name")
        expect(names).to_have_count(len(library))
        page.click(".adapters thead >> text=Requests")
        expect(page.locator(".adapters th[aria-sort]")).to_have_attribute("aria-sort", "descending")
        counts = [int(text.replace(",", "")) for text in page.locator(".adapters tbody tr td:nth-child(7)").all_inner_texts()]
        self.assertEqual(counts, sorted((adapter["requests"] for adapter in library), reverse=True))
        page.click(".adapters thead >> text=Requests")
        counts = [int(text.replace(",", "")) for text in page.locator(".adapters tbody tr td:nth-child(7)").all_inner_texts()]
        self.assertEqual(counts, sorted(counts))
        page.click(".adapters thead >> text=Adapter")
        self.assertEqual(sorted(names.all_inner_texts()), sorted(adapter["name"] for adapter in library))
        word = library[-1]["name"][-9:]
        page.fill("input[type=search]", word.upper())
        wanted = {adapter["name"] for adapter in library if word.lower() in "\n".join([adapter["name"], *adapter["tasks"]]).lower()}
        self.assertEqual(set(names.all_inner_texts()), wanted)
        page.fill("input[type=search]", "")
        group = next((adapter["group"] for adapter in library if adapter["group"]), None)
        if group:
            page.select_option(".filters select >> nth=1", group)
            wanted = {adapter["name"] for adapter in library if adapter["group"] == group}
            self.assertEqual(set(names.all_inner_texts()), wanted)
            expect(page.locator(".filters .sub")).to_have_text(f"{len(wanted)} of {len(library)} adapters")

    def test_the_map_of_similarities(self):
        page = self.open("#library")
        similarity = self.fetch("/v1/quiver/library")["similarity"]
        if not similarity:
            self.skipTest("the library of this server has no similarities")
        page.focus(".similarity")
        expect(page.locator("#similarity-reading")).to_contain_text(" and ")
        for key in ("ArrowRight", "ArrowDown", "ArrowRight"):
            page.keyboard.press(key)
        first, second, value = re.match(r"(\S+)(?: \(\S+\))? and (\S+)(?: \(\S+\))?: (\S+)$", page.inner_text("#similarity-reading")).groups()
        at = similarity["names"].index
        self.assertEqual(float(value), similarity["values"][at(first)][at(second)])
        page.keyboard.press("Enter")
        expect(page.locator(".similarity-grid select")).to_have_value("1")
        rows = page.locator(".similarity-grid tbody tr").evaluate_all("rows => rows.map(row => [row.cells[0].textContent, Number(row.cells[2].textContent)])")
        self.assertEqual(dict(map(tuple, rows)), {name: similarity["values"][at(first)][at(name)] for name in similarity["names"] if name != first})
        self.assertEqual([value for _, value in rows], sorted((value for _, value in rows), reverse=True))

    def test_the_server_is_read_while_it_is_seen(self):
        page = self.open("#server")
        expect(page.locator("#server-cards .card")).to_have_count(4)
        adapters = self.fetch("/v1/quiver/status")["adapters"]
        self.assertEqual(page.locator("#server-adapters tbody th").all_inner_texts(), [adapter["name"] + ("" if adapter["is_ready"] else " (loads when asked)") for adapter in adapters])
        if self.mock:
            expect(page.locator("#server-errors li")).to_contain_text("maximum context length is 2048 tokens")

        def reads():
            page.wait_for_timeout(1)
            return sum(url.endswith("/v1/quiver/status") for url in self.requested)

        before = reads()
        page.wait_for_timeout(2500)
        self.assertIn(reads() - before, (1, 2, 3))
        for state, is_read in (("hidden", False), ("visible", True)):
            page.evaluate("""(state) => {
                Object.defineProperty(document, 'visibilityState', { value: state, configurable: true });
                document.dispatchEvent(new Event('visibilitychange'));
            }""", state)
            page.wait_for_timeout(500)
            before = reads()
            page.wait_for_timeout(1500)
            self.assertEqual(reads() > before, is_read, state)
        page.click("nav >> text=Playground")
        page.wait_for_timeout(300)
        before = reads()
        page.wait_for_timeout(1500)
        self.assertEqual(reads(), before)
        self.assertEqual(page.locator("#server-cards svg.spark").count(), 3)

    @needs_mock
    def test_adapters_are_added_and_removed(self):
        self.refused = True
        page = self.open("#server")
        expect(page.locator("#lora-name")).to_be_hidden()
        page.fill("#admin-key", "wrong")
        page.fill("#lora-name", "fresh")
        page.fill("#lora-path", "adapters/fresh")
        page.click("text=Add adapter")
        expect(page.locator("#toast")).to_have_text("the API key is missing or wrong")
        page.fill("#admin-key", "secret")
        page.fill("#lora-path", "/etc")
        page.click("text=Add adapter")
        expect(page.locator("#toast")).to_have_text("'/etc' is in none of the folders of this server")
        page.fill("#lora-path", "adapters/fresh")
        page.check("#lora-replace")
        page.click("text=Add adapter")
        expect(page.locator("#toast")).to_have_text("added 'fresh'")
        self.assertEqual(self.posted("/v1/load_lora_adapter")[-1], {"lora_name": "fresh", "lora_path": "adapters/fresh", "load_inplace": True})
        expect(page.locator("#server-adapters tbody")).to_contain_text("fresh")
        remove = page.locator("[aria-label='Remove fresh']")
        remove.click()
        expect(page.locator("#toast")).to_have_text("Press Remove once more to remove fresh.")
        remove.click()
        expect(page.locator("#toast")).to_have_text("removed 'fresh'")
        expect(remove).to_have_count(0)
        page.click("nav >> text=Playground")
        self.assertEqual(page.locator("#models option[value=fresh]").count(), 0)

    # --- Hostile texts ---

    @needs_mock
    def test_hostile_texts_are_texts(self):
        self.mock.hostile_names = True
        page = self.open()
        for model in ("lag", HOSTILE_NAMES[0], "SmolLM2-135M-Instruct"):
            page.select_option("#models select", model)
            self.ask(page, "hostile <img src=x onerror=alert(1)>")
        for answer in range(3):
            self.assertEqual(self.answer_text(page, answer), HOSTILE)
        page.click("#clear")
        page.select_option("#models select", "lag")
        page.fill("#prompt", HOSTILE)
        page.click("#trace-prompt")
        page.wait_for_selector(".prompt-trace .tok")
        for view in ("Library", "Server", "Playground"):
            page.click(f"nav >> text={view}")
            page.wait_for_timeout(400)
            self.assertEqual(page.evaluate("[document.querySelectorAll('main :is(img, script, iframe, a[href^=javascript])').length, document.scripts.length]"), [0, 1])
        page.click("nav >> text=Library")
        self.assertEqual(set(HOSTILE_NAMES) - set(page.locator(".adapters tbody th .name").evaluate_all("list => list.map(name => name.textContent)")), set())
        self.assertEqual(page.title(), "Library · Quiver")

    @needs_mock
    def test_a_long_answer_stays_whole(self):
        page = self.open()
        page.fill("#max_tokens", "5000")
        self.ask(page, "long 4000", wait=False)
        page.wait_for_selector(".tok >> nth=600")
        # The page answers while tokens come.
        start = time.time()
        page.click(".tok >> nth=3")
        self.assertLess(time.time() - start, 2)
        page.evaluate("window.chosen = document.activeElement")
        self.wait_for_end(page)
        self.assertEqual(page.locator(".tok").count(), 4000)
        self.assertTrue(page.evaluate("document.activeElement === window.chosen && window.chosen.index === 3"), "the focus was lost while tokens came")
        self.assertGreater(page.locator(".answer .run").count(), 5)
        self.assertTrue(page.evaluate("document.querySelector('.route-map').scrollWidth > 4000 * 6 && document.querySelector('.route-map canvas').width < 4000"))

    # --- Keyboard, screen readers, screens ---

    def test_everything_by_keyboard(self):
        page = self.open()
        page.keyboard.press("Tab")
        self.assertEqual(page.evaluate("document.activeElement.className"), "skip")
        page.keyboard.press("Enter")
        self.assertEqual(page.evaluate("document.activeElement.id"), "main")
        for _ in range(60):
            page.keyboard.press("Tab")
            if page.evaluate("document.activeElement.id") == "prompt":
                break
        page.keyboard.type(REVIEW)
        page.keyboard.press("Enter")
        self.wait_for_end(page)
        self.assertEqual(page.evaluate("document.activeElement.id"), "prompt")
        for _ in range(40):
            page.keyboard.press("Shift+Tab")
            if page.evaluate("document.activeElement.classList.contains('tok')"):
                break
        # One stop of the Tab key for all tokens; arrows go from one to the next.
        self.assertEqual(page.locator(".answer .tok[tabindex='0']").count(), 1)
        at = "document.activeElement.index"
        self.assertEqual(page.evaluate(at), 0)
        last = page.locator(".tok").count() - 1
        for key, expected in (("ArrowRight", 1), ("ArrowRight", 2), ("ArrowLeft", 1), ("End", last), ("ArrowRight", last), ("Home", 0), ("ArrowLeft", 0)):
            page.keyboard.press(key)
            self.assertEqual(page.evaluate(at), expected, key)
            expect(page.locator(".token-detail h4")).to_contain_text(f"Token {expected + 1} ")
        self.assertEqual(page.locator(".answer .tok[tabindex='0']").count(), 1)
        style = page.evaluate("getComputedStyle(document.activeElement).outlineStyle + getComputedStyle(document.activeElement).outlineWidth")
        self.assertEqual(style, "solid2px")
        if not self.mock:
            return
        page.keyboard.press("ArrowDown")
        below = page.evaluate(at)
        self.assertGreater(below, 4)
        self.assertLess(page.evaluate("Math.abs(document.activeElement.getBoundingClientRect().left - document.querySelector('.tok').getBoundingClientRect().left)"), 30)
        page.keyboard.press("ArrowUp")
        self.assertEqual(page.evaluate(at), 0)

    @needs_mock
    def test_screen_readers_hear_at_most_one_thing_a_second(self):
        page = self.open()
        page.evaluate("""() => {
            window.heard = [];
            new MutationObserver(() => heard.push([performance.now(), document.getElementById('live').textContent]))
                .observe(document.getElementById('live'), { childList: true, characterData: true, subtree: true });
        }""")
        self.ask(page, "slow " + REVIEW)
        self.ask(page, REVIEW)
        page.wait_for_timeout(1200)
        heard = page.evaluate("heard")
        gaps = [b[0] - a[0] for a, b in zip(heard, heard[1:])]
        self.assertTrue(all(gap >= 980 for gap in gaps), gaps)
        # The answer is heard once, by whole sentences.
        end, sentences = f"The answer of lag has ended after {len(split_tokens(ANSWERS[0]))} tokens.", [text for _, text in heard]
        self.assertEqual(" ".join(sentences), " ".join(2 * [ANSWERS[0], end]))
        self.assertGreater(len(sentences), 4)
        self.assertTrue(all(sentence.endswith(".") for sentence in sentences), sentences)

    def test_nothing_is_wider_than_a_phone(self):
        for width, zoom in ((320, 1), (640, 2)):
            page = self.open(width=width // zoom, height=600, device_scale_factor=zoom)
            self.ask(page, REVIEW)
            for view in ("Playground", "Traces", "Library", "Server"):
                page.click(f"nav >> text={view}")
                page.wait_for_timeout(400)
                wide = page.evaluate("""() => {
                    const inside = (element) => element.closest('.scroll, .route-map, .similarity, .tall, .hidden, .skip, #toast');
                    return [document.documentElement.scrollWidth, ...[...document.querySelectorAll('body *')].filter((element) => !inside(element) &&
                        element.getClientRects().length && element.getBoundingClientRect().right > innerWidth + 1).map((element) => element.outerHTML.slice(0, 90))];
                }""")
                self.assertEqual(wide, [width // zoom], view)

    @unittest.skipUnless(AXE.is_file(), f"axe-core is missing: QUIVER_AXE names no file, nor is there '{AXE}'")
    def test_accessibility(self):
        found = []
        for scheme, width in (("light", 1280), ("dark", 360)):
            page = self.open(width=width, height=900, color_scheme=scheme)
            self.ask(page, REVIEW)
            page.locator(".tok, .answer").first.click()
            if page.locator(".routes").count():
                page.locator(".routes summary").click()
            for view in ("Playground", "Traces", "Library", "Server"):
                page.click(f"nav >> text={view}")
                page.wait_for_timeout(500)
                page.evaluate(AXE.read_text() + "; undefined")
                result = page.evaluate("axe.run(document, { resultTypes: ['violations'] })")
                found += [(scheme, width, view, one["id"], one["impact"], [node["html"][:120] for node in one["nodes"][:3]], one["nodes"][0]["failureSummary"])
                          for one in result["violations"] if one["impact"] != "minor"]
        self.assertEqual(found, [])


if MISSING:
    class Page(unittest.TestCase):  # noqa: F811
        @unittest.skip(MISSING)
        def test_page(self):
            pass


if __name__ == "__main__":
    main()
