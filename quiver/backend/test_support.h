// What tests of the backend share: random forests, and the description of an operation. One description gives an operation's arguments, its
// forward and its gradient, and drives the comparison of every column of this machine with the definition in float64, whose gradient is
// autograd's. Each test file describes the operations of its header (suite Table).
#pragma once

#include <gtest/gtest.h>
#include <torch/utils.h>

#include <algorithm>
#include <cstdint>
#include <functional>
#include <map>
#include <optional>
#include <string>
#include <vector>

#include "quiver/backend/table.h"
#include "quiver/base/error.h"
#include "quiver/base/random.h"
#include "quiver/forest/token_forest.h"
#include "quiver/tensor/tensor.h"
#include "quiver/testing/draw.h"

namespace quiver::backend {

/// A random forest: a few trees, depth up to 4, lengths from 0 up.
inline forest::TokenForest random_forest(RandomStream& random, std::uint64_t longest) {
  forest::TokenForest forest;
  const auto trees = 1 + random.below(3);
  for (std::uint64_t t = 0; t < trees; ++t) {
    std::vector<std::int64_t> path = {forest::kNoParent};
    const auto segments = 1 + random.below(7);
    for (std::uint64_t s = 0; s < segments; ++s) {
      const std::vector<std::int32_t> tokens(random.below(longest + 1));
      if (s > 0) path.resize(2 + random.below(path.size() - 1));  // go back up, never above the tree's root
      path.push_back(forest.add_segment(s == 0 ? forest::kNoParent : path.back(), tokens));
      if (path.size() > 5) path.resize(5);
    }
  }
  return forest;
}

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

inline Tensor in_double(const Tensor& t) { return t.to(torch::kCPU, torch::kDouble); }

/// Arguments rounded to `dtype`, then in `compute` on `device`.
inline Tensors placed(const std::vector<Argument>& arguments, torch::Dtype dtype, torch::Dtype compute, torch::Device device) {
  Tensors in;
  for (const auto& [value, kind] : arguments) {
    const auto rounded = kind == Kind::kElement ? value.to(dtype).to(compute)
                         : kind == Kind::kWide  ? value.to(tensor::compute_dtype(dtype)).to(tensor::compute_dtype(compute))
                                                : value;
    in.push_back(rounded.contiguous().to(device));
  }
  return in;
}

inline void expect_near(const Tensor& actual, const Tensor& expected, Tolerance tolerance, const std::string& what) {
  ASSERT_EQ(actual.sizes(), expected.sizes()) << what;
  EXPECT_TRUE(torch::allclose(in_double(actual), expected, tolerance.relative, tolerance.absolute))
      << what << " off by " << (actual.numel() > 0 ? (in_double(actual) - expected).abs().max().item<double>() : 0);
}

/// Results and gradients by the definition in float64.
struct Expected {
  Tensors results, gradients;
};

inline Expected by_definition(const Description& op, const Tensors& in, const Tensor& upstream, std::size_t num_gradients,
                              const Shape& shape) {
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

inline void check(const Description& op, torch::Device device, torch::Dtype dtype) {
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

inline std::map<torch::Dtype, Tolerance> rounding(Tolerance single, Tolerance half) {
  return {{torch::kFloat, single}, {torch::kBFloat16, half}, {torch::kDouble, {1e-9, 1e-9}}};
}
inline const std::map<torch::Dtype, Tolerance> kRowWise = rounding({1e-5, 1e-5}, {3e-2, 3e-2});
inline const std::map<torch::Dtype, Tolerance> kProducts = rounding({1e-5, 1e-4}, {4e-3, 1e-4});

/// Compares one operation on all columns (ops_test.cpp).
class Table : public ::testing::TestWithParam<Description> {};

inline std::string name_of(const ::testing::TestParamInfo<Description>& param) {
  auto name = param.param.name;
  std::ranges::replace(name, ' ', '_');
  return name;
}

}  // namespace quiver::backend
