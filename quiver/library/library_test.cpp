#include "quiver/library/library.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>
#include <sys/wait.h>
#include <torch/utils.h>

#include <fstream>

#include "quiver/adapters/peft.h"
#include "quiver/adapters/test_support.h"
#include "quiver/io/file.h"
#include "quiver/io/folder.h"
#include "quiver/io/json.h"
#include "quiver/library/test_support.h"

namespace quiver::library {
namespace {

namespace fs = std::filesystem;
using ::testing::ElementsAre;
using ::testing::HasSubstr;
using ::testing::IsEmpty;

TEST(Library, KeepsWhatIsAdded) {
  const TempFolder temp;
  auto library = new_library(temp);
  const auto adapter = random_adapter("qnli", 3, 6);
  library.add(adapter, {.kind = AdapterKind::kCluster,
                        .tasks = {"qnli", "rte"},
                        .group = "c0",
                        .created = "2026-01-02T03:04:05Z",
                        .training = {{"loss", 0.25}, {"steps", 40}}});

  const auto reopened = Library::open(temp / "lib");
  const auto& entry = reopened.at("qnli");
  EXPECT_EQ(entry.info.kind, AdapterKind::kCluster);
  EXPECT_THAT(entry.info.tasks, ElementsAre("qnli", "rte"));
  EXPECT_EQ(entry.info.group, "c0");
  EXPECT_EQ(entry.info.created, "2026-01-02T03:04:05Z");
  EXPECT_EQ(entry.info.training["loss"], 0.25);
  EXPECT_EQ(entry.rank, 3);
  EXPECT_EQ(entry.sha256, io::sha256_file(temp / "lib" / "adapters" / "qnli" / "adapter_model.safetensors"));
  EXPECT_EQ(reopened.base().name, "llama-tiny");
  EXPECT_EQ(reopened.base().fingerprint, "f00d");
  const auto loaded = reopened.load("qnli");
  EXPECT_TRUE(same_pairs(loaded, adapter));
  EXPECT_EQ(loaded.name, "qnli");
  EXPECT_EQ(findings_of(reopened), "");
}

TEST(Library, KeepsHowTasksMixSkillsAndVerifiesIt) {
  const TempFolder temp;
  auto library = new_library(temp);
  EXPECT_FALSE(library.find_mixing("poly").has_value());
  library.add(random_adapter("poly-0"), {.kind = AdapterKind::kPoly});
  const auto logits = torch::tensor({0.25F, -1.5F}).reshape({2, 1, 1, 1});
  const MixingMeta meta{
      .tasks = {"a", "b"}, .skills = {{"poly-0", library.at("poly-0").sha256}}, .rule = "sigmoid", .granularity = "model"};
  library.store_mixing("poly", {.logits = logits, .meta = meta});
  const auto found = Library::open(temp / "lib").find_mixing("poly");
  ASSERT_TRUE(found.has_value());
  EXPECT_EQ(mixing_metadata(found->meta), mixing_metadata(meta));
  EXPECT_TRUE(found->logits.equal(logits));
  auto no_task = meta;
  no_task.tasks.clear();
  library.store_mixing("mhr", {.logits = logits, .meta = no_task});
  EXPECT_THAT(message_of(ErrorKind::kBadFormat, [&] { library.find_mixing("mhr"); }),
              HasSubstr("'logits' is F32 [2, 1, 1, 1]; expected F32 or F64 [0, units, 1, 1], for tasks, heads and skills"));
  fs::remove(temp / "lib" / "mixing" / "mhr.safetensors");
  EXPECT_EQ(findings_of(library), "");
  EXPECT_EQ(Library::open(temp / "lib").at("poly-0").info.kind, AdapterKind::kPoly);
  library.remove("poly-0");
  EXPECT_THAT(findings_of(library), HasSubstr("is of a skill 'poly-0' that is not, or no longer, in the library"));
  tensor::save_tensors(temp / "lib" / "mixing" / "poly.safetensors", {{"logits", logits}}, {{"quiver.mixing", R"({"tasks": ["t"]})"}});
  EXPECT_THAT(findings_of(library), HasSubstr("quiver.mixing: the key 'skills' is missing"));
  std::ofstream(temp / "lib" / "mixing" / "poly.safetensors") << "xx";
  EXPECT_THAT(findings_of(library), HasSubstr("cannot be read"));
  EXPECT_ERROR(library.find_mixing("../poly"), ErrorKind::kUsage, "'../poly' of 7 bytes cannot name an adapter");
}

TEST(Library, NotesWhenAnAdapterWasMade) {
  const TempFolder temp;
  auto library = new_library(temp);
  library.add(random_adapter("a"), {});
  EXPECT_THAT(library.at("a").info.created, ::testing::ContainsRegex("^20[0-9][0-9]-[01][0-9]-[0-3][0-9]T.*Z$"));
}

TEST(Library, TellsWhatItIsNot) {
  const TempFolder temp;
  EXPECT_THAT(message_of(ErrorKind::kNotFound, [&] { Library::open(temp / "none"); }), HasSubstr("there is no such folder"));
  EXPECT_THAT(message_of(ErrorKind::kNotFound, [&] { Library::open(temp.path()); }), HasSubstr("it has no quiver.json"));
  new_library(temp);
  EXPECT_THAT(message_of(ErrorKind::kUsage, [&] { new_library(temp); }), HasSubstr("is a library already"));
  EXPECT_THAT(message_of(ErrorKind::kUsage, [&] { Library::create(temp.path(), kBase); }), HasSubstr("is no library"));
  EXPECT_THAT(message_of(ErrorKind::kNotFound, [&] { Library::create(temp / "no" / "lib", kBase); }), HasSubstr("there is no folder"));
}

TEST(Library, RefusesOtherFormatVersionsAndBrokenCatalogues) {
  const TempFolder temp;
  new_library(temp);
  const auto file = temp / "lib" / "quiver.json";
  const auto original = io::read_json_file(file);
  const auto refusal = [&](ErrorKind kind, const char* key, const nlohmann::json& value) {
    auto changed = original;
    changed[key] = value;
    io::write_file_atomic(file, changed.dump());
    return message_of(kind, [&] { Library::open(temp / "lib"); });
  };
  EXPECT_THAT(refusal(ErrorKind::kUnsupported, "version", 2), HasSubstr("format version 2; this program reads version 1"));
  EXPECT_THAT(refusal(ErrorKind::kBadFormat, "format", "zoo"), HasSubstr("not the catalogue of a library"));
  EXPECT_THAT(refusal(ErrorKind::kBadFormat, "groups", 3), HasSubstr("groups"));
  EXPECT_THAT(refusal(ErrorKind::kBadFormat, "adapters", {{"a", {{"kind", "odd"}}}}), HasSubstr("adapter 'a': kind is 'odd'"));
  EXPECT_THAT(refusal(ErrorKind::kUsage, "adapters", {{"../a", nlohmann::json::object()}}), HasSubstr("'../a' of 4 bytes cannot name"));
  EXPECT_THAT(refusal(ErrorKind::kBadFormat, "groups_provenance", "by hand"), HasSubstr("'groups_provenance' is string"));
  EXPECT_THAT(refusal(ErrorKind::kBadFormat, "groups_provenance", {{"joined", 1}}), HasSubstr("groups_provenance: 'joined' is number"));
  const auto training = [&](const nlohmann::json& value) {
    const nlohmann::json entry = {{"kind", "private"}, {"tasks", nlohmann::json::array()}, {"created", ""}, {"rank", 4}, {"sha256", ""},
                                  {"training", value}};
    return refusal(ErrorKind::kBadFormat, "adapters", {{"a", entry}});
  };
  EXPECT_THAT(training(3), HasSubstr("adapter 'a': 'training' is number (3)"));
  EXPECT_THAT(training({{"key", 3}}), HasSubstr("adapter 'a': 'key' is number (3)"));
  io::write_file_atomic(file, original.dump().substr(0, 40));
  EXPECT_THAT(message_of(ErrorKind::kBadFormat, [&] { Library::open(temp / "lib"); }), HasSubstr("quiver.json"));
}

TEST(Library, OpensOrCreatesForOneBaseOnly) {
  const TempFolder temp;
  Library::open_or_create(temp / "lib", kBase).add(random_adapter("a"), {});
  EXPECT_EQ(Library::open_or_create(temp / "lib", kBase).adapters().size(), 1u);
  EXPECT_NO_THROW(Library::open_or_create(temp / "lib", {.name = "models/Llama-Tiny", .fingerprint = ""}));
  EXPECT_THAT(message_of(ErrorKind::kMismatch,
                         [&] {
                           Library::open_or_create(temp / "lib", {"llama-tiny", "beef"});
                         }),
              HasSubstr("(fingerprint 'f00d'), not of 'llama-tiny' (fingerprint 'beef')"));
  EXPECT_THAT(message_of(ErrorKind::kMismatch,
                         [&] {
                           Library::open_or_create(temp / "lib", {"llama-huge", ""});
                         }),
              HasSubstr("not of 'llama-huge'"));
}

TEST(Library, NamesASimilarAdapter) {
  const TempFolder temp;
  auto library = new_library(temp);
  library.add(random_adapter("task363"), {});
  library.add(random_adapter("qnli"), {});
  EXPECT_EQ(library.find("qnil"), nullptr);
  EXPECT_THAT(message_of(ErrorKind::kNotFound, [&] { library.load("qnil"); }),
              HasSubstr("no adapter 'qnil' among its 2 (did you mean 'qnli'?)"));
  EXPECT_THAT(message_of(ErrorKind::kNotFound, [&] { library.remove("task36"); }), HasSubstr("'task363'"));
}

TEST(Library, RefusesNamesThatLeaveTheFolder) {
  const TempFolder temp;
  auto library = new_library(temp);
  for (const std::string name : {"", "..", ".hidden", "a/b", "../../etc", "a b", "-rf", "caf\xc3\xa9"}) {
    SCOPED_TRACE(name);
    EXPECT_THAT(message_of(ErrorKind::kUsage, [&] { library.add(random_adapter(name), {}); }), HasSubstr("cannot name")) << name;
  }
  EXPECT_ERROR(library.adapter_folder(std::string(129, 'a')), ErrorKind::kUsage, "cannot name an adapter: use 1 to 128");
  EXPECT_NO_THROW(library.adapter_folder("wiki_qa.Is-This_True_2"));
  EXPECT_THAT(library.adapters(), IsEmpty());
}

TEST(Library, ReplacesOnlyByForce) {
  const TempFolder temp;
  auto library = new_library(temp);
  library.add(random_adapter("a", 2), {});
  EXPECT_THAT(message_of(ErrorKind::kUsage, [&] { library.add(random_adapter("a", 3), {}); }), HasSubstr("has an adapter 'a' already"));
  EXPECT_EQ(library.load("a").options.rank, 2);
  library.add(random_adapter("a", 3), {}, /*force=*/true);
  EXPECT_EQ(library.at("a").rank, 3);
  EXPECT_EQ(library.load("a").options.rank, 3);
  EXPECT_EQ(findings_of(library), "");
}

TEST(Library, RefusesAnAdapterOfAnotherBase) {
  const TempFolder temp;
  auto library = new_library(temp);
  auto adapter = random_adapter("a");
  adapter.base_fingerprint = "beef";
  EXPECT_THAT(message_of(ErrorKind::kMismatch, [&] { library.add(adapter, {}); }), HasSubstr("(fingerprint 'beef'), library"));
  adapter.base_fingerprint = "";
  adapter.base_model = "llama-huge";
  EXPECT_THAT(message_of(ErrorKind::kMismatch, [&] { library.add(adapter, {}); }), HasSubstr("base 'llama-huge'"));
  adapter.base_fingerprint = "f00d";  // the fingerprint decides, whatever the name
  EXPECT_NO_THROW(library.add(adapter, {}));
}

TEST(Library, RemovesAnAdapterAndItsFolder) {
  const TempFolder temp;
  auto library = new_library(temp);
  library.add(random_adapter("a"), {});
  library.add(random_adapter("b"), {});
  library.remove("a");
  EXPECT_THAT(library.adapter_names(), ElementsAre("b"));
  EXPECT_FALSE(fs::exists(temp / "lib" / "adapters" / "a"));
  EXPECT_THAT(Library::open(temp / "lib").adapter_names(), ElementsAre("b"));
  EXPECT_EQ(findings_of(library), "");
}

TEST(Library, AdoptsAFolderThatWasDroppedIn) {
  const TempFolder temp;
  auto library = new_library(temp);
  adapters::save_peft(temp / "lib" / "adapters" / "found", random_adapter("found"));
  EXPECT_THAT(findings_of(library), HasSubstr("found' is not in the catalogue: adopt it"));
  library.adopt("found", {.kind = AdapterKind::kImported});
  EXPECT_TRUE(same_pairs(library.load("found"), random_adapter("found")));
  EXPECT_EQ(findings_of(library), "");
  EXPECT_THAT(message_of(ErrorKind::kUsage, [&] { library.adopt("found", {}); }), HasSubstr("in its catalogue already"));
  EXPECT_THAT(message_of(ErrorKind::kNotFound, [&] { library.adopt("lost", {}); }), HasSubstr("no PEFT adapter folder"));
}

TEST(Library, GoesOnWhereAWriterWasKilled) {
  const TempFolder temp;
  auto library = new_library(temp);
  adapters::save_peft(temp / "lib" / "adapters" / "a", random_adapter("a"));  // written, but not yet in the catalogue
  EXPECT_THAT(message_of(ErrorKind::kUsage, [&] { library.add(random_adapter("a", 3), {}); }),
              HasSubstr("is there, but not in the catalogue, and holds something else"));
  library.add(random_adapter("a"), {});
  EXPECT_EQ(findings_of(library), "");
  library.add(random_adapter("a", 3), {}, /*force=*/true);
  EXPECT_EQ(library.load("a").options.rank, 3);
}

TEST(Library, LosesNoEntryOfTwoWriters) {
  const TempFolder temp;
  auto first = new_library(temp);
  auto second = Library::open(temp / "lib");
  first.add(random_adapter("a"), {});
  second.add(random_adapter("b"), {});  // has not seen 'a' yet
  EXPECT_THAT(second.adapter_names(), ElementsAre("a", "b"));
  EXPECT_THAT(first.adapter_names(), ElementsAre("a"));
  first.refresh();
  EXPECT_THAT(first.adapter_names(), ElementsAre("a", "b"));
  EXPECT_THAT(message_of(ErrorKind::kUsage, [&] { first.add(random_adapter("b"), {}); }), HasSubstr("already"));
}

TEST(Library, LosesNoEntryOfProcessesThatWriteAtOnce) {
  const TempFolder temp;
  new_library(temp);
  constexpr int kProcesses = 3;
  std::vector<pid_t> children;
  for (int p = 0; p < kProcesses; ++p) {
    const pid_t child = ::fork();
    if (child == 0) {
      int status = 0;
      try {
        auto library = Library::open(temp / "lib");
        for (int i = 0; i < 4; ++i) library.add(random_adapter(format("p{}-{}", p, i)), {});
      } catch (const std::exception&) {
        status = 1;
      }
      ::_exit(status);
    }
    children.push_back(child);
  }
  for (const pid_t child : children) {
    int status = -1;
    ::waitpid(child, &status, 0);
    EXPECT_EQ(status, 0);
  }
  const auto library = Library::open(temp / "lib");
  EXPECT_EQ(library.adapters().size(), 12u);
  EXPECT_EQ(findings_of(library), "");
}

TEST(Library, ExportsAFolderAsItIs) {
  const TempFolder temp;
  auto library = new_library(temp);
  library.add(random_adapter("a"), {});
  library.export_adapter("a", temp / "out");
  for (const char* file : {"adapter_config.json", "adapter_model.safetensors", "README.md"}) {
    EXPECT_EQ(io::read_text_file(temp / "out" / file), io::read_text_file(library.adapter_folder("a") / file)) << file;
  }
  EXPECT_THAT(message_of(ErrorKind::kUsage, [&] { library.export_adapter("a", temp / "out"); }), HasSubstr("exists already"));
  EXPECT_NO_THROW(library.export_adapter("a", temp / "out", /*force=*/true));
  EXPECT_THAT(message_of(ErrorKind::kUsage, [&] { library.export_adapter("a", temp / "lib", /*force=*/true); }),
              HasSubstr("is no adapter folder"));
  EXPECT_THAT(message_of(ErrorKind::kNotFound, [&] { library.export_adapter("b", temp / "b"); }), HasSubstr("no adapter 'b'"));
}

TEST(Library, OpensWhatEarlierVersionsWrote) {
  const TempFolder temp;
  auto library = new_library(temp);
  library.add(random_adapter("a"), {});
  auto catalogue = io::read_json_file(temp / "lib" / "quiver.json");
  catalogue["adapters"]["a"].erase("config_sha256");
  io::write_file_atomic(temp / "lib" / "quiver.json", catalogue.dump());
  const auto old = Library::open(temp / "lib");
  EXPECT_EQ(old.at("a").config_sha256, "");
  EXPECT_FALSE(old.at("a").is_as_given);
  EXPECT_TRUE(same_pairs(old.load("a"), random_adapter("a")));
  EXPECT_EQ(findings_of(old), "");
}

TEST(Library, KeepsGroupsOfTasks) {
  const TempFolder temp;
  auto library = new_library(temp);
  EXPECT_TRUE(library.groups_provenance().is_null());
  library.set_groups({{"c0", {"qnli", "rte"}}, {"c1", {"sst2"}}}, {{"num_clusters", 2}});
  const auto reopened = Library::open(temp / "lib");
  EXPECT_THAT(reopened.groups().at("c0"), ElementsAre("qnli", "rte"));
  EXPECT_EQ(reopened.groups_provenance()["num_clusters"], 2);
  EXPECT_THAT(message_of(ErrorKind::kUsage,
                         [&] {
                           library.set_groups({{"c0", {"a"}}, {"c1", {"a"}}}, nullptr);
                         }),
              HasSubstr("task 'a' is in two groups, 'c0' and 'c1'"));
}

TEST(Library, ExtendsAGroup) {
  const TempFolder temp;
  auto library = new_library(temp);
  library.set_groups({{"c0", {"qnli", "rte"}}, {"c1", {"sst2"}}}, {{"num_clusters", 2}});
  auto other = Library::open(temp / "lib");
  other.extend_group("c0", {"mnli"});
  library.extend_group("c1", {"imdb", "yelp"});  // on top of what another writer did
  const auto reopened = Library::open(temp / "lib");
  EXPECT_THAT(reopened.groups().at("c0"), ElementsAre("qnli", "rte", "mnli"));
  EXPECT_THAT(reopened.groups().at("c1"), ElementsAre("sst2", "imdb", "yelp"));
  EXPECT_EQ(reopened.groups_provenance()["num_clusters"], 2);
  EXPECT_EQ(reopened.groups_provenance()["joined"], (nlohmann::json{{"mnli", "c0"}, {"imdb", "c1"}, {"yelp", "c1"}}));
  EXPECT_THAT(message_of(ErrorKind::kNotFound, [&] { library.extend_group("c2", {"a"}); }), HasSubstr("no group 'c2' among its 2"));
  EXPECT_THAT(message_of(ErrorKind::kUsage, [&] { library.extend_group("c1", {"rte"}); }),
              HasSubstr("task 'rte' is in two groups, 'c0' and 'c1'"));
  EXPECT_THAT(Library::open(temp / "lib").groups().at("c1"), ElementsAre("sst2", "imdb", "yelp"));
}

TEST(Library, RefusesASummaryThatJsonCannotHold) {
  const TempFolder temp;
  auto library = new_library(temp);
  EXPECT_ERROR(library.add(random_adapter("a"), {.training = {{"loss", std::nan("")}}}), ErrorKind::kUsage, "nan is not a JSON number");
  EXPECT_THAT(library.adapters(), IsEmpty());
  EXPECT_EQ(findings_of(Library::open(temp / "lib")), "");  // nothing was left behind
}

TEST(Verify, FindsChangedFiles) {
  const TempFolder temp;
  auto library = new_library(temp);
  library.add(random_adapter("a"), {});
  auto other = random_adapter("a", 2, 4, /*a_seed=*/9);
  adapters::save_peft(library.adapter_folder("a"), other, /*force=*/true);
  EXPECT_THAT(findings_of(library), HasSubstr("adapter 'a': adapter_model.safetensors has SHA-256 "));
}

TEST(Verify, FindsUnreadableAndMissingAdapters) {
  const TempFolder temp;
  auto library = new_library(temp);
  library.add(random_adapter("a"), {});
  library.add(random_adapter("b"), {});
  fs::resize_file(library.adapter_folder("a") / "adapter_model.safetensors", 100);
  io::remove_folder(library.adapter_folder("b"));
  EXPECT_THAT(findings_of(library), HasSubstr("adapter 'a': cannot be read: "));
  EXPECT_THAT(findings_of(library), HasSubstr("adapter 'b': cannot be read: "));
}

TEST(Verify, FindsNumbersThatAreNotFiniteAndOddShapes) {
  const TempFolder temp;
  auto library = new_library(temp);
  auto broken = random_adapter("broken");
  library.add(broken, {});
  auto endless = random_adapter("endless");
  endless.pairs.at("layers.1.self_attn.v_proj").lora_b()[1][1] = INFINITY;
  library.add(endless, {});
  auto wide = random_adapter("wide");
  wide.pairs.at("layers.0.self_attn.q_proj") = adapters::LoraPair(torch::ones({2, 7}), torch::ones({8, 2}), 4);
  library.add(wide, {});
  EXPECT_THAT(findings_of(library), HasSubstr("model.layers.1.self_attn.v_proj.lora_B.weight' holds inf at [1, 1]"));
  EXPECT_THAT(findings_of(library), HasSubstr("it maps 7 to 8 features, adapter 'broken' maps 6 to 8"));
}

TEST(Verify, FindsLeftoversAndBrokenArtifacts) {
  const TempFolder temp;
  auto library = new_library(temp);
  fs::create_directory(temp / "lib" / "adapters" / ".a.12-3.tmp");
  library.store_artifact("0123456789abcdef", {{"p", torch::ones({3})}}, nullptr);
  std::ofstream(temp / "lib" / "artifacts" / "0123456789abcdef.safetensors", std::ios::app) << "x";
  EXPECT_THAT(findings_of(library), HasSubstr(".a.12-3.tmp' was left by a run that was killed"));
  EXPECT_THAT(findings_of(library), HasSubstr("0123456789abcdef.safetensors' is damaged"));
}

TEST(Artifacts, ComeBackWithTheirMeta) {
  const TempFolder temp;
  const auto library = new_library(temp);
  const std::string key = "00ff00ff00ff00ff";
  EXPECT_FALSE(library.find_artifact(key).has_value());
  EXPECT_FALSE(library.find_artifact_meta(key).has_value());
  library.store_artifact(key, {{"layers.0", torch::arange(6).reshape({2, 3})}, {"norm", torch::tensor(0.5F)}}, {{"what", "prototypes"}});
  const auto found = library.find_artifact(key);
  ASSERT_TRUE(found.has_value());
  EXPECT_EQ(found->size(), 2u);
  EXPECT_TRUE(torch::equal(found->at("layers.0"), torch::arange(6).reshape({2, 3})));
  EXPECT_TRUE(torch::equal(found->at("norm"), torch::tensor(0.5F)));
  EXPECT_EQ((*library.find_artifact_meta(key))["what"], "prototypes");
  library.store_artifact(key, {{"norm", torch::tensor(1.5F)}}, nullptr);
  EXPECT_EQ(library.find_artifact(key)->at("norm").item<float>(), 1.5F);
}

TEST(Artifacts, AreGoneWhenDamagedOrDeleted) {
  const TempFolder temp;
  const auto library = new_library(temp);
  const std::string key = "00ff00ff00ff00ff";
  library.store_artifact(key, {{"p", torch::ones({100})}}, nullptr);
  const auto file = temp / "lib" / "artifacts" / (key + ".safetensors");
  std::fstream(file, std::ios::in | std::ios::out | std::ios::binary).seekp(-3, std::ios::end).put('\x7f');
  EXPECT_FALSE(library.find_artifact(key).has_value());
  io::remove_tree(temp / "lib" / "artifacts");
  EXPECT_FALSE(library.find_artifact(key).has_value());
  library.store_artifact(key, {{"p", torch::ones({100})}}, nullptr);
  EXPECT_TRUE(library.find_artifact(key).has_value());
}

TEST(Artifacts, HaveHexadecimalKeys) {
  const TempFolder temp;
  const auto library = new_library(temp);
  EXPECT_THAT(message_of(ErrorKind::kUsage, [&] { library.find_artifact("../../quiver"); }), HasSubstr("'../../quiver'"));
  EXPECT_ERROR(library.find_artifact("00FF00FF"), ErrorKind::kUsage, "'00FF00FF' of 8 bytes cannot be the key of an artifact");
  EXPECT_ERROR(library.store_artifact("", {}, nullptr), ErrorKind::kUsage, "'' of 0 bytes cannot be the key of an artifact");
}

TEST(Library, IsMadeOnceByManyAtOnce) {
  const TempFolder temp;
  std::vector<pid_t> children;
  for (int i = 0; i < 24; ++i) {
    const auto child = ::fork();
    if (child == 0) {
      try {
        const auto library = Library::open_or_create(temp / "lib", kBase);
        ::_exit(library.base().name == kBase.name ? 0 : 1);
      } catch (...) {
        ::_exit(2);
      }
    }
    children.push_back(child);
  }
  for (const auto child : children) {
    int status = 0;
    ::waitpid(child, &status, 0);
    EXPECT_TRUE(WIFEXITED(status));
    EXPECT_EQ(WEXITSTATUS(status), 0);
  }
  EXPECT_TRUE(Library::open(temp / "lib").verify().empty());
}

TEST(Library, GoesOnWithoutArtifactsThatCannotBeWritten) {
  const TempFolder temp;
  const auto library = new_library(temp);
  const tensor::TensorMap tensors = {{"a", torch::ones({2})}};
  library.store_artifact("abababab", tensors, {});
  EXPECT_EQ(library.cache_fault(), "");
  fs::remove_all(temp / "lib" / "artifacts");
  io::write_file_atomic(temp / "lib" / "artifacts", std::string_view("in the way"));
  library.store_artifact("cdcdcdcd", tensors, {});
  EXPECT_THAT(library.cache_fault(), HasSubstr("artifacts"));
  EXPECT_EQ(library.find_artifact("cdcdcdcd"), std::nullopt);
}

TEST(Verify, NamesAnAdapterThatDoesNothing) {
  const TempFolder temp;
  auto library = new_library(temp);
  auto adapter = random_adapter("idle");
  for (auto& [path, pair] : adapter.pairs) pair = adapters::LoraPair(pair.lora_a(), torch::zeros_like(pair.lora_b()), pair.alpha());
  library.add(adapter, {});
  EXPECT_THAT(findings_of(library), HasSubstr("adapter 'idle': lora_B is 0 everywhere, so that it changes nothing"));
}

}  // namespace
}  // namespace quiver::library
