// Python's text of values (str, repr, json.dumps) and its operations on strings.
#include <utf8proc.h>

#include <array>
#include <charconv>
#include <cmath>
#include <cstring>

#include "quiver/text/jinja_parts.h"
#include "quiver/text/unicode.h"

namespace quiver::text::jinja {
namespace {

CodePoint point_at(std::string_view text, std::size_t offset) { return code_point_at(text, static_cast<std::int64_t>(offset)); }

std::string hex(char32_t c, std::size_t num_digits) {
  constexpr std::string_view kDigits = "0123456789abcdef";
  std::string out(num_digits, '0');
  for (std::size_t i = num_digits; i-- > 0; c >>= 4) out[i] = kDigits[c & 15U];
  return out;
}

std::string repr_string(std::string_view text) {
  const bool has_single = text.find('\'') != std::string_view::npos;
  const char quote = has_single && text.find('"') == std::string_view::npos ? '"' : '\'';
  std::string out(1, quote);
  for_each_character(text, [&](std::string_view bytes, char32_t c) {
    if (c == '\\' || c == static_cast<char32_t>(quote)) {
      out += '\\';
      out += static_cast<char>(c);
    } else if (c == '\n') {
      out += "\\n";
    } else if (c == '\r') {
      out += "\\r";
    } else if (c == '\t') {
      out += "\\t";
    } else if (is_printable(c)) {
      out += bytes;
    } else {
      out += c < 0x100 ? "\\x" + hex(c, 2) : c < 0x10000 ? "\\u" + hex(c, 4) : "\\U" + hex(c, 8);
    }
  });
  return out + quote;
}

void append_repr(Context& context, const Value& value, std::string& out);

/// The items between `open` and `close`; those of a dict are keys and values in turn.
void append_items(Context& context, std::string_view open, const Value& value, std::string_view close, std::string& out) {
  out += open;
  const auto& items = value.items();
  for (std::size_t i = 0; i < items.size(); ++i) {
    if (i > 0) out += value.is(Type::kDict) && i % 2 == 1 ? ": " : ", ";
    append_repr(context, items[i], out);
  }
  out += close;
}

void append_repr(Context& context, const Value& value, std::string& out) {
  context.work();
  context.check_size(out);
  switch (value.type) {
    case Type::kUndefined: out += "Undefined"; return;
    case Type::kNone: out += "None"; return;
    case Type::kBool: out += value.boolean ? "True" : "False"; return;
    case Type::kInt: out += format("{}", value.integer); return;
    case Type::kFloat: out += float_repr(value.number); return;
    case Type::kString:
      context.work_bytes(value.text().size());
      out += value.heap->is_markup ? "Markup(" + repr_string(value.text()) + ")" : repr_string(value.text());
      return;
    case Type::kList: return append_items(context, "[", value, "]", out);
    case Type::kTuple: return append_items(context, "(", value, value.items().size() == 1 ? ",)" : ")", out);
    case Type::kDict: return append_items(context, "{", value, "}", out);
    case Type::kView: return append_items(context, value.text() + "([", value, "])", out);
    case Type::kRange: out += value.text(); return;
    default: context.refuse("the text of a {}", type_name(value));
  }
}

void append_json_string(std::string_view text, bool ensure_ascii, std::string& out) {
  constexpr std::string_view kEscaped = "\"\\\n\r\t\f\b";
  constexpr std::string_view kLetters = "\"\\nrtfb";
  out += '"';
  for_each_character(text, [&](std::string_view bytes, char32_t c) {
    const std::size_t simple = c < 0x80 ? kEscaped.find(static_cast<char>(c)) : std::string_view::npos;
    if (simple != std::string_view::npos) {
      out += '\\';
      out += kLetters[simple];
    } else if (c < 0x20 || (ensure_ascii && c > 0x7E && c < 0x10000)) {
      out += "\\u" + hex(c, 4);
    } else if (ensure_ascii && c >= 0x10000) {
      out += "\\u" + hex(0xD800 + ((c - 0x10000) >> 10), 4) + "\\u" + hex(0xDC00 + ((c - 0x10000) & 0x3FF), 4);
    } else {
      out += bytes;
    }
  });
  out += '"';
}

class JsonWriter {
 public:
  JsonWriter(Context& context, const JsonStyle& style) : context_(context), style_(style) {}

