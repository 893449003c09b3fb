#include "quiver/merge/wudi.h"

#include <torch/utils.h>

#include <string>
#include <vector>

#include "quiver/merge/common.h"

namespace quiver::merge {
namespace {

/// One adapter in the shared input span: tau = b r_a^T Q^T.
struct Task {
  torch::Tensor b;    ///< scaling B, [d_out, r]
  torch::Tensor r_a;  ///< [K, r]
  torch::Tensor m;    ///< M, [min(d_out, r), K]; zero if tau is
};

Task task_of(const adapters::LoraPair& pair, const torch::Tensor& r_a) {
  const auto b = pair.lora_b() * pair.scaling();
  const auto m = std::get<1>(torch::linalg_qr(b)).matmul(r_a.t());
  const double norm = m.norm().item<double>();
  return {b, r_a, norm > 0 ? m / norm : m};
}

/// sum_i scaling_i B_i X_i Q^T, as factors.
Factors solve(std::span<const adapters::LoraAdapter> adapters, const std::string& path) {
  std::vector<adapters::LoraPair> pairs;
  std::vector<torch::Tensor> a;
  for (const auto& adapter : adapters) {
    pairs.push_back(adapter.pairs.at(path).to(torch::kCPU, torch::kDouble));
    a.push_back(pairs.back().lora_a());
  }
  const auto [q, r] = torch::linalg_qr(torch::cat(a, 0).t());  // [d_in, K], [K, sum r_i]
  std::vector<Task> tasks;
  std::vector<torch::Tensor> m, b;
  std::int64_t column = 0;
  for (const auto& pair : pairs) {
    tasks.push_back(task_of(pair, r.narrow(1, column, pair.rank())));
    column += pair.rank();
    m.push_back(tasks.back().m);
    b.push_back(tasks.back().b);
  }
  const auto inverse = torch::linalg_pinv(torch::cat(m, 0), kSingularCutoff).t();  // [sum m_i, K]
  std::vector<torch::Tensor> x;
  std::int64_t row = 0;
  for (const auto& task : tasks) {
    x.push_back(task.r_a.t().matmul(task.m.t()).matmul(inverse.narrow(0, row, task.m.size(0))));  // [r_i, K]
    row += task.m.size(0);
  }
  return {torch::cat(x, 0).matmul(q.t()), torch::cat(b, 1)};
}

}  // namespace

adapters::LoraAdapter wudi(std::span<const adapters::LoraAdapter> adapters, const WudiOptions& options) {
  check_mixable(adapters, Agreement::kShapes);
  return mixture_of_products(adapters, "wudi", [&](const std::string& path) {
    auto solution = solve(adapters, path);
    if (options.divide_by_count) solution.b = solution.b / static_cast<double>(adapters.size());
    return solution;
  });
}

}  // namespace quiver::merge
