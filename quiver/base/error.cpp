#include "quiver/base/error.h"

#define FMT_HEADER_ONLY
#include <fmt/args.h>
#include <fmt/format.h>

namespace quiver {

int exit_code(ErrorKind kind) {
  switch (kind) {
    case ErrorKind::kUsage: return 2;
    case ErrorKind::kNotFound:
    case ErrorKind::kBadFormat:
    case ErrorKind::kMismatch:
    case ErrorKind::kUnsupported: return 3;
    case ErrorKind::kIo: return 4;
    case ErrorKind::kInterrupted: return 130;
    case ErrorKind::kInternal: return 70;
  }
  return 70;
}

const char* kind_name(ErrorKind kind) {
  switch (kind) {
    case ErrorKind::kUsage: return "usage";
    case ErrorKind::kNotFound: return "not found";
    case ErrorKind::kBadFormat: return "bad format";
    case ErrorKind::kMismatch: return "mismatch";
    case ErrorKind::kUnsupported: return "unsupported";
    case ErrorKind::kIo: return "input/output";
    case ErrorKind::kInterrupted: return "interrupted";
    case ErrorKind::kInternal: return "internal";
  }
  return "internal";
}

namespace detail {

std::string format_values(std::string_view pattern, const FormatValue* values, std::size_t count) {
  fmt::dynamic_format_arg_store<fmt::format_context> store;
  for (std::size_t i = 0; i < count; ++i) {
    std::visit([&store](const auto& value) { store.push_back(value); }, values[i]);
  }
  return fmt::vformat(fmt::string_view(pattern.data(), pattern.size()), store);
}

}  // namespace detail
}  // namespace quiver