  void write(const Value& value) {
    context_.work();
    context_.check_size(out_);
    if (const auto text = scalar(value)) {
      out_ += *text;
    } else if (value.is_string()) {
      context_.work_bytes(value.text().size());
      append_json_string(value.text(), style_.ensure_ascii, out_);
    } else if (value.is(Type::kList) || value.is(Type::kTuple)) {
      container('[', ']', value.items().size(), [&](std::size_t i) { write(value.items()[i]); });
    } else if (value.is(Type::kDict)) {
      dict(value.items());
    } else {
      context_.raise("{} is not JSON serializable", type_name(value));
    }
  }
  std::string take() { return std::move(out_); }

 private:
  /// None, a boolean or a number; nothing for other values.
  static std::optional<std::string> scalar(const Value& value) {
    if (value.is(Type::kNone)) return "null";
    if (value.is(Type::kBool)) return value.boolean ? "true" : "false";
    if (value.is(Type::kInt)) return format("{}", value.integer);
    if (!value.is(Type::kFloat)) return std::nullopt;
    if (std::isnan(value.number)) return "NaN";
    if (std::isinf(value.number)) return value.number > 0 ? "Infinity" : "-Infinity";
    return float_repr(value.number);
  }

  void newline() {
    if (!style_.indent) return;
    out_ += '\n';
    for (std::int64_t i = 0; i < level_; ++i) out_ += *style_.indent;
    context_.check_size(out_);
    context_.work_bytes(static_cast<std::size_t>(level_) * style_.indent->size());
  }

  /// `count` items between brackets; `write_item` writes one.
  template <typename WriteItem>
  void container(char open, char close, std::size_t count, const WriteItem& write_item) {
    out_ += open;
    ++level_;
    for (std::size_t i = 0; i < count; ++i) {
      if (i > 0) out_ += style_.item_separator;
      newline();
      write_item(i);
    }
    --level_;
    if (count > 0) newline();
    out_ += close;
  }

  void dict(const std::vector<Value>& items) {
    std::vector<std::size_t> order;
    for (std::size_t i = 0; i < items.size(); i += 2) order.push_back(i);
    if (style_.sort_keys) {
      std::ranges::stable_sort(order, [&](std::size_t a, std::size_t b) { return less(context_, items[a], items[b]); });
    }
    container('{', '}', order.size(), [&](std::size_t i) {
      const Value& key = items[order[i]];
      const auto text = key.is_string() ? key.text() : scalar(key);
      if (!text) context_.raise("a key of JSON must be a string or a number, not {}", type_name(key));
      append_json_string(*text, style_.ensure_ascii, out_);
      out_ += style_.key_separator;
      write(items[order[i] + 1]);
    });
  }

