// The skills of Poly or MHR as a task mixes them.
#include <algorithm>

#include "quiver/base/error.h"
#include "quiver/base/near.h"
#include "quiver/merge/skills.h"
#include "quiver/methods/adapted_model.h"
#include "quiver/methods/adapter_form.h"
#include "quiver/methods/parts.h"

namespace quiver::methods {
namespace {

struct MixtureOptions {
  std::string name;
  static void describe(auto& schema) { schema.add(&MixtureOptions::name, "name", {.help = "the task", .has_flag = false}); }
};

adapters::LoraAdapter make_task_mixture(const LibraryContext& in, const MixtureOptions& options) {
  const auto kind = library::find_kind(in.source.kind);
  if (kind != library::AdapterKind::kPoly && kind != library::AdapterKind::kMhr) {
    fail(ErrorKind::kUsage, "method 'task={}' mixes the skills of `kind=poly` or `kind=mhr`; give one of them", options.name);
  }
  auto adapter = in_form_of(in.base.lm.spec(), task_mixture(in.library, *kind, options.name));
  check_fits_base(adapter, in.base, in.source.allow_other_base);
  return adapter;
}

}  // namespace

adapters::LoraAdapter task_mixture(const library::Library& library, library::AdapterKind kind, const std::string& task) {
  const std::string name = library::kind_name(kind);
  const auto mixing = library.find_mixing(name);
  if (!mixing) {
    fail(ErrorKind::kNotFound, "library '{}' has no {} skills; a build by recipe '{}' trains them", library.path().string(), name, name);
  }
  const auto& meta = mixing->meta;
  const auto& tasks = meta.tasks;
  const auto found = std::ranges::find(tasks, task);
  if (found == tasks.end()) {
    fail(ErrorKind::kNotFound, "the {} skills of library '{}' were not trained on task '{}'{}", name, library.path().string(), task,
         did_you_mean(task, tasks));
  }
  std::vector<adapters::LoraAdapter> skills;
  for (const auto& [skill, sha256] : meta.skills) {
    if (library.at(skill).sha256 != sha256) {
      fail(ErrorKind::kMismatch,
           "skill '{}' of library '{}' is not the one that the tasks' logits were trained with; train the {} skills again", skill,
           library.path().string(), name);
    }
    skills.push_back(library.load(skill));
  }
  const merge::MixShape shape{
      .rule = merge::parse_mix_rule(meta.rule), .unit = merge::parse_mix_unit(meta.granularity), .num_heads = meta.heads};
  const auto origin = format("the mixing of the {} skills of library '{}'", name, library.path().string());
  if (skills.empty()) fail(ErrorKind::kBadFormat, "{} names no skill", origin);
  const auto units = merge::mix_units(skills.front(), shape.unit).count;
  const bool is_wide = mixing->logits.scalar_type() == torch::kDouble;  // of a float64 base
  tensor::expect_tensors(
      {{"logits", mixing->logits}},
      {{"logits", {is_wide ? torch::kDouble : torch::kFloat, {std::ssize(tasks), units, shape.num_heads, std::ssize(skills)}}}}, origin,
      format("; train the {} skills again", name));
  return merge::mix_skills(skills, mixing->logits[found - tasks.begin()], shape, task);
}

Method task_of_skills() {
  return method_row(Family::kMerge,
                    {"task", "task", "skills (of kind poly or mhr) as task NAME mixes them", "Ponti et al. 2023, Caccia et al. 2023"},
                    make_task_mixture);
}

}  // namespace quiver::methods
