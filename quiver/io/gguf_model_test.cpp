#include "quiver/io/gguf_model.h"

#include "quiver/io/gguf_test_support.h"
#include "quiver/io/test_support.h"

namespace quiver::io {
namespace {

using ::testing::AllOf;
using ::testing::EndsWith;
using ::testing::HasSubstr;
using ::testing::StartsWith;

std::string value(std::string_view key, std::int32_t number) { return raw_string(key) + raw<std::uint32_t>(5) + raw(number); }

/// A piece that says it is the `no`-th (from 0) of `count`, with one tensor of one value.
std::string piece(std::int32_t no, std::int32_t count, std::string_view tensor, float element, std::int32_t num_tensors = 2) {
  std::string file = head(1, 3) + value("split.no", no) + value("split.count", count) + value("split.tensors.count", num_tensors) +
                     tensor_info(tensor, {1}, 0, 0);
  file.resize((file.size() + 31) / 32 * 32, '\0');
  return file + raw(element);
}

class Pieces : public ::testing::Test {
 protected:
  void write(const std::string& name, const std::string& bytes) { write_file_atomic(folder_ / name, bytes); }
  std::string error(const std::string& name) {
    return error_of([&] { GgufModel model(folder_ / name); });
  }
  TempFolder folder_;
};

TEST_F(Pieces, AreOneModelWhicheverIsOpened) {
  write("m-00001-of-00002.gguf", piece(0, 2, "a", 1.5F));
  write("m-00002-of-00002.gguf", piece(1, 2, "b", 2.5F));
  for (const char* name : {"m-00001-of-00002.gguf", "m-00002-of-00002.gguf"}) {
    const GgufModel model(folder_ / name);
    ASSERT_EQ(model.view().tensors().size(), 2u);
    EXPECT_EQ(model.view().tensors()[1].name, "b");
    float first = 0, second = 0;
    dequantize(model.view().at("a"), std::span(&first, 1));
    dequantize(model.view().at("b"), std::span(&second, 1));
    EXPECT_EQ(first, 1.5F);
    EXPECT_EQ(second, 2.5F);
    EXPECT_THAT(model.view().origin(), EndsWith("m-00001-of-00002.gguf"));
    EXPECT_EQ(model.view().require_int("split.no"), 0);
  }
}

TEST_F(Pieces, AnOrdinaryFileIsAModelOfOnePiece) {
  const std::string file = head(1, 0) + tensor_info("w", {1}, 0, 0);
  write("plain.gguf", file + std::string((32 - file.size() % 32) % 32, '\0') + raw(3.0F));
  EXPECT_EQ(GgufModel(folder_ / "plain.gguf").view().tensors().size(), 1u);
  EXPECT_THAT(error("absent.gguf"), AllOf(StartsWith("not found: "), HasSubstr("absent.gguf")));
}

TEST_F(Pieces, ThatAreMissingAreNamed) {
  write("m-00002-of-00003.gguf", piece(1, 3, "b", 0));
  EXPECT_THAT(error("m-00002-of-00003.gguf"),
              AllOf(StartsWith("not found: "), HasSubstr("the model has 3 pieces, of which 2 are missing beside it: "
                                                         "'m-00001-of-00003.gguf', 'm-00003-of-00003.gguf' (an incomplete download?)")));
  EXPECT_THAT(error("m-00001-of-90000.gguf"), HasSubstr("of which 90000 are missing"));
  EXPECT_THAT(error("m-00001-of-90000.gguf"), HasSubstr("'m-00006-of-90000.gguf' and 89994 more"));
}

TEST_F(Pieces, ThatDoNotBelongTogetherAreRefused) {
  write("m-00001-of-00002.gguf", piece(0, 2, "a", 0));
  write("m-00002-of-00002.gguf", piece(0, 2, "b", 0));
  EXPECT_THAT(error("m-00001-of-00002.gguf"),
              AllOf(StartsWith("bad format: "), HasSubstr("m-00002-of-00002.gguf: 'split.no' is 0, but its name says 1; were the pieces")));
  write("m-00002-of-00002.gguf", piece(1, 3, "b", 0));
  EXPECT_THAT(error("m-00001-of-00002.gguf"), HasSubstr("m-00002-of-00002.gguf: 'split.count' is 3, but its name says 2"));
  write("m-00002-of-00002.gguf", piece(1, 2, "a", 0));
  EXPECT_THAT(error("m-00001-of-00002.gguf"), HasSubstr("m-00002-of-00002.gguf: tensor 'a' is in an earlier piece of the model, too"));
  write("m-00001-of-00002.gguf", piece(0, 2, "c", 0, 7));
  EXPECT_THAT(error("m-00001-of-00002.gguf"), HasSubstr("'split.tensors.count' is 7, but the 2 pieces hold 2 tensors"));
  write("m-00001-of-00002.gguf", head(0, 0));
  EXPECT_THAT(error("m-00001-of-00002.gguf"), HasSubstr("m-00001-of-00002.gguf: the metadata has no key 'split.no'"));
  write("renamed.gguf", piece(0, 2, "a", 0));
  EXPECT_THAT(error("renamed.gguf"),
              AllOf(StartsWith("bad format: "), HasSubstr("renamed.gguf: is one of 2 pieces of a model ('split.count')")));
}

TEST(FirstGgufPiece, IsFoundByName) {
  const auto first = [](const char* path) { return first_gguf_piece(path).string(); };
  EXPECT_EQ(first("a/m-00003-of-00012.gguf"), "a/m-00001-of-00012.gguf");
  EXPECT_EQ(first("m-00001-of-00001.gguf"), "m-00001-of-00001.gguf");
  for (const char* other : {"m.gguf", "m-00003-of-00002.gguf", "m-00000-of-00002.gguf", "m-00003-of-0000a.gguf", "m-0003-of-0012.gguf",
                            "-00003-of-00012.gguf", "m-00003-of-00012.bin", "m-00003_of_00012.gguf", "m--0001-of-00012.gguf"}) {
    EXPECT_EQ(first(other), other);
  }
}

}  // namespace
}  // namespace quiver::io
