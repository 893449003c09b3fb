#include "quiver/cli/command.h"

#include <algorithm>

#include "quiver/base/error.h"
#include "quiver/cli/unread_options.h"
#include "quiver/recipes/reuse_methods.h"

namespace quiver::cli {
namespace {

/// An option of methods, and the methods that read it: names, or families by "per token", "per prompt".
struct Reading {
  const char* option;
  std::vector<std::string> methods;
};

/// The merges that take an option; all for no flag.
std::vector<std::string> merges(bool merge::MergeMethod::*takes = nullptr) {
  std::vector<std::string> names;
  for (const auto& method : merge::merge_methods()) {
    if (takes == nullptr || method.*takes) names.emplace_back(method.name);
  }
  return names;
}

/// Whether a method uses several adapters of the library, not one that it names or a task's mixture.
bool reads_members(const std::string& method) { return !method.starts_with("oracle=") && !method.starts_with("task="); }

const std::vector<Reading>& readings() {
  static const std::vector<std::string> arrows = {"arrow", "arrow-mean", "lag-base", "calibrated-arrow", "gated-arrow", "pooled-arrow"};
  static const std::vector<std::string> calibrated = {"norm", "spectral", "lag-base", "calibrated-arrow", "gated-arrow", "pooled-arrow"};
  static const std::vector<Reading> all = {
      {"--top-k", {"per token", "per prompt"}},
      {"--temperature",
       {"arrow", "arrow-mean", "lag", "lag-base", "norm", "spectral", "centroids", "phatgoose", "calibrated-arrow", "gated-arrow",
        "pooled-arrow"}},
      {"--combine", {"per token", "per prompt"}},
      {"--tie", arrows},
      {"--tie-by", arrows},
      {"--weights", merges(&merge::MergeMethod::takes_weights)},
      {"--lambda", merges(&merge::MergeMethod::takes_lambda)},
      {"--density", merges(&merge::MergeMethod::takes_density)},
      {"--merge-rank", merges()},
      {"--calibration", calibrated},
      {"--calibration-prompts", calibrated},
      {"--task-threshold", {"lag-base", "gated-arrow"}},
      {"--pooled-weight", {"gated-arrow"}},
      {"--fallback", {"arrow-mean"}},
      {"--fallback-strength", {"arrow-mean"}},
      {"--components", {"spectral"}},
      {"--gamma", {"spectral"}},
      {"--calibrated", {"spectral"}},
      {"--centroid-score", {"centroids"}},
      {"--shortlist", {"lag", "lag-base"}},
      {"--gate-steps", {"phatgoose"}},
      {"--task-data", {"centroids", "phatgoose", "retrieval", "task-predictor"}},
      {"--task-samples", {"centroids", "retrieval", "task-predictor"}},
  };
  return all;
}

/// Options that say something of a library.
constexpr const char* kOfLibrary[] = {"--method", "--adapters", "--kind", "--general", "--general-by-factors"};

bool reads(const std::string& method, const Reading& reading, const recipes::AdapterChoice& choice) {
  if (method == "spectral" && std::string_view(reading.option).starts_with("--calibration") && !choice.is_calibrated) return false;
  const auto family = recipes::family_name(recipes::reuse_method(method).family);
  return std::ranges::any_of(reading.methods, [&](const std::string& reader) { return reader == method || reader == family; });
}

std::string listed(std::span<const std::string> names) {
  std::string text;
  for (const auto& name : names) text += (text.empty() ? "" : ", ") + name;
  return text;
}

/// Options that say which adapters of the library.
void check_members(const CLI::App& command, const recipes::AdapterChoice& choice, std::span<const std::string> methods) {
  refuse_names_twice("--adapters", choice.names);
  refuse_names_twice("--general", choice.general);
  for (const auto& name : choice.general) {
    if (std::ranges::find(choice.names, name) != choice.names.end()) {
      fail(ErrorKind::kUsage, "'{}' is one of --general, which are subtracted, and of --adapters, which are used; name it in one of them",
           name);
    }
  }
  const bool is_mixed = std::ranges::any_of(methods, [](const std::string& method) { return method.starts_with("task="); });
  if (!is_mixed) refuse_kind_of_named(command);
  if (methods.empty()) return;
  const bool has_members = std::ranges::any_of(methods, reads_members);
  constexpr const char* kReaders = "methods over several adapters";
  refuse_unread(command, has_members, {"--adapters", "--general", "--general-by-factors"}, kReaders, listed(methods));
  refuse_unread(command, has_members || is_mixed, {"--kind"}, kReaders, listed(methods));
}

}  // namespace

void check_adapter_options(const CLI::App& command, const recipes::AdapterChoice& choice, std::span<const std::string> methods) {
  if (!choice.adapter.empty() && !choice.library.empty())
    fail(ErrorKind::kUsage, "--adapter '{}' and --library '{}' exclude each other", choice.adapter, choice.library);
  if (choice.library.empty()) {
    const auto refuse = [&](const char* option) {
      if (is_given(command, option))
        fail(ErrorKind::kUsage, "{} is of a library, and no --library is given: nothing would read it", option);
    };
    for (const auto* option : kOfLibrary) refuse(option);
    for (const auto& reading : readings()) refuse(reading.option);
    if (choice.adapter.empty() && choice.allow_other_base)
      fail(ErrorKind::kUsage, "--allow-other-base is of adapters, and neither --adapter nor --library is given");
    return;
  }
  check_members(command, choice, methods);
  if (methods.empty()) return;  // any method may follow
  for (const auto& reading : readings()) {
    if (!is_given(command, reading.option)) continue;
    if (std::ranges::none_of(methods, [&](const std::string& method) { return reads(method, reading, choice); })) {
      fail(ErrorKind::kUsage, "{} is read by {}, not by {}; leave it out, or choose another --method", reading.option,
           listed(reading.methods), listed(methods));
    }
  }
}

void add_member_options(CLI::App& command, recipes::AdapterChoice& choice) {
  command.add_option("--library", choice.library, "A library of adapters");
  command.add_option("--adapters", choice.names, "Adapters of the library to use (default: the private and imported ones)")->delimiter(',');
  command.add_option("--kind", choice.kind, "Use the library's adapters of this kind: private, cluster, shared, imported, poly or mhr");
  auto* general = command.add_option("--general", choice.general,
                                     "Subtract the mean of these adapters of the library from the others first (GenKnowSub)");
  general->delimiter(',');
  command.add_flag("--general-by-factors", choice.general_by_factors, "Subtract factor by factor, as PEFT does, not exactly")
      ->needs(general);
  command.add_flag("--allow-other-base", choice.allow_other_base, "Use adapters that were made for another base model");
  command.parse_complete_callback([&command, &choice] { check_adapter_options(command, choice, {}); });
}

void add_library_options(CLI::App& command, recipes::AdapterChoice& choice) {
  add_member_options(command, choice);
  command
      .add_option("--method", choice.method,
                  "How to use the library: lag, arrow, mean, oracle=NAME, or another that 'quiver methods' lists")
      ->capture_default_str();
  command
      .add_option("--top-k", choice.top_k,
                  "Adapters per token and projection, or prompt (default: the method's, or all of a smaller library)")
      ->check(at_least(1));
  command.add_option("--temperature", choice.temperature, "Divides the scores before the softmax")->capture_default_str();
  command.add_option("--combine", choice.combine, "Mix params (the paper) or outputs (PEFT) (default: the method's)");
  command
      .add_option("--tie", choice.tie,
                  "arrow and its kin: projections of a block that share a prototype and decide as one: q_proj,k_proj,v_proj")
      ->delimiter(',');
  command.add_option("--tie-by", choice.tie_by, "What their prototype is of: concat, their updates one above another, or sum")
      ->capture_default_str()
      ->needs("--tie");
  command.add_option("--weights", choice.merge.weights, "Merges: a weight for each adapter, in name order")->delimiter(',');
  command.add_option("--lambda", choice.merge.lambda, "task-arithmetic: the factor of the sum");
  command.add_option("--density", choice.merge.density, "Merges by ties and dare: the share of entries kept");
  command.add_option("--merge-rank", choice.merge.rank, "Merges: compress the result to this rank");
  command.add_option("--calibration", choice.calibration.file,
                     "Texts of no task in particular, one a line, to calibrate scores on (default: samples of the base model)");
  command.add_option("--calibration-prompts", choice.calibration.num_prompts, "Number of texts to calibrate on")->capture_default_str();
  command
      .add_option("--task-threshold", choice.task_threshold,
                  "lag-base, gated-arrow: a prompt looks like a task at so many standard deviations above text of no task")
      ->capture_default_str();
  command.add_option("--pooled-weight", choice.pooled_weight, "gated-arrow: of the prompt's evidence where it is clear")
      ->capture_default_str();
  command.add_option("--fallback", choice.fallback, "arrow-mean: when it gives way: constant, entropy or margin")->capture_default_str();
  command.add_option("--fallback-strength", choice.fallback_strength, "arrow-mean: the constant share, or the power of the other two")
      ->capture_default_str();
  command.add_option("--components", choice.components, "spectral: singular directions of each adapter (0: all)")->capture_default_str();
  command.add_option("--gamma", choice.gamma, "spectral: power of the singular values")->capture_default_str();
  command.add_flag("--calibrated", choice.is_calibrated, "spectral: on scores measured against those on text of no task (--calibration)");
  command
      .add_option("--centroid-score", choice.centroid_score, "centroids: cosine (the paper), or dot, over the root of the width (its code)")
      ->capture_default_str();
  command.add_option("--shortlist", choice.shortlist, "lag: adapters that Arrow lets through")->capture_default_str();
  command.add_option("--gate-steps", choice.gate_steps, "phatgoose: training steps of an adapter's gates")->capture_default_str();
  command.add_option("--task-data", choice.task_data, "centroids, phatgoose, retrieval, task-predictor: folder of the adapters' tasks")
      ->capture_default_str();
  command
      .add_option("--task-samples", choice.task_samples,
                  "centroids, retrieval, task-predictor: training rows that stand for an adapter's tasks")
      ->capture_default_str();
  command.parse_complete_callback([&command, &choice] {
    if (!choice.library.empty()) recipes::reuse_method(choice.method);
    check_adapter_options(command, choice, std::span(&choice.method, 1));
  });
}

void add_adapter_options(CLI::App& command, recipes::AdapterChoice& choice) {
  command.add_option("--adapter", choice.adapter, "One adapter: a PEFT folder");
  add_library_options(command, choice);
}

}  // namespace quiver::cli
