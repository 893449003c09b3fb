#include "quiver/io/gguf.h"

#include <bit>
#include <cmath>
#include <cstring>

#include "quiver/io/file.h"
#include "quiver/io/gguf_test_support.h"
#include "quiver/io/safetensors.h"
#include "quiver/io/test_support.h"

namespace quiver::io {
namespace {

using ::testing::AllOf;
using ::testing::HasSubstr;
using ::testing::StartsWith;

constexpr const char* kEveryType = "tests/golden/gguf/every_type.gguf";

GgufView parse(std::string_view bytes) { return GgufView::parse(std::as_bytes(std::span(bytes)), "a.gguf"); }

std::string parse_error_of(std::string_view bytes) {
  return error_of([&] { parse(bytes); });
}

TEST(GgufView, ReadsMetadataOfEveryType) {
  const MappedFile file(kEveryType);
  const auto view = GgufView::parse(file.bytes(), "every_type");
  EXPECT_EQ(view.require_string("general.architecture"), "llama");
  EXPECT_EQ(view.require_int("test.uint8"), 255);
  EXPECT_EQ(view.require_int("test.int8"), -128);
  EXPECT_EQ(view.require_int("test.uint16"), 65535);
  EXPECT_EQ(view.require_int("test.int16"), -32768);
  EXPECT_EQ(view.require_int("test.uint32"), 4294967295);
  EXPECT_EQ(view.require_int("test.int32"), -2147483648);
  EXPECT_EQ(view.require_int("test.uint64"), INT64_MAX);
  EXPECT_EQ(view.require_int("test.int64"), INT64_MIN);
  EXPECT_EQ(view.require_float("test.float32"), static_cast<double>(0.1F));
  EXPECT_EQ(view.require_float("test.float64"), 0.1);
  EXPECT_EQ(view.require_float("test.uint8"), 255.0);
  EXPECT_TRUE(*view.find_bool("test.bool"));
  EXPECT_EQ(view.require_string("test.string"), "naïve Ġ");
  EXPECT_EQ(view.require_string_array("test.strings"), (std::vector<std::string>{"a", "", "Ġb"}));
  EXPECT_EQ(*view.find_int_array("test.ints"), (std::vector<std::int64_t>{3, -1, 2}));
  EXPECT_EQ(*view.find_int_array("test.bytes"), (std::vector<std::int64_t>{0, 7, 255}));
  EXPECT_EQ(std::get<std::vector<double>>(view.metadata().at("test.floats")), (std::vector<double>{0.5, -1.25}));
  EXPECT_EQ(std::get<std::vector<bool>>(view.metadata().at("test.bools")), (std::vector<bool>{true, false}));
}

TEST(GgufView, GivesAFileOfItsMetadataAlone) {
  const MappedFile file(kEveryType);
  const auto view = GgufView::parse(file.bytes(), "every_type");
  const auto bytes = view.metadata_file();
  const auto alone = parse(bytes);
  EXPECT_EQ(alone.metadata(), view.metadata());
  EXPECT_FALSE(view.tensors().empty());
  EXPECT_TRUE(alone.tensors().empty());
  EXPECT_LT(bytes.size(), file.bytes().size());
}

TEST(GgufView, TellsAbsentKeysFromWrongTypes) {
  const MappedFile file(kEveryType);
  const auto view = GgufView::parse(file.bytes(), "every_type");
  EXPECT_EQ(view.find_string("absent"), nullptr);
  EXPECT_EQ(view.find_int("absent"), std::nullopt);
  EXPECT_EQ(view.find_float("absent"), std::nullopt);
  EXPECT_EQ(view.find_bool("absent"), std::nullopt);
  EXPECT_EQ(view.find_string_array("absent"), std::nullopt);
  EXPECT_EQ(error_of([&] { view.find_int("test.string"); }),
            "bad format: every_type: metadata 'test.string' is a string; expected an integer");
  EXPECT_THAT(error_of([&] { view.find_string_array("test.ints"); }),
              HasSubstr("'test.ints' is an integer array; expected a string array"));
  EXPECT_THAT(error_of([&] { view.require_string("absent"); }), HasSubstr("the metadata has no key 'absent'"));
  EXPECT_THAT(error_of([&] { view.require_int("absent"); }), HasSubstr("the metadata has no key 'absent'"));
}

TEST(GgufView, TakesAnEmptyArrayForAnArrayOfAnything) {
  const std::string bytes = value_of("list", 9, raw<std::uint32_t>(5) + raw<std::uint64_t>(0));
  const auto view = parse(bytes);
  EXPECT_TRUE(view.require_string_array("list").empty());
  EXPECT_TRUE(view.find_int_array("list")->empty());
}

TEST(GgufView, GivesShapesRowsFirst) {
  const MappedFile file(kEveryType);
  const auto view = GgufView::parse(file.bytes(), "every_type");
  EXPECT_EQ(view.at("plain.f32").shape, (std::vector<std::int64_t>{3, 5}));
  EXPECT_EQ(view.at("random.q4_1").shape, (std::vector<std::int64_t>{4, 96}));
  EXPECT_EQ(view.at("random.q4_1").type, GgufType::kQ4_1);
  EXPECT_EQ(view.at("random.q4_1").data.size(), 4 * 3 * 20);
  EXPECT_EQ(view.find("absent"), nullptr);
  EXPECT_THAT(error_of([&] { view.at("random.q4_2"); }), AllOf(StartsWith("not found: "), HasSubstr("'random.q4_2'")));
}

constexpr const char* kBlocks = "tests/golden/gguf/blocks.gguf";

/// Compares with the values that the Python package computed, bit for bit.
void expect_golden_values(const char* path, const char* expected_path = "tests/golden/gguf/every_type.expected.safetensors") {
  const MappedFile file(path);
  const MappedFile expected_file(expected_path);
  const auto view = GgufView::parse(file.bytes(), path);
  const auto expected = SafetensorsView::parse(expected_file.bytes(), "expected");
  ASSERT_EQ(view.tensors().size(), expected.entries().size() + 1);  // one is not read
  for (const TensorEntry& entry : expected.entries()) {
    const GgufTensor& tensor = view.at(entry.name);
    EXPECT_EQ(tensor.shape, entry.shape) << entry.name;
    std::vector<float> values(static_cast<std::size_t>(tensor.num_elements()));
    dequantize(tensor, values);
    ASSERT_EQ(values.size() * sizeof(float), entry.data.size()) << entry.name;
    EXPECT_EQ(std::memcmp(values.data(), entry.data.data(), entry.data.size()), 0) << entry.name;
  }
}

TEST(Dequantize, MatchesThePythonPackageBitForBit) { expect_golden_values(kEveryType); }

TEST(Dequantize, MatchesThePythonPackageOnRandomBlocksBitForBit) {
  expect_golden_values(kBlocks, "tests/golden/gguf/blocks.expected.safetensors");
}

TEST(Dequantize, MatchesUnderAnotherAlignment) { expect_golden_values("tests/golden/gguf/alignment_64.gguf"); }

TEST(Dequantize, FollowsTheDefinitionOfEveryHalf) {
  for (std::uint32_t bits = 0; bits < 0x10000; ++bits) {
    const auto half = static_cast<std::uint16_t>(bits);
    float value = 0;
    dequantize(GgufType::kF16, std::as_bytes(std::span(&half, 1)), std::span(&value, 1));
    const int exponent = static_cast<int>(bits >> 10 & 0x1f);
    const double mantissa = bits & 0x3ff;
    const double sign = (bits & 0x8000) != 0 ? -1 : 1;
    if (exponent == 31 && mantissa != 0) {
      ASSERT_TRUE(std::isnan(value)) << bits;
    } else {
      const double expected = exponent == 31  ? sign * HUGE_VAL
                              : exponent == 0 ? sign * std::ldexp(mantissa, -24)
                                              : sign * std::ldexp(1024 + mantissa, exponent - 25);
      ASSERT_EQ(value, static_cast<float>(expected)) << bits;
      ASSERT_EQ(std::signbit(value), std::signbit(expected)) << bits;
    }
  }
}

TEST(Dequantize, RefusesOtherTypesByName) {
  const MappedFile file(kBlocks);
  const auto view = GgufView::parse(file.bytes(), kBlocks);
  const auto& tensor = view.at("unsupported.iq2_xxs");
  std::vector<float> values(256);
  EXPECT_EQ(error_of([&] { dequantize(tensor, values); }),
            "unsupported: tensor 'unsupported.iq2_xxs' is IQ2_XXS; Quiver reads F32, F16, BF16, Q4_0, Q4_1, Q5_0, Q5_1, Q8_0, Q2_K, Q3_K, "
            "Q4_K, Q5_K, Q6_K, IQ4_NL and IQ4_XS (choose a file quantised so, such as one named Q4_K_M or Q8_0)");
  EXPECT_THAT(error_of([&] { dequantize(tensor.type, tensor.data, values); }), AllOf(StartsWith("unsupported: "), HasSubstr("IQ2_XXS")));
}

TEST(Dequantize, RefusesTheWrongAmountOfRoom) {
  const std::vector<std::byte> block(20);
  std::vector<float> values(32);
  EXPECT_EQ(error_of([&] { dequantize(GgufType::kQ4_1, block, values); }), "no error");
  EXPECT_THAT(error_of([&] { dequantize(GgufType::kQ4_0, block, values); }),
              HasSubstr("usage: 20 bytes of type Q4_0 are not 32 values: a block of 32 values takes 18 bytes"));
  values.resize(31);
  EXPECT_THAT(error_of([&] { dequantize(GgufType::kQ4_1, block, values); }), StartsWith("usage: "));
  const GgufTensor tensor{"w", GgufType::kQ4_1, {1, 32}, block};
  EXPECT_EQ(error_of([&] { dequantize(tensor, values); }), "usage: tensor 'w' has 32 values, but there is room for 31");
}

TEST(GgufView, RefusesOtherFilesAndVersions) {
  EXPECT_THAT(parse_error_of("GGML...."), HasSubstr("does not begin with \"GGUF\""));
  EXPECT_THAT(parse_error_of(""), HasSubstr("does not begin with \"GGUF\""));
  EXPECT_THAT(parse_error_of("GGUF"), HasSubstr("the version needs 4 bytes at byte 4, but only 0 follow"));
  EXPECT_THAT(parse_error_of(head(0, 0, 1)), StartsWith("unsupported: a.gguf: GGUF version 1; Quiver reads 2 and 3"));
  EXPECT_THAT(parse_error_of(head(0, 0, 0x03000000)), HasSubstr("big-endian"));
  EXPECT_EQ(parse_error_of(head(0, 0, 2)), "no error");
}

TEST(GgufView, RefusesAbsurdCountsBeforeAllocating) {
  EXPECT_THAT(parse_error_of(head(0, UINT64_MAX)), HasSubstr("the metadata claims 18446744073709551615 items"));
  EXPECT_THAT(parse_error_of(head(UINT64_MAX, 0)), HasSubstr("the list of tensors claims 18446744073709551615 items"));
  EXPECT_THAT(parse_error_of(value_of("k", 9, raw<std::uint32_t>(8) + raw(std::uint64_t{1} << 61))),
              HasSubstr("metadata 'k' claims 2305843009213693952 items of 8 bytes or more, but only 0 bytes follow"));
  EXPECT_THAT(parse_error_of(value_of("k", 8, raw(UINT64_MAX) + "x")), HasSubstr("metadata 'k' needs 18446744073709551615 bytes"));
}

TEST(GgufView, RefusesBadMetadata) {
  EXPECT_THAT(parse_error_of(value_of("k", 13, "xxxxxxxx")), HasSubstr("metadata 'k' is of metadata type 13"));
  EXPECT_THAT(parse_error_of(value_of("k", 7, "\2")), HasSubstr("'k' is a boolean of value 2; expected 0 or 1"));
  EXPECT_THAT(parse_error_of(value_of("k", 10, raw(UINT64_MAX))), StartsWith("unsupported: "));
  EXPECT_THAT(parse_error_of(value_of("k", 9, raw<std::uint32_t>(9) + raw<std::uint64_t>(0))),
              AllOf(StartsWith("unsupported: "), HasSubstr("an array of arrays")));
  EXPECT_THAT(parse_error_of(value_of("\xff", 7, std::string(1, '\1'))), HasSubstr("a metadata key is not UTF-8"));
  const std::string value = raw_string("k") + raw<std::uint32_t>(7) + '\1';
  EXPECT_THAT(parse_error_of(head(0, 2) + value + value), HasSubstr("the metadata key 'k' occurs twice"));
}

TEST(GgufView, RefusesBadAlignments) {
  const auto alignment = [](std::uint32_t value) { return parse_error_of(value_of("general.alignment", 4, raw(value))); };
  EXPECT_EQ(alignment(64), "no error");
  EXPECT_THAT(alignment(0), HasSubstr("'general.alignment' is 0; expected a power of two"));
  EXPECT_THAT(alignment(48), HasSubstr("'general.alignment' is 48; expected a power of two"));
  EXPECT_THAT(parse_error_of(value_of("general.alignment", 8, raw_string("32"))), HasSubstr("expected an integer"));
}

TEST(GgufView, RefusesBadTensors) {
  EXPECT_EQ(parse_error_of(file_of(tensor_info("w", {32, 2}, 2, 0), 36)), "no error");
  EXPECT_THAT(parse_error_of(file_of(tensor_info("w", {32, 2}, 2, 0), 35)),
              HasSubstr("tensor 'w' takes 36 bytes at offset 0 of the data, but the file ends 35 bytes after"));
  EXPECT_THAT(parse_error_of(file_of(tensor_info("w", {33, 2}, 2, 0), 99)),
              HasSubstr("tensor 'w' of type Q4_0 has rows of 33 values, not a multiple of its blocks of 32"));
  EXPECT_THAT(parse_error_of(file_of(tensor_info("w", {2, 32}, 2, 0), 99)), HasSubstr("rows of 2 values"));
  EXPECT_EQ(parse_error_of(file_of(tensor_info("w", {256, 2}, 12, 0), 288)), "no error");
  EXPECT_THAT(parse_error_of(file_of(tensor_info("w", {256, 2}, 12, 0), 287)),
              HasSubstr("tensor 'w' takes 288 bytes at offset 0 of the data, but the file ends 287 bytes after"));
  EXPECT_THAT(parse_error_of(file_of(tensor_info("w", {128, 2}, 14, 0), 999)),
              HasSubstr("tensor 'w' of type Q6_K has rows of 128 values, not a multiple of its blocks of 256"));
  EXPECT_THAT(parse_error_of(file_of(tensor_info("w", {1}, 0, 4), 99)),
              HasSubstr("tensor 'w' is at offset 4, which is no multiple of the alignment 32"));
  EXPECT_THAT(parse_error_of(file_of(tensor_info("w", {1}, 0, UINT64_MAX - 31), 99)), HasSubstr("at offset"));
  EXPECT_THAT(parse_error_of(file_of(tensor_info("w", {1}, 4, 0), 99)), HasSubstr("is of type 4, which no known"));
  EXPECT_THAT(parse_error_of(file_of(tensor_info("w", {1, 1, 1, 1, 1}, 0, 0), 99)), HasSubstr("has 5 dimensions"));
  EXPECT_THAT(parse_error_of(file_of(tensor_info("w", {UINT64_MAX}, 0, 0), 99)), HasSubstr("a dimension of 1844674"));
  EXPECT_THAT(parse_error_of(file_of(tensor_info("w", {1ULL << 32, 1ULL << 32}, 0, 0), 99)),
              HasSubstr("more elements than 64 bits can count"));
  EXPECT_THAT(parse_error_of(file_of(tensor_info("w", {1ULL << 32, 1ULL << 32, 0}, 0, 0), 99)),
              HasSubstr("more elements than 64 bits can count"));
  EXPECT_THAT(parse_error_of(file_of(tensor_info("\xc0\x80", {1}, 0, 0), 99)), HasSubstr("name is not UTF-8"));
  const std::string one = tensor_info("w", {1}, 0, 0);
  EXPECT_THAT(parse_error_of(head(2, 0) + one + one), HasSubstr("two tensors are called 'w'"));
}

TEST(GgufView, RefusesTensorsThatOverlap) {
  const auto message = [](std::uint64_t offset, std::size_t data_bytes) {
    std::string file = head(2, 0) + tensor_info("late", {32}, 0, offset) + tensor_info("early", {9}, 0, 0);
    file.resize((file.size() + 31) / 32 * 32, '\0');
    return parse_error_of(file.append(data_bytes, '\0'));
  };
  EXPECT_EQ(message(64, 192), "no error");
  EXPECT_EQ(message(32, 192), "bad format: a.gguf: tensor 'late' begins at offset 32 of the data, inside tensor 'early' of 36 bytes at 0");
}

TEST(GgufView, RefusesAFileCutAnywhere) {
  const std::string bytes = read_text_file(kEveryType);
  for (std::size_t size = 0; size < bytes.size(); ++size) {
    const std::string message = parse_error_of(bytes.substr(0, size));
    const bool only_padding_is_lost = size + 32 > bytes.size();
    if (!only_padding_is_lost) {
      ASSERT_THAT(message, AllOf(StartsWith("bad format: "), HasSubstr("a.gguf"))) << size;
    }
  }
}

}  // namespace
}  // namespace quiver::io
