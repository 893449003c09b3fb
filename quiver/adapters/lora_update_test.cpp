#include "quiver/adapters/lora_update.h"

#include <gtest/gtest.h>
#include <torch/utils.h>

#include "quiver/testing/draw.h"

namespace quiver::adapters {
namespace {

using testing::draw;

TEST(LoraUpdate, AddsWhatItsForwardAdds) {
  const nn::Linear below(draw({24, 40}, 1).to(torch::kFloat));
  const auto a = draw({3, 40}, 2).to(torch::kFloat), b = draw({24, 3}, 3).to(torch::kFloat), bias = draw({24}, 4).to(torch::kFloat);
  const auto x = draw({5, 40}, 5).to(torch::kFloat);
  for (const auto& pair : {LoraPair(a, b, 6), LoraPair(a, b, 6, false, {}, bias)}) {
    const auto update = std::make_shared<LoraUpdate>(below, pair);
    auto y = below.forward(x).contiguous();
    update->add_to(x, 0, 2, {}, y);
    update->add_to(x, 2, x.size(0), {}, y);
    EXPECT_TRUE(torch::allclose(y, below.with(nn::UpdatePtr(update)).forward(x), 1e-5, 1e-5));
    EXPECT_FALSE(torch::allclose(y, below.forward(x), 1e-2, 1e-2));
  }
}

}  // namespace
}  // namespace quiver::adapters
