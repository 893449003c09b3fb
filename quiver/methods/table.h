// All ways of using a library and of learning from one, by name.
#pragma once

#include <span>
#include <string>
#include <string_view>

#include "quiver/methods/method.h"

namespace quiver::methods {

/// The methods that decide once for all, per token or per prompt, in this order.
std::span<const Method> reuse_methods();
/// The methods of the family kLearnt.
std::span<const Method> learning_methods();

/// The method of this name. Throws kUsage for a name that is not in the table, naming the nearest.
const Method& reuse_method(std::string_view name);
const Method& learning_method(std::string_view name);

/// The methods of `among` that have an option, in their order: "ties, dare".
std::string methods_with(std::span<const Method> among, std::string_view option);

/// Throws kUsage unless the method makes one adapter of a library.
void expect_merge(const Method& method);
/// Throws kUsage unless the method chooses by token or prompt.
void expect_routing(const Method& method);

}  // namespace quiver::methods
