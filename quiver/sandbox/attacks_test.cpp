// What programs get that mean harm. Each prints what it could do.
#include <arpa/inet.h>
#include <fcntl.h>
#include <poll.h>
#include <sys/socket.h>
#include <sys/un.h>

#include <algorithm>
#include <atomic>
#include <cerrno>
#include <csignal>
#include <cstddef>
#include <cstdlib>

#include "quiver/io/file.h"
#include "quiver/io/test_support.h"
#include "quiver/sandbox/test_support.h"

namespace quiver::sandbox {
namespace {

using ::testing::HasSubstr;

using SandboxAttack = Sandbox;

/// A Python program's beginning: try_(name, action) prints the name, and the result or the error's name.
constexpr const char* kTry = R"(
import ctypes, errno, os, socket, sys
libc = ctypes.CDLL(None, use_errno=True)
def try_(name, action):
    try:
        print(name, action())
    except OSError as error:
        print(name, errno.errorcode[error.errno])
def call(number, *arguments):
    result = libc.syscall(ctypes.c_long(number), *[ctypes.c_long(a) for a in arguments])
    if result < 0:
        raise OSError(ctypes.get_errno(), "")
    return result
)";

/// Whether somebody connected.
bool has_guest(int listener) {
  pollfd waiting{.fd = listener, .events = POLLIN, .revents = 0};
  return ::poll(&waiting, 1, 0) > 0;
}

TEST_F(SandboxAttack, AForkBombIsBounded) {
  const auto mark = new_mark();
  int most = 0;
  std::atomic<bool> is_over = false;
  std::jthread observer([&] {
    while (!is_over) {
      most = std::max(most, num_marked(mark));
      std::this_thread::sleep_for(std::chrono::milliseconds(5));
    }
  });
  const auto outcome = outcome_of(take_mark(mark) + R"(
import os
while True:
    try:
        os.fork()
    except OSError:
        pass
)",
                                  {.wall_seconds = 1.5, .processes = 12});
  is_over = true;
  observer.join();
  EXPECT_EQ(outcome.ending, Ending::kTime);
  EXPECT_GT(most, 1);
  EXPECT_LE(most, 12);
  EXPECT_EQ(num_marked(mark), 0);
  EXPECT_LT(outcome.seconds, 10);
}

TEST_F(SandboxAttack, ThreadsCountAsProcesses) {
  EXPECT_EQ(output_of(R"(
import os, threading
count, stop = 1, threading.Event()
try:
    for _ in range(100):
        threading.Thread(target=stop.wait, daemon=True).start()
        count += 1
except RuntimeError:
    print(count, flush=True)
os._exit(0)
)",
                      {.processes = 5}),
            "5\n");
}

TEST_F(SandboxAttack, MemoryIsBounded) {
  const auto outcome = outcome_of("held = []\nwhile True:\n    held.append(bytearray(1 << 20))\n", {.memory_bytes = 200 << 20});
  EXPECT_EQ(outcome.exit_code, 1);
  EXPECT_THAT(outcome.output, HasSubstr("MemoryError"));
}

TEST_F(SandboxAttack, MemoryThatNoProcessHoldsIsForbidden) {
  const auto output = output_of(std::string(kTry) + R"(
try_("file in memory", lambda: os.memfd_create("m"))
def segment():
    if libc.shmget(0, ctypes.c_size_t(4096), 0o1600) < 0:
        raise OSError(ctypes.get_errno(), "")
try_("shared segment", segment)
)");
  EXPECT_EQ(output, "file in memory EPERM\nshared segment EPERM\n");
}

TEST_F(SandboxAttack, TheTemporaryFolderIsBounded) {
  const auto output = output_of(R"(
import errno, os
written = 0
try:
    for i in range(100):
        with open(f"part{i}", "wb", buffering=0) as file:
            for _ in range(8):
                written += file.write(b"x" * (1 << 20))
except OSError as error:
    print(errno.errorcode[error.errno], 14 << 20 < written <= 16 << 20)
os.unlink("part0")
try:
    for i in range(1000000):
        open(f"empty{i}", "w").close()
except OSError as error:
    print(errno.errorcode[error.errno], i < 5000)
)",
                                {.file_bytes = 16 << 20});
  EXPECT_EQ(output, "ENOSPC True\nENOSPC True\n");
}

