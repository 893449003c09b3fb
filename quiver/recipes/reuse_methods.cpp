#include "quiver/recipes/reuse_methods.h"

#include "quiver/base/error.h"
#include "quiver/base/near.h"

namespace quiver::recipes {
namespace {

using enum ReuseFamily;

constexpr ReuseMethod kMethods[] = {
    {"mean", kMerge, "the mean of the factors A and of the factors B", "Ostapenko et al. 2024, mu"},
    {"mean-products", kMerge, "the mean of the updates B A, exactly", "Hu et al. 2021, sec. 4.1"},
    {"oracle=NAME", kMerge, "one adapter, named", "Ostapenko et al. 2024"},
    {"arrow", kToken, "the top k of |prototype . x|, weighted by their softmax", "Ostapenko et al. 2024, alg. 2"},
    {"spectr", kToken, "the top k of |V x| over all singular directions, weighted equally", "Fleshman and Van Durme 2025, arXiv 2504.03454"},
    {"lag", kToken, "Arrow's shortlist, then the one adapter with the largest |V x|", "Fleshman and Van Durme 2025, arXiv 2507.05346"},
    {"norm", kToken, "the top k of |s B A x|, calibrated, weighted by their softmax", "SEQR 2025, arXiv 2509.18093"},
    {"spectral", kToken, "the top k of |diag(sigma^gamma) V_c x|: --components c, --gamma", "the family of arrow, spectr and norm"},
    {"centroids", kToken, "the cosine of x with the mean input on the adapter's tasks", "Ostapenko et al. 2024, CM", true},
    {"arrow-mean", kToken, "Arrow, giving way to the mean where it is undecided (--fallback)", "Quiver"},
    {"calibrated-arrow", kToken, "Arrow on scores measured against those on text of no task", "Quiver"},
    {"gated-arrow", kToken, "calibrated Arrow plus the evidence of the whole prompt, the more the clearer that is", "Quiver"},
    {"pooled-arrow", kPrompt, "calibrated Arrow's evidence over the whole prompt, top k", "Quiver"},
    {"logo", kPrompt, "the top k norms of the updates at the prompt's last token, in proportion", "LoGo 2025, arXiv 2511.07129"},
    {"retrieval", kPrompt, "the top k adapters by the likeness of the prompt to texts of their tasks, equally", "Zhao et al. 2024, LoRA-Retriever", true},
};

}  // namespace

const char* family_name(ReuseFamily family) {
  switch (family) {
    case kMerge: return "once for all";
    case kToken: return "per token";
    case kPrompt: return "per prompt";
  }
  return "";
}

std::span<const ReuseMethod> reuse_methods() { return kMethods; }

const ReuseMethod& reuse_method(std::string_view name) {
  std::vector<std::string> names;
  for (const auto& method : kMethods) {
    if (name == method.name || (name.starts_with("oracle=") && std::string_view(method.name).starts_with("oracle="))) return method;
    names.emplace_back(method.name);
  }
  fail(ErrorKind::kUsage, "no method '{}'{}; 'quiver methods' lists them", name, did_you_mean(std::string(name), names));
}

}  // namespace quiver::recipes
