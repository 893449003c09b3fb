// The filter of system calls, as a program of classic BPF (seccomp(2)).
#include <linux/audit.h>
#include <linux/seccomp.h>
#include <sched.h>
#include <sys/prctl.h>
#include <sys/socket.h>
#include <sys/syscall.h>

#include <cerrno>
#include <cstddef>
#include <iterator>
#include <utility>

#include "quiver/sandbox/plan.h"

namespace quiver::sandbox {
namespace {

#if defined(__x86_64__)
constexpr std::uint32_t kMachine = AUDIT_ARCH_X86_64;
#elif defined(__aarch64__)
constexpr std::uint32_t kMachine = AUDIT_ARCH_AARCH64;
#else
#error "the sandbox has no filter of system calls for this processor: add its AUDIT_ARCH"
#endif

constexpr std::uint32_t kAllow = SECCOMP_RET_ALLOW;
constexpr std::uint32_t kForbid = SECCOMP_RET_ERRNO | EPERM;
constexpr std::uint32_t kMissing = SECCOMP_RET_ERRNO | ENOSYS;

constexpr std::uint32_t kNewNamespaces =
    CLONE_NEWNS | CLONE_NEWCGROUP | CLONE_NEWUTS | CLONE_NEWIPC | CLONE_NEWUSER | CLONE_NEWPID | CLONE_NEWNET;

constexpr long kForbidden[] = {
    // other processes
    SYS_ptrace, SYS_process_vm_readv, SYS_process_vm_writev, SYS_process_madvise, SYS_kcmp, SYS_pidfd_getfd,
    // mounts and namespaces
    SYS_mount, SYS_umount2, SYS_pivot_root, SYS_chroot, SYS_open_tree, SYS_move_mount, SYS_fsopen, SYS_fsconfig, SYS_fsmount, SYS_fspick,
    SYS_mount_setattr, SYS_unshare, SYS_setns, SYS_name_to_handle_at, SYS_open_by_handle_at,
    // keys, which are of a user and not of a namespace
    SYS_add_key, SYS_request_key, SYS_keyctl,
    // parts of the kernel where faults were found often
    SYS_bpf, SYS_perf_event_open, SYS_io_uring_setup, SYS_io_uring_enter, SYS_io_uring_register, SYS_userfaultfd, SYS_fanotify_init,
    // the machine
    SYS_kexec_load, SYS_kexec_file_load, SYS_init_module, SYS_finit_module, SYS_delete_module, SYS_reboot, SYS_swapon, SYS_swapoff,
    SYS_acct, SYS_quotactl, SYS_syslog, SYS_sethostname, SYS_setdomainname,
    // memory that no limit counts
    SYS_memfd_create, SYS_memfd_secret, SYS_shmget, SYS_msgget, SYS_semget, SYS_mq_open};

// Sockets of any other family may lead out of the network namespace: those of virtual machines (AF_VSOCK) do.
constexpr std::uint32_t kSocketFamilies[] = {AF_UNIX, AF_INET, AF_INET6};

/// The instructions so far, and those that are added most.
class Instructions {
 public:
  void load(std::size_t offset) { add(BPF_LD | BPF_W | BPF_ABS, static_cast<std::uint32_t>(offset)); }
  void load_argument() { load(offsetof(seccomp_data, args)); }  // the lower half of the first one: the machine is little-endian
  void answer(std::uint32_t value) { add(BPF_RET | BPF_K, value); }
  /// Answers if the test of the loaded word succeeds.
  void answer_if(int test, std::uint32_t operand, std::uint32_t value) {
    skip_unless(test, operand, 1);
    answer(value);
  }
  void skip_unless(int test, std::uint32_t operand, std::uint8_t count) { add(BPF_JMP | test | BPF_K, operand, 0, count); }
  void skip_if(int test, std::uint32_t operand, std::uint8_t count) { add(BPF_JMP | test | BPF_K, operand, count, 0); }
  std::vector<sock_filter> take() { return std::move(words_); }

 private:
  void add(int code, std::uint32_t operand, std::uint8_t if_true = 0, std::uint8_t if_false = 0) {
    words_.push_back({.code = static_cast<std::uint16_t>(code), .jt = if_true, .jf = if_false, .k = operand});
  }

  std::vector<sock_filter> words_;
};

}  // namespace

std::vector<sock_filter> call_filter() {
  Instructions filter;
  filter.load(offsetof(seccomp_data, arch));
  filter.skip_if(BPF_JEQ, kMachine, 1);
  filter.answer(SECCOMP_RET_KILL_PROCESS);
  filter.load(offsetof(seccomp_data, nr));
#if defined(__x86_64__)
  filter.answer_if(BPF_JGE, 0x40000000, kForbid);  // the numbering of x32
#endif
  for (const long call : kForbidden) filter.answer_if(BPF_JEQ, static_cast<std::uint32_t>(call), kForbid);
  // Its flags lie in memory, which a filter cannot read. The C library then takes clone().
  filter.answer_if(BPF_JEQ, SYS_clone3, kMissing);
  filter.skip_unless(BPF_JEQ, SYS_clone, 4);
  filter.load_argument();
  filter.answer_if(BPF_JSET, kNewNamespaces, kForbid);
  filter.answer(kAllow);
  filter.skip_unless(BPF_JEQ, SYS_prctl, 4);  // the signal that ends a program with its parent stays
  filter.load_argument();
  filter.answer_if(BPF_JEQ, PR_SET_PDEATHSIG, kForbid);
  filter.answer(kAllow);
  filter.skip_unless(BPF_JEQ, SYS_socket, 2 + 2 * std::size(kSocketFamilies));
  filter.load_argument();
  for (const auto family : kSocketFamilies) filter.answer_if(BPF_JEQ, family, kAllow);
  filter.answer(kForbid);
  filter.answer(kAllow);
  return filter.take();
}

}  // namespace quiver::sandbox
