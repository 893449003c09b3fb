#include "quiver/io/work_folder.h"

#include "quiver/io/file.h"
#include "quiver/io/test_support.h"

namespace quiver::io {
namespace {

namespace fs = std::filesystem;
using ::testing::HasSubstr;

TEST(WorkFolder, IsMadeWithItsFirstFileAndGoesWithItsLast) {
  const TempFolder temp;
  WorkFolder work(temp / "parts");
  EXPECT_FALSE(fs::exists(temp / "parts"));
  write_file_atomic(work.file("a"), std::string_view("one"));
  EXPECT_EQ(read_text_file(temp / "parts" / "a"), "one");
  work.remove();
  EXPECT_FALSE(fs::exists(temp / "parts"));
}

TEST(WorkFolder, IsTakenUpByALaterRun) {
  const TempFolder temp;
  write_file_atomic(WorkFolder(temp / "parts").file("a"), std::string_view("one"));
  WorkFolder later(temp / "parts");
  EXPECT_EQ(read_text_file(later.file("a")), "one");
  later.remove();
  EXPECT_EQ(temp.num_files(), 0);
}

TEST(WorkFolder, RefusesAFolderThatIsNotQuivers) {
  const TempFolder temp;
  fs::create_directory(temp / "parts");
  write_file_atomic(temp / "parts" / "thesis.tex", std::string_view("mine"));
  EXPECT_THAT(error_of([&] { WorkFolder work(temp / "parts"); }), HasSubstr("was not made for them"));
  write_file_atomic(temp / "file", std::string_view("mine"));
  EXPECT_THAT(error_of([&] { WorkFolder work(temp / "file"); }), HasSubstr("was not made for them"));
  EXPECT_EQ(read_text_file(temp / "parts" / "thesis.tex"), "mine");
}

TEST(WorkFolder, NeverTouchesFilesThatItDidNotMake) {
  const TempFolder temp;
  WorkFolder work(temp / "parts");
  write_file_atomic(work.file("a"), std::string_view("one"));
  write_file_atomic(temp / "parts" / "notes", std::string_view("mine"));
  EXPECT_THAT(error_of([&] { work.file("notes"); }), HasSubstr("was not made by Quiver"));
  work.remove();
  EXPECT_EQ(read_text_file(temp / "parts" / "notes"), "mine");
  EXPECT_FALSE(fs::exists(temp / "parts" / "a"));
  WorkFolder again(temp / "parts");  // still known as Quiver's
  fs::remove(temp / "parts" / "notes");
  again.file("b");
  again.remove();
  EXPECT_EQ(temp.num_files(), 0);
}

TEST(WorkFolder, ClearsWhatAKillLeftInTheMiddleOfAWrite) {
  const TempFolder temp;
  fs::create_directory(temp / "parts");
  write_file_atomic(temp / "parts" / "..quiver-work.12-ab.tmp", std::string_view("half"));
  WorkFolder work(temp / "parts");
  write_file_atomic(work.file("a"), std::string_view("one"));
  write_file_atomic(temp / "parts" / ".a.12-ac.tmp", std::string_view("half"));
  work.remove();
  EXPECT_EQ(temp.num_files(), 0);
}

TEST(WorkFolder, RefusesAMarkerThatLeadsElsewhere) {
  const TempFolder temp;
  write_file_atomic(temp / "victim", std::string_view("mine"));
  write_file_atomic(WorkFolder(temp / "parts").file("a"), std::string_view("one"));
  const auto marker = temp / "parts" / ".quiver-work";
  write_file_atomic(marker, read_text_file(marker) + "../victim\n");
  EXPECT_THAT(error_of([&] { WorkFolder work(temp / "parts"); }), HasSubstr("no name of a file"));
  EXPECT_EQ(read_text_file(temp / "victim"), "mine");
}

}  // namespace
}  // namespace quiver::io
