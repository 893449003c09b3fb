// Writing GGUF files: metadata, then tensors, as llama.cpp's converters lay them out.
#pragma once

#include <cstddef>
#include <filesystem>
#include <functional>
#include <map>
#include <span>
#include <string>
#include <vector>

#include "quiver/io/gguf.h"

namespace quiver::io {

/// Metadata by key. In a file an integer is UINT32, a float FLOAT32, an array of integers INT32 and an array of floats FLOAT32. These
/// are the types that llama.cpp reads the keys of models and adapters by.
using GgufMetadata = std::map<std::string, GgufValue, std::less<>>;

/// A tensor to be written. `shape` is rows first, as in GgufTensor.
struct GgufSource {
  std::string name;
  GgufType type = GgufType::kF32;
  std::vector<std::int64_t> shape;
  /// Gives the bytes, quantised_bytes of the shape. Called once, when the tensor's turn comes, so that one at a time is in memory.
  std::function<std::vector<std::byte>()> bytes;
};

/// Whether quantise() writes the type: F32, F16, BF16, Q8_0.
bool can_quantise(GgufType type);

/// The bytes of a tensor of this type and shape. Throws kUsage for a row that is no whole number of blocks.
std::int64_t quantised_bytes(GgufType type, std::span<const std::int64_t> shape);

/// Values as F32, F16 and BF16 (rounded to nearest even; NaN stays NaN) or Q8_0: blocks of 32 values d q, d = max |x| / 127 in F16, q = x /
/// d rounded to nearest, halves away from 0, as ggml's reference does. Throws kUsage for another type, and for Q8_0 of values that are no
/// whole number of blocks.
std::vector<std::byte> quantise(std::span<const float> values, GgufType type);

/// The bytes of a GGUF file without tensors. Throws as write_gguf.
std::string gguf_metadata_file(const GgufMetadata& metadata);

/// Writes a GGUF file of version 3, atomically. Throws kUsage for an integer beyond its type, a duplicate name, a key or shape that the
/// format does not hold; kInternal where a source gives other bytes than its shape has; kIo.
void write_gguf(const std::filesystem::path& path, const GgufMetadata& metadata, std::span<const GgufSource> tensors);

}  // namespace quiver::io
