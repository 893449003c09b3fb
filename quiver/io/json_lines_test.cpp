#include <fcntl.h>
#include <zstd.h>

#include <vector>

#include "quiver/io/file.h"
#include "quiver/io/json.h"
#include "quiver/io/test_support.h"

namespace quiver::io {
namespace {

using nlohmann::json;
using ::testing::AllOf;
using ::testing::HasSubstr;
using ::testing::StartsWith;

std::string zstd(std::string_view text) {
  std::string compressed(ZSTD_compressBound(text.size()), '\0');
  compressed.resize(ZSTD_compress(compressed.data(), compressed.size(), text.data(), text.size(), 3));
  return compressed;
}

std::vector<json> read_all(JsonLinesReader reader) {
  std::vector<json> documents;
  while (auto document = reader.next()) documents.push_back(std::move(*document));
  return documents;
}

std::vector<json> read_all(std::string bytes, std::string origin) {
  return read_all(JsonLinesReader::from_bytes(std::move(bytes), std::move(origin)));
}

/// `count` lines of some length, more than one buffer in all.
std::string many_lines(std::int64_t count) {
  std::string text;
  for (std::int64_t i = 0; i < count; ++i) text += format("{{\"id\": {}, \"text\": \"{}\"}}\n", i, std::string(100, 'x'));
  return text;
}

TEST(JsonLinesReader, GivesEachLineAndItsNumber) {
  auto reader = JsonLinesReader::from_bytes("1\n\n  \t\r\n{\"a\": 2}\r\n[3]", "a.jsonl");
  EXPECT_EQ(reader.line_number(), 0);
  EXPECT_EQ(reader.next(), json(1));
  EXPECT_EQ(reader.where(), "a.jsonl:1");
  EXPECT_EQ(reader.next(), (json{{"a", 2}}));
  EXPECT_EQ(reader.line_number(), 4);
  EXPECT_EQ(reader.next(), json::array({3}));
  EXPECT_EQ(reader.where(), "a.jsonl:5");
  EXPECT_EQ(reader.next(), std::nullopt);
  EXPECT_EQ(reader.next(), std::nullopt);
}

TEST(JsonLinesReader, OfNothingGivesNothing) {
  EXPECT_TRUE(read_all("", "a.jsonl").empty());
  EXPECT_TRUE(read_all("\n\n", "a.jsonl").empty());
}

TEST(JsonLinesReader, ReadsFilesLargerThanItsBuffer) {
  const TempFolder folder;
  write_file_atomic(folder / "a.jsonl", many_lines(5000));
  const auto documents = read_all(JsonLinesReader(folder / "a.jsonl"));
  ASSERT_EQ(documents.size(), 5000);
  EXPECT_EQ(documents[4999]["id"], 4999);
}

TEST(JsonLinesReader, DecompressesByName) {
  const TempFolder folder;
  write_file_atomic(folder / "a.jsonl.zst", zstd(many_lines(5000)));
  const auto documents = read_all(JsonLinesReader(folder / "a.jsonl.zst"));
  ASSERT_EQ(documents.size(), 5000);
  EXPECT_EQ(documents[4321]["id"], 4321);
}

TEST(JsonLinesReader, ReadsFramesInARow) {
  // The frames may meet inside a line.
  EXPECT_EQ(read_all(zstd("1\n2") + zstd("") + zstd("3\n4\n"), "a.zst"), (std::vector<json>{1, 23, 4}));
}

TEST(JsonLinesReader, RefusesATruncatedStreamWhereverItIsCut) {
  const std::string whole = zstd(many_lines(30)) + zstd("1\n");
  const std::size_t first_frame = zstd(many_lines(30)).size();
  for (std::size_t size = 0; size < whole.size(); ++size) {
    SCOPED_TRACE(size);
    const std::string message = error_of([&] { read_all(whole.substr(0, size), "a.zst"); });
    if (size == first_frame) {
      EXPECT_EQ(message, "no error");
    } else {
      EXPECT_THAT(message,
                  AllOf(StartsWith("bad format: 'a.zst' "), HasSubstr(size == 0 ? "is empty" : "ends in the middle of a zstd frame")))
          << size;
    }
  }
}

TEST(JsonLinesReader, RefusesCorruptAndMisnamedStreams) {
  EXPECT_THAT(error_of([] { read_all("{\"a\": 1}\n", "a.zst"); }), HasSubstr("not a sound zstd stream: Unknown frame"));
  EXPECT_THAT(error_of([] { read_all(zstd("1\n") + "garbage", "a.zst"); }), HasSubstr("not a sound zstd stream"));
}

TEST(JsonLinesReader, NamesFileAndLineOfAnError) {
  const auto message = [](std::string text) { return error_of([&] { read_all(std::move(text), "a.jsonl"); }); };
  EXPECT_THAT(message("1\n\n{\"a\": oops}\n"), StartsWith("bad format: a.jsonl:3: not JSON at line 3, column 7: "));
  EXPECT_THAT(message("1\n{\"a\": 1, \"a\": 2}\n"), StartsWith("bad format: a.jsonl:2: "));
  EXPECT_THAT(message("1\n\"\xff\"\n"), HasSubstr("a.jsonl:2: not JSON at line 2, column 2: "));
  EXPECT_THAT(message("1\n[\n]\n"), StartsWith("bad format: a.jsonl:2: "));  // a document may not span lines
}

TEST(JsonLinesReader, RefusesAnAbsentFile) {
  EXPECT_THAT(error_of([] { JsonLinesReader("absent.jsonl"); }), StartsWith("not found: cannot open 'absent.jsonl'"));
  const TempFolder folder;
  EXPECT_THAT(error_of([&] { read_all(JsonLinesReader(folder.path())); }), StartsWith("input/output: cannot read"));
}

TEST(JsonLinesReader, ReadsStandardInput) {
  const TempFolder folder;
  write_file_atomic(folder / "a.jsonl", "1\noops\n");
  const int saved = ::dup(STDIN_FILENO);
  const int file = ::open((folder / "a.jsonl").c_str(), O_RDONLY);
  ::dup2(file, STDIN_FILENO);
  {
    JsonLinesReader reader("-");
    EXPECT_EQ(reader.next(), json(1));
    EXPECT_THAT(error_of([&] { reader.next(); }), HasSubstr("standard input:2: not JSON"));
  }
  EXPECT_NE(::fcntl(STDIN_FILENO, F_GETFD), -1) << "the reader must not close what it did not open";
  ::dup2(saved, STDIN_FILENO);
  ::close(file);
  ::close(saved);
}

}  // namespace
}  // namespace quiver::io
