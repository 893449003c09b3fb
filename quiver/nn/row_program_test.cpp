#include "quiver/nn/row_program.h"

#include <gtest/gtest.h>
#include <torch/utils.h>

#include <functional>

#include "quiver/nn/full_weight.h"
#include "quiver/testing/draw.h"

namespace quiver::nn {
namespace {

using testing::draw;
using torch::Tensor;

constexpr std::int64_t kRows = 7, kWidth = 8;
enum TestSlot : Slot { kA, kB, kC, kD, kE, kNumSlots };

Tensor values(std::uint64_t seed) { return draw({kRows, kWidth}, seed).to(torch::kDouble); }
SlotSet all_slots() { return SlotSet(kNumSlots, true); }

/// A step's result and the gradients of what it reads against a definition that autograd differentiates.
void expect_equals_autograd(const Step& step, const RowContext& context,
                            const std::function<Tensor(const std::vector<Tensor>&)>& definition) {
  const RowProgram program({step});
  RowState state;
  state.slots.resize(kNumSlots);
  std::vector<Tensor> leaves;
  for (const auto slot : reads(step)) {
    state.slots[static_cast<std::size_t>(slot)] = values(static_cast<std::uint64_t>(slot) + 1);
    leaves.push_back(state.slots[static_cast<std::size_t>(slot)].clone().requires_grad_());
  }
  run_forward(program, state, context, all_slots());
  const auto expected = definition(leaves);
  const auto out = static_cast<std::size_t>(writes(step));
  EXPECT_TRUE(torch::allclose(state.slots[out], expected, 1e-12, 1e-12));

  const auto upstream = draw(expected.sizes(), 99).to(torch::kDouble);
  expected.backward(upstream);
  std::vector<Tensor> gradients(kNumSlots);
  gradients[out] = upstream;
  run_backward(program, state, context, all_slots(), gradients);
  EXPECT_FALSE(gradients[out].defined());
  for (std::size_t i = 0; i < leaves.size(); ++i) {
    SCOPED_TRACE(i);
    EXPECT_TRUE(torch::allclose(gradients[static_cast<std::size_t>(reads(step)[i])], leaves[i].grad(), 1e-10, 1e-10));
  }
}

TEST(NormStep, EqualsAutograd) {
  const auto weight = draw({kWidth}, 20).to(torch::kDouble), bias = draw({kWidth}, 19).to(torch::kDouble);
  const auto rms = [](const Tensor& x) { return x / (x.square().mean(-1, /*keepdim=*/true) + 1e-5).sqrt(); };
  expect_equals_autograd(NormStep{kA, kB, {weight, {}, 1e-5}}, RowContext(), [&](const auto& in) { return rms(in[0]) * weight; });
  expect_equals_autograd(NormStep{kA, kB, {weight, bias, 1e-5}}, RowContext(),
                         [&](const auto& in) { return rms(in[0] - in[0].mean(1, /*keepdim=*/true)) * weight + bias; });
  expect_equals_autograd(NormStep{kA, kB, {weight.narrow(0, 0, 4), {}, 1e-5}, 2}, RowContext(), [&](const auto& in) {
    return (rms(in[0].view({kRows, 2, 4})) * weight.narrow(0, 0, 4)).view({kRows, kWidth});
  });
}

TEST(TakeStep, EqualsAutograd) {
  // Columns 1 and 2, 5 and 6.
  expect_equals_autograd(TakeStep{kA, kB, kWidth, 1, 4, 2, 2}, RowContext(), [](const auto& in) {
    return in[0].view({kRows, 2, 4}).narrow(2, 1, 2).reshape({kRows, 4});
  });
}

TEST(ActivateStep, EqualsAutograd) {
  expect_equals_autograd(ActivateStep{kA, kB, backend::Activation::kGelu}, RowContext(), [](const auto& in) { return torch::gelu(in[0]); });
}

TEST(AddStep, EqualsAutograd) {
  expect_equals_autograd(AddStep{kA, kB, kC, 0.3}, RowContext(), [](const auto& in) { return in[1] + 0.3 * in[0]; });
}

TEST(LinearStep, EqualsAutogradWithAndWithoutWhatItIsAddedTo) {
  const auto weight = draw({kWidth, kWidth}, 21).to(torch::kDouble), bias = draw({kWidth}, 22).to(torch::kDouble);
  const Linear linear(weight, bias);
  expect_equals_autograd(LinearStep{kA, kB, kNoSlot, linear}, RowContext(),
                         [&](const auto& in) { return in[0].matmul(weight.t()) + bias; });
  expect_equals_autograd(LinearStep{kA, kC, kB, linear}, RowContext(),
                         [&](const auto& in) { return in[0].matmul(weight.t()) + bias + in[1]; });
}

TEST(RotateStep, EqualsAutograd) {
  const auto angles = draw({kRows, 2}, 23).to(torch::kDouble);
  RowContext context;
  context.angles = {{angles.cos(), angles.sin()}};
  expect_equals_autograd(RotateStep{kA, kB, 2}, context, [&](const auto& in) {
    const auto x = in[0].view({kRows, 2, 4});
    const auto a = x.narrow(2, 0, 2), b = x.narrow(2, 2, 2), c = angles.cos().unsqueeze(1), s = angles.sin().unsqueeze(1);
    return torch::cat({a * c - b * s, b * c + a * s}, 2).view({kRows, kWidth});
  });
}

TEST(GateStep, EqualsAutograd) {
  expect_equals_autograd(GateStep{kA, kB, kC}, RowContext(), [](const auto& in) { return in[0] * in[0].sigmoid() * in[1]; });
}

/// e = d + linear(silu(b) * c), with b = f(a) and c = g(a).
struct SmallMlp {
  std::shared_ptr<GradientSink> sink = std::make_shared<GradientSink>();
  Tensor weight = draw({kWidth, kWidth}, 30).to(torch::kDouble);
  Linear f{draw({kWidth, kWidth}, 31).to(torch::kDouble)}, g{draw({kWidth, kWidth}, 32).to(torch::kDouble)};

