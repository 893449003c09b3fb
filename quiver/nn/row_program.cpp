#include "quiver/nn/row_program.h"

#include <torch/utils.h>

#include <algorithm>
#include <utility>

#include "quiver/backend/ops.h"

namespace quiver::nn {
namespace {

using torch::Tensor;

template <typename... F>
struct Overloaded : F... {
  using F::operator()...;
};

std::size_t at(Slot slot) { return static_cast<std::size_t>(slot); }

/// The slots whose values the step's own backward pass reads.
std::vector<Slot> gradient_reads(const Step& step) {
  return std::visit(Overloaded{[](const NormStep& s) { return std::vector<Slot>{s.in}; },
                               [](const LinearStep& s) { return s.linear.is_trained() ? std::vector<Slot>{s.in} : std::vector<Slot>{}; },
                               [](const ActivateStep& s) { return std::vector<Slot>{s.in}; },
                               [](const GateStep& s) {
                                 return std::vector<Slot>{s.gate, s.up};
                               },
                               [](const auto&) { return std::vector<Slot>{}; }},
                    step);
}

/// Whether the step's result is cheaper to compute again than to keep.
bool is_activation(const Step& step) { return std::holds_alternative<GateStep>(step) || std::holds_alternative<ActivateStep>(step); }

/// Whether the step leaves more than its result for its backward pass.
bool has_record(const Step& step) { return is_trained(step) || std::holds_alternative<NormStep>(step); }

/// x [T, groups * width] as [T * groups, width]; an undefined tensor stays so.
Tensor grouped(const Tensor& x, std::int64_t num_groups) {
  return x.defined() && num_groups > 1 ? x.view({x.size(0) * num_groups, -1}) : x;
}

/// The columns that a step takes, [T, heads, head_dim], as a view.
Tensor taken(const TakeStep& step, const Tensor& x) {
  return x.as_strided({x.size(0), step.num_heads, step.head_dim}, {x.stride(0), step.stride, 1}, x.storage_offset() + step.first);
}

void forward(const NormStep& step, RowState& state, StepRecord& record, const RowContext&) {
  const auto& [weight, bias, epsilon] = step.norm;
  const auto& x = state.slots[at(step.in)];
  const auto rows = grouped(x, step.num_groups);
  Tensor y;
  if (bias.defined()) {
    auto normed = backend::layer_norm(rows, weight, bias, epsilon);
    record.mean = std::move(normed.mean);
    record.inverse = std::move(normed.inverse_deviation);
    y = std::move(normed.y);
  } else {
    auto normed = backend::rms_norm(rows, weight, epsilon);
    record.inverse = std::move(normed.inverse_rms);
    y = std::move(normed.y);
  }
  state.slots[at(step.out)] = y.view_as(x);
}

void forward(const TakeStep& step, RowState& state, StepRecord&, const RowContext&) {
  const auto& x = state.slots[at(step.in)];
  state.slots[at(step.out)] = taken(step, x).reshape({x.size(0), -1}).contiguous();
}

void forward(const LinearStep& step, RowState& state, StepRecord& record, const RowContext& context) {
  const auto onto = step.onto == kNoSlot ? Tensor() : state.slots[at(step.onto)];
  state.slots[at(step.out)] = step.linear.forward(state.slots[at(step.in)], onto, context.rows, record.linear);
}

void forward(const RotateStep& step, RowState& state, StepRecord&, const RowContext& context) {
  const auto& x = state.slots[at(step.in)];
  auto& out = state.slots[at(step.out)];
  if (!out.defined()) out = torch::empty_like(x);
  const auto heads = [&](const Tensor& t) { return t.view({t.size(0), step.num_heads, -1}); };
  const auto& [cosine, sine] = context.angles[static_cast<std::size_t>(step.rope)];
  backend::rotate_into(heads(x), cosine, sine, backend::Rotation::kForward, heads(out));
}

void forward(const GateStep& step, RowState& state, StepRecord&, const RowContext&) {
  state.slots[at(step.out)] = backend::gated(step.activation, state.slots[at(step.gate)], state.slots[at(step.up)]);
}

void forward(const ActivateStep& step, RowState& state, StepRecord&, const RowContext&) {
  state.slots[at(step.out)] = backend::activated(step.activation, state.slots[at(step.in)]);
}

void forward(const AddStep& step, RowState& state, StepRecord&, const RowContext&) {
  state.slots[at(step.out)] = torch::add(state.slots[at(step.onto)], state.slots[at(step.in)], step.scale);
}

void forward(const Step& step, RowState& state, StepRecord& record, const RowContext& context) {
  std::visit([&](const auto& s) { forward(s, state, record, context); }, step);
}

void add_to(Tensor& sum, const Tensor& gradient) { sum = sum.defined() ? sum + gradient : gradient; }

/// What the backward pass of a step works with.
struct Backward {
  RowState& state;
  StepRecord& record;
  const RowContext& context;
  const SlotSet& requires_grad;
  std::vector<Tensor>& gradients;

