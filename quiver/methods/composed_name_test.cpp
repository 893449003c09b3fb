#include "quiver/methods/composed_name.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include "quiver/testing/message_of.h"

namespace quiver::methods {
namespace {

using ::testing::ElementsAre;

struct Good {
  const char* text;
  const char* kind;
  const char* method;
  OptionValues options;
};

const Good kGood[] = {
    {"arrow", "", "arrow", OptionValues::object()},
    {"arrow()", "", "arrow", OptionValues::object()},
    {"cluster/arrow", "cluster", "arrow", OptionValues::object()},
    {"cluster-arrow", "cluster", "arrow", OptionValues::object()},
    {"private-lag-base", "private", "lag-base", OptionValues::object()},
    {"poly-mean", "poly", "mean", OptionValues::object()},
    {"mhr/oracle", "mhr", "oracle", OptionValues::object()},
    {"oracle=alpha", "", "oracle", {{"name", "alpha"}}},
    {"oracle=private-alpha", "", "oracle", {{"name", "private-alpha"}}},
    {"oracle(name=alpha)", "", "oracle", {{"name", "alpha"}}},
    {"cluster/oracle=a(b)", "cluster", "oracle", {{"name", "a(b)"}}},
    {"task=a,b", "", "task", {{"name", "a,b"}}},
    {"cluster/lag-base(task_threshold=4)", "cluster", "lag-base", {{"task_threshold", 4.0}}},
    {"lag(top_k=2,shortlist=30)", "", "lag", {{"top_k", 2}, {"shortlist", 30}}},
    {"arrow(tie=[q_proj,k_proj],tie_by=sum)", "", "arrow", {{"tie", {"q_proj", "k_proj"}}, {"tie_by", "sum"}}},
    {"arrow(tie=q_proj)", "", "arrow", {{"tie", {"q_proj"}}}},
    {"weighted(weights=[beta=1,alpha=0])", "", "weighted", {{"weights", {{"beta", 1.0}, {"alpha", 0.0}}}}},
    {"weighted(weights=[1,0])", "", "weighted", {{"weights", {1.0, 0.0}}}},
    {"norm(calibration=\"a,b).txt\")", "", "norm", {{"calibration", "a,b).txt"}}},
    {"norm(calibration=texts.txt)", "", "norm", {{"calibration", "texts.txt"}}},
    {"spectral(calibrated=true,calibration_prompts=8)", "", "spectral", {{"calibrated", true}, {"calibration_prompts", 8}}},
};

TEST(ComposedName, IsReadAndWritten) {
  for (const auto& [text, kind, method, options] : kGood) {
    SCOPED_TRACE(text);
    const auto name = parse_name(text);
    EXPECT_EQ(name.kind, kind);
    EXPECT_EQ(name.use.name, method);
    EXPECT_EQ(name.use.options, options);
    EXPECT_EQ(parse_name(text_of(name.use)).use.options, options) << text_of(name.use);
  }
}

TEST(ComposedName, IsRefusedInWords) {
  const std::pair<const char*, const char*> rows[] = {
      {"", "no method ''"},
      {"arow", "no method 'arow' (did you mean 'arrow'?)"},
      {"privat/arrow", "no method 'privat/arrow'"},
      {"private", "no method 'private'"},
      {"cluster/", "no method ''"},
      {"arrow=alpha", "method 'arrow' takes no name; its options are written arrow(OPTION=VALUE,...)"},
      {"oracle=", "method 'oracle=' names nothing after '='"},
      {"lag(", "does not end with the bracket that it opens"},
      {"lag(shortlist=3", "does not end with the bracket that it opens"},
      {"lag(shortlist=3)x", "does not end with the bracket that it opens"},
      {"lag(shortlist=3))", "does not end with the bracket that it opens"},
      {"lag(shortlist)", "'shortlist' is not of the form OPTION=VALUE"},
      {"lag(=3)", "'=3' is not of the form OPTION=VALUE"},
      {"lag(shrtlist=3)", "method 'lag' has no option 'shrtlist' (did you mean 'shortlist'?)"},
      {"lag(pooled_weight=3)", "method 'lag' has no option 'pooled_weight'"},
      {"lag(shortlist=3,shortlist=4)", "gives 'shortlist' twice"},
      {"lag(shortlist=0)", "`shortlist`: must be at least 1, not 0"},
      {"lag(shortlist=many)", "`shortlist`: must be a whole number, not 'many'"},
      {"arrow(tie_by=sum)", "`tie_by` requires `tie`"},
      {"spectral(calibration_prompts=8)", "`calibration_prompts` requires `calibrated`"},
      {"norm(calibration=\"a)", "does not end with the bracket that it opens"},
      {"norm(calibration=\"a\"b)", "is not a quoted text"},
  };
  for (const auto& [text, message] : rows) {
    SCOPED_TRACE(text);
    EXPECT_ERROR(parse_name(text), ErrorKind::kUsage, message);
  }
}

TEST(ComposedName, ListsAreCutOutsideOfBracketsAndQuotes) {
  EXPECT_THAT(split_names("base,private-arrow"), ElementsAre("base", "private-arrow"));
  EXPECT_THAT(split_names("lag(top_k=1,shortlist=2),arrow(tie=[q_proj,k_proj])"),
              ElementsAre("lag(top_k=1,shortlist=2)", "arrow(tie=[q_proj,k_proj])"));
  EXPECT_THAT(split_names("norm(calibration=\"),\"),mean"), ElementsAre("norm(calibration=\"),\")", "mean"));
  EXPECT_THAT(split_names(",,"), ElementsAre());
}

}  // namespace
}  // namespace quiver::methods
