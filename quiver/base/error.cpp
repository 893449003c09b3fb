#include "quiver/base/error.h"

#define FMT_HEADER_ONLY
#include <fmt/args.h>
#include <fmt/format.h>

#include <iterator>

namespace quiver {

namespace {

struct KindRow {
  const char* name;
  int exit_code;
};
/// By ErrorKind.
constexpr KindRow kKinds[] = {{"usage", 2},       {"not found", 3},    {"bad format", 3},    {"mismatch", 3},
                              {"unsupported", 3}, {"input/output", 4}, {"interrupted", 130}, {"internal", 70}};
static_assert(std::size(kKinds) == static_cast<std::size_t>(ErrorKind::kInternal) + 1, "a row for each kind");

}  // namespace

int exit_code(ErrorKind kind) { return kKinds[static_cast<std::size_t>(kind)].exit_code; }
const char* kind_name(ErrorKind kind) { return kKinds[static_cast<std::size_t>(kind)].name; }

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
