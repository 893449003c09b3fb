// What a request for an answer is, for whoever schedules it. Plain values, without libtorch.
#pragma once

#include <cstdint>
#include <string>
#include <utility>
#include <vector>

namespace quiver::schedule {

/// How a token is chosen from logits z. In this order: z_v += bias_v; the repetition penalty r divides positive and multiplies negative
/// logits of tokens that have occurred in prompt or answer (Keskar et al. 2019); z_v -= frequency * count_v + presence * [count_v > 0] over
/// tokens of the answer (OpenAI); division by the temperature; the top_k largest; the smallest set of probability top_p; those with at
/// least min_p times the largest probability; and a draw from what is left.
struct SamplerOptions {
  double temperature = 0;         ///< 0 is greedy: the largest logit, the first of equals
  double top_p = 1;               ///< in (0, 1]
  std::int64_t top_k = 0;         ///< 0: all
  double min_p = 0;               ///< in [0, 1]
  double repetition_penalty = 1;  ///< > 0
  double frequency_penalty = 0;
  double presence_penalty = 0;
  std::vector<std::pair<std::int32_t, float>> logit_bias = {};  ///< by token
  std::uint64_t seed = 42;
  std::string stream = {};  ///< name of the stream of random numbers, with `seed` (RandomStream)
};

/// Where an answer ends, and what is told of it.
struct RequestOptions {
  std::int64_t max_new_tokens = 64;
  std::int64_t min_new_tokens = 0;  ///< before these, no stop id is chosen
  SamplerOptions sampler;
  std::vector<std::int32_t> stop_ids;  ///< the answer ends with the first of these, which is kept
  std::int64_t top_log_probs = -1;     ///< of each new token: the likeliest so many beside the chosen one; -1: no log-probabilities
};

/// What the model gave to a token, before any bias, penalty or temperature.
struct TokenScore {
  std::int32_t token = -1;
  double log_prob = 0;                                    ///< log softmax(z)_token, of float32 logits
  std::vector<std::pair<std::int32_t, double>> top = {};  ///< the likeliest tokens, the likeliest first, of equals the lower id
};

/// The adapter that a layer's linear maps favour for a row, and its share of the routing weights there, in [0, 1].
struct LayerRoute {
  std::int32_t adapter = -1;  ///< by its index among those that the row's router chooses from; -1: none
  float share = 0;
};

/// Why an answer has ended.
enum class Finish {
  kStopId,     ///< the token is one of stop_ids
  kLength,     ///< max_new_tokens, or the end of the model's context
  kNotFinite,  ///< the logits overflow; there is no token
  kError,      ///< what adapters compute the request could not be decided; there is no token
};

}  // namespace quiver::schedule
