// Arrow's routing and routed LoRAs against their definitions in float64.
#include "quiver/backend/cpu/routed_lora_isa.h"

#include <algorithm>
#include <functional>
#include <set>
#include <tuple>

#include "tests/kernels/support.h"

namespace quiver::kernel_test {
namespace {

namespace kernel = backend::kernel;

template <typename T>
class Routing : public ::testing::Test {};
using Elements = ::testing::Types<float, Bf16>;
TYPED_TEST_SUITE(Routing, Elements);

/// One token's decision: the chosen scores fall, no other adapter scores higher, and the weights are their softmax.
void expect_decision(const std::vector<double>& scores, std::span<const std::int64_t> index, std::span<const float> weight,
                     double temperature, CpuIsa isa) {
  auto sorted = scores;
  std::ranges::sort(sorted, std::greater());
  const double slack = 1e-5 * (1 + std::abs(sorted.front()) + std::abs(sorted.back()));
  ASSERT_EQ(std::set(index.begin(), index.end()).size(), index.size()) << tensor::cpu_isa_name(isa);
  double sum = 0;
  for (const auto n : index) {
    ASSERT_TRUE(n >= 0 && n < std::ssize(scores)) << n << " on " << tensor::cpu_isa_name(isa);
    sum += std::exp((scores[static_cast<std::size_t>(n)] - sorted.front()) / temperature);
  }
  for (std::size_t j = 0; j < index.size(); ++j) {
    const double score = scores[static_cast<std::size_t>(index[j])];
    ASSERT_NEAR(score, sorted[j], slack) << "choice " << j << " on " << tensor::cpu_isa_name(isa);
    ASSERT_NEAR(weight[j], std::exp((score - sorted.front()) / temperature) / sum, 4 * slack / temperature)
        << "choice " << j << " on " << tensor::cpu_isa_name(isa);
  }
}

TYPED_TEST(Routing, ArrowChoosesTheLargestScores) {
  using T = TypeParam;
  for_rounds("arrow_route", [](Draw& draw) {
    const auto tokens = draw.size(0, 20), begin = draw.size(0, tokens), end = draw.size(begin, tokens);
    const auto d_in = draw.width(), adapters = draw.coin() ? draw.size(1, 20) : draw.size(1, 100), groups = draw.size(1, 4);
    const auto top_k = draw.size(1, std::min<std::int64_t>(adapters, 6));
    const auto temperature = static_cast<float>(draw.uniform(0.5, 3));
    const bool is_scaled = draw.coin(), is_biased = draw.coin(), has_groups = draw.coin();
    const auto x = draw.values<T>(tokens * d_in);
    const auto plain = draw.values<float>(adapters * d_in, -0.5, 0.5);
    const auto scale = draw.values<float>(adapters, 0.5, 2), shift = draw.values<float>(adapters),
               bias = draw.values<float>(groups * adapters);
    Exact<std::int32_t> of_token(tokens);
    for (auto& group : of_token.all()) group = static_cast<std::int32_t>(draw.size(0, groups - 1));
    Exact<float> panels(kernel::padded(adapters, kernel::kPanel) * d_in);
    std::ranges::fill(panels.all(), 0.0F);
    for (std::int64_t n = 0; n < adapters; ++n) {
      for (std::int64_t c = 0; c < d_in; ++c) {
        panels.data()[(n / kernel::kPanel * d_in + c) * kernel::kPanel + n % kernel::kPanel] = plain.data()[n * d_in + c];
      }
    }
    for (const auto isa : instruction_sets()) {
      Exact<std::int64_t> index(tokens * top_k);
      for (auto& value : index.all()) value = static_cast<std::int64_t>(kUntouched);
      auto weight = draw.untouched<float>(tokens * top_k);
      Exact<float> scratch(kernel::arrow_scratch_floats(d_in, adapters));
      const kernel::ArrowTask<T> task{.x = x.data(),
                                      .prototypes = panels.data(),
                                      .d_in = d_in,
                                      .num_adapters = adapters,
                                      .top_k = top_k,
                                      .temperature = temperature,
                                      .scale = is_scaled ? scale.data() : nullptr,
                                      .shift = is_scaled ? shift.data() : nullptr,
                                      .bias = is_biased ? bias.data() : nullptr,
                                      .groups = has_groups ? of_token.data() : nullptr,
                                      .index = index.data(),
                                      .weight = weight.data()};
      QUIVER_ON_ISA(isa, kernel, arrow_route, task, begin, end, scratch.data());
      for (std::int64_t t = 0; t < tokens; ++t) {
        const auto mine = index.all().subspan(static_cast<std::size_t>(t * top_k), static_cast<std::size_t>(top_k));
        if (t < begin || t >= end) {
          ASSERT_EQ(std::ranges::count(mine, static_cast<std::int64_t>(kUntouched)), top_k) << tensor::cpu_isa_name(isa);
          continue;
        }
        std::vector<double> scores;
        for (std::int64_t n = 0; n < adapters; ++n) {
          double score = 0;
          for (std::int64_t c = 0; c < d_in; ++c) score += x.at(t * d_in + c) * plain.at(n * d_in + c);
          score = std::abs(score) * (is_scaled ? scale.at(n) : 1) + (is_scaled ? shift.at(n) : 0);
          const auto group = has_groups ? of_token.data()[t] : 0;
          scores.push_back(score + (is_biased ? bias.at(group * adapters + n) : 0));
        }
        expect_decision(scores, mine, weight.all().subspan(static_cast<std::size_t>(t * top_k), static_cast<std::size_t>(top_k)),
                        temperature, isa);
      }
    }
  });
}

/// Adapters of one projection, their packed form, and a decision for each token.
template <typename T>
struct Routed {
  std::int64_t d_in, d_out, adapters, rank, top_k, tokens, begin, end;
  Exact<T> x, y;
  Exact<float> a, b, scaling, weight, packed_a, packed_b;
  Exact<std::int64_t> index;
  bool mix;

