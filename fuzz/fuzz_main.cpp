// A libFuzzer target: the function QUIVER_FUZZ_RUN of the header QUIVER_FUZZ_HEADER (see CMakeLists.txt).
#include <cstdint>

#include QUIVER_FUZZ_HEADER

extern "C" int LLVMFuzzerTestOneInput(const std::uint8_t* data, std::size_t size) {
  quiver::fuzz::QUIVER_FUZZ_RUN(std::as_bytes(std::span(data, size)));
  return 0;
}
