#include "fuzz/jinja.h"

#include <cstdint>

extern "C" int LLVMFuzzerTestOneInput(const std::uint8_t* data, std::size_t size) {
  quiver::fuzz::run_jinja(std::as_bytes(std::span(data, size)));
  return 0;
}
