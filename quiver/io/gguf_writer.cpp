#include "quiver/io/gguf_writer.h"

#include <algorithm>
#include <bit>
#include <cmath>
#include <cstring>
#include <limits>
#include <set>

#include "quiver/base/error.h"
#include "quiver/io/file.h"

namespace quiver::io {
namespace {

constexpr std::int64_t kAlignment = 32;  // of tensors' data, where general.alignment says nothing
constexpr std::int64_t kQ8Values = 32;

using Type = GgufValueType;

/// IEEE 754 binary16, rounded to nearest even.
std::uint16_t half_bits(float value) {
  const auto bits = std::bit_cast<std::uint32_t>(value);
  const std::uint32_t sign = (bits >> 16) & 0x8000U, magnitude = bits & 0x7fffffffU;
  if (magnitude > 0x7f800000U) return static_cast<std::uint16_t>(sign | 0x7e00U | (magnitude >> 13 & 0x3ffU));
  if (magnitude >= 0x477ff000U) return static_cast<std::uint16_t>(sign | 0x7c00U);  // rounds beyond the largest
  if (magnitude < 0x38800000U) {                                                    // subnormal: a multiple of 2^-24
    const float scaled = std::bit_cast<float>(magnitude) * 0x1p24F;
    return static_cast<std::uint16_t>(sign | static_cast<std::uint32_t>(std::nearbyint(scaled)));
  }
  const std::uint32_t rounded = magnitude + 0xfffU + (magnitude >> 13 & 1U);
  return static_cast<std::uint16_t>(sign | (rounded - (112U << 23)) >> 13);
}

std::uint16_t bfloat16_bits(float value) {
  const auto bits = std::bit_cast<std::uint32_t>(value);
  if ((bits & 0x7fffffffU) > 0x7f800000U) return static_cast<std::uint16_t>(bits >> 16 | 64U);  // a quiet NaN
  return static_cast<std::uint16_t>((bits + 0x7fffU + (bits >> 16 & 1U)) >> 16);
}

/// A block of Q8_0: a scale in F16, then 32 signed bytes.
void quantise_q8_block(const float* values, std::byte* block) {
  float largest = 0;
  for (std::int64_t i = 0; i < kQ8Values; ++i) largest = std::max(largest, std::abs(values[i]));
  const float d = largest / 127.0F, inverse = d == 0 ? 0.0F : 1.0F / d;
  const auto scale = half_bits(d);
  std::memcpy(block, &scale, sizeof(scale));
  for (std::int64_t i = 0; i < kQ8Values; ++i)
    block[2 + i] = static_cast<std::byte>(static_cast<std::int8_t>(std::round(values[i] * inverse)));
}

class Bytes {
 public:
  template <typename T>
  void add(T value) {
    bytes_.append(reinterpret_cast<const char*>(&value), sizeof(value));
  }
  void add_string(std::string_view text) {
    add(static_cast<std::uint64_t>(text.size()));
    bytes_ += text;
  }
  void pad() { bytes_.resize((bytes_.size() + kAlignment - 1) / kAlignment * kAlignment, '\0'); }
  const std::string& text() const { return bytes_; }

 private:
  std::string bytes_;
};

template <typename Stored>
Stored narrowed(std::int64_t value, const std::string& key) {
  if (value < static_cast<std::int64_t>(std::numeric_limits<Stored>::min()) ||
      value > static_cast<std::int64_t>(std::numeric_limits<Stored>::max())) {
    fail(ErrorKind::kUsage, "metadata '{}' is {}; a GGUF file holds it in 32 bits", key, value);
  }
  return static_cast<Stored>(value);
}

struct ValueWriter {
  Bytes& bytes;
  const std::string& key;

