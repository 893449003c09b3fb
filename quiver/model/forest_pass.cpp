#include "quiver/model/forest_pass.h"

#include <ATen/Parallel.h>
#include <torch/utils.h>

#include <algorithm>
#include <utility>
#include <vector>

#include "quiver/backend/attention.h"
#include "quiver/backend/ops.h"
#include "quiver/backend/row_parts.h"
#include "quiver/nn/head_loss.h"

namespace quiver::model {
namespace {

using backend::RowPart;
using nn::RowRecord;
using torch::Tensor;

/// What one part of the rows keeps of the first half of a block: norm and q, k, v.
struct BeforeAttention {
  Tensor x, normed, inverse_rms;
  RowRecord q, k, v;
};

/// And of the second half: o, norm and MLP.
struct AfterAttention {
  Tensor attended, mid, normed, inverse_rms, gate, up;
  RowRecord o, gate_record, up_record, down;
};

/// What a layer keeps: attention's tensors of the whole batch, the rest by part.
struct LayerRecord {
  Tensor q, k, v, attended;  // attended [T, H D] is attention.out
  backend::Attended attention;
  std::vector<BeforeAttention> before;
  std::vector<AfterAttention> after;
};

bool trains_before_attention(const Llama::Block& block) {
  return block.q->has_parameters() || block.k->has_parameters() || block.v->has_parameters();
}

bool trains_after_attention(const Llama::Block& block) {
  return block.o->has_parameters() || block.gate->has_parameters() || block.up->has_parameters() || block.down->has_parameters();
}

class ForestPass {
 public:
  /// What is kept for backward: nothing, what it needs, or what that can be computed from again.
  enum class Keep { kNothing, kAll, kInputs };

  /// `wanted` is undefined for all rows.
  ForestPass(const Llama& model, const ForwardRows& rows, Tensor wanted, Keep keep)
      : model_(model),
        blocks_(model.blocks()),
        rows_(rows),
        wanted_(std::move(wanted)),
        keep_(keep == Keep::kAll),
        recompute_(keep == Keep::kInputs),
        embedded_(model.embed(rows)),
        bias_(backend::attention_bias(*rows.plan, embedded_.x.device(), embedded_.x.scalar_type())),
        parts_(embedded_.x.size(0), embedded_.x.is_cpu()),
        last_parts_(wanted_.defined() ? wanted_.size(0) : embedded_.x.size(0), embedded_.x.is_cpu()),
        layers_(blocks_.size()) {}

  /// The final hidden states of the wanted rows, [W, d].
  Tensor forward() {
    auto x = parts_of(embedded_.x);  // what entered the block at hand
    for (std::size_t layer = 0; layer < blocks_.size(); ++layer) {
      allocate(layer);
      parts_.for_each([&](const RowPart& part) {
        auto& mine = x[static_cast<std::size_t>(part.index)];
        if (layer > 0) {
          const auto attended = layers_[layer - 1].attended.narrow(0, part.begin, part.size());
          mine = after_attention(layer - 1, attended, mine, contiguous_rows(part), after_record(layer - 1, part));
        }
        before_attention(layer, mine, part);
      });
      attend(layer);
      if (recompute_) entered_.push_back(x);
      if (!keep_ && layer > 0) layers_[layer - 1] = {};
    }
    keep_ = keep_ || recompute_;  // from here on: backward begins with the second half of the last layer
    return finish(x.size() == 1 ? x.front() : torch::cat(x));
  }

