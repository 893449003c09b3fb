// A tiny library and its tasks, for tests of whole evaluations.
#pragma once

#include <gmock/gmock.h>

#include <cmath>
#include <filesystem>
#include <fstream>
#include <map>
#include <nlohmann/json.hpp>
#include <string>
#include <vector>

#include "quiver/recipes/evaluate.h"
#include "quiver/recipes/test_support.h"
#include "quiver/tasks/select.h"

namespace quiver::recipes {

/// What one sample is called.
inline std::string name_of(const results::Sample& sample) { return sample.method + " " + sample.task + " " + sample.id; }

inline double metric_of(const results::Sample& sample, const std::string& name) {
  for (const auto& [metric, value] : sample.metrics) {
    if (metric == name) return value;
  }
  ADD_FAILURE() << name_of(sample) << " has no " << name;
  return NAN;
}

/// Two adapters; two tasks of their own with more rows than are answered together; two sets of questions; a task of the user's file.
class Evaluation : public LibraryOnDisk {
 protected:
  void SetUp() override {
    LibraryOnDisk::SetUp();
    setup_.given.source = library_of({11, 22}).source;
    pack_ = folder_ / "pack";
    for (const char* part : {"train", "heldout_mc"}) std::filesystem::create_directories(pack_ / part);
    for (const std::string name : {"a0", "a1"}) {
      std::ofstream rows(pack_ / "train" / (name + ".jsonl"));
      for (int i = 0; i < 36; ++i) {
        rows << nlohmann::json{{"split", i < 2 ? "train" : "test"},
                               {"id", std::to_string(i)},
                               {"source", format("Task {} has number {}. Say it", name, i * 7)},
                               {"targets", {i % 2 == 0 ? "even" : "odd number", "number"}}}
             << "\n";
      }
    }
    for (const std::string name : {"quiz", "riddle"}) {
      std::ofstream rows(pack_ / "heldout_mc" / (name + ".jsonl"));
      for (int i = 0; i < 5; ++i) {
        rows << nlohmann::json{{"split", "test"},
                               {"id", std::to_string(i)},
                               {"mode", "choice"},
                               {"context", format("The {} of {} is", name, i)},
                               {"choices", {"the answer", "b" + std::to_string(i), "grüße"}},
                               {"label", i % 3}}
             << "\n";
      }
    }
    std::ofstream rows(folder_ / "mine.jsonl");
    for (int i = 0; i < 3; ++i)
      rows << nlohmann::json{{"id", std::to_string(i)}, {"source", format("Mine {}:", i)}, {"target", "yours"}} << "\n";
    rows.close();
    setup_.tasks =
        tasks::select_tasks({.data = pack_, .names = "upstream/a0,upstream/a1,mc/quiz,mc/riddle," + (folder_ / "mine.jsonl").string()});
    setup_.rows.max_new_tokens = 6;
    methods({"base", "private-arrow"});
  }

  void methods(const std::vector<std::string>& names) {
    setup_.methods.clear();
    for (const auto& name : names) setup_.methods.push_back(parse_eval_method(name));
  }
  results::Results evaluated() { return evaluate(base_, setup_, progress_); }
  std::map<std::string, results::Sample> samples() {
    std::map<std::string, results::Sample> by_name;
    for (const auto& sample : evaluated().samples) EXPECT_TRUE(by_name.emplace(name_of(sample), sample).second) << name_of(sample);
    return by_name;
  }

  std::filesystem::path pack_;
  EvalSetup setup_;
};

}  // namespace quiver::recipes
