#include "quiver/train/checkpoint.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>
#include <torch/utils.h>

#include <filesystem>

#include "quiver/base/error.h"
#include "quiver/io/file.h"
#include "quiver/testing/message_of.h"
#include "quiver/train/full_weights.h"
#include "quiver/train/gates.h"
#include "quiver/train/mixture.h"
#include "quiver/train/test_support.h"

namespace quiver::train {
namespace {

using quiver::testing::message_of;
using ::testing::HasSubstr;

class CheckpointTest : public ::testing::Test {
 protected:
  void SetUp() override {
    trainer_.run_step();
    trainer_.save(file_, "key");
    tensors_ = tensor::load_tensors(file_);
    num_parameters_ = tensors_.at("values").numel();
  }
  void TearDown() override {
    fs::remove(file_);
    fs::remove(after_);
  }

  Trainer make() {
    TrainOptions options{.epochs = 3, .batch_size = 4, .validate_every = 1};
    options.optimizer.learning_rate = 1e-2;
    return Trainer(base_, adapters::initial_adapter("toy", {}, base_.linears(), 1), nested_sequences(3, 2), options,
                   nested_sequences(1, 5));
  }

  /// The message for a checkpoint that `damage` was done to; the trainer must stay as it was, bit for bit.
  std::string refusal(const std::function<void(tensor::TensorMap&)>& damage) {
    auto damaged = tensors_;
    damage(damaged);
    tensor::save_tensors(file_, damaged, {{"quiver.key", "key"}});
    auto trainer = make();
    for (int i = 0; i < 3; ++i) trainer.run_step();
    trainer.save(after_, "key");
    const auto before = io::read_text_file(after_);
    auto message = message_of(ErrorKind::kBadFormat, [&] { trainer.restore(file_, "key"); });
    trainer.save(after_, "key");
    EXPECT_EQ(io::read_text_file(after_), before) << message;
    EXPECT_THAT(message, HasSubstr(file_.string()));
    EXPECT_THAT(message, HasSubstr("; delete it to start anew"));
    return message;
  }

