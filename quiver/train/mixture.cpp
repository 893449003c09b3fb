#include "quiver/train/mixture.h"

#include <torch/csrc/autograd/autograd.h>
#include <torch/utils.h>

#include <utility>

#include "quiver/base/error.h"
#include "quiver/base/random.h"

namespace quiver::train {

Mixture::Mixture(std::string name, std::vector<adapters::LoraAdapter> skills, std::int64_t num_tasks, const MixtureOptions& options,
                 torch::Device device, torch::Dtype dtype)
    : name_(std::move(name)), skills_(std::move(skills)), num_tasks_(num_tasks), options_(options) {
  merge::check_skills(skills_, options.shape);
  if (num_tasks < 1) fail(ErrorKind::kUsage, "a mixture of skills is for 1 task or more, not {}", num_tasks);
  if (!(options.logit_rate_ratio > 0))
    fail(ErrorKind::kUsage, "the rate of the logits is {} times the skills'; expected above 0", options.logit_rate_ratio);
  if (options.sample_weights && options.shape.rule != merge::MixRule::kSigmoid) {
    fail(ErrorKind::kUsage, "weights are sampled where they are sigmoids, not by the rule '{}'", merge::mix_rule_name(options.shape.rule));
  }
  units_ = merge::mix_units(skills_.front(), options.shape.unit);
  const auto on = torch::TensorOptions().dtype(dtype).device(device);
  const auto num_skills = static_cast<std::int64_t>(skills_.size());
  RandomStream random(options.seed, "logits/" + name_);
  std::vector<torch::Tensor> parts = {
      (options.initial_logit +
       tensor::uniform({num_tasks, units_.count, options.shape.num_heads, num_skills}, options.initial_spread, random))
          .to(on)
          .flatten()};
  for (const auto& [path, pair] : skills_.front().pairs) {
    std::vector<torch::Tensor> a, b;
    for (const auto& skill : skills_) {
      a.push_back(skill.pairs.at(path).lora_a());
      b.push_back(skill.pairs.at(path).lora_b());
    }
    Factors stacked{torch::stack(a).to(on), torch::stack(b).to(on)};
    if (options.train_skills) {
      parts.push_back(stacked.a.flatten());
      parts.push_back(stacked.b.flatten());
    } else {
      frozen_.emplace(path, std::move(stacked));
    }
  }
  values_ = torch::cat(parts).detach();
  gradient_ = torch::zeros_like(values_);
}

torch::Tensor Mixture::logits_view(const torch::Tensor& values) const {
  const auto num_skills = static_cast<std::int64_t>(skills_.size());
  const auto size = num_tasks_ * units_.count * options_.shape.num_heads * num_skills;
  return values.narrow(0, 0, size).view({num_tasks_, units_.count, options_.shape.num_heads, num_skills});
}

std::map<std::string, Mixture::Factors> Mixture::factors(const torch::Tensor& values) const {
  if (!options_.train_skills) return frozen_;
  const auto num_skills = static_cast<std::int64_t>(skills_.size());
  std::vector<std::int64_t> sizes = {logits_view(values).numel()};
  for (const auto& [path, pair] : skills_.front().pairs) {
    sizes.push_back(num_skills * pair.lora_a().numel());
    sizes.push_back(num_skills * pair.lora_b().numel());
  }
  const auto pieces = values.split_with_sizes(sizes);  // one node of autograd: many narrow() would each have a gradient of all values
  std::map<std::string, Factors> views;
  std::size_t next = 1;
  const auto view = [&](const torch::Tensor& like) { return pieces[next++].view({num_skills, like.size(0), like.size(1)}); };
  for (const auto& [path, pair] : skills_.front().pairs) {
    auto a = view(pair.lora_a());  // in this order
    auto b = view(pair.lora_b());
    views.emplace(path, Factors{std::move(a), std::move(b)});
  }
  return views;
}

torch::Tensor Mixture::rate_factors(const OptimizerOptions& options) const {
  if (options_.logit_rate_ratio == 1 && options.lora_plus_ratio == 1) return {};
  auto rates = torch::ones_like(values_);
  logits_view(rates).fill_(options_.logit_rate_ratio);
  if (options_.train_skills) {
    for (auto& [path, at] : factors(rates)) at.b.fill_(options.lora_plus_ratio);
  }
  return rates;
}

nn::TrainedUpdates Mixture::attach(const nn::LinearMap& base) {
  for (const auto& [path, pair] : skills_.front().pairs) {
    updates_.emplace(path, GroupedTraining(linear_at(base, path, name_), pair.scaling()));
  }
  return trained_updates(updates_);
}

void Mixture::lay_out(std::span<const std::int32_t> groups) {
  for (const auto group : groups) {
    if (group < 0 || group >= num_tasks_) fail(ErrorKind::kInternal, "a sequence of group {} in a mixture for {} tasks", group, num_tasks_);
  }
  const torch::AutoGradMode with_grad(true);
  leaf_ = values_.detach().requires_grad_();
  const auto index = torch::tensor(std::vector<std::int64_t>(groups.begin(), groups.end()), torch::kLong).to(values_.device());
  auto z = logits_view(leaf_);
  if (options_.sample_weights && noise_seed_) {
    RandomStream random(*noise_seed_, "weights");
    z = merge::relaxed_bernoulli(z, random);
  }
  const auto weights = merge::mix_weights(z.index_select(0, index), options_.shape.rule).unbind(1);  // [G, S, K] by unit
  mixed_.clear();
  for (const auto& [path, skills] : factors(leaf_)) {
    const auto& mine = weights[static_cast<std::size_t>(units_.of_path.at(path))];
    Factors mixed{merge::mix_lora_a(skills.a, mine), merge::mix_lora_b(skills.b, mine)};
    updates_.at(path).set_factors(mixed.a, mixed.b);
    mixed_.emplace(path, std::move(mixed));
  }
}

void Mixture::collect() {
  std::vector<torch::Tensor> outputs, gradients;
  for (const auto& [path, mixed] : mixed_) {
    const auto& sums = updates_.at(path).sink->sums;
    outputs.insert(outputs.end(), {mixed.a, mixed.b});
    gradients.insert(gradients.end(), sums.begin(), sums.end());
  }
  gradient_.add_(torch::autograd::grad(outputs, {leaf_}, gradients).front());
}

void Mixture::set_dropout_masks(const MaskOf& mask) {
  if (dropout() == 0) return;
  for (const auto& [path, pair] : skills_.front().pairs) {
    updates_.at(path).update->set_dropout_mask(mask ? mask(path, pair.in_features()) : torch::Tensor());
  }
}

torch::Tensor Mixture::logits(const torch::Tensor& values) const {
  tensor::expect_like(values, values_, "values of a mixture");
  return logits_view(values).detach().to(torch::kCPU).clone();
}

std::vector<adapters::LoraAdapter> Mixture::skills(const torch::Tensor& values) const {
  tensor::expect_like(values, values_, "values of a mixture");
  auto result = skills_;
  for (const auto& [path, of_path] : factors(values)) {
    for (std::size_t k = 0; k < result.size(); ++k) {
      auto& pair = result[k].pairs.at(path);
      const auto own = [k](const torch::Tensor& t) {
        return t[static_cast<std::int64_t>(k)].detach().to(torch::kCPU).contiguous().clone();
      };
      pair = pair.with_tensors({own(of_path.a), own(of_path.b)});
    }
  }
  return result;
}

adapters::LoraAdapter Mixture::task_adapter(const torch::Tensor& values, std::int64_t task, const std::string& name) const {
  return merge::mix_skills(skills(values), logits(values)[task], options_.shape, name);
}

}  // namespace quiver::train
