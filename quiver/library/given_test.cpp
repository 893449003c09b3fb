#include "quiver/library/given.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>
#include <torch/utils.h>

#include "quiver/adapters/peft.h"
#include "quiver/io/file.h"
#include "quiver/io/json.h"
#include "quiver/library/test_support.h"

namespace quiver::library {
namespace {

namespace fs = std::filesystem;
using ::testing::ElementsAre;
using ::testing::HasSubstr;

/// A PEFT folder as no writer of ours makes it: another order and spacing of the configuration, a key that Quiver does not write.
fs::path foreign_folder(const TempFolder& temp, const std::string& name) {
  auto adapter = random_adapter(name, 2, 6);
  adapter.base_model = "somebody/llama-of-theirs";
  adapters::save_peft(temp / name, adapter);
  auto config = io::read_json_file(temp / name / "adapter_config.json");
  config["inference_mode"] = true;
  io::write_file_atomic(temp / name / "adapter_config.json", "\n" + config.dump(7) + "\n\n");
  io::write_file_atomic(temp / name / "README.md", "# My adapter\n");
  return temp / name;
}

nn::LinearMap projections_of(const adapters::LoraAdapter& adapter) {
  nn::LinearMap projections;
  for (const auto& [path, pair] : adapter.pairs) projections[path] = nn::Linear(torch::zeros({pair.out_features(), pair.in_features()}));
  return projections;
}

GivenAdapter given_of(const fs::path& folder, const Base& base = kBase) {
  return read_given(folder, base, projections_of(adapters::load_peft(folder)), /*allow_other_base=*/true);
}

TEST(Given, StaysAsItIsByteForByte) {
  const TempFolder temp;
  auto library = new_library(temp);
  const auto folder = foreign_folder(temp, "theirs");
  library.add(given_of(folder), {.kind = AdapterKind::kImported});
  library.export_adapter("theirs", temp / "out");
  for (const char* file : {"adapter_config.json", "adapter_model.safetensors", "README.md"}) {
    EXPECT_EQ(io::read_text_file(library.adapter_folder("theirs") / file), io::read_text_file(folder / file)) << file;
    EXPECT_EQ(io::read_text_file(temp / "out" / file), io::read_text_file(folder / file)) << file;
  }
  const auto reopened = Library::open(temp / "lib");
  EXPECT_TRUE(reopened.at("theirs").is_as_given);
  EXPECT_EQ(reopened.at("theirs").sha256, io::sha256_file(folder / "adapter_model.safetensors"));
  EXPECT_EQ(reopened.at("theirs").config_sha256, io::sha256_file(folder / "adapter_config.json"));
  EXPECT_EQ(findings_of(reopened), "");
}

TEST(Given, ManyAreAddedInOneWritingOrNone) {
  const TempFolder temp;
  auto library = new_library(temp);
  std::vector<GivenAdapter> given;
  for (const char* name : {"one", "two", "three"}) given.push_back(given_of(foreign_folder(temp, name)));
  library.add(given, {.kind = AdapterKind::kImported});
  EXPECT_THAT(Library::open(temp / "lib").adapter_names(), ElementsAre("one", "three", "two"));
  EXPECT_EQ(findings_of(library), "");

  std::vector<GivenAdapter> more = {given_of(foreign_folder(temp, "four")), given.front()};
  EXPECT_THAT(message_of(ErrorKind::kUsage, [&] { library.add(more, {}); }), HasSubstr("has an adapter 'one' already"));
  more[1].adapter.name = "four";
  EXPECT_THAT(message_of(ErrorKind::kUsage, [&] { library.add(more, {}); }), HasSubstr("would both be adapter 'four'"));
  EXPECT_EQ(Library::open(temp / "lib").adapters().size(), 3u);
  EXPECT_EQ(findings_of(library), "");
}

TEST(Given, IsOfTheLibrarysBaseWhateverItsFilesSay) {
  const TempFolder temp;
  auto library = new_library(temp);
  auto other = random_adapter("other");
  other.base_fingerprint = "beef";
  adapters::save_peft(temp / "other", other);
  library.add(given_of(temp / "other"), {.kind = AdapterKind::kImported});
  const auto loaded = library.load("other");
  EXPECT_TRUE(same_pairs(loaded, other));
  EXPECT_EQ(loaded.base_model, "llama-tiny");
  EXPECT_EQ(loaded.base_fingerprint, "f00d");
  EXPECT_EQ(adapters::load_peft(library.adapter_folder("other")).base_fingerprint, "beef");
  EXPECT_EQ(findings_of(library), "");
}

TEST(Given, IsCheckedAgainstTheBase) {
  const TempFolder temp;
  auto adapter = random_adapter("a");
  adapter.base_fingerprint = "beef";
  for (auto& [path, pair] : adapter.pairs) pair = adapters::LoraPair(pair.lora_a(), torch::zeros_like(pair.lora_b()), pair.alpha());
  adapters::save_peft(temp / "a", adapter);
  EXPECT_THAT(message_of(ErrorKind::kMismatch, [&] { read_given(temp / "a", kBase, projections_of(adapter), /*allow_other_base=*/false); }),
              HasSubstr("was trained on another base: 'llama-tiny' with fingerprint beef"));
  EXPECT_THAT(message_of(ErrorKind::kMismatch, [&] { read_given(temp / "a", kBase, {}, /*allow_other_base=*/true); }),
              HasSubstr("the model has no projection"));
  EXPECT_THAT(given_of(temp / "a").warnings, ElementsAre(HasSubstr("is 0 everywhere: the adapter changes nothing")));
}

TEST(Given, IsRefusedIfItsTensorsChangeMeanwhile) {
  const TempFolder temp;
  auto library = new_library(temp);
  const auto folder = foreign_folder(temp, "theirs");
  const auto given = given_of(folder);
  adapters::save_peft(folder, random_adapter("theirs", 2, 6, /*a_seed=*/9), /*force=*/true);
  EXPECT_THAT(message_of(ErrorKind::kMismatch, [&] { library.add(given, {}); }), HasSubstr("changed while the adapter was added"));
  EXPECT_EQ(library.find("theirs"), nullptr);
  EXPECT_FALSE(fs::exists(library.adapter_folder("theirs")));
}

TEST(Verify, FindsAChangedConfiguration) {
  const TempFolder temp;
  auto library = new_library(temp);
  library.add(random_adapter("own"), {});
  library.add(given_of(foreign_folder(temp, "theirs")), {});
  for (const char* name : {"own", "theirs"}) {
    const auto file = library.adapter_folder(name) / "adapter_config.json";
    auto config = io::read_json_file(file);
    config["lora_alpha"] = 100;
    io::write_file_atomic(file, config.dump());
    EXPECT_THAT(findings_of(library), HasSubstr(std::string("adapter '") + name + "': adapter_config.json has SHA-256 "));
  }
}

}  // namespace
}  // namespace quiver::library
