// Choosing a token from logits.
#pragma once

#include <torch/types.h>

#include <cstdint>
#include <string>

#include "quiver/base/random.h"

namespace quiver::model {

struct SamplerOptions {
  double temperature = 0;  ///< 0 is greedy: the largest logit, the first of equals
  double top_p = 1;        ///< sample from the smallest set of tokens whose probability reaches this
  std::uint64_t seed = 42;
  std::string stream;  ///< name of the stream of random numbers, with `seed` (RandomStream)
};

/// Throws kUsage for a negative temperature or a top_p outside (0, 1].
void check_sampler(const SamplerOptions& options);

/// Chooses the tokens of one sequence, from random numbers of its own.
class Sampler {
 public:
  /// Throws as check_sampler.
  explicit Sampler(const SamplerOptions& options);
  bool is_greedy() const { return temperature_ == 0; }
  /// The next token, given its logits [V] on the CPU. Float64 arithmetic.
  std::int32_t choose(const torch::Tensor& logits);

 private:
  double temperature_, top_p_;
  RandomStream random_;
};

}  // namespace quiver::model
