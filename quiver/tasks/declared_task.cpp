#include "quiver/tasks/declared_task.h"

#include <algorithm>
#include <cstdlib>
#include <map>
#include <numeric>
#include <set>

#include "quiver/base/error.h"
#include "quiver/io/json.h"
#include "quiver/tasks/rows.h"
#include "quiver/tasks/task_config.h"

namespace quiver::tasks {
namespace {

namespace fs = std::filesystem;
using nlohmann::json;

/// A row of the data.
struct DocRow {
  json values;
  std::string where;  ///< "rows.jsonl:3"
};

/// Rows of one split. Every row has every field of the split; null where its line has none.
struct Split {
  std::vector<DocRow> rows;
  std::set<std::string> fields;
};

void add_rows(Split& split, const fs::path& file) {
  if (file.extension() == ".json") {  // a list of rows is one document
    auto list = io::read_json_file(file);
    if (list.is_array()) {
      for (std::size_t i = 0; i < list.size(); ++i) split.rows.push_back({std::move(list[i]), format("{}: row {}", file.string(), i + 1)});
      return;
    }
    return split.rows.push_back({std::move(list), format("{}: row 1", file.string())});
  }
  io::JsonLinesReader reader(file);
  while (auto row = reader.next()) split.rows.push_back({std::move(*row), reader.where()});
}

Split read_split(const TaskConfig& config, const std::string& name) {
  Split split;
  for (const auto& file : config.data_files.at(name)) add_rows(split, file);
  if (split.rows.empty()) fail(ErrorKind::kBadFormat, "{}: the split '{}' has no rows", config.origin, name);
  for (const auto& row : split.rows) {
    if (!row.values.is_object()) fail(ErrorKind::kBadFormat, "{}: a row is {}; expected an object", row.where, row.values.type_name());
    for (const auto& [field, value] : row.values.items()) split.fields.insert(field);
  }
  for (auto& row : split.rows) {
    for (const auto& field : split.fields) row.values.emplace(field, nullptr);
  }
  return split;
}

/// Makes a task of rows.
class Builder {
 public:
  Builder(TaskConfig config, const RowChoice& rows) : config_(std::move(config)), rows_(rows), task_(config_.task) {}

  EvalTask run() {
    asked_split_ = config_.test_split ? *config_.test_split : *config_.validation_split;
    asked_ = read_split(config_, asked_split_);
    order_.resize(asked_.rows.size());
    std::iota(order_.begin(), order_.end(), std::size_t{0});
    task_.num_fewshot = rows_.num_fewshot.value_or(config_.num_fewshot);
    if (task_.kind == Kind::kText) static_cast<void>(checked_shots(task_.name, task_.num_fewshot, 0, "solved examples, being texts"));
    has_many_inputs_ = task_.kind == Kind::kChoice && text_of(config_.format, asked_.rows[0]).is_number_integer();
    if (task_.kind == Kind::kAnswer) has_many_targets_ = target_of(config_.format, asked_.rows[0]).is_array();
    choose_shots();
    std::map<std::string, std::string> ids;
    for (const auto index : order_) add(asked_.rows[index], ids);
    task_.num_available = static_cast<std::int64_t>(task_.num_rows());
    task_.questions = data::sample(std::move(task_.questions), rows_.limit, rows_.seed, task_.name);
    task_.examples = data::sample(std::move(task_.examples), rows_.limit, rows_.seed, task_.name);
    return std::move(task_);
  }

 private:
  [[noreturn]] void bad(const DocRow& row, std::string_view what) const {
    fail(ErrorKind::kBadFormat, "{} (task '{}'): {}", row.where, task_.name, what);
  }
  static std::string shown(const json& value) { return value.dump(-1, ' ', true).substr(0, 80); }

  json text_of(const DocFormat& format, const DocRow& row) const {
    return read_doc(format.text, row.values, asked_.fields, config_.format.choice.has_value(), false);
  }
  json target_of(const DocFormat& format, const DocRow& row) const {
    return read_doc(format.target, row.values, asked_.fields, config_.format.choice.has_value(), true);
  }
  std::vector<std::string> choices_of(const DocFormat& format, const DocRow& row) const {
    if (!format.choice) return {};
    return read_choices(*format.choice, row.values, asked_.fields, row.where);
  }

  // Few-shot examples.