TEST_F(SandboxAttack, NothingIsWrittenOutsideOfTheTemporaryFolder) {
  const std::string name = format("quiver-test-{}", ::getpid());
  const auto program = std::string(kTry) + "name = '" + name + "'\n" + R"(
def write(path):
    open(path, "w").close()
for path in ["/x", "/etc/x", "/dev/x", "/usr/x", "/usr/bin/x", "/lib/x", sys.base_prefix + "/x", os.__file__, "/mnt/x", "/var/x", "/boot/x"]:
    try_("write", lambda: write(path))
try_("temporary", lambda: write("/tmp/" + name))
try_("shared", lambda: write("/dev/shm/y"))
print(len(os.listdir("/tmp")))
)";
  EXPECT_EQ(output_of(program),
            "write EROFS\nwrite EROFS\nwrite EROFS\nwrite EROFS\nwrite EROFS\nwrite EROFS\nwrite EROFS\nwrite EROFS\n"
            "write ENOENT\nwrite ENOENT\nwrite ENOENT\ntemporary None\nshared None\n3\n");
  EXPECT_FALSE(std::filesystem::exists("/tmp/" + name));
}

TEST_F(SandboxAttack, OnlyFilesOfTheSystemAndOfPythonAreThere) {
  const auto output = output_of(R"(
import os
print([name for name in sorted(os.listdir("/")) if name in ("home", "proc", "sys", "var", "mnt", "media", "boot", "run", "srv", "opt")])
print(sorted(os.listdir("/dev")))
print(set(os.listdir("/etc")) - {"ld.so.cache"})
)");
  EXPECT_EQ(output, "[]\n['full', 'null', 'random', 'shm', 'urandom', 'zero']\nset()\n");
}

TEST_F(SandboxAttack, ASecretFileIsNotFound) {
  const io::TempFolder folder;
  io::write_file_atomic(folder / "secret", "the secret");
  std::filesystem::permissions(folder.path(), std::filesystem::perms::all);
  std::filesystem::permissions(folder / "secret", std::filesystem::perms::all);
  const std::string path = folder / "secret";
  EXPECT_EQ(output_of(std::string(kTry) + "try_('read', lambda: open('" + path + "').read())\n"), "read ENOENT\n");
  EXPECT_EQ(run(python(), "print(open('" + path + "').read())\n", {}, Isolation::kNone).output, "the secret\n");
}

TEST_F(SandboxAttack, TheHomeIsEmpty) {
  const char* home = std::getenv("HOME");
  const std::string folder = home == nullptr ? "/root" : home;
  const auto output =
      output_of("import os\nprint(os.path.expanduser('~'))\nfor name in sorted(os.listdir('" + folder + "')): print(name)\n");
  EXPECT_THAT(output, HasSubstr("/tmp\n"));
  // Of the home, the way to a Python in it is there, and nothing else.
  EXPECT_THAT(output, ::testing::AnyOf(HasSubstr("No such file"), ::testing::MatchesRegex("/tmp\n(\\.?[a-z]+\n)?")));
}

TEST_F(SandboxAttack, TheEnvironmentIsFixed) {
  ::setenv("QUIVER_TEST_SECRET", "the secret", 1);
  const auto output = output_of("import os\nprint(*sorted(os.environ))\n");
  ::unsetenv("QUIVER_TEST_SECRET");
  EXPECT_EQ(output, "HOME LANG OMP_NUM_THREADS OPENBLAS_NUM_THREADS PATH PYTHONDONTWRITEBYTECODE PYTHONHASHSEED TMPDIR\n");
}

TEST_F(SandboxAttack, NoDescriptorOfTheParentIsOpen) {
  const int open_file = ::open("/dev/null", O_RDONLY);  // not closed by exec
  const int far_file = ::fcntl(open_file, F_DUPFD, 100);
  const auto output = output_of(R"(
import os
found = []
for fd in range(1024):
    try:
        os.fstat(fd)
        found.append(fd)
    except OSError:
        pass
print(found)
)");
  ::close(open_file);
  ::close(far_file);
  EXPECT_EQ(output, "[0, 1, 2]\n");
}

