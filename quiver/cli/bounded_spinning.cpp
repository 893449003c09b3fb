// Before main, and before libgomp reads its settings: threads that wait for others spin for a bounded time, then sleep.
//
// By default a thread that waits spins 300,000 times. On a busy machine that takes the core from the very thread it waits for; docs/cli.md
// has the figures. The settings of the user count.
#include <sys/auxv.h>
#include <time.h>
#include <unistd.h>

#include <cstdint>
#include <cstdlib>
#include <cstring>

namespace {

/// With 30 us decoding alone took as long as with libgomp's own spinning, with 10 us 1.4 times as long (docs/cli.md).
constexpr std::int64_t kSpinNanoseconds = 40'000;

std::int64_t now_nanoseconds() {
  timespec time{};
  ::clock_gettime(CLOCK_MONOTONIC, &time);
  return static_cast<std::int64_t>(time.tv_sec) * 1'000'000'000 + time.tv_nsec;
}

/// The number of libgomp's spins, each a pause instruction, that take kSpinNanoseconds. How long a pause takes differs between CPUs.
int spin_count() {
#if defined(__x86_64__)
  constexpr int kPauses = 500;
  const auto start = now_nanoseconds();
  for (int i = 0; i < kPauses; ++i) __builtin_ia32_pause();
  const auto nanoseconds = now_nanoseconds() - start;
  const auto count = nanoseconds > 0 ? kSpinNanoseconds * kPauses / nanoseconds : 0;
  return count < 500 ? 500 : count > 20'000 ? 20'000 : static_cast<int>(count);
#else
  return 4000;
#endif
}

/// Runs the program again with GOMP_SPINCOUNT set, unless that or OMP_WAIT_POLICY is given: libc puts the environment back to the one the
/// process began with before the constructors of libraries run, so that setting it here would have no effect. Returns where the program
/// cannot be run again.
void bound_spinning(int, char** argv, char** environment) {
  constexpr std::size_t kMostVariables = 4096;
  char setting[32] = "GOMP_SPINCOUNT=";
  const auto name_length = std::strlen(setting);
  const char* changed[kMostVariables + 2];
  std::size_t count = 0;
  for (char** variable = environment; *variable != nullptr; ++variable) {
    if (std::strncmp(*variable, setting, name_length) == 0 || std::strncmp(*variable, "OMP_WAIT_POLICY=", 16) == 0) return;
    if (count == kMostVariables) return;
    changed[count++] = *variable;
  }
  if (::getauxval(AT_BASE) == 0) return;  // run by the dynamic linker as its argument: the program of this process is the linker
  char path[4096];
  const auto length = ::readlink("/proc/self/exe", path, sizeof(path));
  if (length <= 0 || length == sizeof(path)) return;
  path[length] = '\0';
  char* end = setting + name_length;
  char digits[16];
  int num_digits = 0;
  for (int rest = spin_count(); rest > 0; rest /= 10) digits[num_digits++] = static_cast<char>('0' + rest % 10);
  while (num_digits > 0) *end++ = digits[--num_digits];
  *end = '\0';
  changed[count] = setting;
  changed[count + 1] = nullptr;
  ::execve(path, argv, const_cast<char**>(changed));
}

__attribute__((section(".preinit_array"), used)) void (*const run_before_libraries)(int, char**, char**) = bound_spinning;

}  // namespace
