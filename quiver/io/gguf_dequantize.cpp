// Names, block layouts and dequantisation of ggml's tensor types.

#include <algorithm>
#include <bit>
#include <cstring>

#include "quiver/base/error.h"
#include "quiver/io/gguf.h"

namespace quiver::io {
namespace {

constexpr std::int64_t kBlock = 32;  // values in a block of Q4_0, Q4_1 and Q8_0

struct TypeRow {
  std::uint32_t number;
  std::string_view name;
  BlockLayout layout;
};

constexpr TypeRow kTypes[] = {{0, "F32", {1, 4}},         {1, "F16", {1, 2}},         {2, "Q4_0", {32, 18}},      {3, "Q4_1", {32, 20}},
                              {6, "Q5_0", {32, 22}},      {7, "Q5_1", {32, 24}},      {8, "Q8_0", {32, 34}},      {9, "Q8_1", {32, 40}},
                              {10, "Q2_K", {256, 84}},    {11, "Q3_K", {256, 110}},   {12, "Q4_K", {256, 144}},   {13, "Q5_K", {256, 176}},
                              {14, "Q6_K", {256, 210}},   {15, "Q8_K", {256, 292}},   {16, "IQ2_XXS", {256, 66}}, {17, "IQ2_XS", {256, 74}},
                              {18, "IQ3_XXS", {256, 98}}, {19, "IQ1_S", {256, 50}},   {20, "IQ4_NL", {32, 18}},   {21, "IQ3_S", {256, 110}},
                              {22, "IQ2_S", {256, 82}},   {23, "IQ4_XS", {256, 136}}, {24, "I8", {1, 1}},         {25, "I16", {1, 2}},
                              {26, "I32", {1, 4}},        {27, "I64", {1, 8}},        {28, "F64", {1, 8}},        {29, "IQ1_M", {256, 56}},
                              {30, "BF16", {1, 2}},       {34, "TQ1_0", {256, 54}},   {35, "TQ2_0", {256, 66}},   {39, "MXFP4", {32, 17}}};

const TypeRow* find_row(GgufType type) {
  const auto* row = std::ranges::find(kTypes, static_cast<std::uint32_t>(type), &TypeRow::number);
  return row == std::end(kTypes) ? nullptr : row;
}

std::uint16_t load_u16(const std::byte* from) {
  std::uint16_t bits = 0;
  std::memcpy(&bits, from, sizeof(bits));
  return bits;
}

/// IEEE 754 binary16, exactly; a NaN keeps its payload.
float half_to_float(std::uint16_t half) {
  const std::uint32_t sign = (half & 0x8000U) << 16;
  const std::uint32_t exponent = (half >> 10) & 0x1fU;
  const std::uint32_t mantissa = half & 0x3ffU;
  if (exponent == 0) {  // zero and subnormals: mantissa * 2^-24
    const float magnitude = static_cast<float>(mantissa) * 0x1p-24F;
    return std::bit_cast<float>(sign | std::bit_cast<std::uint32_t>(magnitude));
  }
  const std::uint32_t wide_exponent = exponent == 0x1f ? 0xffU : exponent + (127 - 15);
  return std::bit_cast<float>(sign | wide_exponent << 23 | mantissa << 13);
}

/// value = d q + m of a block of 32, where q are nibbles: the low ones are values 0..15, the high ones 16..31.
void unpack_nibbles(const std::byte* nibbles, float d, float zero_point, float m, float* out) {
  for (std::int64_t i = 0; i < kBlock / 2; ++i) {
    const auto byte = static_cast<unsigned>(nibbles[i]);
    out[i] = d * (static_cast<float>(byte & 0xfU) - zero_point) + m;
    out[i + kBlock / 2] = d * (static_cast<float>(byte >> 4) - zero_point) + m;
  }
}

void dequantize_block(GgufType type, const std::byte* block, float* out) {
  switch (type) {
    case GgufType::kF32: std::memcpy(out, block, sizeof(float)); return;
    case GgufType::kF16: *out = half_to_float(load_u16(block)); return;
    case GgufType::kBF16: *out = std::bit_cast<float>(static_cast<std::uint32_t>(load_u16(block)) << 16); return;
    case GgufType::kQ4_0:                                                           // d; q - 8
      unpack_nibbles(block + 2, half_to_float(load_u16(block)), 8.0F, -0.0F, out);  // x + -0 is x, for -0 too
      return;
    case GgufType::kQ4_1:  // d, m; q
      unpack_nibbles(block + 4, half_to_float(load_u16(block)), 0.0F, half_to_float(load_u16(block + 2)), out);
      return;
    case GgufType::kQ8_0: {  // d; signed bytes
      const float d = half_to_float(load_u16(block));
      for (std::int64_t i = 0; i < kBlock; ++i) {
        out[i] = static_cast<float>(static_cast<std::int8_t>(block[2 + i])) * d;
      }
      return;
    }
    default: fail(ErrorKind::kInternal, "type {} has no dequantiser", gguf_type_name(type));
  }
}

}  // namespace

std::optional<BlockLayout> find_block_layout(GgufType type) {
  const TypeRow* row = find_row(type);
  return row == nullptr ? std::nullopt : std::optional(row->layout);
}

std::string_view gguf_type_name(GgufType type) {
  const TypeRow* row = find_row(type);
  if (row == nullptr) fail(ErrorKind::kUsage, "no GGUF type has the number {}", type);
  return row->name;
}

bool can_dequantize(GgufType type) {
  switch (type) {
    case GgufType::kF32:
    case GgufType::kF16:
    case GgufType::kBF16:
    case GgufType::kQ4_0:
    case GgufType::kQ4_1:
    case GgufType::kQ8_0: return true;
    default: return false;
  }
}

void dequantize(const GgufTensor& tensor, std::span<float> out) {
  if (!can_dequantize(tensor.type)) {
    fail(ErrorKind::kUnsupported,
         "tensor '{}' is {}; Quiver reads F32, F16, BF16, Q4_0, Q4_1 and Q8_0 (choose a file quantised so, such as one named Q8_0)",
         tensor.name, gguf_type_name(tensor.type));
  }
  if (static_cast<std::int64_t>(out.size()) != tensor.num_elements()) {
    fail(ErrorKind::kUsage, "tensor '{}' has {} values, but there is room for {}", tensor.name, tensor.num_elements(), out.size());
  }
  dequantize(tensor.type, tensor.data, out);
}

void dequantize(GgufType type, std::span<const std::byte> data, std::span<float> out) {
  if (!can_dequantize(type)) {
    fail(ErrorKind::kUnsupported, "cannot read values of type {}; Quiver reads F32, F16, BF16, Q4_0, Q4_1 and Q8_0", gguf_type_name(type));
  }
  const BlockLayout layout = *find_block_layout(type);
  const std::size_t block_values = static_cast<std::size_t>(layout.num_values);
  const std::size_t block_bytes = static_cast<std::size_t>(layout.num_bytes);
  const std::size_t num_blocks = data.size() / block_bytes;
  if (data.size() % block_bytes != 0 || out.size() % block_values != 0 || out.size() / block_values != num_blocks) {
    fail(ErrorKind::kUsage, "{} bytes of type {} are not {} values: a block of {} values takes {} bytes", data.size(), gguf_type_name(type),
         out.size(), block_values, block_bytes);
  }
  for (std::size_t i = 0; i < num_blocks; ++i) {
    dequantize_block(type, data.data() + i * block_bytes, out.data() + i * block_values);
  }
}

}  // namespace quiver::io
