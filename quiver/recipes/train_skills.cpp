#include "quiver/recipes/train_skills.h"

#include <torch/utils.h>

#include <algorithm>
#include <chrono>

#include "quiver/base/error.h"
#include "quiver/base/near.h"
#include "quiver/base/random.h"
#include "quiver/io/json.h"
#include "quiver/methods/artifact_key.h"
#include "quiver/train/mixture.h"

namespace quiver::recipes {
namespace {

using nlohmann::json;

std::string skill_name(library::AdapterKind kind, std::int64_t k) { return format("{}-{}", library::kind_name(kind), k); }

json skill_settings(const methods::BaseModel& base, const TrainingSetup& setup, const SkillSetup& skills) {
  auto settings = settings_json(setup, base);
  settings.update({{"num_skills", skills.num_skills},
                   {"heads", skills.shape.num_heads},
                   {"granularity", merge::mix_unit_name(skills.shape.unit)},
                   {"rule", merge::mix_rule_name(skills.shape.rule)},
                   {"logit_rate", skills.logit_rate},
                   {"initial_spread", skills.initial_spread}});
  if (skills.sample_weights) settings["sample_weights"] = true;
  return settings;
}

/// Skills that change nothing yet, each with a lora_a of its own.
std::vector<adapters::LoraAdapter> initial_skills(const methods::BaseModel& base, const TrainingSetup& setup, const SkillSetup& skills) {
  std::vector<adapters::LoraAdapter> initial;
  for (std::int64_t k = 0; k < skills.num_skills; ++k) {
    const auto name = skill_name(skills.kind, k);
    initial.push_back(FreshAdapter{name, setup.lora, setup.init, derive_seed(setup.train.seed, name)}.make(base));
  }
  return initial;
}

/// Whether the library holds all skills as of `key`. Throws kMismatch for skills of another key, unless `force`.
bool has_skills(const library::Library& library, const SkillSetup& skills, const std::string& key, bool force) {
  std::int64_t found = 0;
  for (const auto& [name, entry] : library.adapters()) {
    if (entry.info.kind != skills.kind) continue;
    if (entry.info.training.value("key", "") == key) {
      ++found;
    } else if (!force) {
      fail(ErrorKind::kMismatch,
           "library '{}' holds {} skills that were trained with other settings, data, dtype or base, or by another version of Quiver; "
           "`force=true` trains them again",
           library.path().string(), library::kind_name(skills.kind));
    }
  }
  return found == skills.num_skills && library.find_mixing(library::kind_name(skills.kind)).has_value();
}

/// Before the work: no skill takes the place of another adapter, or of files that are not Quiver's.
void check_names(const library::Library& library, std::span<const adapters::LoraAdapter> initial, const SkillSetup& skills, bool force) {
  for (const auto& skill : initial) {
    library.check_own_folder(skill.name);
    const auto* entry = library.find(skill.name);
    if (force || entry == nullptr || entry->info.kind == skills.kind) continue;
    fail(ErrorKind::kMismatch, "library '{}' holds an adapter '{}' of kind {}, whose name a skill needs; `force=true` replaces it",
         library.path().string(), skill.name, library::kind_name(entry->info.kind));
  }
  for (const auto& [name, entry] : library.adapters()) {
    if (entry.info.kind == skills.kind) library.check_own_folder(name);
  }
}

}  // namespace

std::vector<TrainedAdapter> train_skills(const methods::BaseModel& base, library::Library& library, const TrainingSetup& setup,
                                         const SkillSetup& skills, Progress& progress) {
  const auto start = std::chrono::steady_clock::now();
  if (skills.num_skills < 1) fail(ErrorKind::kUsage, "{} skills; expected 1 or more", skills.num_skills);
  if (setup.lora.use_dora) fail(ErrorKind::kUnsupported, "skills are mixed factor by factor: train them without `use_dora`");
  const std::string kind = library::kind_name(skills.kind);
  const auto data = load_training_data(base, setup.tasks, setup);
  const auto settings = skill_settings(base, setup, skills);
  const TrainingInputs inputs{base.lm, data, setup.train};
  const auto initial = initial_skills(base, setup, skills);
  const MixtureInputs mixed{kind, initial, static_cast<std::int64_t>(setup.tasks.size()),
                            train::MixtureOptions{.shape = skills.shape,
                                                  .logit_rate_ratio = skills.logit_rate / setup.train.optimizer.learning_rate,
                                                  .initial_spread = skills.initial_spread,
                                                  .seed = setup.train.seed,
                                                  .sample_weights = skills.sample_weights}};
  const auto key = methods::ArtifactKey("skills-1").add(inputs).add(mixed).add_value(setup.tasks).hex();
  std::vector<TrainedAdapter> results;
  if (has_skills(library, skills, key, setup.force)) {
    for (std::int64_t k = 0; k < skills.num_skills; ++k) {
      const auto name = skill_name(skills.kind, k);
      results.push_back(
          {.name = name,
           .kind = skills.kind,
           .stats = stored_stats(library.at(name).info.training, format("adapter '{}' of library '{}'", name, library.path().string()))});
    }
    return results;
  }
  check_names(library, initial, skills, setup.force);
  const auto mixture = mixed.make(base.lm.placement());
  auto trainer = inputs.trainer(std::shared_ptr<train::Trainable>(mixture));
  const auto checkpoint = library.path() / "checkpoints" / (kind + ".safetensors");
  const double step_seconds = train::run_training(trainer, kind, checkpoint, key, setup.checkpoint_seconds, progress);

  for (const auto& name : library.adapter_names()) {  // of other settings, with --force
    if (library.at(name).info.kind == skills.kind) library.remove(name);
  }
  std::vector<library::MixingMeta::Skill> list;  // in the order of the logits
  for (const auto& skill : mixture->skills(trainer.result())) {
    auto stats = trainer.stats();
    if (!results.empty()) stats = {.losses = stats.losses};  // steps, tokens and seconds count once, with the first
    const auto training = training_record(stats, key, settings);
    library.add(skill, {.kind = skills.kind, .tasks = setup.tasks, .group = kind, .training = training}, setup.force);
    list.push_back({skill.name, library.at(skill.name).sha256});
    results.push_back({.name = skill.name, .kind = skills.kind, .stats = std::move(stats), .is_new = true});
  }
  library.store_mixing(kind, {.logits = mixture->logits(trainer.result()),
                              .meta = {.tasks = setup.tasks,
                                       .skills = std::move(list),
                                       .rule = merge::mix_rule_name(skills.shape.rule),
                                       .granularity = merge::mix_unit_name(skills.shape.unit),
                                       .heads = skills.shape.num_heads}});
  train::remove_checkpoint(checkpoint);
  results.front().overhead_seconds = seconds_since(start) - step_seconds;
  return results;
}

}  // namespace quiver::recipes
