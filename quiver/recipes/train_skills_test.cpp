#include "quiver/recipes/train_skills.h"

#include <gtest/gtest.h>
#include <torch/utils.h>

#include "quiver/base/error.h"
#include "quiver/io/test_support.h"

namespace quiver::recipes {
namespace {

TEST(TaskMixture, SaysWhatTheFileOfTheMixingLacks) {
  const io::TempFolder temp;
  const auto library = library::Library::create(temp / "lib", {"base", "fingerprint"});
  const auto mixture = [&] { return task_mixture(library, library::AdapterKind::kPoly, "a"); };
  const auto store = [&](const nlohmann::json& meta) { library.store_mixing("poly", {{"weights", torch::zeros({1})}}, meta); };
  EXPECT_ERROR(mixture(), ErrorKind::kNotFound, "has no poly skills; a build by recipe 'poly' trains them");
  const auto origin = "the mixing of the poly skills of library '" + (temp / "lib").string() + "'";
  store({{"skills", nlohmann::json::array()}});
  EXPECT_ERROR(mixture(), ErrorKind::kBadFormat, origin + ": the key 'tasks' is missing");
  store({{"tasks", {1}}});
  EXPECT_ERROR(mixture(), ErrorKind::kBadFormat, origin + ": a task is number; expected a string");
  store({{"tasks", {"a"}}, {"skills", {{{"name", 3}}}}});
  EXPECT_ERROR(mixture(), ErrorKind::kBadFormat, origin + ": 'name' is number (3)");
  store({{"tasks", {"a"}}, {"skills", nlohmann::json::array()}, {"rule", "sigmoid"}, {"granularity", "model"}, {"heads", 1}});
  EXPECT_ERROR(mixture(), ErrorKind::kBadFormat, origin + " names no skill");
}

}  // namespace
}  // namespace quiver::recipes
