#!/usr/bin/env python3
"""The page's playground: requests, streams, several models, settings, copies and links."""

import ast
import base64
import json
import subprocess

from page_support import PageCase, REVIEW, expect, main, needs_browser, needs_mock
from mock_server import ANSWERS, split_tokens


@needs_browser
class Playground(PageCase):
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


if __name__ == "__main__":
    main()
