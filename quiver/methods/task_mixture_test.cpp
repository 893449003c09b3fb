#include <gtest/gtest.h>
#include <torch/utils.h>

#include "quiver/base/error.h"
#include "quiver/io/test_support.h"
#include "quiver/methods/parts.h"
#include "quiver/testing/message_of.h"

namespace quiver::methods {
namespace {

TEST(TaskMixture, SaysWhatTheFileOfTheMixingLacks) {
  const io::TempFolder temp;
  const auto library = library::Library::create(temp / "lib", {"base", "fingerprint"});
  const auto file = temp / "lib/mixing/poly.safetensors";
  const auto mixture = [&] { return task_mixture(library, library::AdapterKind::kPoly, "a"); };
  const auto store = [&](const nlohmann::json& meta) {
    std::filesystem::create_directories(file.parent_path());
    tensor::save_tensors(file, {{"weights", torch::zeros({1})}}, {{"quiver.mixing", meta.dump()}});
  };
  EXPECT_ERROR(mixture(), ErrorKind::kNotFound, "has no poly skills; a build by recipe 'poly' trains them");
  const auto origin = "'" + file.string() + "': quiver.mixing: ";
  store({{"skills", nlohmann::json::array()}});
  EXPECT_ERROR(mixture(), ErrorKind::kBadFormat, origin + "the key 'tasks' is missing");
  store({{"tasks", {1}}});
  EXPECT_ERROR(mixture(), ErrorKind::kBadFormat, origin + "'tasks' holds a number; expected names");
  store({{"tasks", {"a"}}, {"skills", {{{"name", 3}}}}});
  EXPECT_ERROR(mixture(), ErrorKind::kBadFormat, origin + "'name' is number (3)");
  store({{"tasks", {"a"}}, {"skills", nlohmann::json::array()}, {"rule", "sigmoid"}, {"granularity", "model"}, {"heads", 1}});
  EXPECT_ERROR(mixture(), ErrorKind::kBadFormat, "has no tensor 'logits'; train the skills again");
}

}  // namespace
}  // namespace quiver::methods
