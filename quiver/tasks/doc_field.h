// One of the keys doc_to_text, doc_to_target, doc_to_choice: from a row to a text, a label or a list.
#pragma once

#include <memory>
#include <nlohmann/json.hpp>
#include <optional>
#include <set>
#include <string>

#include "quiver/text/jinja.h"

namespace quiver::tasks {

/// A field's name, a template, or a constant. Which of the first two a text is shows in the rows: a name that a row has is that field.
class DocField {
 public:
  DocField() = default;
  /// `where` begins messages: "mine.yaml:3: doc_to_text". Throws as Jinja::parse for a text that is no template Quiver renders.
  DocField(nlohmann::json value, const std::string& where);

  /// The field's value, what the template renders to, or the constant. `fields`: the names of the fields of the rows that are asked.
  nlohmann::json of(const nlohmann::json& row, const std::set<std::string>& fields) const;
  /// Whether `of` renders a template.
  bool is_template(const std::set<std::string>& fields) const;
  const std::string& where() const { return where_; }

 private:
  nlohmann::json value_ = "";
  std::string where_;
  std::optional<text::Jinja> template_;
};

/// doc_to_text and doc_to_target: digits alone are an index where the task has choices; of a target, a list in Python's words is a list.
nlohmann::json read_doc(const DocField& field, const nlohmann::json& row, const std::set<std::string>& fields, bool has_choices,
                        bool may_be_list);

/// doc_to_choice. Throws kBadFormat, naming `where` and the key, for anything but a list of texts.
std::vector<std::string> read_choices(const DocField& field, const nlohmann::json& row, const std::set<std::string>& fields,
                                      const std::string& where);

}  // namespace quiver::tasks
