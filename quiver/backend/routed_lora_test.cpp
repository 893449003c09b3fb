#include "quiver/backend/routed_lora.h"

#include <gtest/gtest.h>
#include <torch/utils.h>

#include <cmath>
#include <vector>

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

/// The shape is T, d_in, N, top_k, c and the shortlist.
Description route_shortlisted_op() {
  return {.name = "route_shortlisted",
          .shapes = {{0, 8, 3, 1, 2, 3}, {1, 5, 2, 1, 1, 2}, {33, 40, 20, 4, 3, 9}, {3, 64, 50, 3, 4, 20}},
          .arguments =
              [](const Shape& s) {
                return std::vector<Argument>{{draw({s[0], s[1]}, 1)}, {draw({s[2], s[4], s[1]}, 2), Kind::kGiven}};
              },
          .forward =
              [](const Ops& column, const Tensors& in, const Shape& s) {
                const auto rows = in[1].cpu(), first = rows.select(1, 0).contiguous();
                const Shortlist by{.prototypes = {tensor::Placed(first), column.pack_prototypes(first)},
                                   .vectors = {tensor::Placed(rows), column.pack_vectors(rows)},
                                   .size = s[5]};
                std::vector<std::int32_t> groups;
                for (std::int64_t t = 0; t < s[0]; ++t) groups.push_back(static_cast<std::int32_t>(t % 2));
                std::vector<float> table;
                for (std::int64_t i = 0; i < 2 * s[2]; ++i) table.push_back(static_cast<float>(std::cos(static_cast<double>(i))));
                const ScoreAdjustment adjusted{tensor::Placed(draw({s[2]}, 4).abs() + 0.5), tensor::Placed(draw({s[2]}, 5)), table, groups};
                Tensors results;
                for (const auto& adjustment : {ScoreAdjustment{}, adjusted}) {
                  const auto chosen = column.route_shortlisted(by, in[0], s[3], 2, adjustment);
                  results.push_back(torch::zeros({s[0], s[2]}).scatter_(1, chosen.index.cpu(), chosen.weight.cpu()));
                }
                return results;
              },
          .tolerance = rounding({1e-4, 1e-4}, {1e-4, 1e-4})};
}

/// Tokens alone ask 8-bit prototypes first; many tokens at once read all prototypes as they are. The bits are the same.
void expect_same_choices(const Tensor& prototypes, const Tensor& x, std::int64_t top_k, const ScoreAdjustment& adjustment) {
  const auto packed = pack_prototypes(prototypes);
  const auto repeated = torch::cat({x, x, x, x, x}).contiguous();
  const auto all = route(packed, repeated, top_k, 1, adjustment);
  for (std::int64_t t = 0; t < x.size(0); ++t) {
    const auto one = route(packed, x.narrow(0, t, 1), top_k, 1, adjustment);
    EXPECT_TRUE(torch::equal(one.index[0], all.index[t])) << t << ": " << one.index[0] << " and " << all.index[t];
    EXPECT_TRUE(torch::equal(one.weight[0], all.weight[t]) || !x[t].isfinite().all().item<bool>()) << t;
  }
}

TEST(RouteByCandidates, ChoosesWhatAllPrototypesChoose) {
  for (std::uint64_t seed = 0; seed < 40; ++seed) {
    const std::int64_t num_adapters = 17 + static_cast<std::int64_t>(seed * 7), width = seed % 2 == 0 ? 64 : 576;
    auto prototypes = draw({num_adapters, width}, seed);
    prototypes /= prototypes.norm(2, {1}, true);
    auto x = draw({12, width}, 100 + seed) * std::pow(10.0, static_cast<double>(seed % 9) - 4);
    if (seed % 3 == 0) {  // near ties, ties, and vectors that are nothing
      prototypes.slice(0, 0, num_adapters, 2) = prototypes[1] + 1e-4 * prototypes.slice(0, 0, num_adapters, 2);
      prototypes[5] = prototypes[9];
      prototypes[7].zero_();
      x[3].zero_();
      x[4] = prototypes[5] * 1000;
      x[5][0] = 1e30;
    }
    const ScoreAdjustment adjusted{tensor::Placed(draw({num_adapters}, 4).abs() + 0.01), tensor::Placed(draw({num_adapters}, 5)), {}, {}};
    std::vector<float> bias;
    for (std::int64_t n = 0; n < num_adapters; ++n) bias.push_back(n % 4 == 0 ? 3.0f : -0.1f);
    for (const auto top_k : {std::int64_t{1}, std::int64_t{4}, num_adapters / 2}) {
      SCOPED_TRACE(seed);
      expect_same_choices(prototypes, x, top_k, {});
      expect_same_choices(prototypes, x, top_k, adjusted);
      expect_same_choices(prototypes, x, top_k, {.bias = bias});
    }
  }
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

INSTANTIATE_TEST_SUITE_P(RoutedLora, Table, ::testing::Values(route_op(), route_shortlisted_op(), shrink_routed_op(), add_routed_op()),
                         name_of);

}  // namespace
}  // namespace quiver::backend
