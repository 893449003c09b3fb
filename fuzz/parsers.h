// The fuzz targets of file formats: safetensors, GGUF, JSON lines, YAML.
#pragma once

#include <algorithm>
#include <string>
#include <utility>
#include <vector>

#include "fuzz/support.h"
#include "quiver/base/error.h"
#include "quiver/io/gguf.h"
#include "quiver/io/json.h"
#include "quiver/io/safetensors.h"
#include "quiver/io/yaml.h"

namespace quiver::fuzz {

/// Parses, touches all data, writes the tensors anew, and parses that: nothing may have changed.
inline void run_safetensors(std::span<const std::byte> bytes) {
  try {
    const auto view = io::SafetensorsView::parse(bytes, "fuzz");
    for (const auto& entry : view.entries()) touch_every_byte(entry.data);
    const std::string copy = io::serialize_safetensors(view.entries(), view.metadata());
    const auto again = io::SafetensorsView::parse(std::as_bytes(std::span(copy)), "copy");
    expect(again.metadata() == view.metadata(), "metadata changed in a round trip");
    expect(again.entries().size() == view.entries().size(), "tensors were lost in a round trip");
    for (const auto& entry : view.entries()) {
      const auto& other = again.at(entry.name);
      expect(other.dtype == entry.dtype && other.shape == entry.shape, "a tensor's type changed in a round trip");
      expect(std::ranges::equal(other.data, entry.data), "a tensor's data changed in a round trip");
    }
  } catch (const Error&) {
  }
}

/// Parses, touches all data, and dequantises what can be.
inline void run_gguf(std::span<const std::byte> bytes) {
  try {
    const auto view = io::GgufView::parse(bytes, "fuzz");
    for (const auto& tensor : view.tensors()) {
      touch_every_byte(tensor.data);
      if (!io::can_dequantize(tensor.type)) continue;
      std::vector<float> values(static_cast<std::size_t>(tensor.num_elements()));
      io::dequantize(tensor, values);
    }
  } catch (const Error&) {
  }
}

/// Reads all lines until the first error, and writes each anew. An odd first byte says: the rest is a zstd stream.
inline void run_jsonl(std::span<const std::byte> bytes) {
  if (bytes.empty()) return;
  const bool is_zstd = (static_cast<unsigned>(bytes[0]) & 1U) != 0;
  std::string text(reinterpret_cast<const char*>(bytes.data()) + 1, bytes.size() - 1);
  try {
    auto reader = io::JsonLinesReader::from_bytes(std::move(text), is_zstd ? "fuzz.zst" : "fuzz");
    while (const auto document = reader.next()) {
      const std::string copy = io::dump_json(*document, "copy");
      expect(io::parse_json(copy, "copy") == *document, "a document changed in a round trip");
    }
  } catch (const Error&) {
  }
}

/// Parses, and reads the value again as JSON, most of which is YAML too.
inline void run_yaml(std::span<const std::byte> bytes) {
  try {
    const auto document = io::parse_yaml({reinterpret_cast<const char*>(bytes.data()), bytes.size()}, "fuzz", {.max_values = 10'000});
    for (const auto& [pointer, line] : document.lines) expect(line >= 1 && document.line_of(pointer) == line, "a value without a line");
    for (const auto& [pointer, tag] : document.local_tags)
      expect(document.value.at(nlohmann::json::json_pointer(pointer)).is_string(), "a tag on no text");
    const std::string copy = io::dump_json(document.value, "copy");
    expect(io::parse_json(copy, "copy") == document.value, "a document changed in a round trip");
  } catch (const Error& error) {
    if (error.kind() == ErrorKind::kInternal) throw;
  }
}

}  // namespace quiver::fuzz
