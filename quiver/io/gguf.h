// GGUF, the file format of llama.cpp: typed metadata, then tensors, many of them quantised in blocks. Reading only.
#pragma once

#include <cstddef>
#include <cstdint>
#include <map>
#include <optional>
#include <span>
#include <string>
#include <string_view>
#include <variant>
#include <vector>

namespace quiver::io {

/// A tensor of more dimensions is refused; ggml has no more.
inline constexpr std::uint32_t kMaxGgufDims = 4;

/// The format's numbers of metadata types.
enum class GgufValueType : std::uint32_t {
  kUint8 = 0,
  kInt8 = 1,
  kUint16 = 2,
  kInt16 = 3,
  kUint32 = 4,
  kInt32 = 5,
  kFloat32 = 6,
  kBool = 7,
  kString = 8,
  kArray = 9,
  kUint64 = 10,
  kInt64 = 11,
  kFloat64 = 12,
};

/// ggml's tensor types, with ggml's numbers. A file may hold further ones (gguf_type_name knows them); those that are read have names here.
enum class GgufType : std::uint32_t {
  kF32 = 0,
  kF16 = 1,
  kQ4_0 = 2,
  kQ4_1 = 3,
  kQ5_0 = 6,
  kQ5_1 = 7,
  kQ8_0 = 8,
  kQ2_K = 10,
  kQ3_K = 11,
  kQ4_K = 12,
  kQ5_K = 13,
  kQ6_K = 14,
  kIQ4_NL = 20,
  kIQ4_XS = 23,
  kBF16 = 30,
};

/// A quantised row is a sequence of blocks: `num_values` values in `num_bytes` bytes. Plain types have blocks of one.
struct BlockLayout {
  std::int64_t num_values;
  std::int64_t num_bytes;
};
/// nullopt for a number that is no type of ggml.
std::optional<BlockLayout> find_block_layout(GgufType type);

/// "F32", "Q4_1", ...
std::string_view gguf_type_name(GgufType type);

/// One named tensor. `shape` is rows first, [out, in] for a linear weight (the file stores the reverse); rows lie one
/// after another, each a whole number of blocks. `data` is borrowed, and need not be aligned for its type.
struct GgufTensor {
  std::string name;
  GgufType type = GgufType::kF32;
  std::vector<std::int64_t> shape;
  std::span<const std::byte> data;

  std::int64_t num_elements() const;
};

/// A metadata value. Integers of every width become int64, floats double.
using GgufValue = std::variant<std::int64_t, double, bool, std::string, std::vector<std::int64_t>, std::vector<double>, std::vector<bool>,
                               std::vector<std::string>>;

/// A parsed, fully validated GGUF file of version 2 or 3, little-endian. Every tensor's `data` lies inside `bytes` and
/// has exactly the bytes of its shape and type; names and keys are unique. Immutable, thread-safe.
class GgufView {
 public:
  /// Parses `bytes`, which must outlive the view. `origin` names the source in messages.
  /// Throws kBadFormat, or kUnsupported (version 1, big-endian files, nested arrays, integers above 2^63 - 1).
  static GgufView parse(std::span<const std::byte> bytes, const std::string& origin);

  const std::string& origin() const { return origin_; }
  /// In the order of the file.
  std::span<const GgufTensor> tensors() const { return tensors_; }
  /// nullptr if absent.
  const GgufTensor* find(std::string_view name) const;
  /// Throws kNotFound, naming the origin, and a similar name if there is one.
  const GgufTensor& at(std::string_view name) const;

  const std::map<std::string, GgufValue, std::less<>>& metadata() const { return metadata_; }
  /// Adds the tensors of `other`, whose bytes must outlive this view, too. Throws kBadFormat for a name that is there already.
  void append(const GgufView& other);
  /// The bytes of a GGUF file with the same metadata and no tensors.
  std::string metadata_file() const;

  // find_*: nullptr or nullopt if the key is absent; kBadFormat if it holds another type. An integer also
  // serves as a float, and an empty array as an array of anything.
  const std::string* find_string(std::string_view key) const;
  std::optional<std::int64_t> find_int(std::string_view key) const;
  std::optional<double> find_float(std::string_view key) const;
  std::optional<bool> find_bool(std::string_view key) const;
  std::optional<std::vector<std::string>> find_string_array(std::string_view key) const;
  std::optional<std::vector<std::int64_t>> find_int_array(std::string_view key) const;

  // require_*: the same, but an absent key is kBadFormat too.
  const std::string& require_string(std::string_view key) const;
  std::int64_t require_int(std::string_view key) const;
  double require_float(std::string_view key) const;
  std::vector<std::string> require_string_array(std::string_view key) const;

 private:
  std::string origin_;
  std::span<const std::byte> head_;  ///< all before the first tensor's description
  std::map<std::string, GgufValue, std::less<>> metadata_;
  std::vector<GgufTensor> tensors_;
  std::map<std::string, std::size_t, std::less<>> index_;  ///< name to position in tensors_
};

/// True for the types that dequantize() knows: those of GgufType.
bool can_dequantize(GgufType type);

/// Their names: "F32, F16, ... and IQ4_XS".
std::string readable_gguf_types();

/// Writes the tensor's values as float32, row-major; `out` must hold exactly its elements (kUsage otherwise).
/// Throws kUnsupported, naming tensor and type, for a type that can_dequantize() refuses.
void dequantize(const GgufTensor& tensor, std::span<float> out);

/// The same over bare blocks: kUsage unless `data` holds exactly the blocks of `out.size()` values.
void dequantize(GgufType type, std::span<const std::byte> data, std::span<float> out);

}  // namespace quiver::io