  /// The rows that examples are taken from, and whether they are those that are asked.
  void choose_shots() {
    if (task_.num_fewshot == 0) return;
    std::optional<std::string> split = config_.fewshot_split;
    if (!split && config_.samples.empty()) {
      split = config_.training_split ? config_.training_split : config_.validation_split ? config_.validation_split : config_.test_split;
    }
    if (!split) {
      for (std::size_t i = 0; i < config_.samples.size(); ++i)
        pool_.push_back({config_.samples[i], format("{}: sample {} of 'fewshot_config'", config_.origin, i + 1)});
    } else {
      pool_ = *split == asked_split_ ? asked_.rows : read_split(config_, *split).rows;
    }
    const bool is_asked = split == asked_split_;
    checked_shots(task_.name, task_.num_fewshot, std::ssize(pool_) - (is_asked ? 1 : 0),
                  is_asked ? "rows beside one that is asked" : "rows for examples");
    if (config_.takes_first) {
      leaves_out_own_ = config_.fewshot_split == config_.test_split;  // lm-evaluation-harness' rule; both may be missing
      if (is_asked && !leaves_out_own_)
        task_.warnings.push_back(
            format("few-shot examples are the first rows of '{}', which is asked: the first {} rows see their own answers, as in "
                   "lm-evaluation-harness",
                   asked_split_, task_.num_fewshot));
      return;
    }
    draw_shots(is_asked);
  }

  /// The same examples for all rows. Those of the rows that are asked are then not asked.
  void draw_shots(bool is_asked) {
    std::vector<std::size_t> order(pool_.size());
    std::iota(order.begin(), order.end(), std::size_t{0});
    RandomStream(rows_.seed, "few-shot/" + task_.name).shuffle(order);
    order.resize(static_cast<std::size_t>(task_.num_fewshot));
    std::vector<DocRow> chosen;
    for (const auto i : order) chosen.push_back(pool_[i]);
    pool_ = std::move(chosen);
    if (is_asked) std::erase_if(order_, [&](std::size_t i) { return std::ranges::find(order, i) != order.end(); });
  }

  /// The solved examples before a row, after its description.
  std::string before(const DocRow& row) const {
    std::string text;
    if (config_.description) {
      std::set<std::string> own;
      for (const auto& [field, value] : row.values.items()) own.insert(field);
      const auto description = config_.description->of(row.values, own);
      if (!description.is_string()) bad(row, format("the description is {}; expected a text", shown(description)));
      text = description.get<std::string>();
    }
    std::int64_t count = 0;
    for (auto shot = pool_.begin(); shot != pool_.end() && count < task_.num_fewshot; ++shot) {
      if (leaves_out_own_ && shot->values == row.values) continue;
      text += solved(*shot);
      ++count;
    }
    if (count < task_.num_fewshot)
      fail(ErrorKind::kUsage, "{} (task '{}'): {} few-shot examples are wanted, and {} rows are unlike this one", row.where, task_.name,
           task_.num_fewshot, count);
    return text;
  }

  std::string solved(const DocRow& row) const {
    const auto& format_used = config_.shots;
    const auto choices = choices_of(format_used, row);
    const auto question = has_many_inputs_ ? json(choices[index_of(text_of(format_used, row), choices, row)]) : text_of(format_used, row);
    if (!question.is_string()) bad(row, format("doc_to_text gives {}; expected a text", shown(question)));
    auto answer = target_of(format_used, row);
    if (answer.is_array() && !answer.empty()) answer = json(answer[0]);
    if (answer.is_number_integer() && !choices.empty() && !has_many_inputs_) answer = choices[index_of(answer, choices, row)];
    if (!answer.is_string()) bad(row, format("doc_to_target gives {} for a few-shot example; expected a text", shown(answer)));
    if (answer.get<std::string>().empty()) return question.get<std::string>();
    return question.get<std::string>() + format_used.target_delimiter + answer.get<std::string>() + format_used.fewshot_delimiter;
  }

  // Rows that are asked.

  void add(const DocRow& row, std::map<std::string, std::string>& ids) {
    auto id = row.where;
    if (const auto found = row.values.find("id"); found != row.values.end() && !found->is_null()) {
      if (!found->is_string() && !found->is_number_integer()) bad(row, format("'id' is {}; expected a text or an integer", shown(*found)));
      id = found->is_string() ? found->get<std::string>() : found->dump();
    }
    const auto [first, is_new] = ids.emplace(id, row.where);
    if (!is_new) bad(row, format("the id '{}' stands at {} already; give every row an id of its own, or none", id, first->second));
    const auto where = format("{} (task '{}')", row.where, task_.name);
    if (task_.kind == Kind::kChoice) {
      add_question(row, id, where);
    } else if (task_.kind == Kind::kText) {
      add_text(row, id, where);
    } else {
      add_example(row, id, where);
    }
  }

