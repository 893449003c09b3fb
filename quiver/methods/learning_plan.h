// What a method of adaptation does, as a value: recipes::adapt carries it out.
#pragma once

#include <cstdint>
#include <filesystem>

#include "quiver/merge/skills.h"
#include "quiver/train/gradient_free.h"

namespace quiver::methods {

/// What is learnt.
enum class LearningStart {
  kFresh,    ///< a new LoRA
  kOne,      ///< the one adapter that the source names
  kMean,     ///< the mean of the adapters' factors
  kMixture,  ///< the adapters as skills, and their weights
  kSearch,   ///< weights of the adapters, by a search without gradients
};

enum class RetrieveBy {
  kRandom,
  kWeights,  ///< the cosine with the factors of a new LoRA of the task
  kFisher,   ///< what tasks ask of parameters
};

/// What a search without gradients minimises, on rows of the training data.
enum class SearchObjective {
  kRouge,  ///< -Rouge-L of what the model generates + penalty mean_k |w_k| (Ostapenko et al. 2024's code)
  kLoss,   ///< the loss + penalty sum_k |w_k| (LoraHub, Huang et al. 2023, eq. 4)
};

struct LearningPlan {
  LearningStart start = LearningStart::kFresh;

  // Of the adapters: all, or the `retrieve` nearest to the task.
  std::int64_t retrieve = 0;
  std::int64_t usual_retrieve = 0;  ///< instead of all where `retrieve` is 0
  RetrieveBy retrieve_by = RetrieveBy::kWeights;
  std::filesystem::path task_data;  ///< of the adapters' tasks, for kFisher
  std::int64_t task_samples = 16;   ///< training rows of a task

  // kMixture
  merge::MixShape shape;
  bool trains_skills = true;    ///< else the weights alone
  bool starts_equal = false;    ///< logits of 1 / n; else 0
  bool adds_new_skill = false;  ///< a new LoRA, trained on the task first, is the first skill
  double logit_rate = 0.1;      ///< peak learning rate of logits and weights

  // kSearch
  train::SearchOptions search;
  SearchObjective objective = SearchObjective::kRouge;
  double penalty = 0;
  std::int64_t search_rows = 0;  ///< training rows of the objective; 0: half of them
  std::int64_t max_new_tokens = 64;
};

}  // namespace quiver::methods
