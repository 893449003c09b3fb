#include "quiver/regex/pattern.h"

#define PCRE2_CODE_UNIT_WIDTH 8
#include <pcre2.h>

#include <array>
#include <new>
#include <utility>

#include "quiver/base/error.h"
#include "quiver/base/utf8.h"

namespace quiver::regex {
namespace {

template <auto kFree>
struct Deleter {
  template <typename T>
  void operator()(T* pointer) const {
    kFree(pointer);
  }
};

/// Groups whose places one match can report; more are matched, but not reported.
constexpr std::uint32_t kMaxReportedGroups = 1024;

/// What one thread needs to match; PCRE2 lets nobody share it.
struct MatchState {
  std::unique_ptr<pcre2_match_data, Deleter<pcre2_match_data_free>> data{pcre2_match_data_create(kMaxReportedGroups, nullptr)};
  std::unique_ptr<pcre2_match_context, Deleter<pcre2_match_context_free>> context{pcre2_match_context_create(nullptr)};
  std::unique_ptr<pcre2_jit_stack, Deleter<pcre2_jit_stack_free>> stack{
      pcre2_jit_stack_create(std::size_t{64} << 10, std::size_t{16} << 20, nullptr)};

  MatchState() {
    if (!data || !context || !stack) throw std::bad_alloc();
    pcre2_jit_stack_assign(context.get(), nullptr, stack.get());
  }
};

MatchState& match_state() {
  thread_local MatchState state;
  return state;
}

std::string message_of(int code) {
  std::array<PCRE2_UCHAR, 256> text{};
  pcre2_get_error_message(code, text.data(), text.size());
  return reinterpret_cast<const char*>(text.data());
}

bool is_alphanumeric(char32_t c) { return (c >= '0' && c <= '9') || (c >= 'a' && c <= 'z') || (c >= 'A' && c <= 'Z'); }

/// The match that `state` holds in group `i`.
std::optional<Match> group_of(const MatchState& state, std::size_t i) {
  const PCRE2_SIZE* ends = pcre2_get_ovector_pointer(state.data.get());
  if (ends[2 * i] == PCRE2_UNSET) return std::nullopt;
  return Match{static_cast<std::int64_t>(ends[2 * i]), static_cast<std::int64_t>(ends[2 * i + 1])};
}

}  // namespace

struct Pattern::Code {
  std::unique_ptr<pcre2_code, Deleter<pcre2_code_free>> code;
  std::uint32_t num_groups = 0;
};

Pattern::Pattern(const std::string& source, std::string origin, std::uint32_t max_steps)
    : origin_(std::move(origin)), max_steps_(max_steps) {
  const std::unique_ptr<pcre2_compile_context, Deleter<pcre2_compile_context_free>> context(pcre2_compile_context_create(nullptr));
  if (!context) throw std::bad_alloc();
  pcre2_set_newline(context.get(), PCRE2_NEWLINE_LF);  // Oniguruma's, for '.', '^' and '$'
  int error = 0;
  PCRE2_SIZE offset = 0;
  auto code = std::make_shared<Code>();
  code->code.reset(
      pcre2_compile(reinterpret_cast<PCRE2_SPTR>(source.data()), source.size(), PCRE2_UTF | PCRE2_UCP, &error, &offset, context.get()));
  if (!code->code) {
    fail(ErrorKind::kUnsupported, "{}: PCRE2 does not take the pattern '{}': {} (at byte {})", origin_, excerpt(source), message_of(error),
         offset);
  }
  pcre2_pattern_info(code->code.get(), PCRE2_INFO_CAPTURECOUNT, &code->num_groups);
  if (code->num_groups >= kMaxReportedGroups) {
    fail(ErrorKind::kUnsupported, "{}: the pattern '{}' has {} groups; at most {} are read", origin_, excerpt(source), code->num_groups,
         kMaxReportedGroups - 1);
  }
  // Without JIT (an architecture that PCRE2 has none for) matching is slower, not different.
  pcre2_jit_compile(code->code.get(), PCRE2_JIT_COMPLETE);
  code_ = std::move(code);
}

/// PCRE2's answer: at least 1 for a match, PCRE2_ERROR_NOMATCH for none.
int Pattern::run(std::string_view text, std::int64_t start, std::uint32_t options) const {
  auto& state = match_state();
  pcre2_set_match_limit(state.context.get(), max_steps_);
  const int answer = pcre2_match(code_->code.get(), reinterpret_cast<PCRE2_SPTR>(text.data()), text.size(), static_cast<PCRE2_SIZE>(start),
                                 options, state.data.get(), state.context.get());
  if (answer > 0 || answer == PCRE2_ERROR_NOMATCH) return answer;
  const bool is_bad_text = answer <= PCRE2_ERROR_UTF8_ERR1 && answer >= PCRE2_ERROR_UTF8_ERR21;
  fail(is_bad_text ? ErrorKind::kBadFormat : ErrorKind::kUnsupported,
       "{}: the pattern cannot be matched in a text of {} bytes at byte {}: {}", origin_, text.size(), start, message_of(answer));
}

void Pattern::find_all(std::string_view text, std::vector<Match>& out) const {
  const auto size = static_cast<std::int64_t>(text.size());
  std::int64_t last_end = -1;
  for (std::int64_t start = 0; start <= size;) {
    if (run(text, start, PCRE2_NO_UTF_CHECK) == PCRE2_ERROR_NOMATCH) return;
    const auto match = *group_of(match_state(), 0);
    if (match.end > match.begin) {
      out.push_back(match);
      start = match.end;
    } else {
      if (match.end != last_end) out.push_back(match);
      if (match.end == size) return;
      start = match.end + code_point_at(text, match.end).num_bytes;
    }
    last_end = match.end;
  }
}

bool Pattern::matches_all(std::string_view text) const { return run(text, 0, PCRE2_ANCHORED | PCRE2_ENDANCHORED) > 0; }

Groups Pattern::groups_of_last_run() const {
  Groups groups;
  for (std::size_t i = 0; i <= code_->num_groups; ++i) groups.push_back(group_of(match_state(), i));
  return groups;
}

std::optional<Groups> Pattern::match_at_start(std::string_view text) const {
  if (run(text, 0, PCRE2_ANCHORED) == PCRE2_ERROR_NOMATCH) return std::nullopt;
  return groups_of_last_run();
}

std::optional<Groups> Pattern::search(std::string_view text, std::int64_t start, bool not_empty_at_start) const {
  const std::uint32_t options = PCRE2_NO_UTF_CHECK | (not_empty_at_start ? PCRE2_NOTEMPTY_ATSTART : 0);
  if (run(text, start, options) == PCRE2_ERROR_NOMATCH) return std::nullopt;
  return groups_of_last_run();
}

std::string literal(char32_t c) {
  if (is_alphanumeric(c)) return std::string(1, static_cast<char>(c));
  return format("\\x{{{:X}}}", static_cast<std::uint64_t>(c));
}

std::string literal_pattern(std::string_view text) {
  std::string out;
  for_each_character(text, [&](std::string_view, char32_t c) { out += literal(c); });
  return out;
}

std::string excerpt(std::string_view pattern) {
  constexpr std::size_t kLongest = 100;
  if (pattern.size() <= kLongest) return std::string(pattern);
  auto text = std::string(pattern.substr(0, kLongest));
  text.resize(text.size() - static_cast<std::size_t>(incomplete_tail(text)));
  return text + "...";
}

}  // namespace quiver::regex
