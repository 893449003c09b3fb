// The safetensors format: 8 bytes of header length, a JSON header, then the tensors' bytes, without holes.
#pragma once

#include <cstddef>
#include <cstdint>
#include <filesystem>
#include <map>
#include <optional>
#include <span>
#include <string>
#include <string_view>
#include <vector>

namespace quiver::io {

enum class Dtype { kF64, kF32, kF16, kBF16, kI64, kI32, kI16, kI8, kU8, kBool };

/// Bytes of one element.
std::int64_t dtype_bytes(Dtype dtype);
/// The format's name: "F32", "BF16", "BOOL", ...
std::string_view dtype_name(Dtype dtype);
/// Inverse of dtype_name; nullopt for any other text.
std::optional<Dtype> dtype_from_name(std::string_view name);

/// One named tensor, row-major, little-endian. `data` is borrowed, and need not be aligned for its dtype.
struct TensorEntry {
  std::string name;
  Dtype dtype = Dtype::kF32;
  std::vector<std::int64_t> shape;  ///< empty for a scalar
  std::span<const std::byte> data;
};

/// A parsed, fully validated safetensors file. Every entry's `data` lies inside `bytes` and has exactly
/// product(shape) * sizeof(dtype) bytes; the entries cover the data section without overlap or hole; names are unique.
/// Nothing downstream re-checks this. A value type; immutable, thread-safe.
class SafetensorsView {
 public:
  /// A longer header is refused, as the format says.
  static constexpr std::uint64_t kMaxHeaderBytes = 100'000'000;

  /// Parses `bytes`, which must outlive the view. `origin` names the source in messages.
  /// Throws kBadFormat, or kUnsupported for a dtype of the format that Dtype lacks; never reads out of bounds.
  static SafetensorsView parse(std::span<const std::byte> bytes, std::string origin);

  /// In the order of their data.
  std::span<const TensorEntry> entries() const { return entries_; }
  /// nullptr if absent.
  const TensorEntry* find(std::string_view name) const;
  /// Throws kNotFound, naming the origin, and a similar name if there is one.
  const TensorEntry& at(std::string_view name) const;
  const std::map<std::string, std::string>& metadata() const { return metadata_; }
  const std::string& origin() const { return origin_; }

 private:
  std::vector<TensorEntry> entries_;
  std::map<std::string, std::size_t, std::less<>> index_;  ///< name to position in entries_
  std::map<std::string, std::string> metadata_;
  std::string origin_;
};

/// The bytes of a safetensors file, laid out as the Python library does: tensors by falling dtype size then name,
/// "__metadata__" first in the header (left out if `metadata` is empty), header padded with spaces to 8 bytes.
/// Throws kUsage on a duplicate, reserved or non-UTF-8 name, or if a shape does not fit its data.
std::string serialize_safetensors(std::span<const TensorEntry> entries, const std::map<std::string, std::string>& metadata = {});

/// serialize_safetensors into a file, atomically and without a second copy of the tensors in memory.
/// Throws kUsage or kIo.
void write_safetensors(const std::filesystem::path& path, std::span<const TensorEntry> entries,
                       const std::map<std::string, std::string>& metadata = {});

}  // namespace quiver::io
