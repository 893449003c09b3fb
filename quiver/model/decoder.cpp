#include "quiver/model/decoder.h"

#include <ATen/Parallel.h>
#include <torch/utils.h>

#include <algorithm>
#include <map>
#include <utility>
#include <vector>

#include "quiver/backend/attention.h"
#include "quiver/backend/row_parts.h"
#include "quiver/nn/head_loss.h"

namespace quiver::model {
namespace {

using backend::RowPart;
using nn::RowContext;
using nn::RowState;
using nn::Slot;
using nn::SlotSet;
using torch::Tensor;

constexpr Slot kAttentionInputs[] = {kQuery, kKey, kValue};

std::size_t at(std::int64_t index) { return static_cast<std::size_t>(index); }

/// The gradients that a layer computes, and the slots that it keeps for them.
struct GradientPlan {
  SlotSet requires_grad = SlotSet(kNumBlockSlots, false);
  SlotSet saved_before = SlotSet(kNumBlockSlots, false), saved_after = SlotSet(kNumBlockSlots, false);

  bool requires_grad_of(Slot slot) const { return requires_grad[at(slot)]; }
  bool needs_attention_gradient() const {
    return std::ranges::any_of(kAttentionInputs, [&](Slot slot) { return requires_grad_of(slot); });
  }
};

/// The plans of all layers, the lowest first: a slot requires a gradient where it depends on a trained parameter.
std::vector<GradientPlan> plan_gradients(const std::vector<Block>& blocks) {
  std::vector<GradientPlan> plans;
  for (const auto& block : blocks) {
    GradientPlan plan;
    plan.requires_grad[kInput] = !plans.empty() && plans.back().requires_grad_of(kOutput);
    nn::mark_requires_grad(block.before, plan.requires_grad);
    plan.requires_grad[kAttended] = plan.needs_attention_gradient();
    nn::mark_requires_grad(block.after, plan.requires_grad);
    plan.saved_before = nn::saved_slots(block.before, plan.requires_grad);
    plan.saved_after = nn::saved_slots(block.after, plan.requires_grad);
    plans.push_back(std::move(plan));
  }
  return plans;
}

/// What a layer holds: attention's tensors of the whole batch, and the row programs' by part.
struct LayerState {
  Tensor q, k, v;               // [T, H, D], [T, H_kv, D]
  backend::Attended attention;  // out [T, H, D]
  std::vector<RowState> before, after;
};

/// Activations stored for the backward pass.
enum class Keep {
  kNothing,  ///< inference
  kSaved,    ///< all that the gradient reads
  kInputs,   ///< what enters each block, from which the rest is computed again (activation checkpointing)
};

class DecoderPass {
 public:
  /// An undefined `wanted` means all rows.
  DecoderPass(const Model& model, const ForwardRows& rows, Tensor wanted, Keep keep)
      : model_(model),
        blocks_(model.blocks()),
        rows_(rows),
        wanted_(std::move(wanted)),
        keep_(keep),
        embedded_(model.embed(rows)),
        parts_(num_rows(), embedded_.x.is_cpu()),
        last_parts_(wanted_.defined() ? wanted_.size(0) : num_rows(), embedded_.x.is_cpu()),
        plans_(keep == Keep::kNothing ? std::vector<GradientPlan>(blocks_.size()) : plan_gradients(blocks_)),
        layers_(blocks_.size()) {
    for (const auto& [window, rope] : model.spec().layers) {
      if (attention_.contains(window)) continue;
      const auto plan = backend::windowed(rows.plan, window);
      attention_.emplace(window, Attention{plan, backend::attention_bias(*plan, embedded_.x.device(), embedded_.x.scalar_type())});
    }
    const auto* groups = rows_.groups.empty() ? nullptr : rows_.groups.data();
    for (std::int64_t i = 0; i < parts_.size(); ++i) {
      const auto part = parts_.at(i);
      contexts_.push_back({{part.begin, {}, groups}, {}});
      for (const auto& [cosine, sine] : embedded_.angles) contexts_.back().angles.push_back({of_part(cosine, part), of_part(sine, part)});
    }
    for (std::int64_t i = 0; i < last_parts_.size(); ++i) {
      const auto part = last_parts_.at(i);
      last_contexts_.push_back({{part.begin, wanted_.defined() ? of_part(wanted_, part) : Tensor(), groups}, {}});
    }
  }