  model::Model base_ = tiny();
  Trainer trainer_ = make();
  fs::path file_ = fs::temp_directory_path() / "quiver-checkpoint-test.safetensors", after_ = file_.string() + ".after";
  tensor::TensorMap tensors_;
  std::int64_t num_parameters_ = 0;
};

TEST_F(CheckpointTest, AnotherShapeIsRefusedByNameWithBoth) {
  for (const char* name : {"values", "first", "second", "best_values"}) {
    EXPECT_THAT(refusal([&](auto& t) { t[name] = torch::zeros({3}); }),
                HasSubstr(format("tensor '{}' is F32 [3]; expected F32 [{}]", name, num_parameters_)));
    EXPECT_THAT(refusal([&](auto& t) { t[name] = t[name].unsqueeze(0); }),
                HasSubstr(format("tensor '{}' is F32 [1, {}]; expected", name, num_parameters_)));
  }
  EXPECT_THAT(refusal([](auto& t) { t["counters"] = torch::zeros({2}, torch::kLong); }),
              HasSubstr("'counters' is I64 [2]; expected I64 [3]"));
  EXPECT_THAT(refusal([](auto& t) { t["seconds"] = torch::zeros({2}, torch::kDouble); }), HasSubstr("'seconds' is F64 [2]"));
  EXPECT_THAT(refusal([](auto& t) { t["losses"] = torch::zeros({1, 1}, torch::kDouble); }), HasSubstr("expected F64 [any]"));
  EXPECT_THAT(refusal([](auto& t) { t["validations"] = torch::zeros({1, 3}, torch::kDouble); }), HasSubstr("expected F64 [any, 2]"));
}

TEST_F(CheckpointTest, AnotherDtypeIsRefusedByNameWithBoth) {
  for (const char* name : {"values", "first", "second", "best_values"}) {
    EXPECT_THAT(refusal([&](auto& t) { t[name] = t[name].to(torch::kDouble); }),
                HasSubstr(format("tensor '{}' is F64 [{}]; expected F32", name, num_parameters_)));
  }
  for (const char* name : {"losses", "validations", "seconds"}) {
    EXPECT_THAT(refusal([&](auto& t) { t[name] = t[name].to(torch::kFloat); }), HasSubstr(format("tensor '{}' is F32", name)));
  }
  for (const char* name : {"steps", "counters"}) {
    EXPECT_THAT(refusal([&](auto& t) { t[name] = t[name].to(torch::kDouble); }), HasSubstr(format("tensor '{}' is F64", name)));
  }
}

TEST_F(CheckpointTest, AnotherSetOfNamesIsRefusedByName) {
  for (const char* name : {"values", "first", "second", "steps", "losses", "counters", "seconds", "validations"}) {
    EXPECT_THAT(refusal([&](auto& t) { t.erase(name); }), HasSubstr(format("lacks the tensor '{}'", name)));
  }
  EXPECT_THAT(refusal([](auto& t) { t["third"] = torch::zeros({1}); }), HasSubstr("holds a tensor 'third', which has no place in it"));
  EXPECT_THAT(refusal([](auto& t) { t.erase("best_values"); }), HasSubstr("holds 1 validations and no 'best_values'"));
}

TEST_F(CheckpointTest, NumbersThatContradictEachOtherAreRefused) {
  const auto whole = [](const std::vector<std::int64_t>& numbers) { return torch::tensor(numbers, torch::kLong); };
  EXPECT_THAT(refusal([&](auto& t) { t["counters"] = whole({1000, 1, 1}); }), HasSubstr("is at step 1000 of"));
  EXPECT_THAT(refusal([&](auto& t) { t["counters"] = whole({2, 1, 1}); }), HasSubstr("is at step 2 of"));
  EXPECT_THAT(refusal([&](auto& t) { t["steps"] = whole({7}); }), HasSubstr("with 1 losses and 7 steps of the optimiser"));
  EXPECT_THAT(refusal([&](auto& t) { t["counters"] = whole({1, -5, 1}); }), HasSubstr("has seen -5 tokens"));
  EXPECT_THAT(refusal([](auto& t) { t["validations"][0][0] = 9; }), HasSubstr("validation 0 is of step 9"));
}

TEST_F(CheckpointTest, TheUndamagedOneIsRestored) {
  auto trainer = make();
  EXPECT_FALSE(trainer.restore(file_, "another key"));
  EXPECT_EQ(trainer.step(), 0);
  ASSERT_TRUE(trainer.restore(file_, "key"));
  EXPECT_EQ(trainer.step(), 1);
  trainer.save(after_, "key");
  EXPECT_EQ(io::read_text_file(after_), io::read_text_file(file_));
}

TEST(Trainables, RefuseTheValuesOfAnother) {
  const auto base = tiny();
  const auto adapter = random_adapter(base, 5);
  const auto refusal = [](const std::function<void()>& action) { return message_of(ErrorKind::kInternal, action); };
  const auto few = torch::zeros({3});
  OneAdapter one(adapter, torch::kCPU);
  const auto size = one.values().numel();
  EXPECT_EQ(refusal([&] { one.adapter(few); }), format("values of an adapter: Float [3]; expected Float [{}]", size));
  EXPECT_THAT(refusal([&] { one.adapter(torch::zeros({size}, torch::kDouble)); }), HasSubstr(format("Double [{}]", size)));
  EXPECT_THAT(refusal([&] { Gates(adapter, torch::kCPU).gates(few); }), HasSubstr("values of gates: Float [3]"));
  FullWeights full("full", base.linears(), torch::kCPU, torch::kFloat);
  EXPECT_THAT(refusal([&] { full.weights(few); }), HasSubstr("values of full weights: Float [3]"));
  const Mixture mixture("mixture", {adapter, adapter}, 2, {}, torch::kCPU, torch::kFloat);
  EXPECT_THAT(refusal([&] { mixture.logits(few); }), HasSubstr("values of a mixture: Float [3]"));
  EXPECT_THAT(refusal([&] { mixture.skills(few); }), HasSubstr("values of a mixture: Float [3]"));
}

TEST(AdamW, RefusesTheStateOfAnotherOptimiserBeforeItChanges) {
  auto values = torch::ones({3}), gradient = torch::ones({3});
  AdamW optimizer({}, values);
  optimizer.step(values, gradient, 0.1);
  auto state = AdamW({}, values).state();
  state["second"] = torch::zeros({4});
  EXPECT_EQ(message_of(ErrorKind::kBadFormat, [&] { optimizer.restore(state); }),
            "the state of AdamW: tensor 'second' is Float [4]; expected Float [3]");
  state["second"] = torch::zeros({3});
  state["steps"] = torch::zeros({2}, torch::kLong);
  EXPECT_THAT(message_of(ErrorKind::kBadFormat, [&] { optimizer.restore(state); }), HasSubstr("'steps' is Long [2]; expected Long [1]"));
  EXPECT_EQ(optimizer.state().at("steps").item<std::int64_t>(), 1);
  EXPECT_GT(optimizer.state().at("first").abs().min().item<double>(), 0);
}

}  // namespace
}  // namespace quiver::train
