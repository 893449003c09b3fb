#include "quiver/recipes/bench.h"

#include <torch/torch.h>

#include <algorithm>
#include <chrono>

namespace quiver::recipes {

nlohmann::json bench_gemm(tensor::Placement placement, std::int64_t rows) {
  using Clock = std::chrono::steady_clock;
  const torch::InferenceMode inference;
  const auto options = torch::TensorOptions().device(placement.device).dtype(placement.dtype);
  const std::pair<std::int64_t, std::int64_t> shapes[] = {{576, 576}, {1536, 576}, {576, 1536}};  // [n, k] of SmolLM2-135M
  nlohmann::json list = nlohmann::json::array();
  double total_flops = 0, total_seconds = 0;
  for (const auto& [n, k] : shapes) {
    const auto x = torch::randn({rows, k}, options), w = torch::randn({n, k}, options);
    std::vector<double> seconds;
    for (int run = 0; run < 25; ++run) {
      const auto start = Clock::now();
      auto y = torch::linear(x, w);
      if (placement.device.is_cuda()) y.index({0, 0}).item<float>();  // waits
      seconds.push_back(std::chrono::duration<double>(Clock::now() - start).count());
    }
    std::ranges::sort(seconds);
    const double median = seconds[seconds.size() / 2];
    const double flops = 2.0 * static_cast<double>(rows * n * k);
    list.push_back({{"m", rows}, {"n", n}, {"k", k}, {"gflops", flops / median / 1e9}});
    total_flops += flops;
    total_seconds += median;
  }
  return {{"shapes", list}, {"gflops", total_flops / total_seconds / 1e9}};
}

}  // namespace quiver::recipes
