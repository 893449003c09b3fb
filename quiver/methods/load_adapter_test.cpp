#include "quiver/methods/load_adapter.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>
#include <torch/utils.h>

#include "quiver/adapters/peft.h"
#include "quiver/base/error.h"
#include "quiver/model/fusion.h"
#include "quiver/testing/message_of.h"

namespace quiver::methods {
namespace {

/// An adapter of PEFT, and what llama.cpp's own converter made of it.
struct Converted {
  const char* name;
  const char* base;
  const char* adapter;
};
constexpr Converted kConverted[] = {
    {"plain", "tests/golden/model/llama-tied", "tests/golden/peft/plain"},  // rows of q and k are paired in the file
    {"head", "tests/golden/model/llama-tied", "tests/golden/peft/head"},
    {"embedding", "tests/golden/model/llama-tied", "tests/golden/peft/embedding"},
    {"phi3", "tests/golden/families/phi3", "tests/golden/families/phi3/adapter"},              // fused maps
    {"gpt_neox", "tests/golden/families/gpt_neox", "tests/golden/families/gpt_neox/adapter"},  // rows by head
};

std::filesystem::path converted_file(const std::string& name) { return "tests/golden/gguf_lora/" + name + ".gguf"; }

TEST(GgufLora, IsTheAdapterOfPeftThatItWasMadeOf) {
  for (const auto& [name, base, peft] : kConverted) {
    SCOPED_TRACE(name);
    const auto adapter = load_gguf_lora(model::load_spec(base), converted_file(name));
    const auto expected = adapters::load_peft(peft);
    EXPECT_EQ(adapter.name, name);
    EXPECT_EQ(adapter.pairs.size(), expected.pairs.size());
    for (const auto& [path, pair] : expected.pairs) {
      ASSERT_TRUE(adapter.pairs.contains(path)) << path;
      const auto& own = adapter.pairs.at(path);
      EXPECT_TRUE(torch::equal(own.lora_a(), pair.lora_a().to(torch::kFloat))) << path;
      EXPECT_TRUE(torch::equal(own.lora_b(), pair.lora_b().to(torch::kFloat))) << path;
      EXPECT_EQ(own.scaling(), pair.scaling()) << path;
    }
  }
}

TEST(GgufLora, OfAnotherBaseIsRefused) {
  const auto spec = model::load_spec("tests/golden/model/llama-tied");
  EXPECT_THAT(quiver::testing::message_of(ErrorKind::kMismatch, [&] { load_gguf_lora(spec, converted_file("phi3")); }),
              ::testing::HasSubstr("an adapter of architecture 'phi3'; the base is 'llama'"));
}

}  // namespace
}  // namespace quiver::methods
