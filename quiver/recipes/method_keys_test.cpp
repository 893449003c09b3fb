// Every option of every method, and every part of a source, counts in keys.
#include <set>

#include "quiver/methods/table.h"
#include "quiver/recipes/test_support.h"

namespace quiver::recipes {
namespace {

using namespace methods;
namespace fs = std::filesystem;

using MethodKeys = LibraryOnDisk;

/// Another value of an option than it has unless told.
nlohmann::json other_value(const Option& option, const fs::path& folder) {
  switch (option.type) {
    case OptionType::kCount:
    case OptionType::kSeed: return option.initial.is_null() ? 1 : option.initial.get<std::int64_t>() + 1;
    case OptionType::kNumber: return option.initial == 0.75 ? 0.5 : 0.75;
    case OptionType::kSwitch: return !option.initial.get<bool>();
    case OptionType::kText: return "a1";
    case OptionType::kWord: return option.words[option.initial == option.words[0] ? 1 : 0];
    case OptionType::kNames: return {"q_proj", "k_proj"};
    case OptionType::kWeights: return {0.25, 0.75};
    case OptionType::kFile: return (folder / "library/quiver.json").string();
    case OptionType::kTaskData: return (folder / "other").string();
  }
  return nullptr;
}

TEST_F(MethodKeys, ChangeWithEveryOptionOfEveryMethod) {
  const auto choice = library_of({11, 22});
  fs::copy(folder_ / "tasks", folder_ / "other");
  std::ofstream(folder_ / "other/a1.jsonl", std::ios::app) << R"({"split":"train","id":"more","source":"more","target":"yes"})"
                                                           << "\n";
  const auto key_of = [&](const MethodUse& use) {
    ArtifactKey key("use");
    add_to_key(key, {.source = choice.source, .method = use});
    return key.hex();
  };
  std::set<std::string> keys;
  std::size_t count = 0;
  for (const auto& method : reuse_methods()) {
    SCOPED_TRACE(method.name);
    OptionValues given = OptionValues::object();
    if (method.has("task_data")) given["task_data"] = (folder_ / "tasks").string();
    keys.insert(key_of({method.name, given}));
    for (const auto& option : method.options) {
      auto values = given;
      values[option.name] = other_value(option, folder_);
      keys.insert(key_of({method.name, values}));
    }
    count += 1 + method.options.size();
    EXPECT_EQ(keys.size(), count);
    // A value that is the option's initial one is no other value.
    for (const auto& option : method.options) {
      if (!option.initial.is_null() && !given.contains(option.name)) given[option.name] = option.initial;
    }
    EXPECT_TRUE(keys.contains(key_of({method.name, given})));
  }
}

TEST_F(MethodKeys, ChangeWithTheSource) {
  auto choice = library_of({11, 22});
  choice.method = "mean";
  std::set<std::string> keys;
  const auto add = [&](const AdapterSource& source) {
    ArtifactKey key("use");
    add_to_key(key, {.source = source, .method = choice.use().method});
    keys.insert(key.hex());
  };
  auto source = choice.source;
  add(source);
  source.names = {"a0"};
  add(source);
  source.names = {"a1"};
  add(source);
  source.kind = "private";
  add(source);
  source.general = {"a0"};
  add(source);
  source.general_by_factors = true;
  add(source);
  add({});
  add({.adapter = "tests/golden/peft/all-linears"});
  library::Library::open(source.library).add(adapter("a0", 33), {.tasks = {"a0"}}, /*force=*/true);
  add(source);
  EXPECT_EQ(keys.size(), 9);
}

}  // namespace
}  // namespace quiver::recipes
