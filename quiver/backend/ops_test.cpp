// Row-wise operations, and what all operations of the table have in common.
#include "quiver/backend/ops.h"

#include <gtest/gtest.h>
#include <torch/utils.h>

#include <cmath>

#include "quiver/backend/test_support.h"
#include "quiver/tensor/cpu.h"
#include "quiver/testing/strict_device.h"

namespace quiver::backend {
namespace {

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

TEST_P(Table, EqualsTheDefinitionOnTheCpu) {
  for (const auto dtype : {torch::kFloat, torch::kBFloat16, torch::kDouble}) check(GetParam(), torch::kCPU, dtype);
}

TEST_P(Table, EqualsTheDefinitionOnAnotherDevice) {
  for (const auto dtype : {torch::kFloat, torch::kBFloat16}) check(GetParam(), testing::strict_device(), dtype);
}

INSTANTIATE_TEST_SUITE_P(RowWise, Table,
                         ::testing::Values(rms_norm_op(), rotate_op(), layer_norm_op(), gated_op(Activation::kSilu, "silu"),
                                           gated_op(Activation::kGelu, "gelu"), gated_op(Activation::kGeluTanh, "gelu tanh"),
                                           activated_op(Activation::kSilu, "silu"), activated_op(Activation::kGelu, "gelu"),
                                           activated_op(Activation::kGeluTanh, "gelu tanh"), activated_op(Activation::kRelu, "relu"),
                                           cross_entropy_op()),
                         name_of);

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
