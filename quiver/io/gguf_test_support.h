// The bytes of GGUF files, for tests.
#pragma once

#include <cstdint>
#include <string>
#include <string_view>
#include <vector>

namespace quiver::io {

template <typename T>
std::string raw(T value) {
  return std::string(reinterpret_cast<const char*>(&value), sizeof(T));
}

inline std::string raw_string(std::string_view text) { return raw<std::uint64_t>(text.size()) + std::string(text); }

/// The first bytes of a file, up to its metadata.
inline std::string head(std::uint64_t num_tensors, std::uint64_t num_values, std::uint32_t version = 3) {
  return "GGUF" + raw(version) + raw(num_tensors) + raw(num_values);
}

inline std::string tensor_info(std::string_view name, const std::vector<std::uint64_t>& dims, std::uint32_t type, std::uint64_t offset) {
  std::string info = raw_string(name) + raw(static_cast<std::uint32_t>(dims.size()));
  for (const auto dim : dims) info += raw(dim);
  return info + raw(type) + raw(offset);
}

/// A file of one tensor and `data_bytes` of data.
inline std::string file_of(const std::string& info, std::size_t data_bytes) {
  std::string file = head(1, 0) + info;
  file.resize((file.size() + 31) / 32 * 32, '\0');
  return file.append(data_bytes, '\0');
}

inline std::string value_of(std::string_view key, std::uint32_t type, const std::string& value) {
  return head(0, 1) + raw_string(key) + raw(type) + value;
}

}  // namespace quiver::io
