// Methods of adaptation as rows.
#pragma once

#include <vector>

#include "quiver/methods/parts.h"

namespace quiver::methods {

/// The rows of the family kLearnt, in the order of the table.
std::vector<Method> learning();

}  // namespace quiver::methods