  const Tensor& value(Slot slot) const { return state.slots[at(slot)]; }
  Tensor& gradient(Slot slot) const { return gradients[at(slot)]; }
  bool requires_grad_of(Slot slot) const { return requires_grad[at(slot)]; }

  void operator()(const NormStep& step) const {
    const auto& x = value(step.in);
    auto& dx = gradient(step.in);
    const auto dy = grouped(gradient(step.out), step.num_groups), rows = grouped(x, step.num_groups), onto = grouped(dx, step.num_groups);
    const auto& [weight, bias, epsilon] = step.norm;
    dx = (bias.defined() ? backend::layer_norm_gradient(dy, rows, weight, {{}, record.mean, record.inverse}, onto)
                         : backend::rms_norm_gradient(dy, rows, weight, record.inverse, onto))
             .view_as(x);
  }
  void operator()(const LinearStep& step) const {
    const auto dy = gradient(step.out);
    step.linear.backward(dy, value(step.in), requires_grad_of(step.in) ? &gradient(step.in) : nullptr, context.rows, record.linear);
    if (step.onto != kNoSlot && requires_grad_of(step.onto)) add_to(gradient(step.onto), dy);
  }
  void operator()(const RotateStep& step) const {
    const auto& dy = gradient(step.out);
    auto dx = torch::empty_like(dy, torch::MemoryFormat::Contiguous);
    const auto heads = [&](const Tensor& t) { return t.view({t.size(0), step.num_heads, -1}); };
    const auto& [cosine, sine] = context.angles[static_cast<std::size_t>(step.rope)];
    backend::rotate_into(heads(dy), cosine, sine, backend::Rotation::kBack, heads(dx));
    add_to(gradient(step.in), dx);
  }
  void operator()(const TakeStep& step) const {
    const auto& dy = gradient(step.out);
    auto& dx = gradient(step.in);
    if (!dx.defined()) dx = torch::zeros({dy.size(0), step.in_width}, dy.options());
    taken(step, dx).add_(dy.view({dy.size(0), step.num_heads, step.head_dim}));
  }
  void operator()(const GateStep& step) const {
    const auto [dgate, dup] = backend::gated_gradient(step.activation, gradient(step.out), value(step.gate), value(step.up));
    add_to(gradient(step.gate), dgate);
    add_to(gradient(step.up), dup);
  }
  void operator()(const ActivateStep& step) const {
    add_to(gradient(step.in), backend::activated_gradient(step.activation, gradient(step.out), value(step.in)));
  }
  void operator()(const AddStep& step) const {
    const auto dy = gradient(step.out);
    if (requires_grad_of(step.onto)) add_to(gradient(step.onto), dy);
    if (requires_grad_of(step.in)) add_to(gradient(step.in), step.scale == 1 ? dy : dy * step.scale);
  }
};

/// Computes a slot again where it was released and an activation writes it.
void restore(const RowProgram& program, Slot slot, RowState& state, const RowContext& context) {
  if (state.slots[at(slot)].defined()) return;
  for (const auto& step : program.steps()) {
    if (writes(step) != slot || !is_activation(step)) continue;
    StepRecord none;
    forward(step, state, none, context);
  }
}

}  // namespace

std::vector<Slot> reads(const Step& step) {
  return std::visit(Overloaded{[](const LinearStep& s) {
                                 return s.onto == kNoSlot ? std::vector<Slot>{s.in} : std::vector<Slot>{s.in, s.onto};
                               },
                               [](const GateStep& s) {
                                 return std::vector<Slot>{s.gate, s.up};
                               },
                               [](const AddStep& s) {
                                 return std::vector<Slot>{s.in, s.onto};
                               },
                               [](const auto& s) { return std::vector<Slot>{s.in}; }},
                    step);
}

Slot writes(const Step& step) {
  return std::visit([](const auto& s) { return s.out; }, step);
}

bool is_trained(const Step& step) {
  const auto* linear = std::get_if<LinearStep>(&step);
  return linear != nullptr && linear->linear.is_trained();
}

void mark_requires_grad(const RowProgram& program, SlotSet& requires_grad) {
  for (const auto& step : program.steps()) {
    const auto inputs = reads(step);
    if (is_trained(step) || std::ranges::any_of(inputs, [&](Slot slot) { return requires_grad[at(slot)]; })) {
      requires_grad[at(writes(step))] = true;
    }
  }
}

SlotSet saved_slots(const RowProgram& program, const SlotSet& requires_grad) {
  SlotSet saved(requires_grad.size(), false);
  for (const auto& step : program.steps()) {
    if (!requires_grad[at(writes(step))]) continue;
    for (const auto slot : gradient_reads(step)) saved[at(slot)] = true;
  }
  const auto& steps = program.steps();
  for (auto step = steps.rbegin(); step != steps.rend(); ++step) {
    if (!is_activation(*step) || !saved[at(writes(*step))]) continue;
    saved[at(writes(*step))] = false;
    for (const auto slot : reads(*step)) saved[at(slot)] = true;
  }
  return saved;
}

namespace {

/// Runs the steps for which is_run is true.
template <typename IsRun>
void run_steps(const RowProgram& program, RowState& state, const RowContext& context, const SlotSet& keep, const IsRun& is_run) {
  const auto& steps = program.steps();
  state.records.resize(steps.size());
  for (std::size_t i = 0; i < steps.size(); ++i) {
    if (is_run(i)) forward(steps[i], state, state.records[i], context);
    for (const auto slot : program.last_reads(i)) {
      if (!keep[at(slot)]) state.slots[at(slot)].reset();
    }
  }
}

}  // namespace

RowProgram::RowProgram(std::vector<Step> steps) : steps_(std::move(steps)), last_reads_(steps_.size()) {
  std::vector<Slot> read_later;
  for (auto i = steps_.size(); i-- > 0;) {
    for (const auto slot : reads(steps_[i])) {
      if (std::ranges::find(read_later, slot) != read_later.end()) continue;
      read_later.push_back(slot);
      last_reads_[i].push_back(slot);
    }
  }
}

void run_forward(const RowProgram& program, RowState& state, const RowContext& context, const SlotSet& keep) {
  run_steps(program, state, context, keep, [](std::size_t) { return true; });
}

void run_again(const RowProgram& program, RowState& state, const RowContext& context, const SlotSet& keep) {
  const auto& steps = program.steps();
  auto is_needed = keep;
  std::vector<bool> is_run(steps.size());
  for (auto i = steps.size(); i-- > 0;) {
    is_run[i] = is_needed[at(writes(steps[i]))] || has_record(steps[i]);
    if (!is_run[i]) continue;
    for (const auto slot : reads(steps[i])) is_needed[at(slot)] = true;
  }
  run_steps(program, state, context, keep, [&](std::size_t i) { return is_run[i]; });
}

void run_backward(const RowProgram& program, RowState& state, const RowContext& context, const SlotSet& requires_grad,
                  std::vector<Tensor>& gradients) {
  for (auto i = program.steps().size(); i-- > 0;) {
    const auto& step = program.steps()[i];
    if (!requires_grad[at(writes(step))]) continue;
    for (const auto slot : gradient_reads(step)) restore(program, slot, state, context);
    std::visit(Backward{state, state.records[i], context, requires_grad, gradients}, step);
    gradients[at(writes(step))].reset();
  }
}

void add_gradients(const RowProgram& program, const RowState& state) {
  const auto& steps = program.steps();
  for (std::size_t i = 0; i < steps.size(); ++i) {
    if (is_trained(steps[i])) std::get<LinearStep>(steps[i]).linear.add_gradients(state.records[i].linear);
  }
}

}  // namespace quiver::nn
