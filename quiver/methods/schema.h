// One record per option of a method. What users may write, ranges, refusals, canonical text and descriptions follow from it.
#pragma once

#include <cstdint>
#include <filesystem>
#include <functional>
#include <limits>
#include <map>
#include <nlohmann/json.hpp>
#include <optional>
#include <span>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

namespace quiver::methods {

/// Values of options by name, as JSON: those that are given. What they mean says a list of Option.
using OptionValues = nlohmann::json;

enum class OptionType {
  kCount,     ///< a whole number
  kSeed,      ///< a whole number of 0 to 2^64 - 1
  kNumber,    ///< a finite number
  kSwitch,    ///< true or false
  kText,      ///< any text
  kWord,      ///< one of some words
  kNames,     ///< a list of texts
  kWeights,   ///< a list of numbers, or numbers by name
  kFile,      ///< a path; what counts is the file's content
  kTaskData,  ///< a folder of task files; what counts are the files of the adapters' tasks
};

/// What numbers may be.
struct Range {
  double least = -std::numeric_limits<double>::infinity();
  double most = std::numeric_limits<double>::infinity();
  bool excludes_least = false;
};
inline constexpr Range kPositive{.least = 0, .excludes_least = true};
inline constexpr Range at_least(double least) { return {.least = least}; }

/// What is said of an option beside its name and type.
struct OptionText {
  std::string help;
  Range range = {};
  std::string unset = {};  ///< what the option is where no value is given, in words; empty: `initial` says it
  std::string needs = {};  ///< "other", or "other=value": the option is read only where that one is set so
  bool has_flag = true;    ///< false: the value is written in the method's name, "oracle=NAME"
};

struct Option {
  std::string name;
  OptionType type = OptionType::kText;
  nlohmann::json initial;          ///< the value where none is given; null: `about.unset` says what is done
  std::vector<std::string> words;  ///< of kWord
  OptionText about;
};

/// Weights of adapters: all by position, in the order of the adapters' names, or all by name. None: equal weights.
struct Weights {
  std::vector<double> by_position;
  std::map<std::string, double> by_name;
};

/// A file that counts by its content.
struct ContentFile {
  std::string path;
};
/// A folder of task files.
struct TaskFolder {
  std::filesystem::path path = "data/train";
};

/// "a number", "true or false", ...
std::string type_text(const Option& option);
/// "at least 1", "above 0", "0 to 1"; empty for any value.
std::string range_text(const Option& option);
/// The value where none is given, in words.
std::string initial_text(const Option& option);

/// The value that a text means: "4", "0.5", "true", "q_proj,k_proj", "beta=1,alpha=0". Throws kUsage, naming the option.
nlohmann::json parse_option(const Option& option, std::string_view text);
/// A value that is of the option's type and range; else throws kUsage, naming the option.
void check_option(const Option& option, const nlohmann::json& value);
/// Checks values as a whole. Throws kUsage for an option that the method `who` does not have, naming the nearest, for a value that
/// check_option refuses, and for an option that needs another one.
void check_options(std::string_view who, std::span<const Option> options, const OptionValues& values);
/// Whether an option is read: it needs no other one, or that is set.
bool has_what_it_needs(const Option& option, std::span<const Option> options, const OptionValues& values);
const Option* find_option(std::span<const Option> options, std::string_view name);
/// The given value, or the initial one.
const nlohmann::json& value_of(const Option& option, const OptionValues& values);

/// A value as parse_option reads it.
std::string value_text(const nlohmann::json& value);
/// "(top_k=2,gamma=0.5)", or nothing where no value is given: the values in the order of the options.
std::string given_text(std::span<const Option> options, const OptionValues& values);
/// The same with the values of all options, whether they are given or not: what a key holds. Paths are left out, since files count by
/// content.
std::string canonical_text(std::span<const Option> options, const OptionValues& values);
/// For programs: name, type, default, range, words and help of each option.
nlohmann::json options_json(std::span<const Option> options);

/// Fields of a struct `Options` as options. `add` takes a member of Options or of a base of it; the member's initial value is the option's.
template <typename Options>
class Schema {
 public:
  template <typename T, typename Owner>
  void add(T Owner::*member, const std::string& name, const OptionText& about) {
    options_.push_back({.name = name, .type = type_of(static_cast<T*>(nullptr)), .about = about});
    options_.back().initial = json_of(Options{}.*member);
    setters_.push_back([member](Options& into, const nlohmann::json& value) { set(into.*member, value); });
  }

