// Names, block layouts and dequantisation of ggml's tensor types.

#include <algorithm>
#include <bit>
#include <cstring>

#include "quiver/base/error.h"
#include "quiver/io/gguf.h"

namespace quiver::io {
namespace {

std::uint16_t load_u16(const std::byte* from) {
  std::uint16_t bits = 0;
  std::memcpy(&bits, from, sizeof(bits));
  return bits;
}

std::uint32_t load_u32(const std::byte* from) {
  std::uint32_t bits = 0;
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

float load_half(const std::byte* from) { return half_to_float(load_u16(from)); }

/// The `num_bits` bits of a byte from `shift` on.
int bits_of(std::byte byte, int shift, int num_bits) {
  return static_cast<int>((static_cast<unsigned>(byte) >> shift) & ((1U << num_bits) - 1));
}
int signed_of(std::byte byte) { return static_cast<std::int8_t>(byte); }

// A block each. Its parts are named as in ggml: d and m are scales, q the packed values, qh their highest bits. The order of
// operations is that of the Python package `gguf`, so that results are equal to the bit. Blocks and results do not overlap: GCC vectorises
// the loops of constant length for that.

void unpack_f32(const std::byte* block, float* out) { std::memcpy(out, block, sizeof(float)); }
void unpack_f16(const std::byte* block, float* out) { *out = load_half(block); }
void unpack_bf16(const std::byte* block, float* out) { *out = std::bit_cast<float>(static_cast<std::uint32_t>(load_u16(block)) << 16); }

/// d; q in nibbles: the low ones are values 0 to 15, the high ones 16 to 31.
void unpack_q4_0(const std::byte* __restrict block, float* __restrict out) {
  const float d = load_half(block);
  const auto* q = block + 2;
  for (int i = 0; i < 16; ++i) {
    out[i] = d * static_cast<float>(bits_of(q[i], 0, 4) - 8);
    out[i + 16] = d * static_cast<float>(bits_of(q[i], 4, 4) - 8);
  }
}

/// d, m; q.
void unpack_q4_1(const std::byte* __restrict block, float* __restrict out) {
  const float d = load_half(block), m = load_half(block + 2);
  const auto* q = block + 4;
  for (int i = 0; i < 16; ++i) {
    out[i] = d * static_cast<float>(bits_of(q[i], 0, 4)) + m;
    out[i + 16] = d * static_cast<float>(bits_of(q[i], 4, 4)) + m;
  }
}

/// The fifth bits of 32 values, each at its place: 0 or 16.
int fifth_bit(std::uint32_t bits, int i) { return static_cast<int>((bits >> i) & 1U) << 4; }

/// d; qh, a bit a value; q.
void unpack_q5_0(const std::byte* __restrict block, float* __restrict out) {
  const float d = load_half(block);
  const auto high = load_u32(block + 2);
  const auto* q = block + 6;
  for (int i = 0; i < 16; ++i) {
    out[i] = d * static_cast<float>((bits_of(q[i], 0, 4) | fifth_bit(high, i)) - 16);
    out[i + 16] = d * static_cast<float>((bits_of(q[i], 4, 4) | fifth_bit(high, i + 16)) - 16);
  }
}

/// d, m; qh; q.
void unpack_q5_1(const std::byte* __restrict block, float* __restrict out) {
  const float d = load_half(block), m = load_half(block + 2);
  const auto high = load_u32(block + 4);
  const auto* q = block + 8;
  for (int i = 0; i < 16; ++i) {
    out[i] = d * static_cast<float>(bits_of(q[i], 0, 4) | fifth_bit(high, i)) + m;
    out[i + 16] = d * static_cast<float>(bits_of(q[i], 4, 4) | fifth_bit(high, i + 16)) + m;
  }
}

/// d; signed bytes.
void unpack_q8_0(const std::byte* __restrict block, float* __restrict out) {
  const float d = load_half(block);
  for (int i = 0; i < 32; ++i) out[i] = static_cast<float>(signed_of(block[2 + i])) * d;
}

// Blocks of 256 values have scales of their own for each 16 or 32. Two bits of a value stand in a byte with those of the values 32, 64
// and 96 further on.

/// Scales in nibbles, two a byte [16]; q in two bits [64]; d, dmin.
void unpack_q2_k(const std::byte* __restrict block, float* __restrict out) {
  const auto *scales = block, *q = block + 16;
  const float d = load_half(block + 80), dmin = load_half(block + 82);
  for (int part = 0; part < 16; ++part) {
    const float scale = d * static_cast<float>(bits_of(scales[part], 0, 4));
    const float least = dmin * static_cast<float>(bits_of(scales[part], 4, 4));
    const auto* from = q + part / 8 * 32 + part % 2 * 16;
    const int shift = part % 8 / 2 * 2;
    for (int i = 0; i < 16; ++i) out[part * 16 + i] = scale * static_cast<float>(bits_of(from[i], shift, 2)) - least;
  }
}

/// High bits [32]; q in two bits [64]; scales of six bits [12]; d. Where the high bit is not set, 4 is taken away.
void unpack_q3_k(const std::byte* __restrict block, float* __restrict out) {
  const auto *high = block, *q = block + 32, *scales = block + 96;
  const float d = load_half(block + 108);
  for (int part = 0; part < 16; ++part) {
    const int low_bits = bits_of(scales[part % 8], part / 8 * 4, 4), high_bits = bits_of(scales[8 + part % 4], part / 4 * 2, 2);
    const float scale = d * static_cast<float>((low_bits | high_bits << 4) - 32);
    const auto *from = q + part / 8 * 32 + part % 2 * 16, *mask = high + part % 2 * 16;
    const int shift = part % 8 / 2 * 2, bit = part / 2;
    for (int i = 0; i < 16; ++i) {
      out[part * 16 + i] = scale * static_cast<float>(bits_of(from[i], shift, 2) - 4 + (bits_of(mask[i], bit, 1) << 2));
    }
  }
}

/// The scale and the least value of one of eight parts, six bits each in twelve bytes.
struct ScaleAndLeast {
  int scale, least;
};
ScaleAndLeast scale_of(const std::byte* scales, int part) {
  const int i = part % 4;
  if (part < 4) return {bits_of(scales[i], 0, 6), bits_of(scales[4 + i], 0, 6)};
  return {bits_of(scales[8 + i], 0, 4) | bits_of(scales[i], 6, 2) << 4, bits_of(scales[8 + i], 4, 4) | bits_of(scales[4 + i], 6, 2) << 4};
}

/// d, dmin; scales [12]; q in nibbles [128]: the low ones of 32 bytes, then the high ones.
void unpack_q4_k(const std::byte* __restrict block, float* __restrict out) {
  const float d = load_half(block), dmin = load_half(block + 2);
  const auto *scales = block + 4, *q = block + 16;
  for (int part = 0; part < 8; ++part) {
    const auto [scale, least] = scale_of(scales, part);
    const float part_d = d * static_cast<float>(scale), part_m = dmin * static_cast<float>(least);
    const auto* from = q + part / 2 * 32;
    const int shift = part % 2 * 4;
    for (int i = 0; i < 32; ++i) out[part * 32 + i] = part_d * static_cast<float>(bits_of(from[i], shift, 4)) - part_m;
  }
}

/// d, dmin; scales [12]; qh, a bit a value [32]; q in nibbles [128].
void unpack_q5_k(const std::byte* __restrict block, float* __restrict out) {
  const float d = load_half(block), dmin = load_half(block + 2);
  const auto *scales = block + 4, *high = block + 16, *q = block + 48;
  for (int part = 0; part < 8; ++part) {
    const auto [scale, least] = scale_of(scales, part);
    const float part_d = d * static_cast<float>(scale), part_m = dmin * static_cast<float>(least);
    const auto* from = q + part / 2 * 32;
    const int shift = part % 2 * 4;
    for (int i = 0; i < 32; ++i) {
      out[part * 32 + i] = part_d * static_cast<float>(bits_of(from[i], shift, 4) | bits_of(high[i], part, 1) << 4) - part_m;
    }
  }
}

/// q in nibbles [128]; qh in two bits [64]; signed scales [16]; d.
void unpack_q6_k(const std::byte* __restrict block, float* __restrict out) {
  const auto *q = block, *high = block + 128, *scales = block + 192;
  const float d = load_half(block + 208);
  for (int part = 0; part < 16; ++part) {
    const float scale = d * static_cast<float>(signed_of(scales[part]));
    const auto *from = q + part / 8 * 64 + part % 4 * 16, *upper = high + part / 8 * 32 + part % 2 * 16;
    const int shift = part % 8 / 4 * 4, upper_shift = part % 8 / 2 * 2;
    for (int i = 0; i < 16; ++i) {
      out[part * 16 + i] = scale * static_cast<float>((bits_of(from[i], shift, 4) | bits_of(upper[i], upper_shift, 2) << 4) - 32);
    }
  }
}

/// What the four bits of the "non-linear" types stand for.
constexpr float kNonLinear[16] = {-127, -104, -83, -65, -49, -35, -22, -10, 1, 13, 25, 38, 53, 69, 89, 113};

/// 16 bytes: the low nibbles are values 0 to 15, the high ones 16 to 31.
void unpack_non_linear(const std::byte* __restrict q, float scale, float* __restrict out) {
  for (int i = 0; i < 16; ++i) {
    out[i] = scale * kNonLinear[bits_of(q[i], 0, 4)];
    out[i + 16] = scale * kNonLinear[bits_of(q[i], 4, 4)];
  }
}

/// d; q.
void unpack_iq4_nl(const std::byte* __restrict block, float* __restrict out) { unpack_non_linear(block + 2, load_half(block), out); }

/// d; the two high bits of eight scales; their low nibbles [4]; q [128].
void unpack_iq4_xs(const std::byte* __restrict block, float* __restrict out) {
  const float d = load_half(block);
  const unsigned high = load_u16(block + 2);
  for (int part = 0; part < 8; ++part) {
    const int scale = bits_of(block[4 + part / 2], part % 2 * 4, 4) | static_cast<int>((high >> (2 * part)) & 3U) << 4;
    unpack_non_linear(block + 8 + part * 16, d * static_cast<float>(scale - 32), out + part * 32);
  }
}

/// A function that unpacks so many blocks one after another, of one that unpacks a block.
using UnpackBlocks = void (*)(const std::byte* blocks, std::size_t count, float* out);

template <auto unpack, std::int64_t num_values, std::int64_t num_bytes>
void unpack_blocks(const std::byte* blocks, std::size_t count, float* out) {
  for (std::size_t i = 0; i < count; ++i) unpack(blocks + i * num_bytes, out + i * num_values);
}

struct TypeRow {
  std::uint32_t number;
  std::string_view name;
  BlockLayout layout;
  UnpackBlocks unpack = nullptr;  ///< null: its values are not read
};

template <auto unpack, std::int64_t num_values, std::int64_t num_bytes>
constexpr TypeRow readable(GgufType type, std::string_view name) {
  return {static_cast<std::uint32_t>(type), name, {num_values, num_bytes}, unpack_blocks<unpack, num_values, num_bytes>};
}

constexpr TypeRow kTypes[] = {readable<unpack_f32, 1, 4>(GgufType::kF32, "F32"),
                              readable<unpack_f16, 1, 2>(GgufType::kF16, "F16"),
                              readable<unpack_bf16, 1, 2>(GgufType::kBF16, "BF16"),
                              readable<unpack_q4_0, 32, 18>(GgufType::kQ4_0, "Q4_0"),
                              readable<unpack_q4_1, 32, 20>(GgufType::kQ4_1, "Q4_1"),
                              readable<unpack_q5_0, 32, 22>(GgufType::kQ5_0, "Q5_0"),
                              readable<unpack_q5_1, 32, 24>(GgufType::kQ5_1, "Q5_1"),
                              readable<unpack_q8_0, 32, 34>(GgufType::kQ8_0, "Q8_0"),
                              readable<unpack_q2_k, 256, 84>(GgufType::kQ2_K, "Q2_K"),
                              readable<unpack_q3_k, 256, 110>(GgufType::kQ3_K, "Q3_K"),
                              readable<unpack_q4_k, 256, 144>(GgufType::kQ4_K, "Q4_K"),
                              readable<unpack_q5_k, 256, 176>(GgufType::kQ5_K, "Q5_K"),
                              readable<unpack_q6_k, 256, 210>(GgufType::kQ6_K, "Q6_K"),
                              readable<unpack_iq4_nl, 32, 18>(GgufType::kIQ4_NL, "IQ4_NL"),
                              readable<unpack_iq4_xs, 256, 136>(GgufType::kIQ4_XS, "IQ4_XS"),
                              {9, "Q8_1", {32, 40}},
                              {15, "Q8_K", {256, 292}},
                              {16, "IQ2_XXS", {256, 66}},
                              {17, "IQ2_XS", {256, 74}},
                              {18, "IQ3_XXS", {256, 98}},
                              {19, "IQ1_S", {256, 50}},
                              {21, "IQ3_S", {256, 110}},
                              {22, "IQ2_S", {256, 82}},
                              {24, "I8", {1, 1}},
                              {25, "I16", {1, 2}},
                              {26, "I32", {1, 4}},
                              {27, "I64", {1, 8}},
                              {28, "F64", {1, 8}},
                              {29, "IQ1_M", {256, 56}},
                              {34, "TQ1_0", {256, 54}},
                              {35, "TQ2_0", {256, 66}},
                              {39, "MXFP4", {32, 17}},
                              {40, "NVFP4", {64, 36}},
                              {41, "Q1_0", {128, 18}}};

const TypeRow* find_row(GgufType type) {
  const auto* row = std::ranges::find(kTypes, static_cast<std::uint32_t>(type), &TypeRow::number);
  return row == std::end(kTypes) ? nullptr : row;
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
  const TypeRow* row = find_row(type);
  return row != nullptr && row->unpack != nullptr;
}

std::string readable_gguf_types() {
  std::vector<std::string_view> names;
  for (const auto& row : kTypes) {
    if (row.unpack != nullptr) names.push_back(row.name);
  }
  std::string text(names.front());
  for (std::size_t i = 1; i < names.size(); ++i) text += std::string(i + 1 < names.size() ? ", " : " and ") + std::string(names[i]);
  return text;
}

void dequantize(const GgufTensor& tensor, std::span<float> out) {
  if (!can_dequantize(tensor.type)) {
    fail(ErrorKind::kUnsupported, "tensor '{}' is {}; Quiver reads {} (choose a file quantised so, such as one named Q4_K_M or Q8_0)",
         tensor.name, gguf_type_name(tensor.type), readable_gguf_types());
  }
  if (static_cast<std::int64_t>(out.size()) != tensor.num_elements()) {
    fail(ErrorKind::kUsage, "tensor '{}' has {} values, but there is room for {}", tensor.name, tensor.num_elements(), out.size());
  }
  dequantize(tensor.type, tensor.data, out);
}

void dequantize(GgufType type, std::span<const std::byte> data, std::span<float> out) {
  if (!can_dequantize(type)) {
    fail(ErrorKind::kUnsupported, "cannot read values of type {}; Quiver reads {}", gguf_type_name(type), readable_gguf_types());
  }
  const auto& [number, name, layout, unpack] = *find_row(type);
  const std::size_t block_values = static_cast<std::size_t>(layout.num_values);
  const std::size_t block_bytes = static_cast<std::size_t>(layout.num_bytes);
  const std::size_t num_blocks = data.size() / block_bytes;
  if (data.size() % block_bytes != 0 || out.size() % block_values != 0 || out.size() / block_values != num_blocks) {
    fail(ErrorKind::kUsage, "{} bytes of type {} are not {} values: a block of {} values takes {} bytes", data.size(), name, out.size(),
         block_values, block_bytes);
  }
  unpack(data.data(), num_blocks, out.data());
}

}  // namespace quiver::io
