// What figures were measured on.
#pragma once

#include <nlohmann/json.hpp>

namespace quiver::recipes {

/// {"cpu", "cores", "memory", "isa", "bf16", "threads", "libtorch", "quiver", "os"}: strings for provenance.
nlohmann::json describe_machine();

}  // namespace quiver::recipes
