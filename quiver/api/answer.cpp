#include "quiver/api/answer.h"

#include <algorithm>
#include <iterator>
#include <utility>

#include "quiver/api/error.h"
#include "quiver/base/error.h"
#include "quiver/base/utf8.h"

namespace quiver::api {

namespace {

FinishReason finish_reason(schedule::Finish finish) {
  if (finish == schedule::Finish::kNotFinite) {
    throw ApiError(Reason::kInternal, "the model's logits overflow, so there is no next token", {}, {{"x-should-retry", "false"}});
  }
  return finish == schedule::Finish::kLength ? FinishReason::kLength : FinishReason::kStop;
}

}  // namespace

const char* finish_name(FinishReason reason) { return reason == FinishReason::kStop ? "stop" : "length"; }

void append(Delta& whole, Delta later) {
  whole.text += later.text;
  std::ranges::move(later.tokens, std::back_inserter(whole.tokens));
  if (later.finish) whole.finish = later.finish;
}

Answer::Answer(text::Tokenizer tokenizer, std::span<const std::int32_t> prompt, AnswerOptions options)
    : tokenizer_(tokenizer),
      options_(std::move(options)),
      prompt_(prompt.begin(), prompt.end()),
      decoder_(std::move(tokenizer)),
      matcher_(options_.stops) {}

Delta Answer::start(std::vector<schedule::TokenScore> prompt_scores) {
  if (!prompt_scores.empty() && prompt_scores.size() + 1 != prompt_.size()) {
    fail(ErrorKind::kInternal, "{} scores for a prompt of {} tokens", prompt_scores.size(), prompt_.size());
  }
  Delta delta;
  for (std::size_t i = 0; i < prompt_.size(); ++i) {
    const auto text = decoder_.push(prompt_[i]);
    if (!options_.echoes) continue;
    AnswerToken token{.id = prompt_[i], .text_offset = num_decoded_, .is_prompt = true};
    if (i > 0 && !prompt_scores.empty()) token.score = std::move(prompt_scores[i - 1]);
    pending_.push_back({.token = std::move(token)});
    deliver(text, delta);
  }
  is_started_ = true;
  auto copy = decoder_;
  rest_of_prompt_ = copy.finish();
  return delta;
}

Delta Answer::push(std::int32_t token, std::optional<schedule::TokenScore> score, std::optional<schedule::Finish> finish) {
  Delta delta;
  if (!is_started_) fail(ErrorKind::kInternal, "a token before the answer's start");
  if (is_ended_) return delta;
  ++num_tokens_;
  pending_.push_back({.token = {.id = token, .score = std::move(score), .text_offset = num_decoded_}});
  const bool is_shown = finish != schedule::Finish::kStopId && !(options_.skips_special_tokens && tokenizer_.is_special(token));
  if (is_shown) take(decoder_.push(token), /*is_exempt=*/num_tokens_ <= options_.min_new_tokens, delta);
  if (finish) close(finish_reason(*finish), delta);
  return delta;
}

Delta Answer::end(schedule::Finish finish) {
  Delta delta;
  if (!is_ended_) close(finish_reason(finish), delta);
  return delta;
}

/// Text of the answer from the decoder: what is left of the prompt is taken off or echoed, the rest goes through the stop strings.
void Answer::take(std::string_view decoded, bool is_exempt, Delta& delta) {
  if (decoded.empty()) return;
  const auto rest = std::exchange(rest_of_prompt_, {});
  if (!rest.empty() && decoded.starts_with(rest)) {
    if (options_.echoes) deliver(rest, delta);
    decoded.remove_prefix(rest.size());
  }
  if (is_exempt) {
    deliver(decoded, delta);
    return;
  }
  num_decoded_ += count_code_points(decoded);
  for (auto last = pending_.rbegin(); last != pending_.rend() && last->end < 0; ++last) last->end = num_decoded_;
  std::string out;
  matcher_.push(decoded, out);
  num_delivered_ += count_code_points(out);
  delta.text += out;
  if (matcher_.is_stopped()) {
    close(FinishReason::kStop, delta);
  } else {
    release(delta);
  }
}

/// Text that no stop string can cut off.
void Answer::deliver(std::string_view text, Delta& delta) {
  if (text.empty()) return;
  const auto num_characters = count_code_points(text);
  num_decoded_ += num_characters;
  num_delivered_ += num_characters;
  for (auto last = pending_.rbegin(); last != pending_.rend() && last->end < 0; ++last) last->end = num_decoded_;
  delta.text += text;
  release(delta);
}

void Answer::close(FinishReason reason, Delta& delta) {
  if (is_ended_) return;
  if (!matcher_.is_stopped()) {
    is_ended_ = true;  // take() must not close again
    take(decoder_.finish(), /*is_exempt=*/false, delta);
    std::string out;
    matcher_.finish(out);
    num_delivered_ += count_code_points(out);
    delta.text += out;
  }
  is_ended_ = true;
  for (auto& pending : pending_) {
    pending.token.text_offset = std::min(pending.token.text_offset, num_delivered_);
    delta.tokens.push_back(std::move(pending.token));
  }
  pending_.clear();
  delta.finish = matcher_.is_stopped() ? FinishReason::kStop : reason;
}

/// The tokens at the front whose whole text is out.
void Answer::release(Delta& delta) {
  const auto is_out = [&](const Pending& pending) { return pending.end >= 0 && pending.end <= num_delivered_; };
  const auto first_left = std::ranges::find_if_not(pending_, is_out);
  for (auto place = pending_.begin(); place != first_left; ++place) delta.tokens.push_back(std::move(place->token));
  pending_.erase(pending_.begin(), first_left);
}

std::string token_text(const text::Tokenizer& tokenizer, std::int32_t id) {
  auto bytes = tokenizer.token_bytes(id);
  if (is_valid_utf8(bytes)) return bytes;
  constexpr char kDigits[] = "0123456789abcdef";
  std::string out = "bytes:";
  for (const char c : bytes) {
    const auto byte = static_cast<unsigned char>(c);
    out += "\\x";
    out += kDigits[byte >> 4U];
    out += kDigits[byte & 15U];
  }
  return out;
}

}  // namespace quiver::api
