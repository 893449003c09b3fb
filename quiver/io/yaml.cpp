#include "quiver/io/yaml.h"

#include <yaml.h>

#include <algorithm>
#include <optional>

#include "quiver/base/error.h"
#include "quiver/base/utf8.h"
#include "quiver/io/file.h"
#include "quiver/io/yaml_scalar.h"

namespace quiver::io {
namespace {

using nlohmann::json;

constexpr std::string_view kUsualTags = "tag:yaml.org,2002:";

std::string_view view_of(const yaml_char_t* text) { return text == nullptr ? "" : reinterpret_cast<const char*>(text); }

/// The part of a JSON pointer that names a member.
std::string pointer_part(std::string_view key) {
  std::string out = "/";
  for (const char c : key) out += c == '~' ? "~0" : c == '/' ? "~1" : std::string(1, c);
  return out;
}

/// An event, which is given back at the end.
class YamlEvent {
 public:
  YamlEvent() = default;
  ~YamlEvent() { yaml_event_delete(&event_); }
  YamlEvent(const YamlEvent&) = delete;
  YamlEvent& operator=(const YamlEvent&) = delete;
  yaml_event_t* get() { return &event_; }
  const yaml_event_t* operator->() const { return &event_; }
  std::int64_t line() const { return static_cast<std::int64_t>(event_.start_mark.line) + 1; }

 private:
  yaml_event_t event_{};
};

/// What an anchor names.
struct Anchored {
  json value;
  std::int64_t size = 0;  ///< as YamlLimits::max_values counts
};

class YamlReader {
 public:
  YamlReader(std::string_view text, std::string_view origin, const YamlLimits& limits) : origin_(origin), limits_(limits) {
    if (yaml_parser_initialize(&parser_) == 0) fail(ErrorKind::kInternal, "{}: libyaml found no memory", origin_);
    yaml_parser_set_encoding(&parser_, YAML_UTF8_ENCODING);
    yaml_parser_set_input_string(&parser_, reinterpret_cast<const unsigned char*>(text.data()), text.size());
  }
  ~YamlReader() { yaml_parser_delete(&parser_); }
  YamlReader(const YamlReader&) = delete;
  YamlReader& operator=(const YamlReader&) = delete;

  YamlDocument run() {
    YamlEvent stream, document;
    next(stream);
    next(document);
    if (document->type == YAML_STREAM_END_EVENT) return std::move(document_);
    YamlEvent first;
    next(first);
    document_.value = node(first, "");
    YamlEvent end, after;
    next(end);
    next(after);
    if (after->type != YAML_STREAM_END_EVENT) bad(after.line(), "a second document begins here; expected one");
    return std::move(document_);
  }

 private:
  [[noreturn]] void bad(std::int64_t line, std::string_view what) const {
    fail(ErrorKind::kBadFormat, "{}: line {}: {}", origin_, line, what);
  }
  [[noreturn]] void refuse(std::int64_t line, std::string_view what) const {
    fail(ErrorKind::kUnsupported, "{}: line {}: {}", origin_, line, what);
  }

  void next(YamlEvent& event) {
    if (yaml_parser_parse(&parser_, event.get()) != 0) return;
    const auto line = static_cast<std::int64_t>(parser_.problem_mark.line) + 1;
    const std::string problem = parser_.problem == nullptr ? "it cannot be read" : parser_.problem;
    if (parser_.error == YAML_MEMORY_ERROR) fail(ErrorKind::kInternal, "{}: libyaml found no memory", origin_);
    if (parser_.error == YAML_READER_ERROR) {
      fail(ErrorKind::kBadFormat, "{}: not YAML: {} at byte {}", origin_, problem, static_cast<std::int64_t>(parser_.problem_offset));
    }
    const std::string context = parser_.context == nullptr ? "" : format(" ({})", parser_.context);
    fail(ErrorKind::kBadFormat, "{}: line {}, column {}: not YAML: {}{}", origin_, line,
         static_cast<std::int64_t>(parser_.problem_mark.column) + 1, problem, context);
  }

  void count(std::int64_t values, std::int64_t line) {
    size_ += values;
    if (size_ > limits_.max_values) bad(line, format("more than {} values, those of aliases counted", limits_.max_values));
  }

  /// Counts one level of nesting while what it returns lives.
  [[nodiscard]] auto nested(std::int64_t line) {
    if (depth_ >= limits_.max_depth) bad(line, format("nesting of more than {} levels", limits_.max_depth));
    ++depth_;
    struct Level {
      std::int64_t& depth;
      explicit Level(std::int64_t& d) : depth(d) {}
      ~Level() { --depth; }
      Level(const Level&) = delete;
      Level& operator=(const Level&) = delete;
    };
    return Level(depth_);
  }

  /// The value that begins with this event; `pointer` names it.
  json node(const YamlEvent& event, const std::string& pointer) {
    if (event->type == YAML_ALIAS_EVENT) return alias(event);
    document_.lines.try_emplace(pointer, event.line());
    const auto before = size_;
    count(1 + std::ssize(pointer) / 64, event.line());  // the places of values are kept, too
    json value;
    std::string_view anchor;
    switch (event->type) {
      case YAML_SCALAR_EVENT:
        value = scalar(event, pointer);
        anchor = view_of(event->data.scalar.anchor);
        break;
      case YAML_SEQUENCE_START_EVENT:
        value = sequence(event, pointer);
        anchor = view_of(event->data.sequence_start.anchor);
        break;
      case YAML_MAPPING_START_EVENT:
        value = mapping(event, pointer);
        anchor = view_of(event->data.mapping_start.anchor);
        break;
      default: fail(ErrorKind::kInternal, "{}: line {}: an event of libyaml that begins no value", origin_, event.line());
    }
    if (!anchor.empty() && !anchors_.emplace(anchor, Anchored{value, size_ - before}).second)
      bad(event.line(), format("the anchor '{}' stands twice", anchor));
    return value;
  }

