#include <gmock/gmock.h>
#include <gtest/gtest.h>
#include <torch/utils.h>
#include <unistd.h>

#include <algorithm>
#include <cstring>
#include <nlohmann/json.hpp>

#include "quiver/io/file.h"
#include "quiver/io/folder.h"
#include "quiver/io/gguf.h"
#include "quiver/io/json.h"
#include "quiver/model/model.h"
#include "quiver/testing/message_of.h"

namespace quiver::model {
namespace {

namespace fs = std::filesystem;
using quiver::testing::message_of;
using ::testing::HasSubstr;

const fs::path kModels = "tests/golden/model";
const tensor::Placement kCpu{torch::kCPU, torch::kFloat};

class ContentHashTest : public ::testing::Test {
 protected:
  void SetUp() override { fs::create_directories(folder_); }
  void TearDown() override { io::remove_tree(folder_); }

  /// A copy of the tiny base with other text in one file.
  Model changed(const char* file, const std::string& text) {
    fs::copy(kModels / "llama-tied", folder_ / "base");
    io::write_file_atomic(folder_ / "base" / file, text);
    return load_model(folder_ / "base", kCpu);
  }

  fs::path folder_ = fs::path(::testing::TempDir()) / ("quiver-content-" + std::to_string(::getpid()));
  Model tiny_ = load_model(kModels / "llama-tied", kCpu);
};

/// The safetensors file with a bit of one byte in the middle of a tensor flipped: the fingerprint's samples leave it out.
std::string with_flipped_bit(std::string bytes) {
  std::uint64_t size = 0;
  std::memcpy(&size, bytes.data(), sizeof(size));
  const auto header = nlohmann::json::parse(bytes.substr(8, size));
  const auto place = header.at("model.layers.1.mlp.down_proj.weight").at("data_offsets").get<std::vector<std::size_t>>();
  bytes[8 + size + (place[0] + place[1]) / 2] ^= 1;
  return bytes;
}

TEST_F(ContentHashTest, ChangesWithABitThatTheFingerprintDoesNotSee) {
  const auto other = changed("model.safetensors", with_flipped_bit(io::read_text_file(kModels / "llama-tied/model.safetensors")));
  EXPECT_EQ(other.fingerprint(), tiny_.fingerprint());
  EXPECT_NE(other.content_hash(), tiny_.content_hash());
}

TEST_F(ContentHashTest, ChangesWithABitOfAGgufFile) {
  const auto path = kModels / "llama-mixed.gguf";
  auto bytes = io::read_text_file(path);
  const auto view = io::GgufView::parse(std::as_bytes(std::span(bytes)), path.string());
  const auto data = std::ranges::max(view.tensors(), {}, [](const io::GgufTensor& tensor) { return tensor.data.size(); }).data;
  ASSERT_GT(data.size(), 4096u);
  bytes[static_cast<std::size_t>(reinterpret_cast<const char*>(data.data()) - bytes.data()) + data.size() / 2] ^= 1;
  io::write_file_atomic(folder_ / "other.gguf", bytes);
  const auto model = load_model(path, kCpu), other = load_model(folder_ / "other.gguf", kCpu);
  EXPECT_EQ(other.fingerprint(), model.fingerprint());
  EXPECT_NE(other.content_hash(), model.content_hash());
}

TEST_F(ContentHashTest, ChangesWithTheConfigurationButNotWithItsName) {
  auto text = io::read_text_file(kModels / "llama-tied/config.json");
  text.replace(text.find("1e-05"), 5, "1e-06");
  const auto other = changed("config.json", text);
  EXPECT_EQ(other.fingerprint(), tiny_.fingerprint());
  EXPECT_NE(other.content_hash(), tiny_.content_hash());
  auto renamed = tiny_;
  renamed.rename("other");
  EXPECT_EQ(renamed.content_hash(), tiny_.content_hash());
}

TEST_F(ContentHashTest, DoesNotDependOnShards) {
  const auto sharded = kModels / "llama-sharded";
  tensor::TensorMap whole;
  for (const auto& entry : fs::directory_iterator(sharded)) {
    if (entry.path().extension() == ".safetensors") whole.merge(tensor::load_tensors(entry.path()));
  }
  tensor::save_tensors(folder_ / "model.safetensors", whole);
  fs::copy(sharded / "config.json", folder_ / "config.json");
  EXPECT_EQ(load_model(folder_, kCpu).content_hash(), load_model(sharded, kCpu).content_hash());
}

TEST_F(ContentHashTest, IsAskedOfWeightsInMemoryToo) {
  auto weights = tensor::load_tensors(kModels / "llama-tied/model.safetensors");
  tensor::TensorMap named;
  for (const auto& [name, value] : weights) named.emplace(name.substr(name.starts_with("model.") ? 6 : 0), value);
  const auto of = [&](const tensor::TensorMap& map) {
    return Model(tiny_.spec(), map, kCpu, {"memory", weights_hash(map)}).content_hash();
  };
  EXPECT_EQ(of(named), tiny_.content_hash());
  auto other = named;
  other["norm.weight"] = other["norm.weight"].clone();
  other["norm.weight"][3] += 1e-3;
  EXPECT_NE(of(other), tiny_.content_hash());
  EXPECT_THAT(message_of(ErrorKind::kInternal,
                         [&] {
                           Model(tiny_.spec(), named, kCpu, {"memory", ""});
                         }),
              HasSubstr("without a hash of their content"));
}

TEST_F(ContentHashTest, NamesNoModelWithOtherProjections) {
  const auto other = tiny_.with_linears(tiny_.linears());
  EXPECT_THAT(message_of(ErrorKind::kInternal, [&] { other.content_hash(); }), HasSubstr("computes with other projections"));
}

}  // namespace
}  // namespace quiver::model
