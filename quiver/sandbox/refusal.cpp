// What a person can do about a kernel that allows no sandbox.
#include <sys/utsname.h>

#include <cerrno>
#include <fstream>
#include <sstream>
#include <string>

#include "quiver/base/error.h"
#include "quiver/sandbox/launch.h"

namespace quiver::sandbox {
namespace {

/// "kernel.name" of /proc/sys; empty where there is no such setting.
std::string setting(std::string name) {
  for (auto& letter : name) letter = letter == '.' ? '/' : letter;
  std::ifstream file("/proc/sys/" + name);
  std::string value;
  file >> value;
  return value;
}

bool is_kernel_too_old() {
  utsname names{};
  if (::uname(&names) != 0) return false;
  std::istringstream release(names.release);
  int major = 0, minor = 0;
  char dot = 0;
  if (!(release >> major >> dot >> minor)) return false;
  return major < 5 || (major == 5 && minor < 14);
}

}  // namespace

std::string how_to_mend(const Failure& failure) {
  if (is_kernel_too_old()) return "a sandbox needs Linux 5.14 or newer";
  if (setting("kernel.unprivileged_userns_clone") == "0") {
    return "the setting kernel.unprivileged_userns_clone is 0: set it to 1 (sysctl kernel.unprivileged_userns_clone=1, as root)";
  }
  for (const char* kind : {"user", "mnt", "pid", "net", "ipc", "uts"}) {
    const auto name = format("user.max_{}_namespaces", kind);
    if (setting(name) == "0") return format("the setting {} is 0: set it to 1024 (sysctl {}=1024, as root)", name, name);
  }
  if (setting("kernel.apparmor_restrict_unprivileged_userns") == "1") {
    return "AppArmor forbids namespaces to users: set kernel.apparmor_restrict_unprivileged_userns to 0 (sysctl, as root), or give this "
           "program a profile with the rule 'userns'";
  }
  const std::string call = failure.call;
  if (call == "execve" || call == "open_tree") {
    return "the user of the sandbox must be able to read that path: as root that is nobody, so choose a Python outside of private folders";
  }
  if (failure.error == ENOSPC)
    return "all namespaces that the settings user.max_*_namespaces allow are in use: raise them, or run fewer programs";
  if (failure.error == ENOSYS || failure.error == EINVAL)
    return "this kernel lacks namespaces or new mount calls: use one of Linux 5.14 or newer";
  return "a container runtime may forbid it: let the container use clone, mount and pivot_root (for Docker, the option security-opt with "
         "seccomp=unconfined and apparmor=unconfined)";
}

}  // namespace quiver::sandbox