  /// The final hidden states of the wanted rows, [W, d].
  Tensor forward() {
    auto x = parts_of(embedded_.x);  // what enters the block at hand
    for (std::size_t layer = 0; layer < blocks_.size(); ++layer) {
      allocate(layer);
      parts_.for_each([&](const RowPart& part) {
        auto& mine = x[at(part.index)];
        if (layer > 0) mine = run_after(layer - 1, part);
        run_before(layer, mine, part);
      });
      attend(layer);
      if (keep_ == Keep::kInputs) entered_.push_back(x);
      if (layer > 0 && keep_ != Keep::kSaved) layers_[layer - 1] = {};
    }
    return finish();
  }

  /// Given the gradient of forward()'s result, adds those of the trained parameters to their sinks.
  void backward(const Tensor& gradient) {
    if (!plans_.back().requires_grad_of(blocks_.back().result)) return;
    auto [dattended, dcarried] = backward_of_finish(gradient);
    if (keep_ == Keep::kInputs) compute_again(blocks_.size() - 1, /*with_after=*/false);
    for (auto layer = blocks_.size() - 1; plans_[layer].needs_attention_gradient(); --layer) {
      auto& state = layers_[layer];
      const auto& [plan, bias] = attention_of(layer);
      const auto dqkv = backend::forest_attention_gradient(dattended.view_as(state.q), state.q, state.k, state.v, state.attention, plan,
                                                           model_.attention_scores(), bias);
      const bool goes_on = plans_[layer].requires_grad_of(kInput);
      if (goes_on && keep_ == Keep::kInputs) compute_again(layer - 1, /*with_after=*/true);
      auto next_dattended = torch::empty_like(dattended);
      parts_.for_each([&](const RowPart& part) {
        auto& gradients = dcarried[at(part.index)];
        gradients[kQuery] = of_part(dqkv.q, part).view({part.size(), -1});
        gradients[kKey] = of_part(dqkv.k, part).view({part.size(), -1});
        gradients[kValue] = of_part(dqkv.v, part).reshape({part.size(), -1});
        nn::run_backward(blocks_[layer].before, state.before[at(part.index)], context(part), plans_[layer].requires_grad, gradients);
        if (!goes_on) return;
        gradients[kOutput] = std::exchange(gradients[kInput], {});
        nn::run_backward(blocks_[layer - 1].after, layers_[layer - 1].after[at(part.index)], context(part), plans_[layer - 1].requires_grad,
                         gradients);
        const auto da = std::exchange(gradients[kAttended], {});
        if (da.defined()) of_part(next_dattended, part).copy_(da);
      });
      for (const auto& part : state.before) nn::add_gradients(blocks_[layer].before, part);
      state = {};
      if (!goes_on) return;
      add_gradients_after(layer - 1);
      dattended = next_dattended;
    }
  }

 private:
  using Gradients = std::vector<Tensor>;  // by slot

  /// Which keys rows see, and the bias that says so on devices that need one.
  struct Attention {
    backend::AttentionPlanPtr plan;
    Tensor bias;
  };
  const Attention& attention_of(std::size_t layer) const { return attention_.at(model_.spec().layers[layer].window); }

  std::int64_t num_rows() const { return embedded_.x.size(0); }
  const RowContext& context(const RowPart& part) const { return contexts_[at(part.index)]; }
  static Tensor of_part(const Tensor& t, const RowPart& part) { return t.narrow(0, part.begin, part.size()); }
  std::vector<Tensor> parts_of(const Tensor& t) const {
    std::vector<Tensor> parts;
    for (std::int64_t i = 0; i < parts_.size(); ++i) parts.push_back(of_part(t, parts_.at(i)));
    return parts;
  }
  Tensor attended(std::size_t layer) const { return layers_[layer].attention.out.view({num_rows(), -1}); }

  void allocate(std::size_t layer) {
    const auto& attention = model_.spec().block.attention;
    auto& state = layers_[layer];
    state.q = torch::empty({num_rows(), attention.num_heads, attention.head_dim}, embedded_.x.options());
    state.k = torch::empty({num_rows(), attention.num_kv_heads, attention.head_dim}, embedded_.x.options());
    state.v = torch::empty({num_rows(), attention.num_kv_heads, attention.head_dim}, embedded_.x.options());
    state.before.resize(at(parts_.size()));
    state.after.resize(at(parts_.size()));
  }