  /// A member that is an enumerator, by words.
  template <typename Enum, typename Owner>
  void add_words(Enum Owner::*member, const std::string& name, const std::vector<std::pair<std::string, Enum>>& words,
                 const OptionText& about) {
    Option option{.name = name, .type = OptionType::kWord, .about = about};
    for (const auto& [word, value] : words) {
      option.words.push_back(word);
      if (Options{}.*member == value) option.initial = word;
    }
    options_.push_back(std::move(option));
    setters_.push_back([member, words](Options& into, const nlohmann::json& value) {
      for (const auto& [word, means] : words) {
        if (value == word) into.*member = means;
      }
    });
  }

  const std::vector<Option>& options() const { return options_; }
  /// `values`, which check_options took, as the struct.
  Options read(const OptionValues& values) const {
    Options result;
    for (std::size_t i = 0; i < options_.size(); ++i) {
      const auto found = values.find(options_[i].name);
      if (found != values.end()) setters_[i](result, *found);
    }
    return result;
  }

 private:
  static OptionType type_of(std::int64_t*) { return OptionType::kCount; }
  static OptionType type_of(std::uint64_t*) { return OptionType::kSeed; }
  static OptionType type_of(double*) { return OptionType::kNumber; }
  static OptionType type_of(bool*) { return OptionType::kSwitch; }
  static OptionType type_of(std::string*) { return OptionType::kText; }
  static OptionType type_of(std::vector<std::string>*) { return OptionType::kNames; }
  static OptionType type_of(Weights*) { return OptionType::kWeights; }
  static OptionType type_of(ContentFile*) { return OptionType::kFile; }
  static OptionType type_of(TaskFolder*) { return OptionType::kTaskData; }
  template <typename T>
  static OptionType type_of(std::optional<T>*) {
    return type_of(static_cast<T*>(nullptr));
  }

  template <typename T>
  static nlohmann::json json_of(const T& value) {
    return value;
  }
  template <typename T>
  static nlohmann::json json_of(const std::optional<T>& value) {
    return value ? nlohmann::json(*value) : nlohmann::json();
  }
  static nlohmann::json json_of(const Weights&) { return nullptr; }
  static nlohmann::json json_of(const ContentFile& file) { return file.path.empty() ? nlohmann::json() : nlohmann::json(file.path); }
  static nlohmann::json json_of(const TaskFolder& folder) { return folder.path.string(); }

  template <typename T>
  static void set(T& into, const nlohmann::json& value) {
    into = value.get<T>();
  }
  template <typename T>
  static void set(std::optional<T>& into, const nlohmann::json& value) {
    into = value.get<T>();
  }
  static void set(Weights& into, const nlohmann::json& value) {
    if (value.is_array())
      into.by_position = value.get<std::vector<double>>();
    else
      into.by_name = value.get<std::map<std::string, double>>();
  }
  static void set(ContentFile& into, const nlohmann::json& value) { into.path = value.get<std::string>(); }
  static void set(TaskFolder& into, const nlohmann::json& value) { into.path = value.get<std::string>(); }

  std::vector<Option> options_;
  std::vector<std::function<void(Options&, const nlohmann::json&)>> setters_;
};

/// The schema that a struct describes.
template <typename Options>
Schema<Options> schema_of() {
  Schema<Options> schema;
  Options::describe(schema);
  return schema;
}

/// A struct of these groups of options, each of which describes its own.
template <typename... Groups>
struct OptionsOf : Groups... {
  static void describe(auto& schema) { (Groups::describe(schema), ...); }
};

}  // namespace quiver::methods
