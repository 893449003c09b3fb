// What the headers of the folders without libtorch call thread-safe, by several threads at once: make tsan looks on.
#include "tests/threads/support.h"

#include <gtest/gtest.h>

#include <atomic>
#include <filesystem>
#include <string>

#include "fuzz/tokenizer.h"
#include "quiver/base/profile.h"
#include "quiver/base/progress.h"
#include "quiver/base/random.h"
#include "quiver/io/file.h"
#include "quiver/io/folder.h"
#include "quiver/io/gguf.h"
#include "quiver/io/safetensors.h"
#include "quiver/io/test_support.h"
#include "quiver/regex/pattern.h"
#include "quiver/text/chat_template.h"
#include "quiver/text/jinja.h"
#include "quiver/text/oniguruma.h"

namespace quiver {
namespace {

using testing::kThreads;
using testing::on_threads;

/// Words that many threads have in common, and some of each thread alone.
std::string words(std::size_t thread) {
  RandomStream random(3, "words/" + std::to_string(thread % 2));
  std::string text;
  for (int i = 0; i < 400; ++i)
    text += std::string(1 + random.below(6), static_cast<char>('a' + random.below(8))) + (i % 7 == 0 ? "\n" : " ");
  return text;
}

TEST(Threads, ATokenizerEncodesAndDecodesAlikeOnAll) {
  const auto tokenizer = fuzz::lossless_tokenizer();
  const auto fresh = fuzz::lossless_tokenizer();  // with an empty cache of pieces
  on_threads([&](std::size_t thread) {
    const auto text = words(thread);
    const auto ids = fresh.encode(text);
    EXPECT_EQ(ids, tokenizer.encode(text));
    EXPECT_EQ(fresh.decode(ids), text);
  });
}

TEST(Threads, ATokenizerOfNormalizersAndSplitsEncodesAlikeOnAll) {
  const auto file = io::read_text_file("fuzz/corpus/tokenizer/normalizers");
  const auto description = io::parse_json(std::string_view(file).substr(0, file.find('\0')), "normalizers");
  const auto tokenizer = text::Tokenizer::from_tokenizer_json(description, "normalizers");
  const auto expected = tokenizer.encode("aáb Ab ab a a");
  on_threads([&](std::size_t) {
    for (int i = 0; i < 50; ++i) ASSERT_EQ(tokenizer.encode("aáb Ab ab a a"), expected);
  });
}

TEST(Threads, ARegexMatchesAlikeOnAll) {
  const regex::Pattern pattern(text::translate_pattern(R"(\p{L}+| \d+)", "test"), "test");
  on_threads([&](std::size_t thread) {
    for (int i = 0; i < 50; ++i) {
      std::vector<regex::Match> matches;
      pattern.find_all(words(thread), matches);
      ASSERT_EQ(matches.size(), 400u);
    }
  });
}

TEST(Threads, ATemplateRendersAlikeOnAll) {
  const text::ChatTemplate chat(
      "{% set ns = namespace(n=0) %}{% for m in messages %}{% set ns.n = ns.n + 1 %}{{ ns.n }}:{{ m.content }};{% endfor %}", "test",
      fuzz::lossless_tokenizer());
  on_threads([&](std::size_t thread) {
    const std::vector<text::Message> messages = {{"user", words(thread)}, {"assistant", "yes"}};
    for (int i = 0; i < 20; ++i) ASSERT_EQ(chat.render(messages, false), "1:" + messages[0].content + ";2:yes;");
  });
}

TEST(Threads, ViewsOfFilesAreReadByAll) {
  const io::MappedFile tensors("tests/golden/safetensors/every_dtype.safetensors"), model("tests/golden/gguf/every_type.gguf");
  const auto view = io::SafetensorsView::parse(tensors.bytes(), "tensors");
  const auto gguf = io::GgufView::parse(model.bytes(), "model");
  on_threads([&](std::size_t) {
    for (const auto& entry : view.entries()) ASSERT_EQ(view.find(entry.name), &entry);
    for (const auto& tensor : gguf.tensors()) ASSERT_EQ(gguf.find(tensor.name), &tensor);
  });
}

TEST(Threads, FilesAndFoldersAreReplacedAsAWhole) {
  const io::TempFolder temp;
  const auto file = temp / "file", lock = temp / "lock", folder = temp / "folder";
  std::atomic<int> holders = 0;
  on_threads([&](std::size_t thread) {
    const std::string mine(1000, static_cast<char>('a' + thread));
    for (int i = 0; i < 10; ++i) {
      io::write_file_atomic(file, mine);
      const auto found = io::read_text_file(file);
      ASSERT_EQ(found, std::string(1000, found.front()));
      const io::FileLock guard(lock, 60000);
      ASSERT_EQ(holders.fetch_add(1), 0);
      io::AtomicFolderWriter writer(folder);
      io::write_file_atomic(writer.temp() / "a", mine);
      writer.commit(io::IfExists::kReplace);
      holders.fetch_sub(1);
    }
  });
  EXPECT_EQ(io::read_text_file(folder / "a").size(), 1000u);
}

TEST(Threads, ARequestToStopReachesAll) {
  clear_stop();
  on_threads([](std::size_t thread) {
    if (thread == 0) request_stop();
    while (!stop_requested()) std::this_thread::yield();
    EXPECT_THROW(throw_if_stopped("here"), Error);
  });
  clear_stop();
}

TEST(Threads, TheProfileSumsOverAll) {
  const double before = Profile::seconds(Stage::kBatch);
  on_threads([](std::size_t) {
    for (int i = 0; i < 1000; ++i) Profile::add(Stage::kBatch, 1'000'000);
  });
  EXPECT_NEAR(Profile::seconds(Stage::kBatch) - before, static_cast<double>(kThreads), 1e-6);
}

}  // namespace
}  // namespace quiver
