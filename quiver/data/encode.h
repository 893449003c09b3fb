// From text to the sequences that are trained on, scored and continued.
#pragma once

#include <cstdint>
#include <string>
#include <string_view>
#include <vector>

#include "quiver/data/tasks.h"
#include "quiver/forest/token_forest.h"
#include "quiver/text/tokenizer.h"

namespace quiver::data {

/// Text as a model reads it from the start: after BOS where the tokenizer puts it there itself (Llama 2 and 3, Gemma, Mistral;
/// lm-evaluation-harness 0.4.13 follows the tokenizer, too).
std::vector<std::int32_t> encode_text(const text::Tokenizer& tokenizer, std::string_view text);

/// Cuts tokens from the left until at most max_length are left (0: no limit). BOS stays where the tokenizer puts it before a text and the
/// tokens begin with it. Returns how many were cut.
std::int64_t cut_left(const text::Tokenizer& tokenizer, std::vector<std::int32_t>& tokens, std::int64_t max_length);

/// Source and target as one sequence with the target and EOS as labels (method of mttl's collator):
///
///   - a space that ends the source moves to the front of the target; if the source ends in no white space and the
///     target starts with none, a space is put between;
///   - EOS follows the target;
///   - source + target are tokenised as one text (encode_text); the labels are as many of the last tokens as target and EOS have alone;
///   - more than max_length tokens are cut from the left, after BOS if there is one (0: no limit). If only labels are left, the first of
///     them becomes context, since a first token cannot be predicted.
///
/// Throws kUnsupported if the tokenizer has no EOS.
forest::Sequence encode_example(const text::Tokenizer& tokenizer, std::string_view source, std::string_view target,
                                std::int64_t max_length);

/// What the model continues: the source without a space at its end, cut from the left to max_length tokens.
std::vector<std::int32_t> encode_prompt(const text::Tokenizer& tokenizer, std::string_view source, std::int64_t max_length);

/// Context and continuation tokenised together, as lm-evaluation-harness does: white space that ends the context moves
/// to the continuation, whose tokens are those after as many as the context alone has (TemplateLM._encode_pair there). An empty context
/// becomes BOS (or EOS). Throws kUsage for an empty continuation, or where no token is left to it.
forest::Sequence encode_request(const text::Tokenizer& tokenizer, std::string_view context, std::string_view continuation);
/// The same of a context that a chat template rendered: its text holds the BOS that it wants, and no other is put before it.
forest::Sequence encode_rendered_request(const text::Tokenizer& tokenizer, std::string_view context, std::string_view continuation);

}  // namespace quiver::data