  /// Given the gradient of forward()'s result, adds those of the projections' parameters to theirs.
  void backward(const Tensor& gradient) {
    std::size_t lowest = 0;  // below it nothing is trained
    while (lowest < blocks_.size() && !trains_before_attention(blocks_[lowest]) && !trains_after_attention(blocks_[lowest])) ++lowest;
    if (lowest == blocks_.size()) return;
    auto [dattended, dmid_of_all] = backward_of_finish(gradient);
    auto dmid = parts_of(dmid_of_all);
    if (recompute_) recompute(blocks_.size() - 1, /*second_half=*/false);
    for (auto layer = blocks_.size() - 1;; --layer) {
      const bool is_lowest = layer == lowest;
      if (is_lowest && !trains_before_attention(blocks_[layer])) return;
      auto& record = layers_[layer];
      const auto dqkv = backend::forest_attention_gradient(dattended.view_as(record.q), record.q, record.k, record.v, record.attention,
                                                           rows_.plan, model_.attention_scale(), bias_);
      if (recompute_ && !is_lowest) recompute(layer - 1, /*second_half=*/true);
      auto next_dattended = torch::empty_like(dattended);
      parts_.for_each([&](const RowPart& part) {
        auto& mine = record.before[static_cast<std::size_t>(part.index)];
        const auto rows = [&](const Tensor& t) { return t.narrow(0, part.begin, part.size()); };
        auto& dmid_of_part = dmid[static_cast<std::size_t>(part.index)];
        const auto dx = before_attention_gradient(layer, rows(dqkv.q), rows(dqkv.k), rows(dqkv.v), dmid_of_part, part, !is_lowest, mine);
        if (is_lowest) return;
        Tensor da;
        std::tie(da, dmid_of_part) = after_attention_gradient(layer - 1, dx, after_record(layer - 1, part));
        rows(next_dattended).copy_(da);
      });
      add_gradients_before(layer);
      record = {};
      if (is_lowest) return;
      add_gradients_after(layer - 1);
      dattended = next_dattended;
    }
  }

 private:
  std::int64_t head_width(std::int64_t heads) const { return heads * model_.config().head_dim; }
  double epsilon() const { return model_.config().rms_norm_eps; }
  const std::int32_t* groups() const { return rows_.groups.empty() ? nullptr : rows_.groups.data(); }
  RowRecord contiguous_rows(const RowPart& part) const { return {.first_row = part.begin, .groups = groups()}; }
  RowRecord wanted_rows(const RowPart& part) const {
    if (!wanted_.defined()) return contiguous_rows(part);
    return {.first_row = 0, .rows = wanted_.narrow(0, part.begin, part.size()), .groups = groups()};
  }
  std::vector<Tensor> parts_of(const Tensor& t) const {
    std::vector<Tensor> parts;
    for (std::int64_t i = 0; i < parts_.size(); ++i) parts.push_back(t.narrow(0, parts_.at(i).begin, parts_.at(i).size()));
    return parts;
  }
  AfterAttention* after_record(std::size_t layer, const RowPart& part) {
    return keep_ ? &layers_[layer].after[static_cast<std::size_t>(part.index)] : nullptr;
  }

  void allocate(std::size_t layer) {
    const auto& c = model_.config();
    const auto num_rows = embedded_.x.size(0);
    const auto options = embedded_.x.options();
    auto& record = layers_[layer];
    record.q = torch::empty({num_rows, c.num_heads, c.head_dim}, options);
    record.k = torch::empty({num_rows, c.num_kv_heads, c.head_dim}, options);
    record.v = torch::empty({num_rows, c.num_kv_heads, c.head_dim}, options);
    if (!keep_) return;
    record.before.resize(static_cast<std::size_t>(parts_.size()));
    if (layer + 1 < blocks_.size()) record.after.resize(static_cast<std::size_t>(parts_.size()));
  }

  /// What a layer keeps, once more, from what entered it.
  void recompute(std::size_t layer, bool second_half) {
    allocate(layer);
    const auto& x = entered_[layer];
    parts_.for_each([&](const RowPart& part) { before_attention(layer, x[static_cast<std::size_t>(part.index)], part); });
    attend(layer);
    if (second_half) {
      parts_.for_each([&](const RowPart& part) {
        const auto attended = layers_[layer].attended.narrow(0, part.begin, part.size());
        after_attention(layer, attended, x[static_cast<std::size_t>(part.index)], contiguous_rows(part), after_record(layer, part),
                        /*needs_result=*/blocks_[layer].down->has_parameters());
      });
    }
    entered_[layer].clear();
  }

