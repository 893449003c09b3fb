// Options whose value is one of a few words.
#pragma once

#include <initializer_list>
#include <string>
#include <utility>

#include "quiver/base/error.h"

namespace quiver::cli {

/// What `word` stands for. Throws kUsage, listing the words that there are.
template <typename T>
T choose(const char* option, const std::string& word, std::initializer_list<std::pair<const char*, T>> choices) {
  std::string known;
  for (const auto& [name, value] : choices) {
    if (word == name) return value;
    known += (known.empty() ? "" : ", ") + std::string(name);
  }
  fail(ErrorKind::kUsage, "{} '{}' is not one of {}", option, word, known);
}

}  // namespace quiver::cli
