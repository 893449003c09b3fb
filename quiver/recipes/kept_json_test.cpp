#include "quiver/recipes/kept_json.h"

#include <gtest/gtest.h>

#include "quiver/io/file.h"
#include "quiver/io/test_support.h"

namespace quiver::recipes {
namespace {

using io::TempFolder;
using nlohmann::json;

TEST(KeptJson, IsFoundUnderItsKeyAlone) {
  const TempFolder temp;
  const json value = {{"records", {{{"id", "é"}, {"nll", 0.1}}}}, {"none", nullptr}, {"small", 1e-300}};
  EXPECT_EQ(kept_json(temp / "part.json", "key"), std::nullopt);
  keep_json(temp / "part.json", "key", value);
  EXPECT_EQ(kept_json(temp / "part.json", "key"), value);
  EXPECT_EQ(kept_json(temp / "part.json", "another"), std::nullopt);
}

TEST(KeptJson, ThatWasDamagedIsNone) {
  const TempFolder temp;
  keep_json(temp / "part.json", "key", {{"records", {1, 2}}});
  const auto text = io::read_text_file(temp / "part.json");
  for (std::size_t i = 0; i < text.size(); ++i) {
    auto changed = text;
    changed[i] = static_cast<char>(static_cast<unsigned char>(text[i]) ^ 1U);
    io::write_file_atomic(temp / "part.json", changed);
    EXPECT_EQ(kept_json(temp / "part.json", "key"), std::nullopt) << changed;
    io::write_file_atomic(temp / "part.json", text.substr(0, i));
    EXPECT_EQ(kept_json(temp / "part.json", "key"), std::nullopt) << "cut at " << i;
  }
  for (const char* other : {"[]", "1", R"({"key": 1})", R"({"key": "key"})", R"({"key": "key", "value": []})"}) {
    io::write_file_atomic(temp / "part.json", other);
    EXPECT_EQ(kept_json(temp / "part.json", "key"), std::nullopt) << other;
  }
}

}  // namespace
}  // namespace quiver::recipes
