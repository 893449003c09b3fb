// What runs on a GPU, on a device that is as strict as one: training, scoring, generating, every way of reusing a library, and adapting
// give what they give on the CPU.
#include <gmock/gmock.h>
#include <gtest/gtest.h>
#include <torch/utils.h>
#include <unistd.h>

#include <cerrno>
#include <filesystem>
#include <fstream>

#include "quiver/base/random.h"
#include "quiver/eval/score.h"
#include "quiver/io/folder.h"
#include "quiver/methods/adapted_model.h"
#include "quiver/methods/table.h"
#include "quiver/methods/test_support.h"
#include "quiver/model/generate.h"
#include "quiver/recipes/adapt.h"
#include "quiver/recipes/build_library.h"
#include "quiver/recipes/full_tuning.h"
#include "quiver/recipes/group_tasks.h"
#include "quiver/recipes/train_skills.h"
#include "quiver/testing/message_of.h"
#include "quiver/testing/strict_device.h"

namespace quiver::recipes {
namespace {

namespace fs = std::filesystem;

constexpr double kTolerance = 2e-3;  // relative; float32 sums in another order, through a few steps of training

/// A base on some device, and a library that is built with it.
struct Side {
  methods::BaseModel base;
  fs::path folder;
};

class DeviceTest : public ::testing::Test {
 protected:
  static void SetUpTestSuite() {
    folder_ = fs::path(::testing::TempDir()) / ("quiver-device-" + std::to_string(::getpid()));
    io::remove_tree(folder_);
    fs::create_directories(folder_ / "tasks");
    for (const auto* task : {"a", "b", "c"}) write_task(task);
    const std::string tiny = "tests/golden/model/llama-tied";
    cpu_ = std::make_unique<Side>(methods::load_base(tiny, {torch::kCPU, torch::kFloat}), folder_ / "cpu");
    other_ = std::make_unique<Side>(methods::load_base(tiny, {quiver::testing::strict_device(), torch::kFloat}), folder_ / "other");
    for (auto* side : {cpu_.get(), other_.get()}) build(*side);
  }
  static void TearDownTestSuite() {
    cpu_.reset();
    other_.reset();
    io::remove_tree(folder_);
  }

  static void write_task(const std::string& name) {
    std::ofstream rows(folder_ / "tasks" / (name + ".jsonl"));
    RandomStream random(7, name);
    for (int row = 0; row < 8; ++row) {
      rows << R"({"split":")" << (row < 6 ? "train" : "valid") << R"(","id":")" << row << R"(","source":"task )" << name << " says "
           << random.below(1000) << R"(","target":"yes )" << name << random.below(10) << R"("})"
           << "\n";
    }
  }

  static TrainingSetup setup() {
    TrainingSetup setup{.data = folder_ / "tasks", .tasks = {"a", "b", "c"}};
    setup.train.epochs = 2;
    setup.train.batch_size = 3;
    setup.train.optimizer.learning_rate = 1e-2;
    setup.together = 2;
    return setup;
  }

  static library::Library open(const Side& side) {
    return library::Library::open_or_create(side.folder / "library", {side.base.lm.spec().name, side.base.lm.fingerprint()});
  }

  static void build(const Side& side) {
    fs::create_directories(side.folder);
    auto library = open(side);
    NoProgress progress;
    losses_[side.folder].push_back(training_summary(train_private(side.base, library, setup(), progress)));
    losses_[side.folder].push_back(training_summary({train_shared(side.base, library, setup(), progress)}));
    for (const auto kind : {library::AdapterKind::kPoly, library::AdapterKind::kMhr}) {
      SkillSetup skills{.kind = kind, .num_skills = 2};
      if (kind == library::AdapterKind::kMhr) skills.shape.num_heads = 2;
      losses_[side.folder].push_back(training_summary(train_skills(side.base, library, setup(), skills, progress)));
    }
    auto full = setup();
    full.train.optimizer.learning_rate = 1e-3;
    losses_[side.folder].push_back(full_fine_tuning(side.base, full, side.folder / "full", progress));
  }

  static methods::AdapterUse use_of(const Side& side, const std::string& method) {
    const methods::AnyMethod any{.source = {.library = (side.folder / "library").string(), .kind = "private"},
                                 .method = method,
                                 .options = {{"task_data", (folder_ / "tasks").string()},
                                             {"task_samples", 3},
                                             {"gate_steps", 3},
                                             {"calibration", (folder_ / "text").string()}}};
    return any.use();
  }

  static std::vector<forest::Sequence> sequences(const methods::BaseModel& base) {
    std::vector<forest::Sequence> all;
    for (const auto* text : {"task a says 12 yes", "task b says 700", "something else", "task a says 12 no"}) {
      auto ids = base.tokenizer.encode(text);
      ids.insert(ids.end(), {40, 41});
      all.push_back({ids, 2});
    }
    return all;
  }

  static fs::path folder_;
  static std::unique_ptr<Side> cpu_, other_;
  static std::map<fs::path, std::vector<nlohmann::json>> losses_;
  NoProgress progress_;
};

fs::path DeviceTest::folder_;
std::unique_ptr<Side> DeviceTest::cpu_, DeviceTest::other_;
std::map<fs::path, std::vector<nlohmann::json>> DeviceTest::losses_;