  /// The slots of the first program that live on: those that the second one reads, and those that a gradient does.
  SlotSet kept_before(std::size_t layer, bool is_for_gradient) const {
    auto keep = is_for_gradient ? plans_[layer].saved_before : SlotSet(kNumBlockSlots, false);
    for (const auto slot : blocks_[layer].carried) keep[at(slot)] = true;
    return keep;
  }

  /// One part of the rows, from what enters the block to what attention reads. `again`: for a backward pass after checkpointing.
  void run_before(std::size_t layer, const Tensor& x, const RowPart& part, bool again = false) {
    auto& layer_state = layers_[layer];
    auto& state = layer_state.before[at(part.index)];
    state.slots.resize(kNumBlockSlots);
    state.slots[kInput] = x;
    const std::pair<Slot, Tensor> outputs[] = {{kQuery, layer_state.q}, {kKey, layer_state.k}, {kValue, layer_state.v}};
    for (const auto& [slot, all] : outputs) state.slots[at(slot)] = of_part(all, part).view({part.size(), -1});
    const auto bound = state.slots;  // where a step wrote elsewhere, its result is copied there
    auto keep = kept_before(layer, again || keep_ == Keep::kSaved);
    if (again) {
      for (const auto slot : kAttentionInputs) keep[at(slot)] = true;
      nn::run_again(blocks_[layer].before, state, context(part), keep);
    } else {
      nn::run_forward(blocks_[layer].before, state, context(part), keep);
    }
    for (const auto slot : kAttentionInputs) {
      auto& result = state.slots[at(slot)];
      if (!result.is_same(bound[at(slot)])) bound[at(slot)].copy_(result);
      result.reset();
    }
  }

  void attend(std::size_t layer) {
    auto& state = layers_[layer];
    update_cache(rows_, layer, state.k, state.v);
    const auto& [plan, bias] = attention_of(layer);
    state.attention = backend::forest_attention(state.q, state.k, state.v, plan, model_.attention_scores(), bias);
  }

  /// One part of the rows, from what attention gave to what leaves the block.
  Tensor run_after(std::size_t layer, const RowPart& part) {
    auto& before = layers_[layer].before[at(part.index)];
    RowState state;
    state.slots.resize(kNumBlockSlots);
    for (const auto slot : blocks_[layer].carried) {
      auto& carried = before.slots[at(slot)];
      state.slots[at(slot)] = carried;
      if (keep_ != Keep::kSaved || !plans_[layer].saved_before[at(slot)]) carried.reset();
    }
    state.slots[kAttended] = of_part(attended(layer), part);
    nn::run_forward(blocks_[layer].after, state, context(part), plans_[layer].saved_after);
    const auto result = std::exchange(state.slots[at(blocks_[layer].result)], {});
    if (keep_ == Keep::kSaved) layers_[layer].after[at(part.index)] = std::move(state);
    return result;
  }

  /// What a layer keeps for its gradient, once more, from what entered it.
  void compute_again(std::size_t layer, bool with_after) {
    allocate(layer);
    parts_.for_each([&](const RowPart& part) { run_before(layer, entered_[layer][at(part.index)], part, /*again=*/true); });
    attend(layer);
    if (with_after) {
      parts_.for_each([&](const RowPart& part) {
        auto& state = layers_[layer].after[at(part.index)];
        state.slots.resize(kNumBlockSlots);
        for (const auto slot : blocks_[layer].carried) state.slots[at(slot)] = layers_[layer].before[at(part.index)].slots[at(slot)];
        state.slots[kAttended] = of_part(attended(layer), part);
        nn::run_again(blocks_[layer].after, state, context(part), plans_[layer].saved_after);
      });
    }
    entered_[layer].clear();
  }

  /// A slot of the last block's first program, of the wanted rows.
  Tensor wanted_of(Slot slot) const {
    std::vector<Tensor> parts;
    for (const auto& part : layers_.back().before) parts.push_back(part.slots[at(slot)]);
    const auto all = parts.size() == 1 ? parts.front() : torch::cat(parts);
    return wanted_.defined() ? all.index_select(0, wanted_) : all;
  }

