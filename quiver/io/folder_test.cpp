#include "quiver/io/folder.h"

#include "quiver/io/file.h"
#include "quiver/io/test_support.h"

namespace quiver::io {
namespace {

namespace fs = std::filesystem;
using ::testing::HasSubstr;

TEST(AtomicFolderWriter, PublishesTheFolderAsAWhole) {
  const TempFolder temp;
  {
    AtomicFolderWriter writer(temp / "a");
    write_file_atomic(writer.temp() / "x", std::string_view("one"));
    EXPECT_FALSE(fs::exists(temp / "a"));
    writer.commit(IfExists::kRefuse);
  }
  EXPECT_EQ(read_text_file(temp / "a" / "x"), "one");
  EXPECT_EQ(temp.num_files(), 1);
}

TEST(AtomicFolderWriter, LeavesNothingWithoutCommit) {
  const TempFolder temp;
  {
    AtomicFolderWriter writer(temp / "a");
    write_file_atomic(writer.temp() / "x", std::string_view("one"));
  }
  EXPECT_EQ(temp.num_files(), 0);
}

TEST(AtomicFolderWriter, ReplacesAFilledFolderOnlyIfToldTo) {
  const TempFolder temp;
  fs::create_directory(temp / "a");
  write_file_atomic(temp / "a" / "old", std::string_view("old"));
  {
    AtomicFolderWriter writer(temp / "a");
    EXPECT_THAT(error_of([&] { writer.commit(IfExists::kRefuse); }), HasSubstr("exists already"));
  }
  EXPECT_EQ(read_text_file(temp / "a" / "old"), "old");
  {
    AtomicFolderWriter writer(temp / "a");
    write_file_atomic(writer.temp() / "new", std::string_view("new"));
    writer.commit(IfExists::kReplace);
  }
  EXPECT_FALSE(fs::exists(temp / "a" / "old"));
  EXPECT_EQ(read_text_file(temp / "a" / "new"), "new");
  EXPECT_EQ(temp.num_files(), 1);
}

TEST(AtomicFolderWriter, FillsAnEmptyFolderAndIgnoresAFinalSlash) {
  const TempFolder temp;
  fs::create_directory(temp / "a");
  AtomicFolderWriter writer(temp / "a/");
  write_file_atomic(writer.temp() / "x", std::string_view("one"));
  writer.commit(IfExists::kRefuse);
  EXPECT_EQ(read_text_file(temp / "a" / "x"), "one");
  EXPECT_THAT(error_of([&] { writer.commit(IfExists::kRefuse); }), HasSubstr("committed twice"));
}

TEST(AtomicFolderWriter, NamesTheMissingParent) {
  const TempFolder temp;
  EXPECT_THAT(error_of([&] { AtomicFolderWriter(temp / "no/a"); }), HasSubstr("not found: cannot create folder"));
}

TEST(RemoveFolder, RemovesAllThatIsInIt) {
  const TempFolder temp;
  fs::create_directories(temp / "a/b");
  remove_folder(temp / "a");
  EXPECT_EQ(temp.num_files(), 0);
  EXPECT_THAT(error_of([&] { remove_folder(temp / "a"); }), HasSubstr("there is no folder"));
}

}  // namespace
}  // namespace quiver::io