TEST_F(DeviceTest, RefusesWhatAGpuRefuses) {
  if (quiver::testing::strict_device_is_gpu()) GTEST_SKIP() << "a GPU needs no proof";
  const auto device = quiver::testing::strict_device();
  const auto there = torch::ones({3}, torch::TensorOptions().device(device));
  EXPECT_THAT([&] { there + torch::ones({3}); }, ::testing::Throws<c10::Error>());
  EXPECT_ERROR(there.dot(torch::ones({3})), ErrorKind::kInternal, "aten::dot' over tensors of the CPU and of the strict device");
  EXPECT_EQ((there * 2 + torch::tensor(1.0)).sum().item<double>(), 9);
  int ends[2];
  ASSERT_EQ(pipe(ends), 0);
  EXPECT_EQ(write(ends[1], there.const_data_ptr<float>(), sizeof(float)), -1);  // the kernel cannot read it either
  EXPECT_EQ(errno, EFAULT);
  close(ends[0]);
  close(ends[1]);
}

TEST_F(DeviceTest, TrainsAsTheCpuDoes) {
  const auto &mine = losses_.at(cpu_->folder), &theirs = losses_.at(other_->folder);
  ASSERT_EQ(mine.size(), 5);
  for (std::size_t i = 0; i < mine.size(); ++i) {
    const auto of = [](const nlohmann::json& summary, const char* key) {
      return (summary.contains("total") ? summary.at("total") : summary.at("training")).at(key).get<double>();
    };
    for (const auto* key : {"first_loss", "last_loss"})
      EXPECT_NEAR(of(theirs[i], key), of(mine[i], key), kTolerance * of(mine[i], key)) << i;
    EXPECT_LT(of(mine[i], "last_loss"), of(mine[i], "first_loss")) << i;
  }
}

TEST_F(DeviceTest, EveryMethodScoresAndGeneratesAsOnTheCpu) {
  std::ofstream(folder_ / "text") << "some text of no task\nmore of it, and other words\na third line\nand numbers 1 2 3\n";
  std::vector<std::string> names = {"oracle=b", "task=b"};
  for (const auto& method : methods::reuse_methods()) {
    if (method.argument() == nullptr) names.push_back(method.name);
  }
  for (const auto& name : names) {
    std::vector<std::vector<eval::SequenceScore>> scores;
    std::vector<std::vector<std::vector<std::int32_t>>> answers;
    for (const auto* side : {cpu_.get(), other_.get()}) {
      auto use = use_of(*side, name);
      if (name.starts_with("task=")) use.source.kind = "poly";
      const auto model = methods::adapted_model(side->base, use, progress_);
      auto some = sequences(side->base);
      const auto leases = model.assign_groups(some, progress_);
      scores.push_back(eval::score_sequences(model.lm, some, {}, progress_));
      std::vector<methods::Prompt> prompts;
      for (const auto& sequence : some) prompts.push_back(sequence.tokens);
      answers.push_back(model::generate(model.lm, prompts, {.max_new_tokens = 4}, {.groups = model.groups_of(prompts, progress_)}));
    }
    for (std::size_t i = 0; i < scores[0].size(); ++i) {
      EXPECT_NEAR(scores[1][i].log_prob, scores[0][i].log_prob, kTolerance * std::abs(scores[0][i].log_prob)) << name << " " << i;
    }
    EXPECT_EQ(answers[1], answers[0]) << name;
  }
}

TEST_F(DeviceTest, AdaptsAsTheCpuDoes) {
  for (const auto& method : methods::learning_methods()) {
    std::vector<adapters::LoraAdapter> adapters;
    for (const auto* side : {cpu_.get(), other_.get()}) {
      AdaptSetup adaptation{
          .training = setup(), .members = use_of(*side, "mean").source, .method = method.name, .work = side->folder / "work"};
      adaptation.training.tasks = {"c"};
      adaptation.training.max_valid = 2;
      if (method.has("heads")) adaptation.options["heads"] = 2;
      if (method.has("evaluations")) adaptation.options.update({{"evaluations", 4}, {"objective", "loss"}});
      if (method.has("task_data") && !method.has("retrieve_by"))
        adaptation.options.update({{"task_data", (folder_ / "tasks").string()}, {"task_samples", 3}});
      if (method.name == "shared" || method.name == "poly" || method.name == "mhr") adaptation.members.kind = method.name;
      if (!method.needs_library) adaptation.members.library.clear();
      adapters.push_back(adapt(side->base, adaptation, progress_).adapter);
    }
    for (const auto& [path, pair] : adapters[0].pairs) {
      const auto mine = pair.delta(), theirs = adapters[1].pairs.at(path).to(torch::kCPU, torch::kFloat).delta();
      EXPECT_LT((mine - theirs).norm().item<double>(), 2e-2 * mine.norm().item<double>() + 1e-6) << method.name << " " << path;
    }
  }
}

TEST_F(DeviceTest, LooksInsideAsOnTheCpu) {
  std::vector<std::vector<methods::Prompt>> prompts(1);
  for (const auto& sequence : sequences(cpu_->base)) prompts[0].push_back(sequence.tokens);
  EXPECT_TRUE(torch::allclose(methods::observe_hidden(other_->base.lm, prompts[0], progress_),
                              methods::observe_hidden(cpu_->base.lm, prompts[0], progress_), 1e-3, 1e-4));
}

}  // namespace
}  // namespace quiver::recipes