  explicit Routed(Draw& draw)
      : d_in(draw.width()),
        d_out(draw.width()),
        adapters(draw.size(1, 12)),
        rank(draw.size(1, 11)),
        top_k(draw.size(1, std::min<std::int64_t>(adapters, 4))),
        tokens(draw.size(0, 30)),
        begin(draw.size(0, tokens)),
        end(draw.size(begin, std::min(tokens, begin + kernel::tile_tokens(d_in)))),
        x(draw.values<T>(tokens * d_in)),
        y(draw.values<T>(tokens * d_out)),
        a(draw.values<float>(adapters * rank * d_in, -0.5, 0.5)),
        b(draw.values<float>(adapters * d_out * rank, -0.5, 0.5)),
        scaling(draw.values<float>(adapters, 0.5, 2)),
        weight(draw.values<float>(tokens * top_k, 0, 1)),
        packed_a(adapters * rank * kernel::padded(d_in, kernel::kRowPad)),
        packed_b(kernel::padded(d_out, kernel::kColumns) * adapters * rank),
        index(tokens * top_k),
        mix(draw.coin()) {
    for (auto& chosen : index.all()) chosen = draw.size(0, adapters - 1);
    if (mix) std::ranges::fill(scaling.all(), 1.5F);
    std::ranges::fill(packed_a.all(), 0.0F);
    std::ranges::fill(packed_b.all(), 0.0F);
    const auto width = kernel::padded(d_in, kernel::kRowPad), columns = kernel::kColumns;
    for (std::int64_t n = 0; n < adapters; ++n) {
      for (std::int64_t r = 0; r < rank; ++r) {
        for (std::int64_t c = 0; c < d_in; ++c) packed_a.data()[(n * rank + r) * width + c] = a.data()[(n * rank + r) * d_in + c];
        for (std::int64_t o = 0; o < d_out; ++o) {
          packed_b.data()[((n * (kernel::padded(d_out, columns) / columns) + o / columns) * rank + r) * columns + o % columns] =
              b.data()[(n * d_out + o) * rank + r];
        }
      }
    }
  }