  /// The label, as an index.
  std::size_t index_of(const json& label, const std::vector<std::string>& choices, const DocRow& row) const {
    if (label.is_string()) {
      const auto found = std::ranges::find(choices, label.get<std::string>());
      if (found == choices.end()) bad(row, format("the label {} is not one of the choices {}", shown(label), shown(json(choices))));
      return static_cast<std::size_t>(found - choices.begin());
    }
    if (label.is_array())
      fail(ErrorKind::kUnsupported, "{} (task '{}'): the label is the list {}; Quiver knows one right choice", row.where, task_.name,
           shown(label));
    if (!label.is_number_integer()) bad(row, format("the label is {}; expected an index or the text of a choice", shown(label)));
    if (label < 0 || label >= choices.size())
      bad(row, format("label {} is not one of the {} choices, 0 to {}", label.dump(), choices.size(), choices.size() - 1));
    return label.get<std::size_t>();
  }

  void add_question(const DocRow& row, const std::string& id, const std::string& where) {
    const auto& format_used = config_.format;
    data::Question question{.id = id, .choices = choices_of(format_used, row), .where = where};
    for (std::size_t i = 0; i < question.choices.size(); ++i) {
      if (question.choices[i].empty()) bad(row, format("choice {} of {} is empty; a choice needs a text", i, question.choices.size()));
    }
    const auto text = text_of(format_used, row), target = target_of(format_used, row);
    if (text.is_number_integer() != has_many_inputs_)
      bad(row, format("doc_to_text gives {}, and of the first row {}", shown(text), has_many_inputs_ ? "the index of a choice" : "a text"));
    if (!text.is_string() && !has_many_inputs_) bad(row, format("doc_to_text gives {}; expected a text", shown(text)));
    question.label = static_cast<std::int64_t>(index_of(has_many_inputs_ ? text : target, question.choices, row));
    const auto beginning = before(row);
    if (has_many_inputs_ && !target.is_string())
      bad(row, format("doc_to_target gives {}; expected the text after each choice", shown(target)));
    for (const auto& choice : question.choices) {
      question.contexts.push_back(beginning + (has_many_inputs_ ? choice : text.get<std::string>()));
      question.continuations.push_back(format_used.target_delimiter + (has_many_inputs_ ? target.get<std::string>() : choice));
      if (question.continuations.back().empty()) bad(row, "the text after the choices is empty");
    }
    task_.questions.push_back(std::move(question));
  }

  void add_example(const DocRow& row, const std::string& id, const std::string& where) {
    const auto text = text_of(config_.format, row);
    if (!text.is_string()) bad(row, format("doc_to_text gives {}; expected a text", shown(text)));
    data::Example example{.id = id, .source = before(row) + text.get<std::string>(), .targets = references(row), .where = where};
    task_.examples.push_back(std::move(example));
  }

  /// lm-evaluation-harness scores the target; question, description and examples have no effect.
  void add_text(const DocRow& row, const std::string& id, const std::string& where) {
    const auto target = target_of(config_.format, row);
    if (!target.is_string()) bad(row, format("doc_to_target gives {}; expected a text", shown(target)));
    task_.examples.push_back({.id = id, .source = "", .targets = {target.get<std::string>()}, .where = where});
  }

  /// What an answer is compared with.
  std::vector<std::string> references(const DocRow& row) const {
    auto target = target_of(config_.format, row);
    if (config_.format.choice) {
      const auto choices = choices_of(config_.format, row);
      if (!target.is_number_integer()) bad(row, format("doc_to_target gives {}; with doc_to_choice, expected an index", shown(target)));
      return {choices[index_of(target, choices, row)]};
    }
    if (target.is_array()) {
      if (!has_many_targets_) bad(row, "doc_to_target gives a list, and of the first row a text; give lists in all rows");
      if (target.empty()) bad(row, "doc_to_target gives an empty list; a row needs a target");
      if (!std::ranges::all_of(target, [](const json& item) { return item.is_string(); }))
        bad(row, format("doc_to_target gives {}; expected texts", shown(target)));
      return target.get<std::vector<std::string>>();
    }
    if (target.is_boolean()) return {target.get<bool>() ? "True" : "False"};  // Python's str()
    if (target.is_number_integer()) return {target.dump()};
    if (!target.is_string()) bad(row, format("doc_to_target gives {}; expected a text or a list of texts", shown(target)));
    return {target.get<std::string>()};
  }

  TaskConfig config_;
  RowChoice rows_;
  EvalTask task_;
  std::string asked_split_;
  Split asked_;
  std::vector<std::size_t> order_;  ///< of the rows that are asked
  std::vector<DocRow> pool_;        ///< of few-shot examples
  bool leaves_out_own_ = false;     ///< a row is no example before itself
  bool has_many_inputs_ = false;    ///< choices stand in the context
  bool has_many_targets_ = false;
};

}  // namespace

EvalTask load_declared_task(const fs::path& path, const RowChoice& rows) { return Builder(read_task_config(path), rows).run(); }

}  // namespace quiver::tasks
