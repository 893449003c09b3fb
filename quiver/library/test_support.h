// Shared by the tests of the library.
#pragma once

#include <string>

#include "quiver/adapters/test_support.h"
#include "quiver/library/library.h"

namespace quiver::library {

using adapters::message_of;
using adapters::random_adapter;
using adapters::same_pairs;
using io::TempFolder;

inline const Base kBase{.name = "llama-tiny", .fingerprint = "f00d"};

inline Library new_library(const TempFolder& temp) { return Library::create(temp / "lib", kBase); }

/// All findings, one a line.
inline std::string findings_of(const Library& library) {
  std::string text;
  for (const auto& finding : library.verify()) text += finding.where + ": " + finding.message + "\n";
  return text;
}

}  // namespace quiver::library