  kernel::LoraTask<T> task(T* out) const {
    return {.x = x.data(),
            .y = out,
            .lora_a = packed_a.data(),
            .lora_b = packed_b.data(),
            .scaling = scaling.data(),
            .index = index.data(),
            .weight = weight.data(),
            .d_in = d_in,
            .d_out = d_out,
            .num_adapters = adapters,
            .rank = rank,
            .top_k = top_k,
            .mix_parameters = mix};
  }
  double chosen_weight(std::int64_t t, std::int64_t j) const { return weight.at(t * top_k + j); }
  std::int64_t chosen(std::int64_t t, std::int64_t j) const { return index.data()[t * top_k + j]; }
  /// A_n x_t
  double shrunk(std::int64_t t, std::int64_t n, std::int64_t r) const {
    double sum = 0;
    for (std::int64_t c = 0; c < d_in; ++c) sum += a.at((n * rank + r) * d_in + c) * x.at(t * d_in + c);
    return sum;
  }
};

TYPED_TEST(Routing, RoutedLorasAreTheirDefinition) {
  using T = TypeParam;
  for_rounds("add_routed", [](Draw& draw) {
    const Routed<T> routed(draw);
    const auto [rank, top_k, d_out] = std::tuple(routed.rank, routed.top_k, routed.d_out);
    auto y = expected_of(routed.y), hidden = untouched(routed.tokens * top_k * rank);
    for (auto t = routed.begin; t < routed.end; ++t) {
      std::vector<double> coefficients(static_cast<std::size_t>(top_k * rank));  // of the rows of B
      for (std::int64_t r = 0; r < rank; ++r) {
        double mixed = 0;
        for (std::int64_t j = 0; j < top_k; ++j) {
          const double u = routed.shrunk(t, routed.chosen(t, j), r);
          hidden[static_cast<std::size_t>((t * top_k + j) * rank + r)] = u;
          mixed += routed.chosen_weight(t, j) * u;
        }
        for (std::int64_t j = 0; j < top_k; ++j) {
          const double u = routed.mix ? mixed : hidden[static_cast<std::size_t>((t * top_k + j) * rank + r)];
          coefficients[static_cast<std::size_t>(j * rank + r)] = routed.scaling.at(routed.chosen(t, j)) * routed.chosen_weight(t, j) * u;
        }
      }
      for (std::int64_t o = 0; o < d_out; ++o) {
        for (std::int64_t j = 0; j < top_k; ++j) {
          for (std::int64_t r = 0; r < rank; ++r) {
            y[static_cast<std::size_t>(t * d_out + o)] +=
                coefficients[static_cast<std::size_t>(j * rank + r)] * routed.b.at((routed.chosen(t, j) * d_out + o) * rank + r);
          }
        }
      }
    }
    for (const auto isa : instruction_sets()) {
      Exact<T> out(routed.tokens * d_out, draw.size(0, 17));
      std::ranges::copy(routed.y.all(), out.data());
      const auto count = routed.end - routed.begin;
      Exact<float> scratch(kernel::lora_scratch_floats(count, routed.d_in, top_k, rank));
      Exact<std::int32_t> ints(kernel::lora_scratch_ints(count, top_k, routed.adapters));
      auto found = draw.untouched<float>(routed.tokens * top_k * rank);
      QUIVER_ON_ISA(isa, kernel, add_routed, routed.task(out.data()), routed.begin, routed.end, scratch.data(), ints.data());
      expect_near(out, y, {kRounding<T>.relative, 3e-6, 2e-5}, "add_routed", isa);
      QUIVER_ON_ISA(isa, kernel, shrink_routed, routed.task(nullptr), routed.begin, routed.end, scratch.data(), ints.data(), found.data());
      expect_near(found, hidden, {1e-5, 3e-6, 2e-5}, "shrink_routed", isa);
    }
  });
}

}  // namespace
}  // namespace quiver::kernel_test
