// Poly and MHR: a library of skills that tasks mix (Ponti et al. 2023, Caccia et al. 2023).
#pragma once

#include <cstdint>
#include <string>
#include <vector>

#include "quiver/library/library.h"
#include "quiver/merge/skills.h"
#include "quiver/recipes/build_library.h"

namespace quiver::recipes {

struct SkillSetup {
  library::AdapterKind kind = library::AdapterKind::kPoly;  ///< kPoly or kMhr: names the skills, "poly-0" or "mhr-0"
  std::int64_t num_skills = 8;
  merge::MixShape shape;
  double logit_rate = 0.1;       ///< peak learning rate of the logits
  bool sample_weights = false;   ///< train::MixtureOptions
  double initial_spread = 1e-3;  ///< of the logits, U(-spread, spread); MHR starts from 0
};

/// Trains K skills and the tasks' logits together on the joint examples of setup.tasks into the library: the skills as adapters of
/// setup.kind, the logits beside them (Library::store_mixing). Each skill starts from a lora_a of its own and lora_b zero.
/// Resumable, and refuses to replace skills of other settings, as train_adapter.
std::vector<TrainedAdapter> train_skills(const methods::BaseModel& base, library::Library& library, const TrainingSetup& setup,
                                         const SkillSetup& skills, Progress& progress);

}  // namespace quiver::recipes
