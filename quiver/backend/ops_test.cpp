// Every operation of the table on every column of this machine: one description of an operation gives its arguments, its forward and its
// gradient, and drives the comparison with the definition in float64, whose gradient is autograd's.
#include "quiver/backend/ops.h"

#include <gtest/gtest.h>
#include <torch/utils.h>

#include <algorithm>
#include <cmath>
#include <functional>
#include <map>
#include <optional>
#include <string>
#include <vector>

#include "quiver/backend/table.h"
#include "quiver/backend/test_support.h"
#include "quiver/base/error.h"
#include "quiver/tensor/cpu.h"
#include "quiver/tensor/tensor.h"
#include "quiver/testing/draw.h"
#include "quiver/testing/strict_device.h"

namespace quiver::backend {
namespace {

using testing::draw;
using Tensors = std::vector<Tensor>;
using Shape = std::vector<std::int64_t>;

/// What an argument is made of where the operation runs in some dtype.
enum class Kind {
  kElement,  ///< that dtype
  kWide,     ///< its compute_dtype
  kGiven,    ///< as drawn: float32 or indices
};
struct Argument {
  Tensor value;
  Kind kind = Kind::kElement;
};

struct Tolerance {
  double relative, absolute;
};

struct Description {
  std::string name;
  std::vector<Shape> shapes;
  std::function<std::vector<Argument>(const Shape&)> arguments;
  /// All results; the gradient is that of the first.
  std::function<Tensors(const Ops&, const Tensors& in, const Shape&)> forward;
  /// The gradients of the first arguments, given that of the first result. Null for an operation without.
  std::function<Tensors(const Ops&, const Tensors& in, const Tensor& upstream, const Shape&)> gradient;
  std::map<torch::Dtype, Tolerance> tolerance;
};

Tensor in_double(const Tensor& t) { return t.to(torch::kCPU, torch::kDouble); }

/// Arguments rounded to `dtype`, then in `compute` on `device`.
Tensors placed(const std::vector<Argument>& arguments, torch::Dtype dtype, torch::Dtype compute, torch::Device device) {
  Tensors in;
  for (const auto& [value, kind] : arguments) {
    const auto rounded = kind == Kind::kElement ? value.to(dtype).to(compute)
                         : kind == Kind::kWide  ? value.to(tensor::compute_dtype(dtype)).to(tensor::compute_dtype(compute))
                                                : value;
    in.push_back(rounded.contiguous().to(device));
  }
  return in;
}

void expect_near(const Tensor& actual, const Tensor& expected, Tolerance tolerance, const std::string& what) {
  ASSERT_EQ(actual.sizes(), expected.sizes()) << what;
  EXPECT_TRUE(torch::allclose(in_double(actual), expected, tolerance.relative, tolerance.absolute))
      << what << " off by " << (actual.numel() > 0 ? (in_double(actual) - expected).abs().max().item<double>() : 0);
}

/// Results and gradients by the definition in float64.
struct Expected {
  Tensors results, gradients;
};

Expected by_definition(const Description& op, const Tensors& in, const Tensor& upstream, std::size_t num_gradients, const Shape& shape) {
  Tensors leaves = in;
  for (std::size_t i = 0; i < num_gradients; ++i) leaves[i] = in[i].detach().requires_grad_();
  Expected expected;
  const auto results = op.forward(reference_ops(), leaves, shape);
  for (const auto& result : results) expected.results.push_back(in_double(result.detach()));
  if (num_gradients == 0) return expected;
  results[0].backward(upstream);
  for (std::size_t i = 0; i < num_gradients; ++i) expected.gradients.push_back(in_double(leaves[i].grad()));
  return expected;
}

void check(const Description& op, torch::Device device, torch::Dtype dtype) {
  const auto tolerance = op.tolerance.at(dtype);
  for (const auto& shape : op.shapes) {
    const auto arguments = op.arguments(shape);
    const auto in = placed(arguments, dtype, dtype, device);
    Tensor upstream;
    std::optional<Expected> expected;
    for (const auto* column : all_ops(device, dtype)) {
      SCOPED_TRACE(format("{} on {} in {}, shape {}", op.name, column->name, c10::toString(dtype), c10::str(at::IntArrayRef(shape))));
      const auto results = op.forward(*column, in, shape);
      if (!upstream.defined()) upstream = draw(results[0].sizes(), 99).to(results[0].scalar_type());
      const auto gradients = op.gradient ? op.gradient(*column, in, upstream.to(device), shape) : Tensors();
      if (!expected) {
        const auto exact = placed(arguments, dtype, torch::kDouble, torch::kCPU);
        expected = by_definition(op, exact, upstream.to(torch::kDouble), gradients.size(), shape);
      }
      for (std::size_t i = 0; i < results.size(); ++i) {
        expect_near(results[i], expected->results[i], tolerance, "result " + std::to_string(i));
      }
      for (std::size_t i = 0; i < gradients.size(); ++i) {
        expect_near(gradients[i], expected->gradients[i], tolerance, "gradient " + std::to_string(i));
      }
    }
  }
}

// ---- The descriptions

std::map<torch::Dtype, Tolerance> rounding(Tolerance single, Tolerance half) {
  return {{torch::kFloat, single}, {torch::kBFloat16, half}, {torch::kDouble, {1e-9, 1e-9}}};
}
const std::map<torch::Dtype, Tolerance> kRowWise = rounding({1e-5, 1e-5}, {3e-2, 3e-2});
const std::map<torch::Dtype, Tolerance> kProducts = rounding({1e-5, 1e-4}, {4e-3, 1e-4});

Description rms_norm_op() {
  return {.name = "rms_norm",
          .shapes = {{37, 130}, {0, 8}, {1, 1}, {5, 16}, {130, 63}},
          .arguments =
              [](const Shape& s) {
                return std::vector<Argument>{{draw(s, 1)}, {draw({s[1]}, 2) + 1, Kind::kWide}};
              },
          .forward =
              [](const Ops& column, const Tensors& in, const Shape&) {
                const auto normed = column.rms_norm(in[0], in[1], 1e-5);
                return Tensors{normed.y, normed.inverse_rms};
              },
          .gradient =
              [](const Ops& column, const Tensors& in, const Tensor& dy, const Shape&) {
                const auto inverse = column.rms_norm(in[0], in[1], 1e-5).inverse_rms;
                const auto onto = torch::ones_like(dy);  // added, and taken away again
                const auto dx = column.rms_norm_gradient(dy, in[0], in[1], inverse, {});
                const auto shifted = column.rms_norm_gradient(dy, in[0], in[1], inverse, onto);
                const double most = dy.scalar_type() == torch::kBFloat16 ? 5e-2 : 1e-5;
                EXPECT_TRUE(torch::allclose(in_double(shifted), in_double(dx) + 1, most, most)) << "onto";
                return Tensors{dx};
              },
          .tolerance = kRowWise};
}

Description rotate_op() {
  const auto turned = [](const Ops& column, const Tensor& x, const Tensors& in, Rotation rotation) {
    auto out = torch::empty_like(x, torch::TensorOptions().requires_grad(false));
    column.rotate_into(x, in[1], in[2], rotation, out);
    return Tensors{out};
  };
  return {.name = "rotate",
          .shapes = {{21, 3, 8, 4}, {0, 1, 2, 1}, {1, 1, 2, 1}, {35, 2, 66, 33}, {21, 3, 8, 2}, {35, 2, 66, 8}},  // T, H, D, pairs
          .arguments =
              [](const Shape& s) {
                const auto angles = draw({s[0], s[3]}, 3, 3);
                return std::vector<Argument>{{draw({s[0], s[1], s[2]}, 4)}, {angles.cos(), Kind::kWide}, {angles.sin(), Kind::kWide}};
              },
          .forward = [turned](const Ops& column, const Tensors& in, const Shape&) { return turned(column, in[0], in, Rotation::kForward); },
          .gradient = [turned](const Ops& column, const Tensors& in, const Tensor& dy,
                               const Shape&) { return turned(column, dy, in, Rotation::kBack); },
          .tolerance = kRowWise};
}

Description layer_norm_op() {
  return {.name = "layer_norm",
          .shapes = {{37, 130}, {0, 8}, {5, 16}, {130, 63}},
          .arguments =
              [](const Shape& s) {
                return std::vector<Argument>{{draw(s, 1) + 0.5}, {draw({s[1]}, 2) + 1, Kind::kWide}, {draw({s[1]}, 3), Kind::kWide}};
              },
          .forward =
              [](const Ops& column, const Tensors& in, const Shape&) {
                const auto normed = column.layer_norm(in[0], in[1], in[2], 1e-5);
                return Tensors{normed.y, normed.mean, normed.inverse_deviation};
              },
          .gradient =
              [](const Ops& column, const Tensors& in, const Tensor& dy, const Shape&) {
                const auto normed = column.layer_norm(in[0], in[1], in[2], 1e-5);
                const auto dx = column.layer_norm_gradient(dy, in[0], in[1], normed, {});
                const auto shifted = column.layer_norm_gradient(dy, in[0], in[1], normed, torch::ones_like(dy));
                const double most = dy.scalar_type() == torch::kBFloat16 ? 5e-2 : 1e-5;
                EXPECT_TRUE(torch::allclose(in_double(shifted), in_double(dx) + 1, most, most)) << "onto";
                return Tensors{dx};
              },
          .tolerance = kRowWise};
}

Description gated_op(Activation activation, const std::string& name) {
  return {.name = "gated " + name,
          .shapes = {{19, 77}, {0, 3}, {1, 1}, {200, 100}},
          .arguments =
              [](const Shape& s) {
                return std::vector<Argument>{{draw(s, 5, 4)}, {draw(s, 6)}};
              },
          .forward = [activation](const Ops& column, const Tensors& in,
                                  const Shape&) { return Tensors{column.gated(activation, in[0], in[1])}; },
          .gradient =
              [activation](const Ops& column, const Tensors& in, const Tensor& dy, const Shape&) {
                const auto gradient = column.gated_gradient(activation, dy, in[0], in[1]);
                return Tensors{gradient.gate, gradient.up};
              },
          .tolerance = kRowWise};
}

Description activated_op(Activation activation, const std::string& name) {
  return {
      .name = "activated " + name,
      .shapes = {{19, 77}, {0, 3}, {1, 1}, {200, 100}},
      .arguments = [](const Shape& s) { return std::vector<Argument>{{draw(s, 5, 4)}}; },
      .forward = [activation](const Ops& column, const Tensors& in, const Shape&) { return Tensors{column.activated(activation, in[0])}; },
      .gradient = [activation](const Ops& column, const Tensors& in, const Tensor& dy,
                               const Shape&) { return Tensors{column.activated_gradient(activation, dy, in[0])}; },
      .tolerance = kRowWise};
}

/// weight * -log softmax(logits)[target], and the index of the largest.
Description cross_entropy_op() {
  return {.name = "cross_entropy",
          .shapes = {{9, 130}, {0, 4}, {1, 1}, {3, 1000}},
          .arguments =
              [](const Shape& s) {
                const auto target = torch::arange(s[0], torch::kLong).mul(7).remainder(s[1]);
                return std::vector<Argument>{{draw(s, 7, 3)}, {target, Kind::kGiven}, {draw({s[0]}, 8).abs() + 0.5, Kind::kWide}};
              },
          .forward =
              [](const Ops& column, const Tensors& in, const Shape&) {
                const auto [lse, best] = column.summarize_logits(in[0]);
                const auto picked = in[0].gather(1, in[1].unsqueeze(1)).squeeze(1);
                return Tensors{(lse - picked) * in[2], lse, best};
              },
          .gradient =
              [](const Ops& column, const Tensors& in, const Tensor& upstream, const Shape&) {
                auto logits = in[0].clone();
                column.cross_entropy_gradient(logits, column.summarize_logits(logits).log_sum_exp, in[1], in[2]);
                return Tensors{logits.to(upstream.scalar_type()) * upstream.unsqueeze(1)};
              },
          .tolerance = kRowWise};
}

/// x [T, d] factor [r, d]^T; its gradients are the two other small products.
Description shrink_op() {
  std::vector<Shape> shapes;
  for (const std::int64_t rows : {0, 1, 7, 33}) {
    for (const std::int64_t dim : {1, 15, 16, 40, 96}) {
      for (const std::int64_t rank : {1, 3, 4, 8, 13}) shapes.push_back({rows, dim, rank});
    }
  }
  return {.name = "shrink",
          .shapes = shapes,
          .arguments =
              [](const Shape& s) {
                return std::vector<Argument>{{draw({s[0], s[1]}, 1)}, {draw({s[2], s[1]}, 3), Kind::kWide}};
              },
          .forward = [](const Ops& column, const Tensors& in, const Shape&) { return Tensors{column.shrink(in[0], in[1])}; },
          .gradient =
              [](const Ops& column, const Tensors& in, const Tensor& dz, const Shape&) {
                return Tensors{column.expand(dz, in[1], {}, in[0].scalar_type()), column.outer_product(dz, in[0])};
              },
          .tolerance = kProducts};
}

/// onto [T, d] + z [T, r] factor [r, d]
Description expand_op() {
  return {.name = "expand",
          .shapes = shrink_op().shapes,
          .arguments =
              [](const Shape& s) {
                return std::vector<Argument>{
                    {draw({s[0], s[2]}, 4), Kind::kWide}, {draw({s[2], s[1]}, 3), Kind::kWide}, {draw({s[0], s[1]}, 2)}};
              },
          .forward = [](const Ops& column, const Tensors& in,
                        const Shape&) { return Tensors{column.expand(in[0], in[1], in[2], in[2].scalar_type())}; },
          .gradient =
              [](const Ops& column, const Tensors& in, const Tensor& dy, const Shape&) {
                return Tensors{column.shrink(dy, in[1]), column.outer_product(in[0], dy)};
              },
          .tolerance = kProducts};
}

/// Shapes are heads, key heads, head_dim, longest segment and seed; no rows but those of a forest.
AttentionPlanPtr plan_of(const Shape& s) {
  RandomStream random(static_cast<std::uint64_t>(s[4]), "attention");
  return plan_forest(random_forest(random, static_cast<std::uint64_t>(s[3])));
}

Description attention_op() {
  std::vector<Shape> shapes;
  std::int64_t seed = 0;
  for (const auto& heads : {Shape{9, 3, 64}, {4, 4, 16}, {2, 1, 24}, {3, 1, 5}, {2, 2, 128}, {2, 1, 8}}) {
    for (const std::int64_t longest : {5, 5, 5, 40, 90}) {
      ++seed;
      for (const auto& [window, has_cap] : {std::pair<std::int64_t, std::int64_t>{0, 0}, {7, 0}, {0, 1}, {30, 1}}) {
        shapes.push_back({heads[0], heads[1], heads[2], longest, seed, window, has_cap});
      }
    }
  }
  const auto cap = [](const Shape& s) { return s[6] > 0 ? 0.7 : 0.0; };
  const auto scale = [](const Shape& s) { return 1 / std::sqrt(static_cast<double>(s[2])); };
  return {.name = "attention",
          .shapes = shapes,
          .arguments =
              [](const Shape& s) {
                const auto rows = plan_of(s)->num_queries;
                return std::vector<Argument>{{draw({rows, s[0], s[2]}, 1)}, {draw({rows, s[1], s[2]}, 2)}, {draw({rows, s[1], s[2]}, 3)}};
              },
          .forward =
              [scale, cap](const Ops& column, const Tensors& in, const Shape& s) {
                return Tensors{column.attention({in[0], in[1], in[2], *windowed(plan_of(s), s[5]), {scale(s), cap(s)}}).out};
              },
          .gradient =
              [scale, cap](const Ops& column, const Tensors& in, const Tensor& dout, const Shape& s) {
                const auto plan = windowed(plan_of(s), s[5]);
                const auto bias = column.attention_bias(*plan, dout.device(), dout.scalar_type());
                const AttentionInput input{in[0], in[1], in[2], *plan, {scale(s), cap(s)}, bias};
                const auto gradient = column.attention_gradient(dout, input, column.attention(input));
                return Tensors{gradient.q, gradient.k, gradient.v};
              },
          .tolerance = rounding({2e-5, 2e-5}, {3e-2, 3e-2})};
}

/// Against a KV cache. No gradient.
Description decoding_op() {
  return {.name = "attention over a cache",
          .shapes = {{6, 2, 20}, {3, 3, 64}},
          .arguments =
              [](const Shape& s) {
                return std::vector<Argument>{{draw({3, s[0], s[2]}, 1)}, {draw({40, s[1], s[2]}, 2)}, {draw({40, s[1], s[2]}, 3)}};
              },
          .forward =
              [](const Ops& column, const Tensors& in, const Shape&) {
                AttentionPlan plan;
                plan.num_queries = 3;
                plan.num_keys = 40;
                plan.spans = {{0, 20}, {30, 4}, {0, 20}};
                plan.blocks = {{.first_query = 0, .first_key = 34, .length = 2, .spans_begin = 0, .spans_end = 2, .num_visible = 24},
                               {.first_query = 2, .first_key = 22, .length = 1, .spans_begin = 2, .spans_end = 3, .num_visible = 20}};
                return Tensors{column.attention({in[0], in[1], in[2], plan, {0.3}}).out};
              },
          .tolerance = rounding({1e-5, 1e-5}, {3e-2, 3e-2})};
}

/// Products by a laid out W [N, K] and by W^T: [T, K, N].
Description frozen_product_op() {
  return {.name = "frozen product",
          .shapes = {{0, 16, 24}, {1, 1, 1}, {5, 40, 48}, {13, 33, 50}, {130, 800, 97}},
          .arguments =
              [](const Shape& s) {
                return std::vector<Argument>{{draw({s[2], s[1]}, 1)}, {draw({s[0], s[1]}, 2)}, {draw({s[2]}, 3)}, {draw({s[0], s[2]}, 4)}};
              },
          .forward =
              [](const Ops& column, const Tensors& in, const Shape&) {
                const auto layout = column.lay_out(in[0]), transposed = column.lay_out(in[0].t());
                return Tensors{layout->product(in[1], {}, {}),
                               layout->product(in[1], in[2], {}),
                               layout->product(in[1], {}, in[3]),
                               layout->product(in[1], in[2], in[3]),
                               transposed->product(in[3], {}, {}),
                               layout->dense(),
                               transposed->dense()};
              },
          .tolerance = rounding({1e-4, 1e-3}, {5e-2, 5e-2})};
}

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

class Table : public ::testing::TestWithParam<Description> {};

TEST_P(Table, EqualsTheDefinitionOnTheCpu) {
  for (const auto dtype : {torch::kFloat, torch::kBFloat16, torch::kDouble}) check(GetParam(), torch::kCPU, dtype);
}

TEST_P(Table, EqualsTheDefinitionOnAnotherDevice) {
  for (const auto dtype : {torch::kFloat, torch::kBFloat16}) check(GetParam(), testing::strict_device(), dtype);
}

INSTANTIATE_TEST_SUITE_P(Operations, Table,
                         ::testing::Values(rms_norm_op(), rotate_op(), layer_norm_op(), gated_op(Activation::kSilu, "silu"),
                                           gated_op(Activation::kGelu, "gelu"), gated_op(Activation::kGeluTanh, "gelu tanh"),
                                           activated_op(Activation::kSilu, "silu"), activated_op(Activation::kGelu, "gelu"),
                                           activated_op(Activation::kGeluTanh, "gelu tanh"), activated_op(Activation::kRelu, "relu"),
                                           cross_entropy_op(), shrink_op(), expand_op(), attention_op(), decoding_op(), frozen_product_op(),
                                           route_op(), shrink_routed_op(), add_routed_op()),
                         [](const auto& param) {
                           auto name = param.param.name;
                           std::ranges::replace(name, ' ', '_');
                           return name;
                         });

TEST(Ops, ChoosesTheColumnByDeviceAndDtype) {
  const std::string best = tensor::cpu_isa_name();
  EXPECT_EQ(ops(torch::kCPU, torch::kFloat).name, best);
  EXPECT_EQ(ops(torch::kCPU, torch::kBFloat16).name, best);
  EXPECT_NE(&ops(torch::kCPU, torch::kFloat), &ops(torch::kCPU, torch::kBFloat16));
  for (const auto dtype : {torch::kDouble, torch::kHalf}) EXPECT_EQ(&ops(torch::kCPU, dtype), &reference_ops());
  EXPECT_STREQ(ops(torch::kCUDA, torch::kFloat).name, "cuda");
  EXPECT_STREQ(ops(torch::kCUDA, torch::kHalf).name, "cuda");
  EXPECT_EQ(&ops(torch::kCUDA, torch::kDouble), &reference_ops());
}

TEST(Ops, ANanIsNeverLost) {
  for (const auto dtype : {torch::kFloat, torch::kBFloat16}) {
    auto gate = draw({2, 16}, 9).to(dtype);
    gate[1][3] = std::nan("");
    for (const auto* column : all_ops(torch::kCPU, dtype)) {
      EXPECT_TRUE(column->gated(Activation::kSilu, gate, gate).isnan().equal(gate.isnan())) << column->name;
    }
  }
}

TEST(Ops, TheLossLeavesItsGradientInTheLogits) {
  const auto logits = draw({5, 40}, 1), weight = draw({5}, 2).abs();
  const auto target = torch::arange(5, torch::kLong);
  const auto leaf = logits.clone().requires_grad_();
  const auto terms = -leaf.log_softmax(1).gather(1, target.unsqueeze(1)).squeeze(1) * weight;
  terms.sum().backward();
  auto in_place = logits.clone();
  EXPECT_TRUE(torch::allclose(cross_entropy_into(in_place, target, weight), terms, 1e-5, 1e-5));
  EXPECT_TRUE(torch::allclose(in_place, leaf.grad(), 1e-5, 1e-5));
}

}  // namespace
}  // namespace quiver::backend