  RowProgram program(bool trains_last, bool trains_f) {
    const auto trained = [&](const Linear& below, const Tensor& w) {
      return below.with(TrainedUpdate{std::make_shared<FullWeight>(w, Tensor(), torch::kDouble), sink});
    };
    sink->sums = {torch::zeros({kWidth, kWidth}, torch::kDouble)};
    const Linear last(weight);
    return RowProgram({LinearStep{kA, kB, kNoSlot, trains_f ? trained(f, f.weight().dense()) : f}, LinearStep{kA, kC, kNoSlot, g},
                       GateStep{kB, kC, kD}, LinearStep{kD, kE, kA, trains_last ? trained(last, weight) : last}});
  }
};

TEST(RowProgram, ReleasesASlotAfterItsLastReader) {
  SmallMlp mlp;
  const auto program = mlp.program(false, false);
  EXPECT_TRUE(program.last_reads(0).empty());
  EXPECT_TRUE(program.last_reads(1).empty());
  EXPECT_EQ(program.last_reads(2), (std::vector<Slot>{kB, kC}));
  EXPECT_EQ(program.last_reads(3), (std::vector<Slot>{kD, kA}));
  RowState state;
  state.slots.resize(kNumSlots);
  state.slots[kA] = values(1);
  SlotSet keep(kNumSlots, false);
  keep[kC] = true;
  run_forward(program, state, RowContext(), keep);
  for (const auto slot : {kA, kB, kD}) EXPECT_FALSE(state.slots[slot].defined()) << slot;
  for (const auto slot : {kC, kE}) EXPECT_TRUE(state.slots[slot].defined()) << slot;
}

TEST(RowProgram, MarksWhatDependsOnTrainedParametersAndSavesWhatTheirGradientsRead) {
  SmallMlp mlp;
  const auto check = [&](bool trains_last, bool trains_f, const SlotSet& expected_grad, const SlotSet& expected_saved) {
    const auto program = mlp.program(trains_last, trains_f);
    SlotSet requires_grad(kNumSlots, false);
    mark_requires_grad(program, requires_grad);
    EXPECT_EQ(requires_grad, expected_grad);
    EXPECT_EQ(saved_slots(program, requires_grad), expected_saved);
  };
  //                    a      b      c      d      e
  check(false, false, {false, false, false, false, false}, {false, false, false, false, false});
  check(true, false, {false, false, false, false, true}, {false, true, true, false, false});  // d is computed again from b and c
  check(false, true, {false, true, false, true, true}, {true, true, true, false, false});
}

/// The gradient of the trained weight, of kept slots and of slots that run_again computed, against autograd.
TEST(RowProgram, GivesTheGradientOfATrainedWeight) {
  for (const bool is_checkpointed : {false, true}) {
    SCOPED_TRACE(is_checkpointed);
    SmallMlp mlp;
    const auto program = mlp.program(true, false);
    SlotSet requires_grad(kNumSlots, false);
    mark_requires_grad(program, requires_grad);
    const auto keep = saved_slots(program, requires_grad);
    RowState state;
    state.slots.resize(kNumSlots);
    state.slots[kA] = values(1);
    if (is_checkpointed) {
      run_again(program, state, RowContext(), keep);
    } else {
      run_forward(program, state, RowContext(), keep);
    }
    EXPECT_FALSE(state.slots[kD].defined());
    std::vector<Tensor> gradients(kNumSlots);
    const auto upstream = values(50);
    gradients[kE] = upstream;
    run_backward(program, state, RowContext(), requires_grad, gradients);
    EXPECT_FALSE(gradients[kA].defined());
    add_gradients(program, state);

    const auto x = values(1), leaf = mlp.weight.clone().requires_grad_();
    const auto b = x.matmul(mlp.f.weight().dense().t()), c = x.matmul(mlp.g.weight().dense().t());
    (x + (b * b.sigmoid() * c).matmul(leaf.t())).backward(upstream);
    EXPECT_TRUE(torch::allclose(mlp.sink->sums[0], leaf.grad(), 1e-10, 1e-10));
  }
}

}  // namespace
}  // namespace quiver::nn