TEST_F(SandboxAttack, TheNetworkOfTheMachineIsOutOfReach) {
  const io::Descriptor listener(::socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0));
  sockaddr_in address{};
  address.sin_family = AF_INET;
  address.sin_addr.s_addr = ::htonl(INADDR_LOOPBACK);
  socklen_t size = sizeof address;
  ASSERT_EQ(::bind(listener.get(), reinterpret_cast<sockaddr*>(&address), size), 0);
  ASSERT_EQ(::listen(listener.get(), 4), 0);
  ASSERT_EQ(::getsockname(listener.get(), reinterpret_cast<sockaddr*>(&address), &size), 0);
  const auto output = output_of(std::string(kTry) + format("port = {}\n", ::ntohs(address.sin_port)) + R"(
try_("local", lambda: socket.create_connection(("127.0.0.1", port), 2))
try_("far", lambda: socket.create_connection(("192.0.2.1", 80), 2))
try_("datagram", lambda: socket.socket(socket.AF_INET, socket.SOCK_DGRAM).sendto(b"x", ("127.0.0.1", port)))
)");
  EXPECT_EQ(output, "local ENETUNREACH\nfar ENETUNREACH\ndatagram ENETUNREACH\n");
  EXPECT_FALSE(has_guest(listener.get()));
}

TEST_F(SandboxAttack, AbstractSocketsAreOutOfReach) {
  const std::string name = format("quiver-sandbox-{}", ::getpid());
  const io::Descriptor listener(::socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0));
  sockaddr_un address{};
  address.sun_family = AF_UNIX;
  name.copy(address.sun_path + 1, name.size());
  const auto size = static_cast<socklen_t>(offsetof(sockaddr_un, sun_path) + 1 + name.size());
  ASSERT_EQ(::bind(listener.get(), reinterpret_cast<sockaddr*>(&address), size), 0);
  ASSERT_EQ(::listen(listener.get(), 4), 0);
  const auto output = output_of(std::string(kTry) + "try_('connect', lambda: socket.socket(socket.AF_UNIX).connect('\\0" + name + "'))\n");
  EXPECT_EQ(output, "connect ECONNREFUSED\n");
  EXPECT_FALSE(has_guest(listener.get()));
}

TEST_F(SandboxAttack, SocketsOfOtherFamiliesAreForbidden) {
  EXPECT_EQ(output_of(std::string(kTry) + R"(
try_("virtual machines", lambda: socket.socket(40, socket.SOCK_STREAM))
try_("netlink", lambda: socket.socket(16, socket.SOCK_RAW))
try_("algorithms", lambda: socket.socket(38, socket.SOCK_SEQPACKET))
print("pair", len(socket.socketpair()))
)"),
            "virtual machines EPERM\nnetlink EPERM\nalgorithms EPERM\npair 2\n");
}

TEST_F(SandboxAttack, TheParentCannotBeKilled) {
  const auto outcome = outcome_of(std::string(kTry) + R"(
import signal
print("parent", os.getppid())
print("self", os.getpid())
try_("kill parent", lambda: os.kill(os.getppid(), signal.SIGKILL))
try_("kill all", lambda: os.kill(-1, signal.SIGKILL))
try_("kill outside", lambda: os.kill()" +
                                  format("{}", ::getpid()) + R"(, signal.SIGKILL))
)");
  EXPECT_THAT(outcome.output, HasSubstr("parent 0\nself 1\n"));
  EXPECT_THAT(outcome.output, HasSubstr("kill outside ESRCH\n"));
  EXPECT_TRUE(outcome.is_success());
}

TEST_F(SandboxAttack, IgnoringSignalsHelpsNothing) {
  const auto mark = new_mark();
  const auto outcome = outcome_of(take_mark(mark) + R"(
import os, signal, time
for number in signal.valid_signals() - {signal.SIGKILL, signal.SIGSTOP}:
    try:
        signal.signal(number, signal.SIG_IGN)
    except OSError:
        pass
if os.fork() == 0:
    os.setsid()
while True:
    time.sleep(1)
)",
                                  {.wall_seconds = 1});
  EXPECT_EQ(outcome.ending, Ending::kTime);
  EXPECT_LT(outcome.seconds, 10);
  EXPECT_EQ(num_marked(mark), 0);
}

