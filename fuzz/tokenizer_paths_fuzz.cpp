#include <cstdint>

#include "fuzz/tokenizer_paths.h"

extern "C" int LLVMFuzzerTestOneInput(const std::uint8_t* data, std::size_t size) {
  quiver::fuzz::run_tokenizer_paths(std::as_bytes(std::span(data, size)));
  return 0;
}
