// What the program asks of its allocator.
#pragma once

namespace quiver::cli {

/// Gives the pages of freed memory back to the system, which the allocator keeps otherwise. Nothing happens where it is not jemalloc.
void give_back_free_pages();

}  // namespace quiver::cli
