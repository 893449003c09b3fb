#include "quiver/io/safetensors.h"

#include <cstring>

#include "quiver/io/file.h"
#include "quiver/io/test_support.h"

namespace quiver::io {
namespace {

using ::testing::AllOf;
using ::testing::HasSubstr;
using ::testing::StartsWith;

constexpr std::string_view kGolden = "tests/golden/safetensors/";

std::string file_of(std::string_view header, std::size_t data_bytes) {
  const std::uint64_t length = header.size();
  std::string bytes(reinterpret_cast<const char*>(&length), 8);
  return bytes.append(header).append(data_bytes, '\1');
}

SafetensorsView parse(std::string_view bytes) { return SafetensorsView::parse(std::as_bytes(std::span(bytes)), "a.safetensors"); }

/// The error of a file with one header and some bytes of data.
std::string header_error(std::string_view header, std::size_t data_bytes) {
  const std::string bytes = file_of(header, data_bytes);
  return error_of([&] { parse(bytes); });
}

template <typename T>
T item(const TensorEntry& entry, std::size_t index) {
  T value;
  std::memcpy(&value, entry.data.data() + index * sizeof(T), sizeof(T));
  return value;
}

TEST(SafetensorsView, ReadsWhatThePythonLibraryWrote) {
  const MappedFile file(std::string(kGolden) + "every_dtype.safetensors");
  const auto view = SafetensorsView::parse(file.bytes(), "every_dtype");
  ASSERT_EQ(view.entries().size(), 13);
  EXPECT_EQ(view.metadata(), (std::map<std::string, std::string>{{"format", "pt"}}));

  EXPECT_EQ(view.at("f32").shape, (std::vector<std::int64_t>{2, 3}));
  EXPECT_EQ(item<float>(view.at("f32"), 5), 6.0F);
  EXPECT_EQ(item<double>(view.at("f64"), 2), 3.0);
  EXPECT_EQ(view.at("bf16").dtype, Dtype::kBF16);
  EXPECT_EQ(item<std::uint16_t>(view.at("bf16"), 4), 0x40a0);  // 5
  EXPECT_EQ(item<std::uint16_t>(view.at("f16"), 2), 0x4200);   // 3
  EXPECT_EQ(item<std::int64_t>(view.at("i64"), 1), 2);
  EXPECT_EQ(item<std::int32_t>(view.at("i32"), 2), 3);
  EXPECT_EQ(item<std::int16_t>(view.at("i16"), 2), 3);
  EXPECT_EQ(item<std::int8_t>(view.at("i8"), 2), 3);
  EXPECT_EQ(item<std::uint8_t>(view.at("u8"), 2), 3);
  EXPECT_EQ(view.at("bool").dtype, Dtype::kBool);
  EXPECT_EQ(item<std::uint8_t>(view.at("bool"), 1), 0);
  EXPECT_TRUE(view.at("a scalar").shape.empty());
  EXPECT_EQ(item<float>(view.at("a scalar"), 0), 7.0F);
  EXPECT_EQ(view.at("an empty one").shape, (std::vector<std::int64_t>{0, 4}));
  EXPECT_TRUE(view.at("an empty one").data.empty());
  EXPECT_NE(view.find("é \"quoted\" \\ \n\t\x01\x7f/"), nullptr);
}

class SafetensorsGolden : public ::testing::TestWithParam<std::string> {};

TEST_P(SafetensorsGolden, IsReproducedByteForByte) {
  const std::string bytes = read_text_file(std::string(kGolden) + GetParam());
  const auto view = parse(bytes);
  std::vector<TensorEntry> reversed(view.entries().rbegin(), view.entries().rend());
  EXPECT_EQ(serialize_safetensors(reversed, view.metadata()), bytes);

  const TempFolder folder;
  write_safetensors(folder / "copy.safetensors", reversed, view.metadata());
  EXPECT_EQ(read_text_file(folder / "copy.safetensors"), bytes);
}

INSTANTIATE_TEST_SUITE_P(All, SafetensorsGolden,
                         ::testing::Values("every_dtype.safetensors", "adapter.safetensors", "nothing.safetensors",
                                           "only_metadata.safetensors"));

TEST(SafetensorsView, FindsNothingUnderAnotherName) {
  const std::string bytes = file_of(R"({"layer.0.weight":{"dtype":"U8","shape":[1],"data_offsets":[0,1]}})", 1);
  const auto view = parse(bytes);
  EXPECT_EQ(view.find("layer.1.weight"), nullptr);
  EXPECT_EQ(error_of([&] { view.at("layer.1.weight"); }),
            "not found: a.safetensors: no tensor 'layer.1.weight' among the 1 there (did you mean 'layer.0.weight'?)");
}

TEST(SafetensorsView, GivesEntriesInTheOrderOfTheirData) {
  const std::string bytes =
      file_of(R"({"a":{"dtype":"U8","shape":[1],"data_offsets":[2,3]},"b":{"dtype":"U8","shape":[2],"data_offsets":[0,2]},)"
              R"("c":{"dtype":"U8","shape":[0],"data_offsets":[2,2]}})",
              3);
  const auto view = parse(bytes);
  EXPECT_EQ(view.entries()[0].name, "b");
  EXPECT_EQ(view.entries()[1].name, "c");
  EXPECT_EQ(view.entries()[2].name, "a");
}

TEST(SafetensorsView, RefusesFilesThatAreTooShort) {
  EXPECT_THAT(error_of([] { parse("1234567"); }), HasSubstr("has 8 bytes at least, this one has 7"));
  EXPECT_THAT(error_of([] { parse(""); }), StartsWith("bad format: a.safetensors: "));
  EXPECT_THAT(error_of([] { parse(std::string_view("\x10\0\0\0\0\0\0\0{}", 10)); }),
              HasSubstr("claims 16 bytes, but only 2 follow (perhaps an incomplete download"));
  EXPECT_THAT(error_of([] { parse(std::string_view("\x03\0\0\0\0\0\0\0{}", 10)); }), HasSubstr("claims 3 bytes, but only 2 follow"));
}

TEST(SafetensorsView, RefusesAnAbsurdHeaderLength) {
  EXPECT_THAT(error_of([] { parse("\xff\xff\xff\xff\xff\xff\xff\xff{}"); }),
              HasSubstr("claims 18446744073709551615 bytes, more than the 100000000 allowed"));
}

TEST(SafetensorsView, RefusesHeadersThatAreNotJsonObjects) {
  EXPECT_THAT(header_error("[]", 0), HasSubstr("does not begin with an opening brace"));
  EXPECT_THAT(header_error("", 0), HasSubstr("does not begin with an opening brace"));
  EXPECT_THAT(header_error("{\"a\":", 0), HasSubstr("a.safetensors: the header: not JSON at line 1, column 6"));
  EXPECT_THAT(header_error("{\"\xff\":1}", 0), HasSubstr("UTF-8"));
  EXPECT_THAT(header_error(R"({"a":3})", 0), HasSubstr("tensor 'a': expected an object"));
}

TEST(SafetensorsView, RefusesDuplicateNames) {
  EXPECT_THAT(header_error(R"({"a":{"dtype":"U8","shape":[1],"data_offsets":[0,1]},)"
                           R"("a":{"dtype":"U8","shape":[1],"data_offsets":[1,2]}})",
                           2),
              HasSubstr("the key 'a' occurs twice"));
}

TEST(SafetensorsView, RefusesUnknownAndUnsupportedDtypes) {
  EXPECT_THAT(header_error(R"({"a":{"dtype":"F33","shape":[1],"data_offsets":[0,4]}})", 4),
              AllOf(StartsWith("bad format: "), HasSubstr("no dtype is called 'F33'")));
  EXPECT_THAT(header_error(R"({"a":{"dtype":"F8_E4M3","shape":[1],"data_offsets":[0,1]}})", 1),
              AllOf(StartsWith("unsupported: "), HasSubstr("tensor 'a' is of dtype F8_E4M3")));
}

TEST(SafetensorsView, RefusesShapesThatAreNoSizes) {
  EXPECT_THAT(header_error(R"({"a":{"dtype":"U8","shape":[-1],"data_offsets":[0,1]}})", 1), HasSubstr("'shape' holds -1"));
  EXPECT_THAT(header_error(R"({"a":{"dtype":"U8","shape":[1.0],"data_offsets":[0,1]}})", 1), HasSubstr("holds 1.0"));
  EXPECT_THAT(header_error(R"({"a":{"dtype":"U8","shape":[18446744073709551615],"data_offsets":[0,1]}})", 1),
              HasSubstr("holds 18446744073709551615"));
  EXPECT_THAT(header_error(R"({"a":{"dtype":"U8","data_offsets":[0,1]}})", 1), HasSubstr("key 'shape' is missing"));
}

TEST(SafetensorsView, RefusesAProductThatWrapsToZero) {
  EXPECT_THAT(header_error(R"({"a":{"dtype":"F32","shape":[4294967296,4294967296],"data_offsets":[0,0]}})", 0),
              HasSubstr("tensor 'a': shape [4294967296, 4294967296] has more elements than 64 bits can count"));
  EXPECT_THAT(header_error(R"({"a":{"dtype":"U8","shape":[0,4294967296,4294967296],"data_offsets":[0,0]}})", 0),
              HasSubstr("more elements than 64 bits can count"));
}

TEST(SafetensorsView, RefusesASizeThatDoesNotFitTheShape) {
  EXPECT_THAT(header_error(R"({"a":{"dtype":"F32","shape":[2,3],"data_offsets":[0,20]}})", 20),
              HasSubstr("tensor 'a' of dtype F32 and shape [2, 3] takes 24 bytes, but its data_offsets span 20"));
}

TEST(SafetensorsView, RefusesOffsetsOutsideTheFile) {
  EXPECT_THAT(header_error(R"({"a":{"dtype":"U8","shape":[4],"data_offsets":[0,4]}})", 3),
              HasSubstr("tensor 'a' ends at byte 4 of the data, but the file holds only 3"));
  EXPECT_THAT(header_error(R"({"a":{"dtype":"U8","shape":[4],"data_offsets":[4,0]}})", 4),
              HasSubstr("begins at byte 4 and ends before, at 0"));
  EXPECT_THAT(header_error(R"({"a":{"dtype":"U8","shape":[4],"data_offsets":[-4,0]}})", 4), HasSubstr("two integers"));
  EXPECT_THAT(header_error(R"({"a":{"dtype":"U8","shape":[4],"data_offsets":[4]}})", 4), HasSubstr("two integers"));
}

TEST(SafetensorsView, RefusesOverlapsAndHoles) {
  constexpr std::string_view kTwo =
      R"({"a":{"dtype":"U8","shape":[2],"data_offsets":[0,2]},"b":{"dtype":"U8","shape":[2],"data_offsets":[)";
  EXPECT_THAT(header_error(std::string(kTwo) + "1,3]}}", 3),
              HasSubstr("tensor 'b' begins at byte 1 of the data, but 'a' before it ends at 2 (they overlap)"));
  EXPECT_THAT(header_error(std::string(kTwo) + "3,5]}}", 5), HasSubstr("ends at 2 (a hole)"));
  EXPECT_THAT(header_error(std::string(kTwo) + "2,4]}}", 5), HasSubstr("the tensors end at byte 4 of the data, but the file holds 5"));
}

TEST(SafetensorsView, RefusesMetadataThatIsNotText) {
  EXPECT_THAT(header_error(R"({"__metadata__":{"rank":8}})", 0), HasSubstr("__metadata__: 'rank' is number (8)"));
  EXPECT_THAT(header_error(R"({"__metadata__":[]})", 0), HasSubstr("'__metadata__' is array"));
}

TEST(SerializeSafetensors, PutsWideTypesFirstThenNames) {
  const std::string data(8, '\0');
  const auto bytes = std::as_bytes(std::span(data));
  const std::vector<TensorEntry> entries = {
      {"b", Dtype::kU8, {8}, bytes}, {"z", Dtype::kI64, {1}, bytes}, {"a", Dtype::kF32, {2}, bytes}, {"A", Dtype::kF32, {1, 2}, bytes}};
  const std::string file = serialize_safetensors(entries, {{"k2", "v"}, {"k1", "w"}});
  EXPECT_EQ(file.substr(8, file.size() - 8 - 32),
            R"({"__metadata__":{"k1":"w","k2":"v"},"z":{"dtype":"I64","shape":[1],"data_offsets":[0,8]},)"
            R"("A":{"dtype":"F32","shape":[1,2],"data_offsets":[8,16]},"a":{"dtype":"F32","shape":[2],"data_offsets":[16,24]},)"
            R"("b":{"dtype":"U8","shape":[8],"data_offsets":[24,32]}}  )");
}

TEST(SerializeSafetensors, RefusesEntriesThatNoReaderWouldTake) {
  const std::string data(4, '\0');
  const auto bytes = std::as_bytes(std::span(data));
  const TensorEntry good{"a", Dtype::kU8, {4}, bytes};
  const auto message = [](std::vector<TensorEntry> entries) { return error_of([&] { serialize_safetensors(entries); }); };
  EXPECT_EQ(message({good, good}), "usage: two tensors are called 'a'");
  EXPECT_THAT(message({{"a", Dtype::kF32, {4}, bytes}}), HasSubstr("does not take 4 bytes"));
  EXPECT_THAT(message({{"a", Dtype::kF32, {-1}, bytes}}), StartsWith("usage: "));
  EXPECT_THAT(message({{"__metadata__", Dtype::kU8, {4}, bytes}}), StartsWith("usage: no tensor may be called"));
  EXPECT_THAT(message({{"\xff", Dtype::kU8, {4}, bytes}}), AllOf(StartsWith("usage: "), HasSubstr("a tensor's name")));
}

TEST(DtypeNames, GoBothWays) {
  EXPECT_EQ(dtype_name(Dtype::kBF16), "BF16");
  EXPECT_EQ(dtype_from_name("BOOL"), Dtype::kBool);
  EXPECT_EQ(dtype_from_name("bool"), std::nullopt);
  EXPECT_EQ(dtype_bytes(Dtype::kF64), 8);
  EXPECT_EQ(dtype_bytes(Dtype::kF16), 2);
}

}  // namespace
}  // namespace quiver::io
