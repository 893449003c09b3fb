// Methods by their names, over libraries and adapters of any place.
#include "quiver/recipes/eval_methods.h"

#include <utility>

#include "quiver/recipes/evaluation_test_support.h"
#include "quiver/testing/message_of.h"

namespace quiver::recipes {
namespace {

using namespace std::string_literals;
using EvalMethods = Evaluation;

TEST_F(EvalMethods, AdaptersAndLibrariesOfAnyPlaceStandBesideEachOther) {
  const auto given = setup_.given.source.library;
  const auto other = (folder_ / "other/library").string();
  std::filesystem::create_directories(folder_ / "other");
  {
    auto library = library::Library::open_or_create(other, {base_.lm.spec().name, base_.lm.fingerprint()});
    library.add(adapter("b0", 33), {.tasks = {"a1"}});
  }
  const auto names = std::vector<std::string>{"private-mean",
                                              "private-oracle",
                                              "private-mean@" + given,
                                              "private-arrow(top_k=1)@" + other,
                                              "private-oracle@" + other,
                                              "adapter@" + given + "/adapters/a0",
                                              "adapter@" + other + "/adapters/b0/"};
  methods(names);
  EXPECT_EQ(setup_.methods[2].label, "Private, mean (library)");
  EXPECT_EQ(setup_.methods[3].label, "Private, Arrow(top_k=1) (library)");
  EXPECT_EQ(setup_.methods[5].label, "Adapter a0");
  EXPECT_EQ(setup_.methods[6].label, "Adapter b0");
  const auto found = samples();
  const auto nll = [&](std::size_t method, const std::string& task) {
    return metric_of(found.at(names[method] + " " + task + " 5"), "nll");
  };
  EXPECT_EQ(nll(2, "a0"), nll(0, "a0"));
  EXPECT_NEAR(nll(5, "a0"), nll(1, "a0"), 1e-5) << "the task's own adapter";
  EXPECT_GT(std::abs(nll(5, "a1") - nll(1, "a1")), 1e-3) << "of another task";
  EXPECT_NEAR(nll(3, "a1"), nll(6, "a1"), 1e-5) << "the only one there is";
  EXPECT_NEAR(nll(4, "a1"), nll(6, "a1"), 1e-5);
  EXPECT_GT(std::abs(nll(6, "a1") - nll(5, "a1")), 1e-3);
  EXPECT_FALSE(found.contains(names[4] + " a0 5")) << "the other library has no adapter of this task";
  setup_.given = {};
  methods({"base", "private-mean@" + other});
  EXPECT_EQ(metric_of(samples().at("private-mean@" + other + " a1 5"), "nll"), nll(4, "a1")) << "no library is given";
}

TEST_F(EvalMethods, ATaskThatNoLibraryWasTrainedOnIsUnseen) {
  const auto sections = [&] {
    move_unseen_tasks(setup_);
    return std::pair(setup_.tasks.at(0).section, setup_.tasks.at(1).section);
  };
  const auto other = (folder_ / "other-library").string();
  library::Library::open_or_create(other, {base_.lm.spec().name, base_.lm.fingerprint()}).add(adapter("b0", 33), {.tasks = {"a1"}});
  EXPECT_EQ(sections(), std::pair("train"s, "train"s)) << "of the given library";
  setup_.given = {};
  methods({"base"});
  EXPECT_EQ(sections(), std::pair("train"s, "train"s)) << "of no library nobody knows";
  methods({"base", "private-oracle@" + other});
  EXPECT_EQ(sections(), std::pair("instruction"s, "train"s));
  EXPECT_EQ(setup_.tasks.at(2).section, "choice");
  const auto found = samples();
  EXPECT_EQ(found.at("base a0 5").section, "instruction");
  EXPECT_FALSE(found.contains("private-oracle@" + other + " a0 5")) << "an unseen task has no adapter of its own";
  EXPECT_TRUE(found.contains("private-oracle@" + other + " a1 5"));
}

TEST_F(EvalMethods, NamesOfMethodsThatAreNone) {
  EXPECT_ERROR(parse_eval_method("adapter"), ErrorKind::kUsage, "'adapter' names none: write adapter@FOLDER");
  EXPECT_ERROR(parse_eval_method("private-mean@"), ErrorKind::kUsage, "'private-mean@' names no folder after '@'");
  EXPECT_ERROR(parse_eval_method("base@x"), ErrorKind::kUsage, "'base@x': 'base' is over no library");
  EXPECT_ERROR(parse_eval_method("private-men@x"), ErrorKind::kUsage, "no method 'men'");
  methods({"base", "private-mean@nowhere"});
  EXPECT_ERROR(evaluated(), ErrorKind::kNotFound, "nowhere");
  methods({"base", "base"});
  EXPECT_ERROR(evaluated(), ErrorKind::kUsage, "evaluation method 'base' is named twice");
}

}  // namespace
}  // namespace quiver::recipes
