#include "quiver/io/partial_lines.h"

#include "quiver/io/test_support.h"

namespace quiver::io {
namespace {

namespace fs = std::filesystem;
using ::testing::HasSubstr;

/// A run that was killed after these bytes.
void leave(const fs::path& output, const std::string& key, std::string_view lines) {
  WorkFolder work(beside(output, ".parts"));
  write_file_atomic(work.file("key"), key);
  write_file_atomic(work.file("lines.jsonl"), lines);
}

TEST(PartialLines, BecomeTheFileAtTheEnd) {
  const TempFolder temp;
  PartialLines lines(temp / "out");
  EXPECT_EQ(lines.take_up("key").num_lines, 0);
  lines.append("1\n2\n");
  EXPECT_FALSE(fs::exists(temp / "out"));
  EXPECT_EQ(read_text_file(temp / "out.parts" / "lines.jsonl"), "1\n2\n");
  lines.append("3\n");
  lines.commit();
  EXPECT_EQ(read_text_file(temp / "out"), "1\n2\n3\n");
  EXPECT_EQ(temp.num_files(), 1);
}

TEST(PartialLines, GoOnBehindTheLastCompleteLine) {
  const TempFolder temp;
  leave(temp / "out", "key", "1\n{\"a\":2}\n{\"a\":");
  PartialLines lines(temp / "out");
  const auto found = lines.take_up("key");
  EXPECT_EQ(found.num_lines, 2);
  EXPECT_FALSE(found.is_of_another);
  lines.append("3\n");
  lines.commit();
  EXPECT_EQ(read_text_file(temp / "out"), "1\n{\"a\":2}\n3\n");
}

TEST(PartialLines, EndBeforeALineThatIsNoJson) {
  const TempFolder temp;
  leave(temp / "out", "key", std::string("1\n\0\0\0\n3\n", 8));
  PartialLines lines(temp / "out");
  EXPECT_EQ(lines.take_up("key").num_lines, 1);
}

TEST(PartialLines, OfAnotherKeyAreNotMixedIn) {
  const TempFolder temp;
  leave(temp / "out", "another", "1\n2\n");
  PartialLines lines(temp / "out");
  const auto found = lines.take_up("key");
  EXPECT_EQ(found.num_lines, 0);
  EXPECT_TRUE(found.is_of_another);
  lines.append("3\n");
  lines.commit();
  EXPECT_EQ(read_text_file(temp / "out"), "3\n");
}

TEST(PartialLines, AreKeptByARunThatFails) {
  const TempFolder temp;
  {
    PartialLines lines(temp / "out");
    lines.take_up("key");
    lines.append("1\n");
  }
  EXPECT_EQ(PartialLines(temp / "out").take_up("key").num_lines, 1);
}

TEST(PartialLines, LeaveNothingWhereNoLineWasMade) {
  const TempFolder temp;
  {
    PartialLines lines(temp / "out");
    lines.take_up("key");
    EXPECT_TRUE(fs::exists(temp / "out.parts"));
  }
  EXPECT_EQ(temp.num_files(), 0);
}

TEST(PartialLines, AreOfOneProcessAtATime) {
  const TempFolder temp;
  PartialLines first(temp / "out"), second(temp / "out");
  first.take_up("key");
  EXPECT_THAT(error_of([&] { second.take_up("key"); }), HasSubstr("is locked by process"));
}

TEST(PartialLines, TakeNoFolderThatIsNotQuivers) {
  const TempFolder temp;
  fs::create_directory(temp / "out.parts");
  write_file_atomic(temp / "out.parts" / "thesis.tex", std::string_view("mine"));
  EXPECT_THAT(error_of([&] { PartialLines lines(temp / "out"); }), HasSubstr("was not made for them"));
}

}  // namespace
}  // namespace quiver::io
