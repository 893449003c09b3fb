// Methods as they are written: [KIND/]METHOD[=NAME][(OPTION=VALUE,...)].
#pragma once

#include <span>
#include <string>
#include <string_view>
#include <vector>

#include "quiver/methods/method.h"

namespace quiver::methods {

/// A method of reuse_methods() with values of options, those that are given.
struct MethodUse {
  std::string name = "gated-arrow";  ///< why this one: docs/decisions/0004-default-method.md
  OptionValues options = OptionValues::object();

  /// Throws kUsage for a name that is not in the table.
  const Method& row() const;
};

/// "arrow", "oracle=alpha", "lag-base(task_threshold=4)": what parse_name reads as the same method.
std::string text_of(const MethodUse& use);

/// What a name says: also the kind of adapters, where it begins with one, as in "cluster/arrow" or "cluster-arrow".
struct ComposedName {
  std::string kind;
  MethodUse use;
};

/// Reads one name:
///
///   name    = [kind ("/" | "-")] method ["=" NAME | "(" [pair {"," pair}] ")"]
///   pair    = option "=" value
///   value   = text without "," and ")"  |  "[" list "]"  |  JSON string
///
/// Throws kUsage for what is not of this form, for an unknown method or option, naming the nearest, and as parse_option.
ComposedName parse_name(std::string_view text);
/// Several names, separated by commas outside of brackets and quotes.
std::vector<std::string> split_names(std::string_view text);

}  // namespace quiver::methods
