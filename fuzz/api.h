// What the fuzz targets of the API run, shared with the test that runs them over the seed corpora.
#pragma once

#include <algorithm>
#include <cstddef>
#include <span>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

#include "fuzz/support.h"
#include "fuzz/tokenizer.h"
#include "quiver/api/answer.h"
#include "quiver/api/chat.h"
#include "quiver/api/completions.h"
#include "quiver/api/json_body.h"
#include "quiver/api/responses.h"
#include "quiver/api/stop_matcher.h"
#include "quiver/api/tokenize.h"

namespace quiver::fuzz {

/// A body for every endpoint: a checked request within its limits, or an ApiError whose own body is JSON and short.
inline void run_api_body(std::span<const std::byte> bytes) {
  static const text::Tokenizer tokenizer = lossless_tokenizer();
  const api::RequestLimits limits{.vocab_size = tokenizer.vocab_size(), .context_length = 64};
  const auto attempt = [&](const auto& read) {
    try {
      read();
    } catch (const api::ApiError& error) {
      expect(error.status() >= 400 && error.status() < 500, "a body is the server's fault");
      const auto body = api::error_body(error);
      expect(nlohmann::json::accept(body), "an error is not JSON");
      expect(body.size() < 4000, "an error repeats what was sent");
    }
  };
  attempt([&] {
    const auto body = api::parse_body(text_of(bytes));
    attempt([&] {
      auto request = api::parse_completion(body, limits);
      expect(!request.prompts.empty() && request.prompts.size() <= 256, "a number of prompts");
      for (const auto& prompt : request.prompts) {
        for (const auto id : api::prompt_ids(prompt, tokenizer.with_special_ids(0, {}, {}), false)) {
          expect(id >= 0 && id < limits.vocab_size, "an id outside the vocabulary");
        }
      }
      api::settle_stops(request.generation, tokenizer);
      expect(request.generation.stops.size() <= 32, "a number of stop strings");
      for (const char c : api::ignored_header(request.generation.ignored_fields))
        expect(c >= ' ' && c <= '~', "a header with a control byte");
    });
    attempt([&] {
      const auto request = api::parse_chat(body, limits);
      expect(!request.messages.empty(), "no messages");
    });
    attempt([&] { expect(nlohmann::json::accept(api::tokenize_answer(body, tokenizer, nullptr, limits)), "an answer is not JSON"); });
    attempt([&] { expect(nlohmann::json::accept(api::detokenize_answer(body, tokenizer, limits)), "an answer is not JSON"); });
    attempt([&] { expect(api::is_model_name(api::parse_load_adapter(body).name), "a name that must be escaped"); });
    attempt([&] { expect(api::is_model_name(api::parse_unload_adapter(body).name), "a name that must be escaped"); });
  });
}

/// Cuts `bytes` at zero bytes.
inline std::vector<std::string> pieces_of(std::string_view bytes) {
  std::vector<std::string> pieces;
  while (true) {
    const auto zero = bytes.find('\0');
    pieces.emplace_back(bytes.substr(0, zero));
    if (zero == std::string_view::npos) return pieces;
    bytes.remove_prefix(zero + 1);
  }
}

/// Byte 0: the number of stop strings. Then these, and pieces of a text, with zero bytes between. What comes out is the text up to the
/// first place where a stop string starts.
inline void run_stop_matcher(std::span<const std::byte> bytes) {
  if (bytes.empty()) return;
  auto pieces = pieces_of(text_of(bytes).substr(1));
  const auto num_stops = std::min<std::size_t>(static_cast<std::size_t>(bytes[0]) % 33, pieces.size());
  std::vector<std::string> stops(pieces.begin(), pieces.begin() + static_cast<std::ptrdiff_t>(num_stops));
  for (auto& stop : stops) stop = stop.substr(0, 256);
  pieces.erase(pieces.begin(), pieces.begin() + static_cast<std::ptrdiff_t>(num_stops));
  api::StopMatcher matcher(stops);
  std::string text, out;
  for (const auto& piece : pieces) {
    matcher.push(piece, out);
    text += piece;
  }
  matcher.finish(out);
  auto first = text.size();
  for (const auto& stop : stops) {
    if (!stop.empty()) first = std::min(first, text.find(stop));
  }
  expect(out == text.substr(0, first), "a text is cut in another way than at once");
  expect(matcher.is_stopped() == (first < text.size()), "a stop string was overlooked");
}

/// Byte 0: options. Then a stop string, a zero byte, and the tokens of an answer, a byte each. The events read back, and add up to the
/// whole answer.
inline void run_event_writer(std::span<const std::byte> bytes) {
  static const text::Tokenizer tokenizer = lossless_tokenizer();
  if (bytes.empty()) return;
  const auto options = static_cast<unsigned>(bytes[0]);
  const auto all = text_of(bytes).substr(1);
  const auto zero = std::min(all.find('\0'), all.size());
  const auto ids = all.substr(std::min(zero + 1, all.size())).substr(0, 200);
  const api::AnswerHead head{.endpoint = (options & 1U) != 0 ? api::Endpoint::kChat : api::Endpoint::kCompletions,
                             .id = std::string(all.substr(0, 10)),
                             .model = std::string(all.substr(0, zero)),
                             .top_log_probs = static_cast<std::int64_t>(options >> 1U & 3U) - 1,
                             .returns_token_ids = (options & 8U) != 0,
                             .includes_usage = (options & 16U) != 0};
  api::Answer answer(tokenizer, std::vector<std::int32_t>{'a', 0xE2},
                     {.stops = {replace_invalid_utf8(all.substr(0, std::min<std::size_t>(zero, 80)))}, .echoes = (options & 32U) != 0});
  auto whole = answer.start();
  std::string stream = api::first_event(head, 0) + api::delta_event(head, {.delta = whole}, tokenizer);
  for (const char c : ids) {
    const std::int32_t id = static_cast<unsigned char>(c);
    const auto log_prob = -static_cast<double>(id) / 7;
    auto delta = answer.push(id, schedule::TokenScore{.token = id, .log_prob = log_prob, .top = {{id / 2, log_prob / 3}}}, std::nullopt);
    stream += api::delta_event(head, {.delta = delta}, tokenizer);
    api::append(whole, std::move(delta));
  }
  auto last = answer.end(schedule::Finish::kLength);
  stream += api::delta_event(head, {.delta = last}, tokenizer) + api::usage_event(head, {});
  api::append(whole, std::move(last));
  std::string text;
  for (std::string_view left = stream; !left.empty();) {
    const auto end = left.find("\n\n");
    expect(end != std::string_view::npos && left.starts_with("data: "), "what is no event");
    const auto event = nlohmann::json::parse(left.substr(6, end - 6));
    left.remove_prefix(end + 2);
    expect(event.contains("usage") == head.includes_usage, "usage that nobody asked for");
    for (const auto& choice : event.at("choices")) {
      text += head.endpoint == api::Endpoint::kChat ? choice.at("delta").value("content", "") : choice.at("text").get<std::string>();
    }
  }
  expect(text == whole.text, "a stream adds up to another text");
  const api::Choice choices[] = {{.delta = whole}};
  const auto body = nlohmann::json::parse(api::answer_body(head, choices, {}, tokenizer)).at("choices").at(0);
  expect((head.endpoint == api::Endpoint::kChat ? body.at("message").at("content") : body.at("text")) == text, "a body with another text");
  expect(!api::error_event(api::ApiError(api::Reason::kInternal, std::string(all))).empty(), "no error event");
}

}  // namespace quiver::fuzz
