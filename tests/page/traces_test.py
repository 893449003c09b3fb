#!/usr/bin/env python3
"""The page's traces: routes of a stream, of a prompt and of a file."""

import collections
import json
import pathlib
import re

from page_support import PageCase, REVIEW, expect, main, needs_browser, needs_mock
from mock_server import ANSWERS, LAYERS, split_tokens, trace_document


@needs_browser
class Traces(PageCase):
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
                const [r, g, b] = context.getImageData((30 + t * column + 0.5) * ratio, (layer * height + 0.5) * ratio, 1, 1).data;  // its letter is not there
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


if __name__ == "__main__":
    main()
