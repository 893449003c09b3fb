// One answer while it is being generated: tokens in, text and log-probabilities out.
#pragma once

#include <cstdint>
#include <optional>
#include <span>
#include <string>
#include <vector>

#include "quiver/api/stop_matcher.h"
#include "quiver/schedule/request.h"
#include "quiver/text/tokenizer.h"

namespace quiver::api {

/// Why an answer has ended, as clients read it.
enum class FinishReason {
  kStop,    ///< a stop id or a stop string
  kLength,  ///< max_tokens, or the end of the context
};
/// "stop" or "length".
const char* finish_name(FinishReason reason);

/// A token of an answer, or of a prompt that is echoed.
struct AnswerToken {
  std::int32_t id = 0;
  std::optional<schedule::TokenScore> score;  ///< if log-probabilities are told; never of a prompt's first token
  std::int64_t text_offset = 0;               ///< characters of text before it, from the beginning of the answer's text; an echo counts
  bool is_prompt = false;
};

/// What came to an answer. Its text is final, and valid UTF-8.
struct Delta {
  std::string text;
  std::vector<AnswerToken> tokens;  ///< those whose text is complete with it; at the end, all that are left
  std::optional<FinishReason> finish;

  bool is_empty() const { return text.empty() && tokens.empty() && !finish; }
};
/// Joins what came later to what came before: a whole answer is the sum of its deltas.
void append(Delta& whole, Delta later);

struct AnswerOptions {
  std::vector<std::string> stops = {};  ///< looked for in the answer's text, not in the prompt
  bool skips_special_tokens = true;     ///< from the answer's text; an echo shows them
  bool echoes = false;                  ///< text and tokens begin with the prompt's
  std::int64_t min_new_tokens = 0;      ///< stop strings are not looked for in the text of these
};

/// The state of one choice of a request. The answer's text goes on from the prompt: a character that the prompt begins is completed, and a
/// space that only a first token loses stays.
///
/// `tokens` hold every generated token, the last one included, be it an EOS token or cut off by a stop string. `text` holds neither.
/// Not thread-safe.
class Answer {
 public:
  Answer(text::Tokenizer tokenizer, std::span<const std::int32_t> prompt, AnswerOptions options);

  /// Reads the prompt, and gives the echo, if there is one. Call it once, before anything else. `prompt_scores` are those of the prompt's
  /// tokens from the second on, or none. Throws kInternal for another number of them.
  Delta start(std::vector<schedule::TokenScore> prompt_scores = {});
  /// A generated token, and whether it is the last. `score` if log-probabilities are asked for. After the end, does nothing.
  Delta push(std::int32_t token, std::optional<schedule::TokenScore> score, std::optional<schedule::Finish> finish);
  /// The end without a token: of an answer that may have none. Both throw kInternal for logits that are not finite.
  Delta end(schedule::Finish finish);

  /// True after a stop string or the last token. If a stop string did it, whoever generates the tokens is to be told.
  bool is_ended() const { return is_ended_; }
  /// True if a stop string ended the answer before its last token was said to be the last.
  bool is_stopped() const { return is_ended_ && matcher_.is_stopped(); }
  /// Generated tokens so far.
  std::int64_t num_tokens() const { return num_tokens_; }

 private:
  void take(std::string_view decoded, bool is_exempt, Delta& delta);
  void deliver(std::string_view text, Delta& delta);
  void close(FinishReason reason, Delta& delta);
  void release(Delta& delta);

  struct Pending {
    AnswerToken token;
    std::int64_t end = -1;  ///< characters decoded with it; -1: its text is not complete
  };

  text::Tokenizer tokenizer_;
  AnswerOptions options_;
  std::vector<std::int32_t> prompt_;
  text::StreamDecoder decoder_;
  StopMatcher matcher_;
  std::string rest_of_prompt_;  ///< text of the prompt that the decoder holds back
  std::vector<Pending> pending_;
  std::int64_t num_decoded_ = 0;    ///< characters from the decoder
  std::int64_t num_delivered_ = 0;  ///< of these, the ones that are out
  std::int64_t num_tokens_ = 0;
  bool is_started_ = false, is_ended_ = false;
};

/// A token's text for a list of log-probabilities: OpenAI's spelling "bytes:\xe2\x80" for one that is no UTF-8 by itself.
std::string token_text(const text::Tokenizer& tokenizer, std::int32_t id);

}  // namespace quiver::api
