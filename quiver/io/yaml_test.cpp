#include "quiver/io/yaml.h"

#include <cmath>

#include "quiver/io/file.h"
#include "quiver/io/json.h"
#include "quiver/io/test_support.h"

namespace quiver::io {
namespace {

using nlohmann::json;

json value_of(const std::string& text) { return parse_yaml(text, "t.yaml").value; }

/// What a golden case holds against what is read here: type and value in Python's words.
void expect_as_python(const json& expected, const std::string& text) {
  SCOPED_TRACE(text);
  const auto type = expected.at("type").get<std::string>();
  if (type == "error" || type == "date") {
    EXPECT_NE(error_of([&] { value_of(text); }), "no error");
    return;
  }
  const auto value = expected.at("text") == text ? value_of(text) : value_of(text).at(0);
  if (type == "float") {
    ASSERT_TRUE(value.is_number_float());
    const auto wanted = std::strtod(expected.at("value").get<std::string>().c_str(), nullptr);
    EXPECT_TRUE(value.get<double>() == wanted || (std::isnan(wanted) && std::isnan(value.get<double>()))) << value;
    return;
  }
  EXPECT_EQ(value.is_number_integer(), type == "int");
  EXPECT_EQ(value, expected.at("value"));
}

TEST(Yaml, ReadsScalarsAsPyYamlDoes) {
  const auto cases = read_json_file("tests/golden/yaml/cases.json").at("scalars");
  EXPECT_GT(cases.size(), 130u);
  for (const auto& row : cases) expect_as_python(row, "- " + row.at("text").get<std::string>() + "\n");
}

TEST(Yaml, ReadsDocumentsAsPyYamlDoes) {
  const auto cases = read_json_file("tests/golden/yaml/cases.json").at("documents");
  EXPECT_GT(cases.size(), 30u);
  for (const auto& row : cases) {
    if (row.at("text") == "") continue;  // expect_as_python tells documents from scalars by their text
    expect_as_python(row, row.at("text"));
  }
  EXPECT_EQ(value_of(""), json(nullptr));
}

TEST(Yaml, KnowsTheLineOfEachValue) {
  const auto document = parse_yaml("# first\na: 1\nlist:\n  - x\n  - y: 2\n    'z/~': 3\nb: |\n  text\nc: 1\n", "t.yaml");
  EXPECT_EQ(document.line_of("/a"), 2);
  EXPECT_EQ(document.line_of("/list"), 3);
  EXPECT_EQ(document.line_of("/list/0"), 4);
  EXPECT_EQ(document.line_of("/list/1/y"), 5);
  EXPECT_EQ(document.line_of("/list/1/z~1~0"), 6);
  EXPECT_EQ(document.line_of("/c"), 9);
  EXPECT_EQ(document.line_of("/list/7/w"), 3);
  EXPECT_EQ(document.line_of("/none"), 2);
  EXPECT_EQ(parse_yaml("", "t.yaml").line_of("/a"), 1);
}

TEST(Yaml, KeepsLocalTagsOfTexts) {
  const auto document = parse_yaml("a: !function utils.f\nb:\n  - !function g\n  - c\n", "t.yaml");
  EXPECT_EQ(document.value, json({{"a", "utils.f"}, {"b", {"g", "c"}}}));
  EXPECT_EQ(document.local_tags, (std::map<std::string, std::string>{{"/a", "!function"}, {"/b/0", "!function"}}));
}

TEST(Yaml, NamesTheLineOfAFault) {
  EXPECT_ERROR(value_of("a: 1\nb: [1,\n"), ErrorKind::kBadFormat, "t.yaml: line 3, column 1: not YAML: ");
  EXPECT_ERROR(value_of("a: 1\nb: 2\na: 3\n"), ErrorKind::kBadFormat, "t.yaml: line 3: the key 'a' stands at line 1 already");
  EXPECT_ERROR(value_of("a: 1\n---\nb: 1\n"), ErrorKind::kBadFormat, "line 2: a second document begins here");
  EXPECT_ERROR(value_of("a: \xff\n"), ErrorKind::kBadFormat, "t.yaml: not UTF-8");
  EXPECT_ERROR(value_of("a: \x01\n"), ErrorKind::kBadFormat, "t.yaml: not YAML: control characters are not allowed at byte 3");
}

TEST(Yaml, RefusesWhatItCannotHold) {
  EXPECT_ERROR(value_of("a: 1\nb: 2001-12-14\n"), ErrorKind::kUnsupported, "line 2: '2001-12-14' is a date; put it in quotes");
  EXPECT_ERROR(value_of("a: 9223372036854775808\n"), ErrorKind::kUnsupported, "line 1: '9223372036854775808' is no integer of 64 bits");
  EXPECT_ERROR(value_of("\non: 1\n"), ErrorKind::kUnsupported, "line 2: the key 'on' is a boolean in YAML 1.1; expected a text");
  EXPECT_ERROR(value_of("a: {{x}}\n"), ErrorKind::kUnsupported, "line 1: a key that is no text (a template that begins with '{'");
  EXPECT_ERROR(value_of("a: &x {b: 1}\nc:\n  <<: *x\n"), ErrorKind::kUnsupported, "line 3: '<<' has a meaning of its own");
  EXPECT_ERROR(value_of("a: !!binary aGk=\n"), ErrorKind::kUnsupported, "the tag 'tag:yaml.org,2002:binary' is not read here");
  EXPECT_ERROR(value_of("a: !!int yes\n"), ErrorKind::kUnsupported, "'yes' is no integer of 64 bits");
  EXPECT_ERROR(value_of("a: !set {b}\n"), ErrorKind::kUnsupported, "the tag '!set' on a list or mapping");
  EXPECT_ERROR(value_of("a: &x [*x]\n"), ErrorKind::kUnsupported, "the alias '*x' has no anchor '&x' that ends before it");
  EXPECT_ERROR(value_of("a: &x 1\nb: &x 2\n"), ErrorKind::kBadFormat, "line 2: the anchor 'x' stands twice");
}

TEST(Yaml, BoundsNestingSizeAndAliases) {
  EXPECT_EQ(value_of(std::string(64, '[') + std::string(64, ']')).dump(), std::string(64, '[') + std::string(64, ']'));
  EXPECT_ERROR(value_of(std::string(65, '[') + std::string(65, ']')), ErrorKind::kBadFormat, "nesting of more than 64 levels");
  EXPECT_ERROR(value_of(std::string(900'000, '[')), ErrorKind::kBadFormat, "nesting of more than 64 levels");
  EXPECT_ERROR(value_of(std::string((1 << 20) + 1, ' ')), ErrorKind::kBadFormat, "1048577 bytes of YAML; at most 1048576 are read");
  std::string laughs = "a0: &a0 [lol, lol, lol, lol, lol, lol, lol, lol, lol, lol]\n";
  for (int i = 1; i < 12; ++i) {
    const auto before = "*a" + std::to_string(i - 1);
    laughs += "a" + std::to_string(i) + ": &a" + std::to_string(i) + " [" + before;
    for (int j = 0; j < 9; ++j) laughs += ", " + before;
    laughs += "]\n";
  }
  EXPECT_ERROR(value_of(laughs), ErrorKind::kBadFormat, "more than 100000 values, those of aliases counted");
  std::string texts = "a: &a '" + std::string(60'000, 'x') + "'\nb: [*a";
  for (int i = 0; i < 200; ++i) texts += ", *a";
  EXPECT_ERROR(value_of(texts + "]\n"), ErrorKind::kBadFormat, "more than 100000 values");
  std::string keys = "{";
  for (int i = 0; i < 60'000; ++i) keys += "k" + std::to_string(i) + ": 1,\n";
  EXPECT_ERROR(value_of(keys + "}"), ErrorKind::kBadFormat, "more than 100000 values");
  std::string places = "? " + std::string(64'000, 'k') + "\n: [1";
  for (int i = 0; i < 200; ++i) places += ", 1";
  EXPECT_ERROR(value_of(places + "]\n"), ErrorKind::kBadFormat, "more than 100000 values");
}

TEST(Yaml, ReadsAFile) {
  const TempFolder folder;
  write_file_atomic(folder / "t.yaml", std::string_view("a: [1, b]\n"));
  EXPECT_EQ(read_yaml_file(folder / "t.yaml").value, json({{"a", {1, "b"}}}));
  EXPECT_ERROR(read_yaml_file(folder / "none.yaml"), ErrorKind::kNotFound, "none.yaml");
}

}  // namespace
}  // namespace quiver::io
