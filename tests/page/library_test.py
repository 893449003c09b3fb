#!/usr/bin/env python3
"""The page's views of the library and of the server."""

import re

from page_support import PageCase, expect, main, needs_browser, needs_mock


@needs_browser
class Views(PageCase):
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


if __name__ == "__main__":
    main()
