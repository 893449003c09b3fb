// What tests of methods share.
#pragma once

#include <string>

#include "quiver/methods/adapted_model.h"

namespace quiver::methods {

/// A library with options for whichever method is named: a method takes those that it has, as it does from the command line.
struct AnyMethod {
  AdapterSource source;
  std::string method = MethodUse().name;
  OptionValues options = OptionValues::object();

  AdapterUse use() const {
    auto parsed = parse_name(method).use;
    const auto& known = parsed.row().options;
    for (const auto& [name, value] : options.items()) {
      if (find_option(known, name) != nullptr && !parsed.options.contains(name)) parsed.options[name] = value;
    }
    for (const auto& option : known) {
      if (!has_what_it_needs(option, known, parsed.options)) parsed.options.erase(option.name);
    }
    return {.source = source, .method = parsed};
  }
};

}  // namespace quiver::methods