  /// Norm, q, k and v of one part of the rows, into the layer's tensors.
  void before_attention(std::size_t layer, const Tensor& x, const RowPart& part) {
    const auto& block = blocks_[layer];
    auto& record = layers_[layer];
    const auto rows = [&](const Tensor& t) { return t.narrow(0, part.begin, part.size()); };
    const auto normed = backend::rms_norm_rows(x, block.input_norm, epsilon());
    BeforeAttention mine{x, normed.y, normed.inverse_rms, contiguous_rows(part), contiguous_rows(part), contiguous_rows(part)};
    const auto cosine = rows(embedded_.cosine), sine = rows(embedded_.sine);
    auto q = rows(record.q), k = rows(record.k), v = rows(record.v);
    backend::rotate_into(block.q->forward_rows(normed.y, {}, mine.q).view_as(q), cosine, sine, backend::Rotation::kForward, q);
    backend::rotate_into(block.k->forward_rows(normed.y, {}, mine.k).view_as(k), cosine, sine, backend::Rotation::kForward, k);
    v.copy_(block.v->forward_rows(normed.y, {}, mine.v).view_as(v));
    if (keep_) record.before[static_cast<std::size_t>(part.index)] = std::move(mine);
  }

  void attend(std::size_t layer) {
    auto& record = layers_[layer];
    update_cache(rows_, layer, record.k, record.v);
    record.attention = backend::forest_attention_rows(record.q, record.k, record.v, rows_.plan, model_.attention_scale(), bias_);
    record.attended = record.attention.out.view({record.attention.out.size(0), -1});
  }

  /// o and the MLP of some rows: `x` is what entered the block. Returns what leaves it, if needed.
  Tensor after_attention(std::size_t layer, const Tensor& attended, const Tensor& x, const RowRecord& which, AfterAttention* keep,
                         bool needs_result = true) {
    const auto& block = blocks_[layer];
    AfterAttention mine;
    mine.o = mine.gate_record = mine.up_record = mine.down = which;
    mine.attended = attended;
    mine.mid = block.o->forward_rows(attended, x, mine.o);
    auto normed = backend::rms_norm_rows(mine.mid, block.post_norm, epsilon());
    mine.gate = block.gate->forward_rows(normed.y, {}, mine.gate_record);
    mine.up = block.up->forward_rows(normed.y, {}, mine.up_record);
    Tensor result;
    if (needs_result) result = block.down->forward_rows(backend::swiglu(mine.gate, mine.up), mine.mid, mine.down);
    if (keep != nullptr) {
      if (block.gate->has_parameters() || block.up->has_parameters()) mine.normed = normed.y;
      mine.inverse_rms = normed.inverse_rms;
      *keep = std::move(mine);
    }
    return result;
  }

  /// After the last attention: the wanted rows alone.
  Tensor finish(const Tensor& x) {
    const auto layer = blocks_.size() - 1;
    const auto of_wanted = [&](const Tensor& t) { return wanted_.defined() ? t.index_select(0, wanted_) : t; };
    const auto attended = of_wanted(layers_[layer].attended), entered = of_wanted(x);
    auto hidden = torch::empty_like(entered);
    if (keep_) {
      last_.resize(static_cast<std::size_t>(last_parts_.size()));
      layers_[layer].after.resize(static_cast<std::size_t>(last_parts_.size()));
    }
    last_parts_.for_each([&](const RowPart& part) {
      const auto rows = [&](const Tensor& t) { return t.narrow(0, part.begin, part.size()); };
      const auto left = after_attention(layer, rows(attended), rows(entered), wanted_rows(part), after_record(layer, part));
      const auto normed = backend::rms_norm_rows(left, model_.final_norm(), epsilon());
      rows(hidden).copy_(normed.y);
      if (keep_) last_[static_cast<std::size_t>(part.index)] = {left, normed.inverse_rms};
    });
    return hidden;
  }

