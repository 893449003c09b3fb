#include "quiver/cli/allocator.h"

#include <cstddef>

// jemalloc's settings. A training step frees and takes the same gigabyte in pieces of many sizes: pages are kept, and any free run is
// cut for a smaller piece (lg_extent_max_active_fit): else every step would touch hundreds of megabytes of fresh pages, and kept memory
// would grow. There is one arena a core instead of four, since what an arena keeps serves the threads of no other arena.
extern "C" {
extern const char* malloc_conf;
const char* malloc_conf = "oversize_threshold:0,dirty_decay_ms:-1,muzzy_decay_ms:-1,lg_extent_max_active_fit:30,narenas_ratio:1";
int mallctl(const char* name, void* old, std::size_t* old_size, void* value, std::size_t size) __attribute__((weak));  // jemalloc's
}

namespace quiver::cli {

void give_back_free_pages() {
  if (mallctl != nullptr) mallctl("arena.4096.purge", nullptr, nullptr, nullptr, 0);  // MALLCTL_ARENAS_ALL
}

}  // namespace quiver::cli
