#include "quiver/tasks/doc_field.h"

#include <algorithm>
#include <utility>

#include "quiver/base/error.h"
#include "quiver/tasks/python_literal.h"

namespace quiver::tasks {

using nlohmann::json;

namespace {

bool is_digits(const std::string& text) { return !text.empty() && text.find_first_not_of("0123456789") == std::string::npos; }

}  // namespace

DocField::DocField(json value, const std::string& where) : value_(std::move(value)), where_(where) {
  if (value_.is_string()) template_ = text::Jinja::parse(value_.get<std::string>(), where, text::JinjaDialect::kLmEval);
}

bool DocField::is_template(const std::set<std::string>& fields) const { return template_ && !fields.contains(value_.get<std::string>()); }

json DocField::of(const json& row, const std::set<std::string>& fields) const {
  if (!value_.is_string()) return value_;
  if (is_template(fields)) return template_->render(nlohmann::ordered_json(row));
  const auto name = value_.get<std::string>();
  const auto found = row.find(name);
  if (found == row.end()) fail(ErrorKind::kBadFormat, "{}: the row has no field '{}'", where_, name);
  return *found;
}

json read_doc(const DocField& field, const json& row, const std::set<std::string>& fields, bool has_choices, bool may_be_list) {
  auto value = field.of(row, fields);
  if (has_choices && value.is_boolean()) return static_cast<std::int64_t>(value.get<bool>());  // Python's True is 1
  if (!value.is_string() || !field.is_template(fields)) return value;
  const auto text = value.get<std::string>();
  if (has_choices && is_digits(text)) {
    const auto index = python_literal(text);
    if (!index) fail(ErrorKind::kBadFormat, "{}: '{}' is rendered, which is no index", field.where(), text);
    return *index;
  }
  if (may_be_list && text.size() >= 2 && text.front() == '[' && text.back() == ']') return python_literal(text).value_or(value);
  return value;
}

std::vector<std::string> read_choices(const DocField& field, const json& row, const std::set<std::string>& fields,
                                      const std::string& where) {
  auto value = field.of(row, fields);
  if (field.is_template(fields)) {
    const auto list = python_literal(value.get<std::string>());
    if (!list)
      fail(ErrorKind::kBadFormat, "{}: '{}' is rendered of {}; expected a list such as ['a', 'b']", field.where(), value.get<std::string>(),
           where);
    value = *list;
  }
  if (!value.is_array() || value.empty() || !std::ranges::all_of(value, [](const json& item) { return item.is_string(); }))
    fail(ErrorKind::kBadFormat, "{}: the choices of {} are {}; expected a list of texts", field.where(), where,
         value.dump(-1, ' ', true).substr(0, 80));
  return value.get<std::vector<std::string>>();
}

}  // namespace quiver::tasks