  /// -> the gradients of what the last attention returned and of what entered the last block, past its MLP; of all rows.
  std::pair<Tensor, Tensor> backward_of_finish(const Tensor& gradient) {
    const auto layer = blocks_.size() - 1;
    auto dattended = torch::empty({gradient.size(0), head_width(model_.config().num_heads)}, gradient.options());
    auto dmid = torch::empty_like(gradient);
    last_parts_.for_each([&](const RowPart& part) {
      const auto rows = [&](const Tensor& t) { return t.narrow(0, part.begin, part.size()); };
      const auto& [left, inverse_rms] = last_[static_cast<std::size_t>(part.index)];
      const auto dleft = backend::rms_norm_gradient(rows(gradient), left, model_.final_norm(), inverse_rms, {});
      auto [da, dm] = after_attention_gradient(layer, dleft, after_record(layer, part));
      rows(dattended).copy_(da);
      rows(dmid).copy_(dm);
    });
    add_gradients_after(layer);
    if (!wanted_.defined()) return {dattended, dmid};
    const auto spread = [&](const Tensor& t) {
      return torch::zeros({embedded_.x.size(0), t.size(1)}, t.options()).index_add_(0, wanted_, t);
    };
    return {spread(dattended), spread(dmid)};
  }

  /// The gradient of what entered the block, given those of q, k, v and of the residual stream after o.
  Tensor before_attention_gradient(std::size_t layer, const Tensor& dq, const Tensor& dk, const Tensor& dv, const Tensor& dmid,
                                   const RowPart& part, bool needs_dx, BeforeAttention& record) {
    const auto& block = blocks_[layer];
    const auto rotated_back = [&](const Tensor& gradient) {
      auto out = torch::empty_like(gradient);
      backend::rotate_into(gradient, embedded_.cosine.narrow(0, part.begin, part.size()), embedded_.sine.narrow(0, part.begin, part.size()),
                           backend::Rotation::kBack, out);
      return out.view({part.size(), -1});
    };
    auto dnormed = block.q->backward_rows(rotated_back(dq), record.normed, {}, needs_dx, record.q);
    dnormed = block.k->backward_rows(rotated_back(dk), record.normed, dnormed, needs_dx, record.k);
    dnormed = block.v->backward_rows(dv.reshape({part.size(), -1}), record.normed, dnormed, needs_dx, record.v);
    if (!needs_dx) return {};
    return backend::rms_norm_gradient(dnormed, record.x, block.input_norm, record.inverse_rms, dmid);
  }

  /// The gradients of attention's result and of the residual stream after o, given that of what leaves the block.
  std::pair<Tensor, Tensor> after_attention_gradient(std::size_t layer, const Tensor& dx, AfterAttention* record) {
    const auto& block = blocks_[layer];
    const auto activation = block.down->has_parameters() ? backend::swiglu(record->gate, record->up) : Tensor();
    const auto dactivation = block.down->backward_rows(dx, activation, {}, true, record->down);
    const auto [dgate, dup] = backend::swiglu_gradient(dactivation, record->gate, record->up);
    auto dnormed = block.gate->backward_rows(dgate, record->normed, {}, true, record->gate_record);
    dnormed = block.up->backward_rows(dup, record->normed, dnormed, true, record->up_record);
    const auto dmid = backend::rms_norm_gradient(dnormed, record->mid, block.post_norm, record->inverse_rms, dx);
    return {block.o->backward_rows(dmid, record->attended, {}, true, record->o), dmid};
  }

  void add_gradients_before(std::size_t layer) {
    const auto& block = blocks_[layer];
    for (const auto& part : layers_[layer].before) {
      if (block.q->has_parameters()) block.q->add_gradients(part.q);
      if (block.k->has_parameters()) block.k->add_gradients(part.k);
      if (block.v->has_parameters()) block.v->add_gradients(part.v);
    }
  }

