#include "quiver/backend/ops.h"

#include <gtest/gtest.h>
#include <torch/utils.h>

#include <cmath>

#include "quiver/testing/draw.h"
#include "quiver/testing/equals_definition.h"

namespace quiver::backend {
namespace {

using testing::draw;
using testing::expect_equals_definition;

class Ops : public ::testing::TestWithParam<torch::Dtype> {
 protected:
  double tolerance() const { return GetParam() == torch::kFloat ? 1e-5 : 3e-2; }
};

TEST_P(Ops, RmsNormEqualsItsDefinition) {
  const auto weight = draw({130}, 2) + 1;
  expect_equals_definition([&](const auto& in) { return rms_norm(in[0], weight, 1e-5); }, {draw({37, 130}, 1)}, GetParam(), tolerance());
}

TEST_P(Ops, RotateEqualsItsDefinition) {
  const auto angles = draw({21, 4}, 3, 3);
  expect_equals_definition([&](const auto& in) { return rotate(in[0], angles.cos(), angles.sin()); }, {draw({21, 3, 8}, 4)}, GetParam(),
                           tolerance());
}

TEST_P(Ops, SwigluEqualsItsDefinition) {
  expect_equals_definition([](const auto& in) { return swiglu(in[0], in[1]); }, {draw({19, 77}, 5, 4), draw({19, 77}, 6)}, GetParam(),
                           tolerance());
}

TEST_P(Ops, ANanIsNeverLost) {
  auto gate = draw({2, 16}, 9).to(GetParam());
  gate[1][3] = std::nan("");
  EXPECT_TRUE(swiglu(gate, gate).isnan().equal(gate.isnan()));
}

INSTANTIATE_TEST_SUITE_P(Dtypes, Ops, ::testing::Values(torch::kFloat, torch::kBFloat16));

}  // namespace
}  // namespace quiver::backend