  Context& context_;
  const JsonStyle& style_;
  std::int64_t level_ = 0;
  std::string out_;
};

}  // namespace

std::string float_repr(double value) {
  if (std::isnan(value)) return "nan";
  if (std::isinf(value)) return value > 0 ? "inf" : "-inf";
  std::array<char, 64> buffer{};
  const auto end = std::to_chars(buffer.data(), buffer.data() + buffer.size(), value, std::chars_format::scientific).ptr;
  const std::string_view text(buffer.data(), static_cast<std::size_t>(end - buffer.data()));
  const std::size_t mark = text.find('e');
  int exponent = 0;
  const bool is_negative = text[mark + 1] == '-';  // to_chars writes a plus sign, which from_chars does not read
  std::from_chars(text.data() + mark + 2, text.data() + text.size(), exponent);
  if (is_negative) exponent = -exponent;
  if (exponent < -4 || exponent >= 16) {
    return std::string(text.substr(0, mark)) + format("e{}{:02}", exponent < 0 ? "-" : "+", std::abs(exponent));
  }
  const auto fixed = std::to_chars(buffer.data(), buffer.data() + buffer.size(), value, std::chars_format::fixed).ptr;
  std::string out(buffer.data(), fixed);
  return out.find('.') == std::string::npos ? out + ".0" : out;
}

std::string str(Context& context, const Value& value) {
  if (value.is_string()) return value.text();
  if (value.is(Type::kUndefined)) return {};
  return repr(context, value);
}

std::string repr(Context& context, const Value& value) {
  std::string out;
  append_repr(context, value, out);
  context.check_size(out);
  return out;
}

std::string to_json(Context& context, const Value& value, const JsonStyle& style) {
  JsonWriter writer(context, style);
  writer.write(value);
  return writer.take();
}

std::string_view strip(std::string_view text, std::string_view characters, bool has_characters, bool left, bool right) {
  const auto goes = [&](std::string_view character, char32_t value) {
    return has_characters ? characters.find(character) != std::string_view::npos : is_python_space(value);
  };
  while (left && !text.empty()) {
    const CodePoint point = point_at(text, 0);
    const auto size = static_cast<std::size_t>(point.num_bytes);
    if (!goes(text.substr(0, size), point.value)) break;
    text.remove_prefix(size);
  }
  while (right && !text.empty()) {
    const CodePoint point = code_point_before(text, static_cast<std::int64_t>(text.size()));
    const auto size = static_cast<std::size_t>(point.num_bytes);
    if (!goes(text.substr(text.size() - size), point.value)) break;
    text.remove_suffix(size);
  }
  return text;
}

std::vector<std::string> split_lines(std::string_view text, bool keep_ends) {
  std::vector<std::string> out;
  std::size_t begin = 0;
  for (std::size_t i = 0; i < text.size();) {
    const CodePoint point = point_at(text, i);
    const char32_t c = point.value;
    std::size_t end = i + static_cast<std::size_t>(point.num_bytes);
    const bool is_end = (c >= 0x0A && c <= 0x0D) || (c >= 0x1C && c <= 0x1E) || c == 0x85 || c == 0x2028 || c == 0x2029;
    if (is_end) {
      if (c == '\r' && end < text.size() && text[end] == '\n') ++end;
      out.emplace_back(text.substr(begin, (keep_ends ? end : i) - begin));
      begin = end;
    }
    i = end;
  }
  if (begin < text.size()) out.emplace_back(text.substr(begin));
  return out;
}

namespace {

/// True for characters whose upper case is more than one character.
bool grows_in_upper_case(char32_t c) {
  return c == 0x149 || c == 0x1F0 || c == 0x390 || c == 0x3B0 || c == 0x587 || (c >= 0x1E96 && c <= 0x1E9A) ||
         (c >= 0x1F50 && c <= 0x1FFF) || (c >= 0xFB00 && c <= 0xFB17);
}

void append_upper(Context& context, char32_t c, bool is_title, std::string& out) {
  if (c == 0xDF) {
    out += is_title ? "Ss" : "SS";
    return;
  }
  if (grows_in_upper_case(c)) context.refuse("the upper case of U+{:04X}", static_cast<std::uint64_t>(c));
  const auto code = static_cast<utf8proc_int32_t>(c);
  append_utf8(out, static_cast<char32_t>(is_title ? utf8proc_totitle(code) : utf8proc_toupper(code)));
}

}  // namespace

std::string upper(Context& context, std::string_view text) {
  std::string out;
  for_each_character(text, [&](std::string_view, char32_t c) { append_upper(context, c, false, out); });
  return out;
}

std::string capitalize(Context& context, std::string_view text) {
  if (text.empty()) return {};
  const char32_t first = point_at(text, 0).value;
  std::string out;
  append_upper(context, first, true, out);
  std::string lower_first;
  append_lowercase(lower_first, first);
  return out + lowercase(text).substr(lower_first.size());
}

std::string replace(Context& context, std::string_view text, std::string_view from, std::string_view to, std::int64_t count) {
  std::string out;
  context.work_bytes(text.size());
  std::size_t begin = 0;
  std::size_t from_place = 0;
  while (count != 0) {
    const std::size_t place = from.empty() ? from_place : find_text(text, from, from_place);
    if (place == std::string_view::npos || place > text.size()) break;
    out += text.substr(begin, place - begin);
    out += to;
    context.work_bytes(to.size());
    context.check_size(out);
    begin = place + from.size();
    from_place = begin;
    if (from.empty()) from_place += place < text.size() ? static_cast<std::size_t>(point_at(text, place).num_bytes) : 1;
    if (count > 0) --count;
  }
  if (begin < text.size()) out += text.substr(begin);
  context.check_size(out);
  return out;
}

std::size_t find_text(std::string_view text, std::string_view part, std::size_t from) {
  if (from > text.size()) return std::string_view::npos;
  const void* place = memmem(text.data() + from, text.size() - from, part.data(), part.size());
  return place == nullptr ? std::string_view::npos : static_cast<std::size_t>(static_cast<const char*>(place) - text.data());
}

std::vector<std::string_view> characters(std::string_view text) {
  std::vector<std::string_view> out;
  for_each_character(text, [&](std::string_view bytes, char32_t) { out.push_back(bytes); });
  return out;
}

std::string escape_html(std::string_view text) {
  std::string out;
  for (const char c : text) {
    switch (c) {
      case '&': out += "&amp;"; break;
      case '<': out += "&lt;"; break;
      case '>': out += "&gt;"; break;
      case '\'': out += "&#39;"; break;
      case '"': out += "&#34;"; break;
      default: out += c;
    }
  }
  return out;
}

}  // namespace quiver::text::jinja
