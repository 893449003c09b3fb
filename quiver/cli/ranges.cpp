#include "quiver/cli/ranges.h"

#include <cmath>
#include <cstdlib>
#include <functional>
#include <optional>
#include <string>

#include "quiver/base/error.h"

namespace quiver::cli {
namespace {

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

void refuse_infinite_numbers(CLI::App& command) {
  for (auto* option : command.get_options()) {
    if (option->get_type_name().starts_with("FLOAT")) option->check(check("", "a finite number", [](double) { return true; }));
  }
  for (auto* verb : command.get_subcommands([](CLI::App*) { return true; })) refuse_infinite_numbers(*verb);
}

}  // namespace quiver::cli
