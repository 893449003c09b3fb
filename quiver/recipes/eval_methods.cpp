#include "quiver/recipes/eval_methods.h"

#include <algorithm>
#include <cctype>
#include <filesystem>
#include <string_view>

#include "quiver/base/error.h"
#include "quiver/base/near.h"
#include "quiver/methods/table.h"

namespace quiver::recipes {
namespace {

constexpr const char* kKinds[] = {"private", "cluster", "imported", "poly", "mhr"};

/// Whether a task's own adapter is a mixture of all of the kind.
bool is_mixed(const std::string& kind) { return kind == "poly" || kind == "mhr"; }

/// Whether a name begins with a kind of adapters that can be evaluated.
bool has_kind(const std::string& name) {
  return std::ranges::any_of(kKinds, [&](const std::string& kind) { return name.starts_with(kind + "-") || name.starts_with(kind + "/"); });
}

/// Where the path of "METHOD@PATH" begins: behind the first "@" outside of brackets. Nothing without one.
std::optional<std::size_t> begin_of_path(std::string_view name) {
  int depth = 0;
  for (std::size_t i = 0; i < name.size(); ++i) {
    if (name[i] == '(') ++depth;
    if (name[i] == ')') --depth;
    if (name[i] == '@' && depth == 0) return i + 1;
  }
  return std::nullopt;
}

/// The last part of a path.
std::string name_of_path(const std::string& path) {
  const auto plain = std::filesystem::path(path).lexically_normal();
  return (plain.has_filename() ? plain : plain.parent_path()).filename().string();
}

/// A name without a path.
EvalMethod parse_plain(const std::string& name) {
  using What = EvalMethod::What;
  if (name == "base") return {.what = What::kBase, .name = name, .label = "Base", .description = "the model without adapters"};
  if (name == "given")
    return {.what = What::kGiven, .name = name, .label = "Given", .description = "the adapters named on the command line"};
  if (name == "adapter") fail(ErrorKind::kUsage, "evaluation method 'adapter' names none: write adapter@FOLDER");
  if (name == "shared") {
    return {.name = name,
            .kind = "shared",
            .use = {.name = "mean"},
            .label = "Shared",
            .description = "one adapter trained on the joint data of all tasks"};
  }
  const auto parsed = has_kind(name) ? methods::parse_name(name) : methods::ComposedName{};
  if (parsed.kind.empty()) fail(ErrorKind::kUsage, "no evaluation method '{}'{}", name, did_you_mean(name, eval_methods()));
  const auto& kind = parsed.kind;
  const auto& row = parsed.use.row();
  auto label = kind + ", " + row.label + methods::given_text(row.options, parsed.use.options);
  label[0] = static_cast<char>(std::toupper(label[0]));
  auto description = format("over the {} adapters: {}", kind, row.what);
  if (row.name == "oracle") {
    description = is_mixed(kind)      ? "the skills as the sample's own task mixes them"
                  : kind == "cluster" ? "the adapter of the cluster that the sample's task is in"
                                      : "the " + kind + " adapter of the sample's own task";
  }
  return {.name = name, .kind = kind, .use = parsed.use, .label = label, .description = description};
}

}  // namespace

EvalMethod parse_eval_method(const std::string& name) {
  using What = EvalMethod::What;
  const auto begin = begin_of_path(name);
  if (!begin) return parse_plain(name);
  const auto plain = name.substr(0, *begin - 1), path = name.substr(*begin);
  if (path.empty()) fail(ErrorKind::kUsage, "evaluation method '{}' names no folder after '@'", name);
  if (plain == "adapter") {
    return {.what = What::kAdapter,
            .name = name,
            .path = path,
            .label = "Adapter " + name_of_path(path),
            .description = format("the adapter '{}'", path)};
  }
  auto method = parse_plain(plain);
  if (method.what != What::kOverKind) fail(ErrorKind::kUsage, "evaluation method '{}': '{}' is over no library", name, plain);
  method.name = name;
  method.path = path;
  method.label += format(" ({})", name_of_path(path));
  method.description += format(", of library '{}'", path);
  return method;
}

std::vector<std::string> eval_methods() {
  return {"base",         "shared",        "private-mean", "private-arrow",       "private-lag",    "private-gated-arrow",
          "cluster-mean", "cluster-arrow", "cluster-lag",  "cluster-gated-arrow", "private-oracle", "cluster-oracle"};
}

methods::AdapterUse use_of(const EvalMethod& method, const methods::AdapterUse& given) {
  if (method.what == EvalMethod::What::kGiven) return given;
  if (method.what == EvalMethod::What::kBase) return {};
  if (method.what == EvalMethod::What::kAdapter)
    return {.source = {.adapter = method.path, .allow_other_base = given.source.allow_other_base}, .method = {}};
  methods::AdapterUse use{.source = given.source, .method = method.use};
  use.source.adapter.clear();
  use.source.names.clear();
  use.source.kind = method.kind;
  if (!method.path.empty()) use.source.library = method.path;
  return use;
}

std::optional<methods::AdapterUse> use_for(const EvalMethod& method, const methods::AdapterUse& given, const library::Library* library,
                                           const std::string& task) {
  auto use = use_of(method, given);
  if (method.what != EvalMethod::What::kOverKind) return use;
  if (library == nullptr) fail(ErrorKind::kUsage, "evaluation method '{}' needs `library`", method.name);
  if (!method.is_oracle() || use.method.options.contains("name")) return use;
  if (is_mixed(method.kind)) {
    use.method = {.name = "task", .options = {{"name", task}}};
    return use;
  }
  for (const auto& [name, entry] : library->adapters()) {
    if (method.kind == library::kind_name(entry.info.kind) && std::ranges::find(entry.info.tasks, task) != entry.info.tasks.end()) {
      use.method.options["name"] = name;
      return use;
    }
  }
  return std::nullopt;
}

}  // namespace quiver::recipes
