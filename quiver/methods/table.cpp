#include "quiver/methods/table.h"

#include "quiver/base/error.h"
#include "quiver/base/near.h"
#include "quiver/methods/merges.h"

// A row for each method that has a file of its own; rows of static merges by name alone stand in merges.cpp, those of adaptation in
// learning.cpp.
#define QUIVER_METHODS(ROW) \
  ROW(oracle)               \
  ROW(task_of_skills)       \
  ROW(arrow)                \
  ROW(spectr)               \
  ROW(lag)                  \
  ROW(lag_base)             \
  ROW(norm)                 \
  ROW(spectral)             \
  ROW(centroids)            \
  ROW(phatgoose)            \
  ROW(arrow_mean)           \
  ROW(calibrated_arrow)     \
  ROW(gated_arrow)          \
  ROW(pooled_arrow)         \
  ROW(logo)                 \
  ROW(retrieval)            \
  ROW(task_predictor)

namespace quiver::methods {

#define QUIVER_DECLARE(name) Method name();
QUIVER_METHODS(QUIVER_DECLARE)
#undef QUIVER_DECLARE
std::vector<Method> learning();  // the rows of the family kLearnt

namespace {

const Method& find(std::span<const Method> methods, std::string_view name, const char* what) {
  std::vector<std::string> names;
  for (const auto& method : methods) {
    if (name == method.name) return method;
    names.push_back(method.usage());
  }
  fail(ErrorKind::kUsage, "no {} '{}'{}; 'quiver methods' lists them", what, name, did_you_mean(name, names));
}

}  // namespace

const char* family_name(Family family) {
  switch (family) {
    case Family::kMerge: return "once for all";
    case Family::kToken: return "per token";
    case Family::kPrompt: return "per prompt";
    case Family::kLearnt: return "by training on a task";
  }
  return "";
}

const Option* Method::argument() const {
  for (const auto& option : options) {
    if (!option.about.has_flag) return &option;
  }
  return nullptr;
}

std::string Method::usage() const { return argument() == nullptr ? name : name + "=NAME"; }

std::span<const Method> reuse_methods() {
  static const auto all = [] {
    auto methods = merges();
    for (const auto family : {Family::kMerge, Family::kToken, Family::kPrompt}) {
#define QUIVER_ADD(name) \
  if (auto method = name(); method.family == family) methods.push_back(std::move(method));
      QUIVER_METHODS(QUIVER_ADD)
#undef QUIVER_ADD
    }
    return methods;
  }();
  return all;
}

std::span<const Method> learning_methods() {
  static const auto all = learning();
  return all;
}

const Method& reuse_method(std::string_view name) { return find(reuse_methods(), name, "method"); }
const Method& learning_method(std::string_view name) { return find(learning_methods(), name, "method of adaptation"); }

std::string methods_with(std::span<const Method> among, std::string_view option) {
  std::string names;
  for (const auto& method : among) {
    if (method.has(option)) names += (names.empty() ? "" : ", ") + method.name;
  }
  return names;
}

void expect_merge(const Method& method) {
  if (method.family == Family::kMerge) return;
  fail(ErrorKind::kUsage, "method '{}' chooses by token or prompt: it does not make one adapter of a library (mean does)", method.name);
}

void expect_routing(const Method& method) {
  if (method.family == Family::kToken || method.family == Family::kPrompt) return;
  fail(ErrorKind::kUsage, "method '{}' chooses nothing by token or prompt: there is no route to look at (arrow has some)", method.name);
}

}  // namespace quiver::methods
