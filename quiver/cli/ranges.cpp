#include "quiver/cli/ranges.h"

#include <cerrno>
#include <cmath>
#include <cstdint>
#include <cstdlib>
#include <functional>
#include <limits>
#include <optional>
#include <string>

#include "quiver/base/error.h"

namespace quiver::cli {
namespace {

constexpr std::int64_t kLargestCount = 1'000'000'000;  ///< of rows, steps, tokens, adapters: sums of them cannot overflow

/// The number that `text` is as a whole; text that is none is refused by the option's own conversion.
std::optional<double> number_of(const std::string& text) {
  char* end = nullptr;
  const double value = std::strtod(text.c_str(), &end);
  if (text.empty() || *end != '\0') return std::nullopt;
  return value;
}

CLI::Validator check(const std::string& shown, const std::string& rule, std::function<bool(double)> holds) {
  return CLI::Validator(
      [rule, holds = std::move(holds)](std::string& text) {
        const auto value = number_of(text);
        if (!value || (std::isfinite(*value) && holds(*value))) return std::string();
        return format("must be {}, not {}", rule, text);
      },
      shown);
}

/// What is wrong with a number that shall be 0 to 2^64 - 1, or nothing.
std::string unsigned_fault(const std::string& text) {
  errno = 0;
  std::strtoull(text.c_str(), nullptr, 0);
  if (errno != ERANGE && !text.starts_with('-')) return "";
  return format("must be a whole number of 0 to {}, not {}", std::numeric_limits<std::uint64_t>::max(), text);
}

}  // namespace

CLI::Validator at_least(double lowest) {
  return check(format(">= {}", lowest), format("at least {}", lowest), [lowest](double value) { return value >= lowest; });
}

CLI::Validator above(double bound) {
  return check(format("> {}", bound), format("above {}", bound), [bound](double value) { return value > bound; });
}

CLI::Validator between(double lowest, double highest) {
  return check(format("{} to {}", lowest, highest), format("{} to {}", lowest, highest),
               [lowest, highest](double value) { return value >= lowest && value <= highest; });
}

void check_numbers(CLI::App& command) {
  for (auto* option : command.get_options()) {
    const auto type = option->get_type_name();
    if (type.starts_with("FLOAT")) option->check(check("", "a finite number", [](double) { return true; }));
    if (type.starts_with("INT")) {
      option->check(check("", format("at most {}", kLargestCount), [](double value) { return std::abs(value) <= kLargestCount; }));
    }
    if (type.starts_with("UINT")) option->check(CLI::Validator(unsigned_fault, ""));
  }
  for (auto* verb : command.get_subcommands([](CLI::App*) { return true; })) check_numbers(*verb);
}

}  // namespace quiver::cli
