// What values of options may be, refused in words that a person reads.
#pragma once

#include <CLI/CLI.hpp>

namespace quiver::cli {

/// Checks of one number: finite, and at least, above or between the bounds. The message of --rank 0 is "--rank: must be at least 1, not 0".
CLI::Validator at_least(double lowest);
CLI::Validator above(double bound);
CLI::Validator between(double lowest, double highest);

/// Has every option of the verb, and of verbs below it, that takes numbers refuse those that mean nothing: floating-point numbers that are
/// not finite, counts beyond 10^9, which CLI11 would clip in silence, and a negative seed, which it would wrap.
void check_numbers(CLI::App& command);

}  // namespace quiver::cli
