#include "quiver/io/gguf_writer.h"

#include <cstring>

#include "quiver/io/file.h"
#include "quiver/io/safetensors.h"
#include "quiver/io/test_support.h"

namespace quiver::io {
namespace {

using ::testing::HasSubstr;

const std::filesystem::path kWritten = "tests/golden/gguf/written.gguf";

std::vector<float> values_of(const TensorEntry& entry) {
  std::vector<float> values(entry.data.size() / sizeof(float));
  std::memcpy(values.data(), entry.data.data(), entry.data.size());
  return values;
}

std::vector<std::byte> bytes_of(std::span<const std::byte> bytes) { return {bytes.begin(), bytes.end()}; }

TEST(GgufWriter, WritesTheBytesOfThePythonPackage) {
  const MappedFile golden(kWritten), values_file(std::filesystem::path(kWritten).replace_extension(".safetensors"));
  const auto view = GgufView::parse(golden.bytes(), "written.gguf");
  const auto values = SafetensorsView::parse(values_file.bytes(), "written.safetensors");
  const auto all = values_of(values.at("values")), finite = values_of(values.at("finite"));
  std::vector<GgufSource> tensors;
  for (const auto& tensor : view.tensors()) {
    tensors.push_back({tensor.name, tensor.type, tensor.shape, [&] {
                         if (tensor.name == "three") return bytes_of(tensor.data);
                         return quantise(tensor.type == GgufType::kQ8_0 ? finite : all, tensor.type);
                       }});
  }
  const TempFolder folder;
  write_gguf(folder.path() / "ours.gguf", view.metadata(), tensors);
  const MappedFile ours(folder.path() / "ours.gguf");
  // The Python package lists metadata in the order it was given in, which is that of the keys.
  const auto expected = golden.bytes(), written = ours.bytes();
  const auto difference = std::ranges::mismatch(written, expected).in1 - written.begin();
  EXPECT_TRUE(std::ranges::equal(written, expected)) << "they differ at byte " << difference << " of " << expected.size();
}

TEST(GgufWriter, SaysWhatCannotBeWritten) {
  const TempFolder folder;
  const auto path = folder.path() / "bad.gguf";
  const auto four = [] { return std::vector<std::byte>(4); };
  EXPECT_THAT(error_of([&] { write_gguf(path, {{"k", std::int64_t{-1}}}, {}); }), HasSubstr("metadata 'k' is -1"));
  EXPECT_THAT(error_of([&] { write_gguf(path, {{"k", std::vector<std::int64_t>{1LL << 31}}}, {}); }), HasSubstr("2147483648"));
  const GgufSource twice[] = {{"a", GgufType::kF32, {1}, four}, {"a", GgufType::kF32, {1}, four}};
  EXPECT_THAT(error_of([&] { write_gguf(path, {}, twice); }), HasSubstr("'a' would be in the GGUF file twice"));
  const GgufSource deep[] = {{"a", GgufType::kF32, {1, 1, 1, 1, 1}, four}};
  EXPECT_THAT(error_of([&] { write_gguf(path, {}, deep); }), HasSubstr("5 dimensions"));
  const GgufSource cut[] = {{"a", GgufType::kQ8_0, {2, 33}, four}};
  EXPECT_THAT(error_of([&] { write_gguf(path, {}, cut); }), HasSubstr("a row of 33 values is no whole number of Q8_0 blocks"));
  const GgufSource small[] = {{"a", GgufType::kF32, {2}, four}};
  EXPECT_THAT(error_of([&] { write_gguf(path, {}, small); }), HasSubstr("given 4 bytes; its shape has 8"));
  EXPECT_THAT(error_of([] { quantise(std::vector<float>(32), GgufType::kQ4_0); }), HasSubstr("Q4_0 is not written"));
  EXPECT_FALSE(std::filesystem::exists(path));
}

}  // namespace
}  // namespace quiver::io
