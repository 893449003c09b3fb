// What figures were measured on.
#pragma once

#include <nlohmann/json.hpp>

namespace quiver::diagnostics {

/// {"cpu", "cores", "memory", "kernels", "bf16 in hardware", "threads", "libtorch", "gpu", "system", "quiver"}: strings for provenance.
nlohmann::json describe_machine();

}  // namespace quiver::diagnostics
