// A library for tests of what needs one.
#pragma once

#include <gtest/gtest.h>
#include <unistd.h>

#include <filesystem>
#include <fstream>
#include <string>
#include <vector>

#include "quiver/adapters/init.h"
#include "quiver/base/random.h"
#include "quiver/io/folder.h"
#include "quiver/methods/test_support.h"
#include "quiver/testing/draw.h"

namespace quiver::recipes {

/// A library of `count` random adapters "a0", "a1", ... for the tiny model.
class LibraryOnDisk : public ::testing::Test {
 protected:
  void SetUp() override {
    folder_ = std::filesystem::path(::testing::TempDir()) / ("quiver-recipes-" + std::to_string(::getpid()));
    io::remove_tree(folder_);
    std::filesystem::create_directories(folder_ / "tasks");
  }
  void TearDown() override { io::remove_tree(folder_); }

  adapters::LoraAdapter adapter(const std::string& name, std::uint64_t seed) const {
    auto made = adapters::initial_adapter(name, {}, base_.lm.linears(), 1);
    for (auto& [path, pair] : made.pairs) {
      const auto noise = testing::draw(pair.lora_a().sizes(), derive_seed(seed, path + " a"), 0.05);
      pair = adapters::LoraPair(pair.lora_a() + noise, testing::draw(pair.lora_b().sizes(), derive_seed(seed, path + " b"), 0.1),
                                pair.alpha());
    }
    made.base_model = base_.lm.spec().name;
    made.base_fingerprint = base_.lm.fingerprint();
    return made;
  }

  methods::AnyMethod library_of(const std::vector<std::uint64_t>& seeds) {
    auto library = library::Library::open_or_create(folder_ / "library", {base_.lm.spec().name, base_.lm.fingerprint()});
    for (std::size_t i = 0; i < seeds.size(); ++i) {
      const auto name = "a" + std::to_string(i);
      library.add(adapter(name, seeds[i]), {.tasks = {name}});
      std::ofstream rows(folder_ / "tasks" / (name + ".jsonl"));
      for (int row = 0; row < 4; ++row) {
        rows << R"({"split":"train","id":")" << row << R"(","source":"task number )" << seeds[i] << " says " << row * 17 + seeds[i]
             << R"(","target":"yes"})"
             << "\n";
      }
    }
    return {.source = {.library = (folder_ / "library").string()},
            .options = {
                {"task_data", (folder_ / "tasks").string()}, {"task_samples", 3}, {"calibration_prompts", 8}, {"calibration_tokens", 12}}};
  }

  std::filesystem::path folder_;
  NoProgress progress_;
  methods::BaseModel base_ = methods::load_base("tests/golden/model/llama-tied", {torch::kCPU, torch::kFloat});
};

}  // namespace quiver::recipes
