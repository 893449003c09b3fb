// Every way of making a library, and of using it on inputs of unknown task, by name.
#pragma once

#include <span>
#include <string>
#include <string_view>
#include <vector>

namespace quiver::recipes {

/// When a method decides.
enum class ReuseFamily {
  kMerge,   ///< once for all: the library becomes one adapter
  kToken,   ///< at every token and projection
  kPrompt,  ///< once per prompt, from the prompt alone
};
const char* family_name(ReuseFamily family);

/// A method as `quiver methods` lists it.
struct ReuseMethod {
  const char* name;
  ReuseFamily family;
  const char* what;
  const char* source;
  bool needs_task_data = false;  ///< texts of the adapters' tasks (--task-data), or what was learnt from them
};

std::span<const ReuseMethod> reuse_methods();
/// Throws kUsage for a name that is not in the list, naming the nearest.
const ReuseMethod& reuse_method(std::string_view name);
/// Throws kUsage unless the method makes one adapter of a library.
void expect_merge(std::string_view name);
/// Throws kUsage unless the method chooses by token or prompt.
void expect_routing(std::string_view name);

/// A line of `quiver methods` on something else than a name for --method.
struct MethodLine {
  const char* name;
  const char* what;
  const char* source;
};
/// The recipes of `quiver build`.
std::span<const MethodLine> build_recipes();

}  // namespace quiver::recipes
