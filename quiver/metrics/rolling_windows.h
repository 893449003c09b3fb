// A long text as requests that fit a model's context.
#pragma once

#include <cstdint>
#include <span>
#include <vector>

namespace quiver::metrics {

struct RollingOptions {
  std::int32_t prefix_token = 0;    ///< the token before the text: BOS, or EOS where there is none
  std::int64_t max_length = 0;      ///< tokens of a window that the model reads
  std::int64_t context_length = 1;  ///< tokens that even the first prediction of a later window sees
};

/// A continuation and the tokens before it. The model reads both but for the last token: at most max_length tokens.
struct RollingWindow {
  std::vector<std::int32_t> context;
  std::vector<std::int32_t> continuation;
};

/// The windows whose log-likelihoods sum up to that of the text, as lm-evaluation-harness 0.4.13 makes them (get_rolling_token_windows,
/// then make_disjoint_window). The continuations are the text, in order and without overlap. The first window has the prefix token for its
/// context. A later one predicts up to max_length - context_length + 1 tokens; the last has a longer context where it predicts fewer.
/// No tokens have no windows. Throws kUsage unless 1 <= context_length <= max_length.
std::vector<RollingWindow> rolling_windows(std::span<const std::int32_t> tokens, const RollingOptions& options);

}  // namespace quiver::metrics
