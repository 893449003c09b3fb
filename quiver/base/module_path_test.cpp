#include "quiver/base/module_path.h"

#include <gtest/gtest.h>

namespace quiver {
namespace {

TEST(BlockOf, IsTheFirstNumber) {
  for (const auto& [path, name, number] : {std::tuple{"layers.3.self_attn.q_proj", "layers.3", 3},
                                           {"transformer.h.12.attn.c_attn", "transformer.h.12", 12},
                                           {"gpt_neox.layers.0.mlp.dense_h_to_4h", "gpt_neox.layers.0", 0},
                                           {"layers.7", "layers.7", 7}}) {
    EXPECT_EQ(block_of(path).name, name);
    EXPECT_EQ(block_of(path).number, number) << path;
  }
}

TEST(BlockOf, OutsideIsThePathItself) {
  for (const char* path : {"lm_head", "embed_tokens", "", "a.b", "layers.-1.x", "layers.3x.y", "a.99999999999999999999.b", "."}) {
    EXPECT_EQ(block_of(path).name, path);
    EXPECT_EQ(block_of(path).number, 0) << path;
  }
}

}  // namespace
}  // namespace quiver
