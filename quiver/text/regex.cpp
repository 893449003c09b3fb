#include "quiver/text/regex.h"

#define PCRE2_CODE_UNIT_WIDTH 8
#include <pcre2.h>

#include <array>

#include "quiver/base/error.h"
#include "quiver/text/unicode.h"

namespace quiver::text {
namespace {

template <auto kFree>
struct Deleter {
  template <typename T>
  void operator()(T* pointer) const {
    kFree(pointer);
  }
};

/// What one thread needs to match; PCRE2 lets nobody share it.
struct MatchState {
  std::unique_ptr<pcre2_match_data, Deleter<pcre2_match_data_free>> data{pcre2_match_data_create(1, nullptr)};
  std::unique_ptr<pcre2_match_context, Deleter<pcre2_match_context_free>> context{pcre2_match_context_create(nullptr)};
  std::unique_ptr<pcre2_jit_stack, Deleter<pcre2_jit_stack_free>> stack{
      pcre2_jit_stack_create(std::size_t{64} << 10, std::size_t{16} << 20, nullptr)};

  MatchState() {
    if (!data || !context || !stack) throw std::bad_alloc();
    pcre2_jit_stack_assign(context.get(), nullptr, stack.get());
  }
};

std::string message_of(int code) {
  std::array<PCRE2_UCHAR, 256> text{};
  pcre2_get_error_message(code, text.data(), text.size());
  return reinterpret_cast<const char*>(text.data());
}

}  // namespace

struct Regex::Code {
  std::unique_ptr<pcre2_code, Deleter<pcre2_code_free>> code;
};

Regex::Regex(const std::string& pattern, const std::string& origin) : origin_(origin) {
  const std::unique_ptr<pcre2_compile_context, Deleter<pcre2_compile_context_free>> context(pcre2_compile_context_create(nullptr));
  if (!context) throw std::bad_alloc();
  pcre2_set_newline(context.get(), PCRE2_NEWLINE_LF);  // Oniguruma's, for '.', '^' and '$'
  int error = 0;
  PCRE2_SIZE offset = 0;
  auto code = std::make_shared<Code>();
  code->code.reset(
      pcre2_compile(reinterpret_cast<PCRE2_SPTR>(pattern.data()), pattern.size(), PCRE2_UTF | PCRE2_UCP, &error, &offset, context.get()));
  if (!code->code) {
    fail(ErrorKind::kUnsupported, "{}: PCRE2 does not take the pattern '{}': {} (at byte {})", origin, pattern, message_of(error), offset);
  }
  // Without JIT (an architecture that PCRE2 has none for) matching is slower, not different.
  pcre2_jit_compile(code->code.get(), PCRE2_JIT_COMPLETE);
  code_ = std::move(code);
}

void Regex::find_all(std::string_view text, std::vector<Match>& out) const {
  thread_local MatchState state;
  const auto size = static_cast<std::int64_t>(text.size());
  std::int64_t last_end = -1;
  for (std::int64_t start = 0; start <= size;) {
    const int rc = pcre2_match(code_->code.get(), reinterpret_cast<PCRE2_SPTR>(text.data()), text.size(), static_cast<PCRE2_SIZE>(start),
                               PCRE2_NO_UTF_CHECK, state.data.get(), state.context.get());
    if (rc == PCRE2_ERROR_NOMATCH) return;
    if (rc < 0) {
      fail(ErrorKind::kUnsupported, "{}: the split pattern cannot be matched in a text of {} bytes at byte {}: {}", origin_, size, start,
           message_of(rc));
    }
    const PCRE2_SIZE* ends = pcre2_get_ovector_pointer(state.data.get());
    const Match match{static_cast<std::int64_t>(ends[0]), static_cast<std::int64_t>(ends[1])};
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

}  // namespace quiver::text
