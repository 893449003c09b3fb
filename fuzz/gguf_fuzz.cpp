#include <cstdint>

#include "fuzz/parsers.h"

extern "C" int LLVMFuzzerTestOneInput(const std::uint8_t* data, std::size_t size) {
  quiver::fuzz::run_gguf(std::as_bytes(std::span(data, size)));
  return 0;
}
