// Row-wise kernels against their definitions in float64.
#include "quiver/backend/cpu/elementwise_isa.h"

#include <algorithm>

#include "tests/kernels/support.h"

namespace quiver::kernel_test {
namespace {

namespace kernel = backend::kernel;

double sigmoid(double x) { return 1 / (1 + std::exp(-x)); }

/// Rows [begin, end) of `count`, sometimes none.
struct Rows {
  std::int64_t count, begin, end;
  explicit Rows(Draw& draw) : count(draw.size(0, 6)), begin(draw.size(0, count)), end(draw.size(begin, count)) {}
};

template <typename T>
class Elementwise : public ::testing::Test {};
using Elements = ::testing::Types<float, Bf16>;
TYPED_TEST_SUITE(Elementwise, Elements);

TYPED_TEST(Elementwise, RmsNormIsItsDefinition) {
  using T = TypeParam;
  for_rounds("rms_norm_forward", [](Draw& draw) {
    const Rows rows(draw);
    const auto dim = draw.width();
    const auto x = draw.values<T>(rows.count * dim);
    const auto weight = draw.values<float>(dim);
    auto y = untouched(rows.count * dim), inverses = untouched(rows.count);
    for (auto r = rows.begin; r < rows.end; ++r) {
      double squares = 0;
      for (std::int64_t d = 0; d < dim; ++d) squares += x.at(r * dim + d) * x.at(r * dim + d);
      const double inverse = inverses[static_cast<std::size_t>(r)] = 1 / std::sqrt(squares / static_cast<double>(dim) + 1e-5);
      for (std::int64_t d = 0; d < dim; ++d) y[static_cast<std::size_t>(r * dim + d)] = x.at(r * dim + d) * inverse * weight.at(d);
    }
    for (const auto isa : instruction_sets()) {
      auto out = draw.untouched<T>(rows.count * dim);
      auto inverse = draw.untouched<float>(rows.count);
      QUIVER_ON_ISA(isa, kernel, rms_norm_forward<T>, rows.begin, rows.end, dim, 1e-5F, x.data(), weight.data(), out.data(),
                    inverse.data());
      expect_near(out, y, kRounding<T>, "rms_norm", isa);
      expect_near(inverse, inverses, kRounding<float>, "inverse_rms", isa);
    }
  });
}

TYPED_TEST(Elementwise, TheGradientOfRmsNormIsItsDefinition) {
  using T = TypeParam;
  for_rounds("rms_norm_backward", [](Draw& draw) {
    const Rows rows(draw);
    const auto dim = draw.width();
    const auto dy = draw.values<T>(rows.count * dim), x = draw.values<T>(rows.count * dim), onto = draw.values<T>(rows.count * dim);
    const auto weight = draw.values<float>(dim), inverse = draw.values<float>(rows.count, 0.3, 3);
    const bool adds = draw.coin();
    auto dx = untouched(rows.count * dim);
    for (auto r = rows.begin; r < rows.end; ++r) {
      double dots = 0;
      for (std::int64_t d = 0; d < dim; ++d) dots += dy.at(r * dim + d) * weight.at(d) * x.at(r * dim + d) * inverse.at(r);
      for (std::int64_t d = 0; d < dim; ++d) {
        const auto i = r * dim + d;
        const double gradient = (dy.at(i) * weight.at(d) - x.at(i) * inverse.at(r) * dots / static_cast<double>(dim)) * inverse.at(r);
        dx[static_cast<std::size_t>(i)] = (adds ? onto.at(i) : 0) + gradient;
      }
    }
    for (const auto isa : instruction_sets()) {
      auto out = draw.untouched<T>(rows.count * dim);
      QUIVER_ON_ISA(isa, kernel, rms_norm_backward<T>, rows.begin, rows.end, dim, dy.data(), x.data(), weight.data(), inverse.data(),
                    adds ? onto.data() : nullptr, out.data());
      expect_near(out, dx, {kRounding<T>.relative, 1e-5, 1e-5}, "gradient of rms_norm", isa);
    }
  });
}

TYPED_TEST(Elementwise, LayerNormAndItsGradientAreTheirDefinitions) {
  using T = TypeParam;
  for_rounds("layer_norm", [](Draw& draw) {
    const Rows rows(draw);
    const auto dim = draw.width();
    const auto dy = draw.values<T>(rows.count * dim), x = draw.values<T>(rows.count * dim), onto = draw.values<T>(rows.count * dim);
    const auto weight = draw.values<float>(dim), bias = draw.values<float>(dim);
    const bool adds = draw.coin();
    auto y = untouched(rows.count * dim), dx = y, means = untouched(rows.count), inverses = means;
    const auto n = static_cast<double>(dim);
    for (auto r = rows.begin; r < rows.end; ++r) {
      const auto row = static_cast<std::size_t>(r);
      double sum = 0, squares = 0, scaled = 0, dots = 0;
      for (std::int64_t d = 0; d < dim; ++d) sum += x.at(r * dim + d);
      const double mean = means[row] = sum / n;
      for (std::int64_t d = 0; d < dim; ++d) squares += (x.at(r * dim + d) - mean) * (x.at(r * dim + d) - mean);
      const double inverse = inverses[row] = 1 / std::sqrt(squares / n + 1e-2);
      for (std::int64_t d = 0; d < dim; ++d) {
        scaled += dy.at(r * dim + d) * weight.at(d);
        dots += dy.at(r * dim + d) * weight.at(d) * (x.at(r * dim + d) - mean) * inverse;
      }
      for (std::int64_t d = 0; d < dim; ++d) {
        const auto i = r * dim + d;
        const double normed = (x.at(i) - mean) * inverse;
        y[static_cast<std::size_t>(i)] = normed * weight.at(d) + bias.at(d);
        const double gradient = (dy.at(i) * weight.at(d) - scaled / n - normed * dots / n) * inverse;
        dx[static_cast<std::size_t>(i)] = (adds ? onto.at(i) : 0) + gradient;
      }
    }
    for (const auto isa : instruction_sets()) {
      auto out = draw.untouched<T>(rows.count * dim), out_dx = draw.untouched<T>(rows.count * dim);
      auto mean = draw.untouched<float>(rows.count), inverse = draw.untouched<float>(rows.count);
      QUIVER_ON_ISA(isa, kernel, layer_norm_forward<T>, rows.begin, rows.end, dim, 1e-2F, x.data(), weight.data(), bias.data(), out.data(),
                    mean.data(), inverse.data());
      expect_near(out, y, {kRounding<T>.relative, 1e-5, 1e-5}, "layer_norm", isa);
      expect_near(mean, means, {1e-5, 1e-6, 1e-6}, "mean", isa);
      expect_near(inverse, inverses, {1e-4, 1e-5, 1e-5}, "inverse deviation", isa);
      QUIVER_ON_ISA(isa, kernel, layer_norm_backward<T>, rows.begin, rows.end, dim, dy.data(), x.data(), weight.data(), mean.data(),
                    inverse.data(), adds ? onto.data() : nullptr, out_dx.data());
      expect_near(out_dx, dx, {kRounding<T>.relative, 1e-4, 1e-4}, "gradient of layer_norm", isa);
    }
  });
}

/// An activation and its derivative.
std::pair<double, double> activation_of(backend::Activation activation, double x) {
  using backend::Activation;
  const double root = std::sqrt(2 / std::acos(-1.0));
  switch (activation) {
    case Activation::kSilu: return {x * sigmoid(x), sigmoid(x) * (1 + x * (1 - sigmoid(x)))};
    case Activation::kGelu: {
      const double share = (1 + std::erf(x / std::sqrt(2.0))) / 2;
      return {x * share, share + x * std::exp(-x * x / 2) * root / 2};
    }
    case Activation::kGeluTanh: {
      const double t = std::tanh(root * (x + 0.044715 * x * x * x));
      return {x * (1 + t) / 2, (1 + t) / 2 + x * (1 - t * t) * root * (1 + 0.134145 * x * x) / 2};
    }
    case Activation::kRelu: return {std::max(x, 0.0), x > 0 ? 1 : 0};
  }
  return {};
}

TYPED_TEST(Elementwise, ActivationsAndTheirGradientsAreTheirDefinitions) {
  using T = TypeParam;
  for_rounds("activation", [](Draw& draw) {
    const auto count = draw.size(0, 200), begin = draw.size(0, count), end = draw.size(begin, count);
    const auto activation = static_cast<backend::Activation>(draw.size(0, 3));
    const double reach = draw.coin() ? 3 : 120;
    const bool is_gated = draw.coin();
    const auto gate = draw.values<T>(count, -reach, reach), up = draw.values<T>(count), dy = draw.values<T>(count);
    auto y = untouched(count), dgate = untouched(count), dup = untouched(count);
    for (auto i = begin; i < end; ++i) {
      const auto at = static_cast<std::size_t>(i);
      const auto [value, slope] = activation_of(activation, gate.at(i));
      y[at] = value * (is_gated ? up.at(i) : 1);
      dgate[at] = dy.at(i) * slope * (is_gated ? up.at(i) : 1);
      if (is_gated) dup[at] = dy.at(i) * value;
    }
    for (const auto isa : instruction_sets()) {
      auto out = draw.untouched<T>(count), out_gate = draw.untouched<T>(count), out_up = draw.untouched<T>(count);
      QUIVER_ON_ISA(isa, kernel, activation_forward<T>, activation, begin, end, gate.data(), is_gated ? up.data() : nullptr, out.data());
      QUIVER_ON_ISA(isa, kernel, activation_backward<T>, activation, begin, end, dy.data(), gate.data(), is_gated ? up.data() : nullptr,
                    out_gate.data(), out_up.data());
      const Tolerance tolerance{kRounding<T>.relative, 2e-6, 2e-6 * reach};
      expect_near(out, y, tolerance, "activation", isa);
      expect_near(out_gate, dgate, tolerance, "gradient of the gate", isa);
      expect_near(out_up, dup, tolerance, "gradient of up", isa);
    }
  });
}

TYPED_TEST(Elementwise, RotationIsItsDefinition) {
  using T = TypeParam;
  for_rounds("rotate", [](Draw& draw) {
    const Rows rows(draw);
    const auto heads = draw.size(1, 4), half = draw.size(1, 40), dim = 2 * half + (draw.coin() ? draw.size(0, 20) : 0);
    const auto x = draw.values<T>(rows.count * heads * dim);
    const auto cosine = draw.values<float>(rows.count * half, -1, 1), sine = draw.values<float>(rows.count * half, -1, 1);
    const float sign = draw.coin() ? 1.0F : -1.0F;
    auto y = untouched(rows.count * heads * dim);
    for (auto r = rows.begin; r < rows.end; ++r) {
      for (std::int64_t h = 0; h < heads; ++h) {
        for (std::int64_t i = 0; i < half; ++i) {
          const auto first = (r * heads + h) * dim + i;
          const double a = x.at(first), b = x.at(first + half), c = cosine.at(r * half + i), s = sign * sine.at(r * half + i);
          y[static_cast<std::size_t>(first)] = a * c - b * s;
          y[static_cast<std::size_t>(first + half)] = b * c + a * s;
        }
        for (auto i = (r * heads + h) * dim + 2 * half; i < (r * heads + h + 1) * dim; ++i) y[static_cast<std::size_t>(i)] = x.at(i);
      }
    }
    for (const auto isa : instruction_sets()) {
      auto out = draw.untouched<T>(rows.count * heads * dim);
      QUIVER_ON_ISA(isa, kernel, rotate<T>, rows.begin, rows.end, heads, dim, half, sign, x.data(), cosine.data(), sine.data(), out.data());
      expect_near(out, y, kRounding<T>, "rotate", isa);
    }
  });
}

TYPED_TEST(Elementwise, SwigluAndItsGradientAreTheirDefinitions) {
  using T = TypeParam;
  for_rounds("swiglu", [](Draw& draw) {
    const auto count = draw.size(0, 200), begin = draw.size(0, count), end = draw.size(begin, count);
    const double reach = draw.coin() ? 3 : 120;  // beyond what exp can hold
    const auto gate = draw.values<T>(count, -reach, reach), up = draw.values<T>(count), dy = draw.values<T>(count);
    auto y = untouched(count), dgate = untouched(count), dup = untouched(count);
    for (auto i = begin; i < end; ++i) {
      const auto at = static_cast<std::size_t>(i);
      const double s = sigmoid(gate.at(i));
      y[at] = gate.at(i) * s * up.at(i);
      dgate[at] = dy.at(i) * up.at(i) * s * (1 + gate.at(i) * (1 - s));
      dup[at] = dy.at(i) * gate.at(i) * s;
    }
    for (const auto isa : instruction_sets()) {
      auto out = draw.untouched<T>(count), out_gate = draw.untouched<T>(count), out_up = draw.untouched<T>(count);
      QUIVER_ON_ISA(isa, kernel, swiglu_forward<T>, begin, end, gate.data(), up.data(), out.data());
      QUIVER_ON_ISA(isa, kernel, swiglu_backward<T>, begin, end, dy.data(), gate.data(), up.data(), out_gate.data(), out_up.data());
      expect_near(out, y, kRounding<T>, "swiglu", isa);
      expect_near(out_gate, dgate, kRounding<T>, "gradient of the gate", isa);
      expect_near(out_up, dup, kRounding<T>, "gradient of up", isa);
    }
  });
}

TYPED_TEST(Elementwise, LogSumExpAndTheGradientOfTheLossAreTheirDefinitions) {
  using T = TypeParam;
  for_rounds("log_sum_exp", [](Draw& draw) {
    const Rows rows(draw);
    const auto vocab = draw.width();
    const double reach = draw.coin() ? 4 : 300;
    auto logits = draw.values<T>(rows.count * vocab, -reach, reach);
    if (draw.coin()) {  // equal ones: the first is the largest
      for (auto& value : logits.all()) from_double(std::round(to_double(value) / reach), value);
    }
    const auto weight = draw.values<float>(rows.count, 0, 1);
    Exact<std::int64_t> target(rows.count);
    Exact<float> lse_in(rows.count);
    auto lses = untouched(rows.count), bests = untouched(rows.count), gradient = expected_of(logits);
    for (std::int64_t r = 0; r < rows.count; ++r) {
      const auto row = logits.all().subspan(static_cast<std::size_t>(r * vocab), static_cast<std::size_t>(vocab));
      const auto best = std::ranges::max_element(row, {}, [](T x) { return to_double(x); });
      double sum = 0;
      for (const auto x : row) sum += std::exp(to_double(x) - to_double(*best));
      const double lse = to_double(*best) + std::log(sum);
      lse_in.all()[static_cast<std::size_t>(r)] = static_cast<float>(lse);
      const auto chosen = target.all()[static_cast<std::size_t>(r)] = draw.size(0, vocab - 1);
      if (r < rows.begin || r >= rows.end) continue;
      lses[static_cast<std::size_t>(r)] = lse;
      bests[static_cast<std::size_t>(r)] = static_cast<double>(best - row.begin());
      for (std::int64_t i = 0; i < vocab; ++i) {
        const double p = std::exp(logits.at(r * vocab + i) - lse_in.at(r));
        gradient[static_cast<std::size_t>(r * vocab + i)] = (p - (i == chosen ? 1 : 0)) * weight.at(r);
      }
    }
    for (const auto isa : instruction_sets()) {
      auto lse = draw.untouched<float>(rows.count);
      Exact<std::int64_t> best(rows.count);
      for (auto& value : best.all()) value = static_cast<std::int64_t>(kUntouched);
      QUIVER_ON_ISA(isa, kernel, log_sum_exp<T>, rows.begin, rows.end, vocab, logits.data(), lse.data(), best.data());
      expect_near(lse, lses, {1e-5, 1e-6, 1e-6 * reach}, "log_sum_exp", isa);  // the largest and the log of the sum may cancel
      expect_near(best, bests, {0, 0, 0}, "the largest", isa);
      Exact<T> in_place(rows.count * vocab, draw.size(0, 17));
      std::ranges::copy(logits.all(), in_place.data());
      QUIVER_ON_ISA(isa, kernel, cross_entropy_gradient<T>, rows.begin, rows.end, vocab, in_place.data(), lse_in.data(), target.data(),
                    weight.data());
      expect_near(in_place, gradient, {kRounding<T>.relative, 3e-5, 3e-5}, "gradient of the loss", isa);
    }
  });
}

}  // namespace
}  // namespace quiver::kernel_test
