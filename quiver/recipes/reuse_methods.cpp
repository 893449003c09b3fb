#include "quiver/recipes/reuse_methods.h"

#include "quiver/base/error.h"
#include "quiver/base/near.h"
#include "quiver/merge/registry.h"

namespace quiver::recipes {
namespace {

using enum ReuseFamily;

/// All but the merges, which have a registry of their own.
constexpr ReuseMethod kMethods[] = {
    {"oracle=NAME", kMerge, "one adapter, named", "Ostapenko et al. 2024"},
    {"task=NAME", kMerge, "skills (of kind poly or mhr) as task NAME mixes them", "Ponti et al. 2023, Caccia et al. 2023"},
    {"arrow", kToken, "the top k of |prototype . x|, weighted by their softmax", "Ostapenko et al. 2024, alg. 2"},
    {"spectr", kToken, "the top k of |V x| over all singular directions, weighted equally",
     "Fleshman and Van Durme 2025, arXiv 2504.03454"},
    {"lag", kToken, "Arrow's shortlist, then the one adapter with the largest |V x|", "Fleshman and Van Durme 2025, arXiv 2507.05346"},
    {"lag-base", kToken, "LAG where a prompt looks like a task of the library, the base alone where it does not", "Quiver"},
    {"norm", kToken, "the top k of |s B A x|, calibrated, weighted by their softmax", "SEQR 2025, arXiv 2509.18093"},
    {"spectral", kToken, "the top k of |diag(sigma^gamma) V_c x|, of c components", "the family of arrow, spectr and norm"},
    {"centroids", kToken, "the cosine of x with the mean input on the adapter's tasks", "Ostapenko et al. 2024, CM", true},
    {"phatgoose", kToken, "gates that each adapter learnt on its tasks, the top 2 by their softmax",
     "Muqeeth et al. 2024, arXiv 2402.05859", true},
    {"arrow-mean", kToken, "Arrow, giving way to the mean where it is undecided", "Quiver"},
    {"calibrated-arrow", kToken, "Arrow on scores measured against those on text of no task", "Quiver"},
    {"gated-arrow", kToken, "calibrated Arrow plus the evidence of the whole prompt, where that is clear", "Quiver"},
    {"pooled-arrow", kPrompt, "calibrated Arrow's evidence over the whole prompt, top k", "Quiver"},
    {"logo", kPrompt, "the top k norms of the updates at the prompt's last token, in proportion", "LoGo 2025, arXiv 2511.07129"},
    {"retrieval", kPrompt, "the top k adapters by the likeness of the prompt to texts of their tasks, equally",
     "Zhao et al. 2024, LoRA-Retriever", true},
    {"task-predictor", kPrompt, "the top k tasks of a classifier of prompts, learnt from texts of the tasks", "Ostapenko et al. 2024, TP",
     true},
};

constexpr MethodLine kRecipes[] = {
    {"private", "an adapter per task", "Ostapenko et al. 2024, sec. 3"},
    {"shared", "one adapter on the joint rows of the tasks", "Ostapenko et al. 2024, Shared"},
    {"mbc", "private adapters, their clusters by weight similarity, an adapter per cluster", "Ostapenko et al. 2024, alg. 1"},
    {"clusters", "an adapter per group of tasks that is there, however it came about ('quiver cluster')", "Ostapenko et al. 2024, table 2"},
    {"hidden", "clusters of tasks by the base's hidden states, an adapter per cluster", "Ostapenko et al. 2024, table 2, Embeddings"},
    {"tf-idf", "clusters of tasks by the words of their prompts, an adapter per cluster", "Ostapenko et al. 2024, table 2, with TF-IDF"},
    {"random-tasks", "groups of tasks by chance, an adapter per group", "Ostapenko et al. 2024, table 2, RandTask"},
    {"random-examples", "the joint rows cut into parts by chance, an adapter per part", "Ostapenko et al. 2024, table 2, RandExamples"},
    {"poly", "skills and, for each task, how it mixes them", "Ponti et al. 2023"},
    {"mhr", "the same, block by block of every projection", "Caccia et al. 2023"},
};

}  // namespace

std::span<const MethodLine> build_recipes() { return kRecipes; }

const char* family_name(ReuseFamily family) {
  switch (family) {
    case kMerge: return "once for all";
    case kToken: return "per token";
    case kPrompt: return "per prompt";
  }
  return "";
}

std::span<const ReuseMethod> reuse_methods() {
  static const auto all = [] {
    static const auto merges = merge::merge_methods();
    std::vector<ReuseMethod> methods;
    for (const auto& merge : merges) methods.push_back({merge.name, kMerge, merge.what, merge.paper});
    methods.insert(methods.end(), std::begin(kMethods), std::end(kMethods));
    return methods;
  }();
  return all;
}

const ReuseMethod& reuse_method(std::string_view name) {
  std::vector<std::string> names;
  for (const auto& method : reuse_methods()) {
    const std::string_view known(method.name);
    const auto with_name = known.substr(0, known.find('=') + 1);  // "oracle=", or empty
    if (name == known || (known.ends_with("=NAME") && name.starts_with(with_name))) return method;
    names.emplace_back(method.name);
  }
  fail(ErrorKind::kUsage, "no method '{}'{}; 'quiver methods' lists them", name, did_you_mean(std::string(name), names));
}

void expect_merge(std::string_view name) {
  if (reuse_method(name).family == ReuseFamily::kMerge) return;
  fail(ErrorKind::kUsage, "method '{}' chooses by token or prompt: it does not make one adapter of a library (mean does)", name);
}

void expect_routing(std::string_view name) {
  if (reuse_method(name).family != ReuseFamily::kMerge) return;
  fail(ErrorKind::kUsage, "method '{}' chooses nothing by token or prompt: there is no route to look at (arrow has some)", name);
}

}  // namespace quiver::recipes