#if defined(__x86_64__)
TEST_F(SandboxAttack, DangerousCallsAreForbidden) {
  EXPECT_EQ(output_of(std::string(kTry) + R"(
try_("ptrace", lambda: call(101, 0, 0, 0, 0))
try_("process_vm_readv", lambda: call(310, 1, 0, 0, 0, 0, 0))
try_("mount", lambda: call(165, 0, 0, 0, 0, 0))
try_("umount2", lambda: call(166, 0, 0))
try_("unshare", lambda: call(272, 0x10000000))
try_("setns", lambda: call(308, 0, 0))
try_("clone with a namespace", lambda: call(56, 0x10000011, 0, 0, 0, 0))
try_("clone3", lambda: call(435, 0, 0))
try_("keyctl", lambda: call(250, 0, -3, 1))
try_("add_key", lambda: call(248, 0, 0, 0, 0, 0))
try_("bpf", lambda: call(321, 0, 0, 0))
try_("perf_event_open", lambda: call(298, 0, 0, 0, 0, 0))
try_("io_uring_setup", lambda: call(425, 1, 0))
try_("userfaultfd", lambda: call(323, 1))
try_("kexec_load", lambda: call(246, 0, 0, 0, 0))
try_("init_module", lambda: call(175, 0, 0, 0))
try_("chroot", lambda: call(161, 0))
try_("open_tree", lambda: call(428, 0, 0, 0))
try_("stays after its parent", lambda: call(157, 1, 0, 0, 0, 0))
try_("numbers of x32", lambda: call(0x40000000 + 39))
try_("getpid", lambda: call(39))
)"),
            "ptrace EPERM\nprocess_vm_readv EPERM\nmount EPERM\numount2 EPERM\nunshare EPERM\nsetns EPERM\n"
            "clone with a namespace EPERM\nclone3 ENOSYS\nkeyctl EPERM\nadd_key EPERM\nbpf EPERM\nperf_event_open EPERM\n"
            "io_uring_setup EPERM\nuserfaultfd EPERM\nkexec_load EPERM\ninit_module EPERM\nchroot EPERM\nopen_tree EPERM\n"
            "stays after its parent EPERM\nnumbers of x32 EPERM\ngetpid 1\n");
}

TEST_F(SandboxAttack, CallsOfThe32BitMachineEndTheProgram) {
  const auto outcome = outcome_of(R"(
import ctypes, mmap
page = mmap.mmap(-1, 4096, prot=mmap.PROT_READ | mmap.PROT_WRITE | mmap.PROT_EXEC)
page.write(b"\xb8\x14\x00\x00\x00\xcd\x80\xc3")  # mov eax, 20 (getpid); int 0x80; ret
address = ctypes.addressof(ctypes.c_char.from_buffer(page))
print(ctypes.CFUNCTYPE(ctypes.c_int)(address)())
)");
  EXPECT_EQ(outcome.ending, Ending::kSignal);
  EXPECT_THAT(outcome.signal, ::testing::AnyOf(SIGSYS, SIGSEGV));  // the latter where the kernel has no such calls
}

TEST_F(SandboxAttack, NoRightsAreLeftAndNoneCanBeHad) {
  EXPECT_EQ(output_of(std::string(kTry) + R"(
print(os.getresuid(), os.getresgid(), os.getgroups() if os.getgroups() == [] else "unmapped")
header = (ctypes.c_uint32 * 2)(0x20080522, 0)
sets = (ctypes.c_uint32 * 6)(*[9] * 6)
print(libc.capget(header, sets), list(sets))
print("no new privileges", libc.prctl(39, 0, 0, 0, 0))
try_("setuid", lambda: os.setuid(0))
try_("setgid", lambda: os.setgid(0))
open("file", "w").close()
try_("chown", lambda: os.chown("file", 0, 0))
import resource
try:
    resource.setrlimit(resource.RLIMIT_AS, (1 << 40, 1 << 40))
except ValueError:
    print("limits stay")
)"),
            "(1000, 1000, 1000) (1000, 1000, 1000) []\n0 [0, 0, 0, 0, 0, 0]\nno new privileges 1\nsetuid EINVAL\nsetgid EINVAL\n"
            "chown EINVAL\nlimits stay\n");
}
#endif

TEST_F(SandboxAttack, TheMachineIsNotNamed) { EXPECT_EQ(output_of("import socket\nprint(socket.gethostname())\n"), "sandbox\n"); }

TEST_F(SandboxAttack, NothingInTheTemporaryFolderIsRun) {
  EXPECT_EQ(output_of(std::string(kTry) + R"(
import shutil
shutil.copy("/bin/true", "mine")
os.chmod("mine", 0o755)
try_("run", lambda: os.execv("/tmp/mine", ["mine"]))
)"),
            "run EACCES\n");
}

}  // namespace
}  // namespace quiver::sandbox
