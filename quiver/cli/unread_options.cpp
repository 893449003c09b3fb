#include "quiver/cli/unread_options.h"

#include <set>

#include "quiver/base/error.h"

namespace quiver::cli {

bool is_given(const CLI::App& command, const char* option) {
  const auto* found = command.get_option_no_throw(option);
  return found != nullptr && found->count() > 0;
}

void refuse_unread(const CLI::App& command, bool is_read, std::initializer_list<const char*> options, std::string_view readers,
                   std::string_view chosen) {
  if (is_read) return;
  for (const auto* option : options) {
    if (is_given(command, option)) fail(ErrorKind::kUsage, "{} is read by {}, not by {}; leave it out", option, readers, chosen);
  }
}

void refuse_names_twice(const char* option, const std::vector<std::string>& names) {
  std::set<std::string> seen;
  for (const auto& name : names) {
    if (!seen.insert(name).second) fail(ErrorKind::kUsage, "{} names '{}' twice", option, name);
  }
}

void refuse_kind_of_named(const CLI::App& command) {
  if (is_given(command, "--adapters") && is_given(command, "--kind"))
    fail(ErrorKind::kUsage, "--adapters names the adapters, so that nothing reads --kind; give one of both");
}

}  // namespace quiver::cli
