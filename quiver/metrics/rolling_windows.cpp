#include "quiver/metrics/rolling_windows.h"

#include <algorithm>

#include "quiver/base/error.h"

namespace quiver::metrics {

std::vector<RollingWindow> rolling_windows(std::span<const std::int32_t> tokens, const RollingOptions& options) {
  const auto [prefix_token, max_length, context_length] = options;
  if (context_length < 1 || context_length > max_length) {
    fail(ErrorKind::kUsage, "rolling windows of at most {} tokens cannot have a context of {}; expected 1 to {}", max_length,
         context_length, max_length);
  }
  const auto num_tokens = std::ssize(tokens);
  const auto part = [&](std::int64_t begin, std::int64_t end) {
    return std::vector<std::int32_t>(tokens.begin() + begin, tokens.begin() + end);
  };
  std::vector<RollingWindow> windows;
  if (num_tokens == 0) return windows;
  std::int64_t predicted = std::min(max_length, num_tokens);
  windows.push_back({{prefix_token}, part(0, predicted)});
  while (predicted < num_tokens) {
    const auto end = predicted + std::min(num_tokens - predicted, max_length - context_length + 1);
    // The model reads [end - 1 - max_length, end - 1): the context is what of it stands before the continuation.
    windows.push_back({part(end - 1 - max_length, predicted), part(predicted, end)});
    predicted = end;
  }
  return windows;
}

}  // namespace quiver::metrics