  /// After the last attention: the wanted rows alone. In training, this half is kept whatever the rest does.
  Tensor finish() {
    const auto layer = blocks_.size() - 1;
    const auto& block = blocks_[layer];
    const auto all_attended = attended(layer);
    const auto wanted_attended = wanted_.defined() ? all_attended.index_select(0, wanted_) : all_attended;
    Gradients carried(kNumBlockSlots);
    for (const auto slot : block.carried) carried[at(slot)] = wanted_of(slot);
    if (keep_ == Keep::kInputs) layers_[layer] = {};
    auto hidden = torch::empty({last_parts_.num_rows(), embedded_.x.size(1)}, embedded_.x.options());
    std::vector<RowState> states(at(last_parts_.size()));
    last_parts_.for_each([&](const RowPart& part) {
      auto& state = states[at(part.index)];
      state.slots.resize(kNumBlockSlots);
      for (const auto slot : block.carried) state.slots[at(slot)] = of_part(carried[at(slot)], part);
      state.slots[kAttended] = of_part(wanted_attended, part);
      nn::run_forward(block.after, state, last_contexts_[at(part.index)], plans_[layer].saved_after);
      of_part(hidden, part).copy_(std::exchange(state.slots[at(block.result)], {}));
      if (keep_ == Keep::kNothing) state = {};
    });
    last_states_ = std::move(states);
    return hidden;
  }

  /// -> the gradient of what the last attention gave, and by part those of the slots that the last block carried past it; of all rows.
  std::pair<Tensor, std::vector<Gradients>> backward_of_finish(const Tensor& gradient) {
    const auto& block = blocks_.back();
    const auto& plan = plans_.back();
    const auto widths = slot_widths(model_.spec());
    Gradients wanted(kNumBlockSlots);  // of the wanted rows
    auto slots = block.carried;
    slots.push_back(kAttended);
    std::erase_if(slots, [&](Slot slot) { return !plan.requires_grad_of(slot); });
    for (const auto slot : slots) wanted[at(slot)] = torch::empty({gradient.size(0), widths[at(slot)]}, gradient.options());
    last_parts_.for_each([&](const RowPart& part) {
      Gradients gradients(kNumBlockSlots);
      gradients[at(block.result)] = of_part(gradient, part);
      nn::run_backward(block.after, last_states_[at(part.index)], last_contexts_[at(part.index)], plan.requires_grad, gradients);
      for (const auto slot : slots) of_part(wanted[at(slot)], part).copy_(gradients[at(slot)]);
    });
    for (const auto& part : last_states_) nn::add_gradients(block.after, part);
    last_states_.clear();
    const auto spread = [&](const Tensor& t) {
      return wanted_.defined() ? torch::zeros({num_rows(), t.size(1)}, t.options()).index_add_(0, wanted_, t) : t;
    };
    std::vector<Gradients> by_part(at(parts_.size()), Gradients(kNumBlockSlots));
    for (const auto slot : slots) {
      if (slot == kAttended) continue;
      const auto parts = parts_of(spread(wanted[at(slot)]));
      for (std::size_t i = 0; i < parts.size(); ++i) by_part[i][at(slot)] = parts[i];
    }
    return {wanted[kAttended].defined() ? spread(wanted[kAttended]) : Tensor(), std::move(by_part)};
  }

  void add_gradients_after(std::size_t layer) {
    for (const auto& part : layers_[layer].after) nn::add_gradients(blocks_[layer].after, part);
    layers_[layer].after.clear();
  }

