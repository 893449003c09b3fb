#include "quiver/backend/routed_lora.h"

#include <gtest/gtest.h>
#include <torch/utils.h>

#include "quiver/backend/test_support.h"

namespace quiver::backend {
namespace {

/// The shape is T, d_in, N, top_k. Plain, and with calibrated scores and a bias by group.
Description route_op() {
  return {.name = "route",
          .shapes = {{0, 8, 3, 1}, {1, 5, 1, 1}, {33, 40, 20, 4}, {70, 65, 33, 3}},
          .arguments =
              [](const Shape& s) {
                return std::vector<Argument>{{draw({s[0], s[1]}, 1)}, {draw({s[2], s[1]}, 2), Kind::kGiven}};
              },
          .forward =
              [](const Ops& column, const Tensors& in, const Shape& s) {
                const auto rows = in[1].cpu();
                const ScoreVectors prototypes{tensor::Placed(rows), column.pack_prototypes(rows)};
                std::vector<std::int32_t> groups;
                for (std::int64_t t = 0; t < s[0]; ++t) groups.push_back(static_cast<std::int32_t>(t * 2 % 3));
                std::vector<float> table;
                for (std::int64_t i = 0; i < 3 * s[2]; ++i) table.push_back(static_cast<float>(std::sin(static_cast<double>(i))));
                const ScoreAdjustment adjusted{tensor::Placed(draw({s[2]}, 4).abs() + 0.5), tensor::Placed(draw({s[2]}, 5)), table, groups};
                Tensors results;
                for (const auto& adjustment : {ScoreAdjustment{}, ScoreAdjustment{.bias = table}, adjusted}) {
                  const auto chosen = column.route(prototypes, in[0], s[3], 2, adjustment);
                  results.push_back(torch::zeros({s[0], s[2]}).scatter_(1, chosen.index.cpu(), chosen.weight.cpu()));
                }
                return results;
              },
          .tolerance = rounding({1e-4, 1e-4}, {1e-4, 1e-4})};
}

Tensor some_index(const Shape& s) {  // [T, k], no adapter twice in a row
  return (torch::arange(s[0], torch::kLong).mul(5).unsqueeze(1) + torch::arange(s[3], torch::kLong).unsqueeze(0)).remainder(s[2]);
}

/// The shape is T, d_in, N, top_k, c.
Description shrink_routed_op() {
  return {.name = "shrink_routed",
          .shapes = {{0, 8, 3, 1, 2}, {1, 5, 1, 1, 1}, {33, 40, 20, 4, 3}, {140, 65, 12, 3, 7}},
          .arguments =
              [](const Shape& s) {
                return std::vector<Argument>{
                    {draw({s[0], s[1]}, 1)}, {draw({s[2], s[4], s[1]}, 2), Kind::kGiven}, {some_index(s), Kind::kGiven}};
              },
          .forward =
              [](const Ops& column, const Tensors& in, const Shape&) {
                const auto rows = in[1].cpu();
                return Tensors{column.shrink_routed({tensor::Placed(rows), column.pack_vectors(rows)}, in[0], in[2])};
              },
          .tolerance = {{torch::kFloat, {1e-4, 1e-4}}, {torch::kBFloat16, {1e-4, 1e-4}}, {torch::kDouble, {1e-4, 1e-4}}}};
}

/// The shape is T, d_in, N, top_k, d_out, rank. Outputs are mixed of adapters of unequal ranks, too.
Description add_routed_op() {
  return {.name = "add_routed",
          .shapes = {{0, 8, 3, 1, 5, 2}, {1, 5, 1, 1, 3, 1}, {33, 40, 20, 4, 130, 3}, {140, 65, 6, 3, 64, 7}},
          .arguments =
              [](const Shape& s) {
                return std::vector<Argument>{{draw({s[0], s[1]}, 1)},
                                             {draw({s[0], s[4]}, 2)},
                                             {some_index(s), Kind::kGiven},
                                             {draw({s[0], s[3]}, 3).abs(), Kind::kGiven}};
              },
          .forward =
              [](const Ops& column, const Tensors& in, const Shape& s) {
                Tensors results;
                for (const std::int64_t more : {0, 3}) {
                  std::vector<LoraFactors> factors;
                  for (std::int64_t n = 0; n < s[2]; ++n) {
                    const auto rank = s[5] + n * more % 5;
                    factors.push_back({draw({rank, s[1]}, static_cast<std::uint64_t>(10 + n), 0.2),
                                       draw({s[4], rank}, static_cast<std::uint64_t>(50 + n), 0.2), 1.5});
                  }
                  const RoutedAdapters adapters{factors, column.pack_adapters(factors, in[0].device()), s[1], s[4]};
                  for (const auto combine : {Combine::kOutputs, Combine::kParams}) {
                    if (combine == Combine::kParams && more > 0) continue;
                    auto y = in[1].clone();
                    column.add_routed(adapters, in[0], {in[2], in[3]}, combine, y);
                    results.push_back(y);
                  }
                }
                return results;
              },
          .tolerance = rounding({1e-4, 1e-4}, {3e-2, 3e-2})};
}

INSTANTIATE_TEST_SUITE_P(RoutedLora, Table, ::testing::Values(route_op(), shrink_routed_op(), add_routed_op()), name_of);

}  // namespace
}  // namespace quiver::backend
