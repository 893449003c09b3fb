#!/usr/bin/env python3
"""The page for everybody: hostile texts, long answers, keyboard, screen readers, small screens, axe-core."""

import time
import unittest

from page_support import AXE, PageCase, REVIEW, expect, main, needs_browser, needs_mock
from mock_server import ANSWERS, HOSTILE, HOSTILE_NAMES, split_tokens


@needs_browser
class Access(PageCase):
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


if __name__ == "__main__":
    main()