  const Model& model_;
  const std::vector<Block>& blocks_;
  const ForwardRows& rows_;
  Tensor wanted_;  // [W] int64
  Keep keep_;
  Model::Embedded embedded_;
  std::map<std::int64_t, Attention> attention_;  // by window
  backend::RowParts parts_, last_parts_;
  std::vector<GradientPlan> plans_;
  std::vector<LayerState> layers_;
  std::vector<RowContext> contexts_, last_contexts_;  // by part
  std::vector<std::vector<Tensor>> entered_;          // by layer and part: what entered the block, for Keep::kInputs
  std::vector<RowState> last_states_;                 // of the last block's second program, by part of the wanted rows
};

Tensor index_tensor(std::span<const std::int64_t> rows, torch::Device device) {
  return torch::tensor(at::ArrayRef<std::int64_t>(rows.data(), rows.size()), torch::kLong).to(device);
}

}  // namespace

Tensor hidden_of(const Model& model, const ForwardRows& rows, std::span<const std::int64_t> wanted) {
  const torch::NoGradGuard no_grad;
  return DecoderPass(model, rows, index_tensor(wanted, model.placement().device), Keep::kNothing).forward();
}

Tensor hidden_of_all(const Model& model, const ForwardRows& rows) {
  const torch::NoGradGuard no_grad;
  if (const auto* few = model.few_rows(); few != nullptr && few->takes(rows)) return few->hidden(model, rows);
  return DecoderPass(model, rows, {}, Keep::kNothing).forward();
}

double add_loss_gradient(const TrainedModel& trained, const ForwardRows& rows, const LossTargets& targets, const PassOptions& options,
                         Tensor* terms) {
  const torch::NoGradGuard no_grad;
  const auto& model = trained.model();
  DecoderPass pass(model, rows, index_tensor(targets.rows, model.placement().device),
                   options.checkpoint_activations ? Keep::kInputs : Keep::kSaved);
  const auto head = nn::head_loss_and_gradient(pass.forward(), model.head(), targets.tokens, targets.weights);
  pass.backward(head.gradient);
  if (terms != nullptr) *terms = head.terms;
  return head.loss;
}

double loss_of(const Model& model, const ForwardRows& rows, const LossTargets& targets) {
  const torch::NoGradGuard no_grad;
  const auto scores = nn::score_targets(hidden_of(model, rows, targets.rows), model.head(), targets.tokens);
  return -(scores.log_prob.to(torch::kCPU, torch::kDouble) * targets.weights).sum().item<double>();
}

std::int64_t loss_gradient_bytes(const TrainedModel& trained, std::int64_t num_rows, std::int64_t num_targets, const PassOptions& options) {
  const auto& model = trained.model();
  const auto& spec = model.spec();
  const auto& attention = spec.block.attention;
  const auto element = static_cast<std::int64_t>(c10::elementSize(model.placement().dtype));
  const auto widths = slot_widths(spec);
  const auto q = attention.query_width(), kv = attention.key_width(), mlp = spec.block.mlp.intermediate_size, d = spec.hidden_size;
  std::int64_t all = 0, largest = 0;  // bytes of a row: of all layers, and of the largest
  const auto plans = plan_gradients(model.blocks());
  for (std::size_t layer = 0; layer < plans.size(); ++layer) {
    const auto& plan = plans[layer];
    std::int64_t bytes = 0;
    for (Slot slot = 0; slot < kNumBlockSlots; ++slot) {
      const bool is_saved = plan.saved_before[at(slot)] || plan.saved_after[at(slot)];
      if (is_saved && slot != kAttended) bytes += widths[at(slot)] * element;  // attention keeps what it gave
    }
    if (plan.needs_attention_gradient() || plan.saved_after[kAttended]) bytes += (2 * q + 2 * kv) * element + attention.num_heads * 4;
    for (const auto* program : {&model.blocks()[layer].before, &model.blocks()[layer].after}) {
      for (const auto& step : program->steps()) {
        if (const auto* norm = std::get_if<nn::NormStep>(&step)) bytes += norm->num_groups * (norm->norm.bias.defined() ? 8 : 4);
        if (const auto* linear = std::get_if<nn::LinearStep>(&step)) bytes += linear->linear.saved_bytes_per_row();
      }
    }
    all += bytes;
    largest = std::max(largest, bytes);
  }
  const auto kept = options.checkpoint_activations ? spec.num_layers() * d * element + 2 * largest : all;
  // In passing: gradients of one layer, and attention's of keys and values by chunk in float32.
  const auto passing = (4 * mlp + 4 * d) * element + 4 * kv * 4;
  const auto logits = 2 * std::min<std::int64_t>(num_targets, 128 * ::at::get_num_threads()) * spec.vocab_size * element;
  return num_rows * (kept + passing) + num_targets * largest + logits;
}

}  // namespace quiver::model
