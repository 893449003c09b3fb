#include "quiver/recipes/run_key.h"

namespace quiver::recipes {

ArtifactKey begin_run_key(std::string_view what, const BaseModel& base, const AdapterChoice& choice) {
  ArtifactKey key(what);
  key.add(base);
  add_to_key(key, choice);
  return key;
}

}  // namespace quiver::recipes
