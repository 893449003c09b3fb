#include "quiver/io/hub_cache.h"

#include <cstdlib>

#include "quiver/io/file.h"
#include "quiver/io/test_support.h"

namespace quiver::io {
namespace {

namespace fs = std::filesystem;
using ::testing::AllOf;
using ::testing::HasSubstr;

/// A cache with ORG/two of the revisions "abc1" (main) and "abd2" (v1), and "solo" without refs.
class HubCache : public ::testing::Test {
 protected:
  HubCache() {
    for (const auto* folder : {"models--ORG--two/snapshots/abc1", "models--ORG--two/snapshots/abd2", "models--ORG--two/refs",
                               "models--solo/snapshots/f00", "datasets--ORG--two/snapshots/1"}) {
      fs::create_directories(home_.path() / "hub" / folder);
    }
    write_file_atomic(home_.path() / "hub/models--ORG--two/refs/main", "abc1\n");
    write_file_atomic(home_.path() / "hub/models--ORG--two/refs/v1", "abd2");
    ::unsetenv("HF_HUB_CACHE");
    ::setenv("HF_HOME", home_.path().c_str(), 1);
  }
  ~HubCache() override { ::unsetenv("HF_HOME"); }

  std::string found(const std::string& name) const { return fs::relative(hub_snapshot(name), home_.path() / "hub").string(); }

  const TempFolder home_;
};

TEST_F(HubCache, FindsSnapshotsByNameAndRevision) {
  EXPECT_EQ(found("ORG/two"), "models--ORG--two/snapshots/abc1");
  EXPECT_EQ(found("ORG/two@v1"), "models--ORG--two/snapshots/abd2");
  EXPECT_EQ(found("ORG/two@abd"), "models--ORG--two/snapshots/abd2");
  EXPECT_EQ(found("solo"), "models--solo/snapshots/f00");
}

TEST_F(HubCache, SaysWhatIsThere) {
  EXPECT_THAT(error_of([] { hub_snapshot("ORG/tow"); }),
              AllOf(HasSubstr("model 'ORG/tow' is neither"), HasSubstr("did you mean 'ORG/two'")));
  EXPECT_THAT(error_of([] { hub_snapshot("ORG/two@v2"); }), AllOf(HasSubstr("no snapshot of revision 'v2'"), HasSubstr("abc1, abd2")));
  EXPECT_THAT(error_of([] { hub_snapshot("ORG/two@ab"); }), HasSubstr("no snapshot of revision 'ab'"));  // two of them
}

TEST_F(HubCache, TellsNamesFromPaths) {
  for (const auto* name : {"ORG/two", "ORG/none", "ORG/two@main", "solo", "a-b_c/d.e"}) EXPECT_TRUE(is_hub_model(name)) << name;
  for (const auto* path : {"none", "./ORG/two", "/ORG/two", "ORG/two/three", "ORG/..", "", "ORG/", "ORG/two@", "ORG/two@a/b"}) {
    EXPECT_FALSE(is_hub_model(path)) << path;
  }
}

TEST_F(HubCache, NamesModelsByTheirFolders) {
  EXPECT_EQ(hub_model_name("models--ORG--two"), "ORG/two");
  EXPECT_EQ(hub_model_name("models--solo"), "solo");
  EXPECT_EQ(hub_model_name("datasets--ORG--two"), std::nullopt);
}

TEST_F(HubCache, StandsWhereTheVariablesSay) {
  EXPECT_EQ(hub_cache(), home_.path() / "hub");
  ::setenv("HF_HUB_CACHE", "/elsewhere", 1);
  EXPECT_EQ(hub_cache(), "/elsewhere/");
  ::unsetenv("HF_HUB_CACHE");
}

}  // namespace
}  // namespace quiver::io
