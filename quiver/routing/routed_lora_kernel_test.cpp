// Arguments that a routing kernel would misread are refused by name.
#include "quiver/routing/routed_lora_kernel.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>
#include <torch/utils.h>

#include "quiver/base/error.h"
#include "quiver/testing/message_of.h"

namespace quiver::routing {
namespace {

using ::testing::HasSubstr;

std::string refusal(const std::function<void()>& action) { return testing::message_of(ErrorKind::kInternal, action); }

TEST(RoutedLoraKernel, RefusesArgumentsThatItWouldMisread) {
  const std::vector<adapters::LoraPair> pairs = {{torch::ones({2, 6}), torch::ones({5, 2}), 2},
                                                 {torch::ones({2, 6}), torch::ones({5, 2}), 2}};
  const auto adapters = pack_adapters(pairs);
  const auto x = torch::ones({4, 6}), y = torch::zeros({4, 5}), weight = torch::ones({4, 1});
  const auto index = torch::zeros({4, 1}, torch::kLong);
  EXPECT_THAT(refusal([&] {
                add_routed(adapters, x, {index.to(torch::kInt), weight}, false, y);
              }),
              HasSubstr("index of routed LoRAs: Int [4, 1]"));
  EXPECT_THAT(refusal([&] {
                add_routed(adapters, x, {index, weight.to(torch::kDouble)}, false, y);
              }),
              HasSubstr("weight of routed LoRAs: Double [4, 1]"));
  EXPECT_THAT(refusal([&] { add_routed(adapters, x, {index, weight}, false, torch::zeros({5, 4}).t()); }), HasSubstr("y Float [4, 5]"));
  EXPECT_THAT(refusal([&] { shrink_routed(adapters, x, index.to(torch::kInt)); }), HasSubstr("index of routed LoRAs: Int [4, 1]"));
  EXPECT_TRUE(y.equal(torch::zeros({4, 5})));
}

TEST(RoutedLoraKernel, RefusesPrototypesOfAnotherWidthAndCalibrationOfAnotherType) {
  const auto prototypes = pack_prototypes(torch::ones({3, 6}));
  const auto of_three = torch::ones({3});
  EXPECT_THAT(refusal([&] {
                route_packed(prototypes, torch::ones({4, 7}), 1, 1);
              }),
              HasSubstr("prototypes of Arrow's kernel: Float [1, 6, 16]"));
  EXPECT_THAT(refusal([&] {
                route_packed(prototypes, torch::ones({4, 6}), 1, 1, {.scale = of_three.to(torch::kDouble), .shift = of_three});
              }),
              HasSubstr("scale of Arrow's kernel: Double [3]"));
  EXPECT_THAT(refusal([&] {
                route_packed(prototypes, torch::ones({4, 6}), 1, 1, {.scale = of_three, .shift = torch::ones({2})});
              }),
              HasSubstr("shift of Arrow's kernel: Float [2]"));
}

}  // namespace
}  // namespace quiver::routing