  void operator()(std::int64_t value) const { bytes.add(Type::kUint32), bytes.add(narrowed<std::uint32_t>(value, key)); }
  void operator()(double value) const { bytes.add(Type::kFloat32), bytes.add(static_cast<float>(value)); }
  void operator()(bool value) const { bytes.add(Type::kBool), bytes.add(static_cast<std::uint8_t>(value)); }
  void operator()(const std::string& value) const { bytes.add(Type::kString), bytes.add_string(value); }
  void operator()(const std::vector<std::int64_t>& values) const {
    begin_array(Type::kInt32, values.size());
    for (const auto value : values) bytes.add(narrowed<std::int32_t>(value, key));
  }
  void operator()(const std::vector<double>& values) const {
    begin_array(Type::kFloat32, values.size());
    for (const auto value : values) bytes.add(static_cast<float>(value));
  }
  void operator()(const std::vector<bool>& values) const {
    begin_array(Type::kBool, values.size());
    for (const bool value : values) bytes.add(static_cast<std::uint8_t>(value));
  }
  void operator()(const std::vector<std::string>& values) const {
    begin_array(Type::kString, values.size());
    for (const auto& value : values) bytes.add_string(value);
  }
  void begin_array(Type type, std::size_t size) const {
    bytes.add(Type::kArray), bytes.add(type), bytes.add(static_cast<std::uint64_t>(size));
  }
};

/// Everything before the tensors' data.
std::string preamble(const GgufMetadata& metadata, std::span<const GgufSource> tensors) {
  Bytes bytes;
  bytes.add(0x46554747U);  // "GGUF"
  bytes.add(3U);
  bytes.add(static_cast<std::uint64_t>(tensors.size()));
  bytes.add(static_cast<std::uint64_t>(metadata.size()));
  for (const auto& [key, value] : metadata) {
    bytes.add_string(key);
    std::visit(ValueWriter{bytes, key}, value);
  }
  std::set<std::string_view> names;
  std::uint64_t offset = 0;
  for (const auto& tensor : tensors) {
    if (!names.insert(tensor.name).second) fail(ErrorKind::kUsage, "tensor '{}' would be in the GGUF file twice", tensor.name);
    if (tensor.shape.empty() || tensor.shape.size() > kMaxGgufDims) {
      fail(ErrorKind::kUsage, "tensor '{}' has {} dimensions; a GGUF file holds 1 to {}", tensor.name, tensor.shape.size(), kMaxGgufDims);
    }
    bytes.add_string(tensor.name);
    bytes.add(static_cast<std::uint32_t>(tensor.shape.size()));
    for (auto dim = tensor.shape.rbegin(); dim != tensor.shape.rend(); ++dim) bytes.add(static_cast<std::uint64_t>(*dim));
    bytes.add(static_cast<std::uint32_t>(tensor.type));
    bytes.add(offset);
    const auto size = static_cast<std::uint64_t>(quantised_bytes(tensor.type, tensor.shape));
    offset += (size + kAlignment - 1) / kAlignment * kAlignment;
  }
  bytes.pad();
  return bytes.text();
}

}  // namespace

bool can_quantise(GgufType type) {
  return type == GgufType::kF32 || type == GgufType::kF16 || type == GgufType::kBF16 || type == GgufType::kQ8_0;
}

std::int64_t quantised_bytes(GgufType type, std::span<const std::int64_t> shape) {
  const auto layout = find_block_layout(type);
  if (!layout) fail(ErrorKind::kInternal, "no layout of tensor type {}", static_cast<std::uint32_t>(type));
  std::int64_t count = 1;
  for (const auto dim : shape) count *= dim;
  if (!shape.empty() && shape.back() % layout->num_values != 0) {
    fail(ErrorKind::kUsage, "a row of {} values is no whole number of {} blocks, which have {}", shape.back(), gguf_type_name(type),
         layout->num_values);
  }
  return count / layout->num_values * layout->num_bytes;
}

std::vector<std::byte> quantise(std::span<const float> values, GgufType type) {
  if (!can_quantise(type)) fail(ErrorKind::kUsage, "{} is not written; expected F32, F16, BF16 or Q8_0", gguf_type_name(type));
  const auto size = static_cast<std::int64_t>(values.size());
  std::vector<std::byte> bytes(static_cast<std::size_t>(quantised_bytes(type, {&size, 1})));
  if (type == GgufType::kF32) std::memcpy(bytes.data(), values.data(), bytes.size());
  if (type == GgufType::kQ8_0) {
    for (std::int64_t i = 0; i < size / kQ8Values; ++i)
      quantise_q8_block(values.data() + i * kQ8Values, bytes.data() + i * (kQ8Values + 2));
  }
  if (type == GgufType::kF16 || type == GgufType::kBF16) {
    for (std::size_t i = 0; i < values.size(); ++i) {
      const auto bits = type == GgufType::kF16 ? half_bits(values[i]) : bfloat16_bits(values[i]);
      std::memcpy(bytes.data() + 2 * i, &bits, sizeof(bits));
    }
  }
  return bytes;
}

std::string gguf_metadata_file(const GgufMetadata& metadata) { return preamble(metadata, {}); }

void write_gguf(const std::filesystem::path& path, const GgufMetadata& metadata, std::span<const GgufSource> tensors) {
  AtomicFileWriter writer(path);
  writer.write(preamble(metadata, tensors));
  for (const auto& tensor : tensors) {
    auto bytes = tensor.bytes();
    const auto expected = quantised_bytes(tensor.type, tensor.shape);
    if (std::ssize(bytes) != expected) {
      fail(ErrorKind::kInternal, "tensor '{}' was given {} bytes; its shape has {}", tensor.name, bytes.size(), expected);
    }
    bytes.resize((bytes.size() + kAlignment - 1) / kAlignment * kAlignment);
    writer.write(bytes);
  }
  writer.commit();
}

}  // namespace quiver::io