  json alias(const YamlEvent& event) {
    const auto name = view_of(event->data.alias.anchor);
    const auto found = anchors_.find(name);
    if (found == anchors_.end()) refuse(event.line(), format("the alias '*{}' has no anchor '&{}' that ends before it", name, name));
    count(found->second.size, event.line());
    return found->second.value;
  }

  json sequence(const YamlEvent& event, const std::string& pointer) {
    check_tag(event.line(), view_of(event->data.sequence_start.tag), "seq");
    const auto level = nested(event.line());
    json list = json::array();
    while (true) {
      YamlEvent item;
      next(item);
      if (item->type == YAML_SEQUENCE_END_EVENT) return list;
      list.push_back(node(item, format("{}/{}", pointer, list.size())));
    }
  }

  json mapping(const YamlEvent& event, const std::string& pointer) {
    check_tag(event.line(), view_of(event->data.mapping_start.tag), "map");
    const auto level = nested(event.line());
    json object = json::object();
    while (true) {
      YamlEvent key;
      next(key);
      if (key->type == YAML_MAPPING_END_EVENT) return object;
      const auto name = key_of(key);
      const auto place = pointer + pointer_part(name);
      const auto [known, is_new] = document_.lines.try_emplace(place, key.line());
      if (!is_new) bad(key.line(), format("the key '{}' stands at line {} already", name, known->second));
      YamlEvent value;
      next(value);
      object[name] = node(value, place);
    }
  }

  std::string key_of(const YamlEvent& key) {
    if (key->type != YAML_SCALAR_EVENT)
      refuse(key.line(), "a key that is no text (a template that begins with '{' needs quotes around it)");
    count(1, key.line());
    const auto value = scalar(key, "");
    if (!value.is_string()) {
      const auto text = text_of(key);
      refuse(key.line(),
             format("the key '{}' is {} in YAML 1.1; expected a text: put it in quotes", text, yaml_type_name(yaml_type(text))));
    }
    return value.get<std::string>();
  }

  static std::string_view text_of(const YamlEvent& event) {
    return {reinterpret_cast<const char*>(event->data.scalar.value), event->data.scalar.length};
  }

  /// `pointer` names the value; empty for a key, which may have no tag of its own.
  json scalar(const YamlEvent& event, const std::string& pointer) {
    const auto text = text_of(event);
    count(static_cast<std::int64_t>(text.size() / 64), event.line());
    const auto tag = view_of(event->data.scalar.tag);
    auto type = YamlType::kText;
    if (tag.empty() || tag == "!") {
      if (event->data.scalar.plain_implicit != 0) type = yaml_type(text);
    } else if (tag.starts_with('!') && !pointer.empty()) {
      document_.local_tags.emplace(pointer, tag);
    } else {
      type = tagged_type(event.line(), tag);
    }
    if (type == YamlType::kDate) refuse(event.line(), format("'{}' is a date; put it in quotes to have a text", text));
    if (type == YamlType::kMerge || type == YamlType::kDefault)
      refuse(event.line(), format("'{}' has a meaning of its own in YAML 1.1; write what it stands for, or put it in quotes", text));
    auto value = yaml_value(text, type);
    if (!value)
      refuse(event.line(), format("'{}' is no {} of 64 bits", text, yaml_type_name(type).substr(yaml_type_name(type).find(' ') + 1)));
    return *std::move(value);
  }

  YamlType tagged_type(std::int64_t line, std::string_view tag) const {
    constexpr std::pair<std::string_view, YamlType> kTypes[] = {{"str", YamlType::kText},
                                                                {"null", YamlType::kNull},
                                                                {"bool", YamlType::kBool},
                                                                {"int", YamlType::kInt},
                                                                {"float", YamlType::kFloat}};
    for (const auto& [name, type] : kTypes) {
      if (tag.starts_with(kUsualTags) && tag.substr(kUsualTags.size()) == name) return type;
    }
    refuse(line, format("the tag '{}' is not read here; expected !!str, !!null, !!bool, !!int or !!float", tag));
  }

  void check_tag(std::int64_t line, std::string_view tag, std::string_view usual) const {
    if (tag.empty() || tag == "!" || (tag.starts_with(kUsualTags) && tag.substr(kUsualTags.size()) == usual)) return;
    refuse(line, format("the tag '{}' on a list or mapping is not read here", tag));
  }

  yaml_parser_t parser_{};
  std::string_view origin_;
  const YamlLimits& limits_;
  YamlDocument document_;
  std::map<std::string, Anchored, std::less<>> anchors_;
  std::int64_t depth_ = 0, size_ = 0;
};

}  // namespace

std::int64_t YamlDocument::line_of(std::string pointer) const {
  while (true) {
    const auto found = lines.find(pointer);
    if (found != lines.end()) return found->second;
    if (pointer.empty()) return 1;
    pointer.erase(pointer.rfind('/') == std::string::npos ? 0 : pointer.rfind('/'));
  }
}

YamlDocument parse_yaml(std::string_view text, std::string_view origin, const YamlLimits& limits) {
  if (std::ssize(text) > limits.max_bytes)
    fail(ErrorKind::kBadFormat, "{}: {} bytes of YAML; at most {} are read", origin, text.size(), limits.max_bytes);
  if (!is_valid_utf8(text)) fail(ErrorKind::kBadFormat, "{}: not UTF-8", origin);
  return YamlReader(text, origin, limits).run();
}

YamlDocument read_yaml_file(const std::filesystem::path& path) { return parse_yaml(read_text_file(path), path.string()); }

}  // namespace quiver::io
