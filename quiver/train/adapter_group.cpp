#include "quiver/train/adapter_group.h"

#include <torch/utils.h>

#include <algorithm>
#include <chrono>
#include <utility>

#include "quiver/base/error.h"
#include "quiver/base/profile.h"
#include "quiver/tensor/raw_data.h"

namespace quiver::train {
namespace {

const OneAdapter& one_adapter(Trainer& trainer) {
  const auto* one = dynamic_cast<const OneAdapter*>(&trainer.trained());
  if (one == nullptr) fail(ErrorKind::kInternal, "'{}' is not one adapter: it cannot be trained beside others", trainer.trained().name());
  return *one;
}

const adapters::LoraAdapter& adapter_of(Trainer& trainer) { return one_adapter(trainer).live(); }

void check_member(Trainer& first, Trainer& member) {
  const auto &a = adapter_of(first), &b = adapter_of(member);
  if (b.options.dropout > 0)
    fail(ErrorKind::kUnsupported, "adapter '{}' is trained with dropout, whose masks are drawn for its rows alone: train it alone", b.name);
  if (member.options().micro_batch_tokens > 0)
    fail(ErrorKind::kUnsupported, "adapter '{}' is trained in pieces of batches: train it alone", b.name);
  const auto &mine = first.options(), &other = member.options();
  if (mine.loss_mean != other.loss_mean || mine.share_prefixes != other.share_prefixes ||
      mine.checkpoint_activations != other.checkpoint_activations) {
    fail(ErrorKind::kMismatch, "adapters '{}' and '{}' differ in how a batch's loss is computed: they cannot be trained in one batch",
         a.name, b.name);
  }
  if (a.pairs.size() != b.pairs.size()) {
    fail(ErrorKind::kMismatch, "adapters '{}' and '{}' adapt {} and {} projections: they cannot be trained in one batch", a.name, b.name,
         a.pairs.size(), b.pairs.size());
  }
  for (const auto& [path, pair] : a.pairs) {
    const auto found = b.pairs.find(path);
    if (found == b.pairs.end() || found->second.rank() != pair.rank() || found->second.scaling() != pair.scaling()) {
      fail(ErrorKind::kMismatch, "adapters '{}' and '{}' differ in paths, rank or scaling at '{}': they cannot be trained in one batch",
           a.name, b.name, path);
    }
    if (found->second.magnitude().defined() || pair.magnitude().defined()) {
      fail(ErrorKind::kUnsupported, "adapter '{}' is a DoRA, which is trained alone", b.name);
    }
  }
}

/// An update by group for every path of the members' adapters.
std::map<std::string, GroupedTraining> grouped_updates(const nn::LinearMap& base, const std::vector<Trainer*>& members) {
  if (members.empty()) fail(ErrorKind::kUsage, "no adapter to train");
  for (auto* member : members) check_member(*members.front(), *member);
  const auto& first = adapter_of(*members.front());
  std::map<std::string, GroupedTraining> updates;
  for (const auto& [path, pair] : first.pairs) updates.emplace(path, GroupedTraining(linear_at(base, path, first.name), pair.scaling()));
  return updates;
}

}  // namespace

AdapterGroup::AdapterGroup(const model::Model& base, std::vector<Trainer*> members)
    : members_(std::move(members)), updates_(grouped_updates(base.linears(), members_)), adapted_(base, trained_updates(updates_)) {}

bool AdapterGroup::is_done() const {
  return std::ranges::all_of(members_, [](const Trainer* member) { return member->is_done(); });
}

std::int64_t AdapterGroup::next_batch_tokens() const {
  std::int64_t tokens = 0;
  for (const auto* member : members_) tokens += member->is_done() ? 0 : member->next_batch_tokens();
  return tokens;
}

void AdapterGroup::lay_out(const std::vector<Trainer*>& active) {
  const torch::NoGradGuard no_grad;
  for (auto& [path, update] : updates_) {
    std::vector<torch::Tensor> a, b;
    for (auto* member : active) {
      const auto& pair = adapter_of(*member).pairs.at(path);
      a.push_back(pair.lora_a());
      b.push_back(pair.lora_b());
    }
    update.set_factors(torch::stack(a), torch::stack(b));
  }
}

void AdapterGroup::collect(const std::vector<Trainer*>& active) {
  for (const auto& [path, update] : updates_) {
    for (std::size_t g = 0; g < active.size(); ++g) {
      auto& mine = one_adapter(*active[g]).sink(path).sums;
      for (std::size_t i = 0; i < mine.size(); ++i) mine[i].add_(update.sink->sums[i][static_cast<std::int64_t>(g)]);
    }
  }
}

void AdapterGroup::run_step() {
  const auto start = std::chrono::steady_clock::now();
  std::vector<Trainer*> active;
  std::vector<forest::Sequence> sequences;
  std::vector<std::int64_t> meant;  // by sequence
  std::vector<Trainer::Computed> computed;
  for (auto* member : members_) {
    if (member->is_done()) continue;
    const auto mine = member->begin_step();
    const auto whole = std::max<std::int64_t>(num_meant(mine, member->options().loss_mean), 1);
    computed.emplace_back();
    for (auto sequence : mine) {
      sequence.group = static_cast<std::int32_t>(active.size());
      computed.back().tokens += static_cast<std::int64_t>(sequence.tokens.size());
      sequences.push_back(std::move(sequence));
      meant.push_back(whole);
    }
    active.push_back(member);
  }
  if (active.empty()) fail(ErrorKind::kInternal, "the training of all members is over");
  const auto& options = active.front()->options();
  lay_out(active);
  const auto batch = [&] {
    const StageTimer timer(Stage::kBatch);
    return forest::build_batch(sequences, {.share_prefixes = options.share_prefixes});
  }();
  torch::Tensor terms;
  model::add_loss_gradient(adapted_, model::forest_rows(batch.forest), loss_targets(batch, options.loss_mean, meant),
                           {.checkpoint_activations = options.checkpoint_activations}, &terms);
  collect(active);
  const auto on_cpu = terms.to(torch::kCPU, torch::kDouble);
  const auto losses = tensor::elements<double>(on_cpu, "losses of a batch");
  for (std::size_t i = 0; i < batch.targets.size(); ++i) {
    const auto group = static_cast<std::size_t>(sequences[static_cast<std::size_t>(batch.targets[i].sequence)].group);
    computed[group].loss += losses[i];
  }
  for (const auto& segment : batch.forest.segments()) computed[static_cast<std::size_t>(segment.group)].rows += segment.length;
  const double seconds = std::chrono::duration<double>(std::chrono::steady_clock::now() - start).count();
  const auto all_rows = static_cast<double>(std::max<std::int64_t>(batch.forest.num_rows(), 1));
  for (std::size_t g = 0; g < active.size(); ++g) {
    computed[g].seconds = seconds * static_cast<double>(computed[g].rows) / all_rows;  // its share of the pass
    active[g]->finish_step(computed[g]);
  }
}

}  // namespace quiver::train
