// Rouge-L as the rouge-score package computes it with use_stemmer=True.
#pragma once

#include <span>
#include <string>
#include <string_view>
#include <vector>

namespace quiver::metrics {

/// The tokens that Rouge compares: the text in lower case, split at whatever is not [a-z0-9];
/// tokens of more than three characters stemmed (porter_stem).
///
/// Lower case means Unicode's, so that the Kelvin sign U+212A is a k, and U+0130 (I with a dot) an i that ends its token; no other
/// character outside ASCII becomes ASCII. `text` is UTF-8; other bytes separate tokens.
std::vector<std::string> rouge_tokens(std::string_view text);

struct RougeScore {
  double precision = 0;
  double recall = 0;
  double f_measure = 0;
};

/// Rouge-L of one prediction against one target (Lin 2004, section 3.1, with beta = 1),
///
///   P = LCS(t, p) / |p|,   R = LCS(t, p) / |t|,   F = 2 P R / (P + R),
///
/// LCS being the length of the longest common subsequence of tokens. All zero if either has no token. Time |t| |p|, memory min(|t|, |p|).
RougeScore rouge_l(std::string_view target, std::string_view prediction);

/// The highest F-measure, in [0, 1], over the targets. Throws kUsage if there is no target.
double best_rouge_l(std::span<const std::string> targets, std::string_view prediction);

}  // namespace quiver::metrics
