#include "quiver/backend/cpu/huge_pages.h"

#include <sys/mman.h>
#include <torch/utils.h>

#include <algorithm>
#include <cstddef>
#include <memory>
#include <mutex>

#include "quiver/base/error.h"

namespace quiver::backend::cpu {
namespace {

constexpr std::size_t kPage = 2 << 20;
constexpr std::size_t kReserved = 64 << 20;  // address space; memory comes as it is written
constexpr std::size_t kLine = 64;

std::size_t rounded_up(std::size_t size, std::size_t unit) { return (size + unit - 1) / unit * unit; }

/// Reserved addresses, given out from the front.
class Reservation {
 public:
  explicit Reservation(std::size_t size)
      : size_(size + kPage), mapped_(mmap(nullptr, size_, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0)) {
    if (mapped_ == MAP_FAILED) fail(ErrorKind::kIo, "no memory for {} bytes of weights", size);
    void* begin = mapped_;
    left_ = size_;
    std::align(kPage, size, begin, left_);
    next_ = static_cast<std::byte*>(begin);
    left_ = size;
    madvise(begin, size, MADV_HUGEPAGE);  // a kernel without huge pages refuses, and small ones serve
  }
  Reservation(const Reservation&) = delete;
  Reservation& operator=(const Reservation&) = delete;
  ~Reservation() { munmap(mapped_, size_); }

  std::byte* take(std::size_t size) {  // null: no room
    if (size > left_) return nullptr;
    auto* mine = next_;
    next_ += size;
    left_ -= size;
    return mine;
  }

 private:
  std::size_t size_;
  void* mapped_;
  std::byte* next_;
  std::size_t left_;
};

}  // namespace

torch::Tensor huge_page_bytes(std::int64_t num_bytes) {
  static std::mutex mutex;
  static std::weak_ptr<Reservation> newest;
  const auto size = rounded_up(static_cast<std::size_t>(num_bytes), kLine);
  const std::lock_guard lock(mutex);
  auto reservation = newest.lock();
  auto* bytes = reservation == nullptr ? nullptr : reservation->take(size);
  if (bytes == nullptr) {
    reservation = std::make_shared<Reservation>(rounded_up(std::max(size, kReserved), kPage));
    bytes = reservation->take(size);
    newest = reservation;
  }
  return torch::from_blob(
      bytes, {num_bytes}, [reservation](void*) {}, torch::kByte);
}

}  // namespace quiver::backend::cpu