  void add_gradients_after(std::size_t layer) {
    const auto& block = blocks_[layer];
    for (const auto& part : layers_[layer].after) {
      if (block.o->has_parameters()) block.o->add_gradients(part.o);
      if (block.gate->has_parameters()) block.gate->add_gradients(part.gate_record);
      if (block.up->has_parameters()) block.up->add_gradients(part.up_record);
      if (block.down->has_parameters()) block.down->add_gradients(part.down);
    }
    layers_[layer].after.clear();
  }

  const Llama& model_;
  const std::vector<Llama::Block>& blocks_;
  const ForwardRows& rows_;
  Tensor wanted_;  // [W] int64
  bool keep_, recompute_;
  Llama::Embedded embedded_;
  Tensor bias_;  // of attention, on devices that need one
  backend::RowParts parts_, last_parts_;
  std::vector<LayerRecord> layers_;
  std::vector<std::vector<Tensor>> entered_;     // by layer and part: what entered the block, to compute the rest again
  std::vector<std::pair<Tensor, Tensor>> last_;  // by part: what leaves the last block, and its 1 / rms
};

Tensor index_tensor(std::span<const std::int64_t> rows, torch::Device device) {
  return torch::tensor(at::ArrayRef<std::int64_t>(rows.data(), rows.size()), torch::kLong).to(device);
}

using Keep = ForestPass::Keep;

}  // namespace

Tensor hidden_of(const Llama& model, const ForwardRows& rows, std::span<const std::int64_t> wanted) {
  const torch::NoGradGuard no_grad;
  return ForestPass(model, rows, index_tensor(wanted, model.placement().device), Keep::kNothing).forward();
}

Tensor hidden_of_all(const Llama& model, const ForwardRows& rows) {
  const torch::NoGradGuard no_grad;
  return ForestPass(model, rows, {}, Keep::kNothing).forward();
}

double add_loss_gradient(const Llama& model, const ForwardRows& rows, const LossTargets& targets, const PassOptions& options,
                         Tensor* terms) {
  const torch::NoGradGuard no_grad;
  ForestPass pass(model, rows, index_tensor(targets.rows, model.placement().device),
                  options.checkpoint_activations ? Keep::kInputs : Keep::kAll);
  const auto head = nn::head_loss_and_gradient(pass.forward(), model.head(), targets.tokens, targets.weights);
  pass.backward(head.gradient);
  if (terms != nullptr) *terms = head.terms;
  return head.loss;
}

double loss_of(const Llama& model, const ForwardRows& rows, const LossTargets& targets) {
  const torch::NoGradGuard no_grad;
  const auto scores = nn::score_targets(hidden_of(model, rows, targets.rows), model.head(), targets.tokens);
  return -(scores.log_prob.to(torch::kCPU, torch::kDouble) * targets.weights).sum().item<double>();
}

std::int64_t loss_gradient_bytes(const Llama& model, std::int64_t num_rows, std::int64_t num_targets, const PassOptions& options) {
  const auto& c = model.config();
  const auto element = static_cast<std::int64_t>(c10::elementSize(model.placement().dtype));
  const auto q = c.num_heads * c.head_dim, kv = c.num_kv_heads * c.head_dim, mlp = c.intermediate_size;
  std::int64_t records = 0;
  for (const auto& [path, projection] : model.projections()) records += projection->record_bytes();
  // A row's x, normed, q, k, v, attended, mid, normed, gate and up in a layer; inverse rms, log-sum-exp; what adapters keep.
  const auto layer = (4 * c.hidden_size + 2 * q + 2 * kv + 2 * mlp) * element + (2 + c.num_heads) * 4 + records / c.num_layers;
  const auto kept = options.checkpoint_activations ? c.num_layers * c.hidden_size * element + 2 * layer : c.num_layers * layer;
  // In passing: gradients of one layer, and attention's of keys and values by chunk in float32.
  const auto passing = (4 * mlp + 4 * c.hidden_size) * element + 4 * kv * 4;
  const auto logits = 2 * std::min<std::int64_t>(num_targets, 128 * at::get_num_threads()) * c.vocab_size * element;
  return num_rows * (kept + passing) + num_targets * layer + logits;
}

}  // namespace quiver::model
