// The process that becomes a program.
#pragma once

namespace quiver::sandbox {

/// Carries out a plan (a Plan*) and never returns. For clone(2) with CLONE_VM and CLONE_VFORK.
///
/// Quiver has many threads and much memory. After a fork of such a process a lock may stay locked for ever, and its page tables are copied.
/// So the child borrows the memory of its parent until exec, as posix_spawn's does. One thread of the parent sleeps so long.
/// The child makes system calls alone: it allocates nothing, takes no lock and throws nothing. It writes to its own stack, to the plan, and
/// to the `errno` of the thread that sleeps.
///
/// A failed call is noted in Plan::failure, and the child exits.
int become_program(void* plan);

}  // namespace quiver::sandbox
