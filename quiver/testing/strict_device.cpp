#include "quiver/testing/strict_device.h"

#include <ATen/EmptyTensor.h>
#include <ATen/detail/PrivateUse1HooksInterface.h>
#include <ATen/native/CPUFallback.h>
#include <ATen/ops/_reshape_alias_native.h>
#include <ATen/ops/as_strided_native.h>
#include <ATen/ops/view_native.h>
#include <c10/core/impl/DeviceGuardImplInterface.h>
#include <sys/mman.h>
#include <torch/cuda.h>
#include <torch/library.h>
#include <torch/utils.h>
#include <unistd.h>

#include <algorithm>
#include <array>
#include <cstring>
#include <string_view>

#include "quiver/base/error.h"

namespace quiver::testing {
namespace {

constexpr auto kType = c10::DeviceType::PrivateUse1;

struct Block {
  void* data = nullptr;
  std::size_t size = 0;
};

void check(int result, const char* what) {
  if (result != 0) fail(ErrorKind::kInternal, "{} failed on the memory of the strict device", what);
}

/// Pages without any access right, each allocation its own, full of NaN.
class ClosedAllocator final : public c10::Allocator {
 public:
  c10::DataPtr allocate(std::size_t bytes) override {
    const auto page = static_cast<std::size_t>(sysconf(_SC_PAGESIZE));
    const auto size = (bytes + page - 1) / page * page;
    if (size == 0) return {nullptr, c10::Device(kType, 0)};
    void* data = mmap(nullptr, size, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
    if (data == MAP_FAILED) fail(ErrorKind::kInternal, "no {} bytes for the strict device", size);
    std::memset(data, 0xFF, size);
    check(mprotect(data, size, PROT_NONE), "mprotect");
    return {data, new Block{data, size}, &release, c10::Device(kType, 0)};
  }
  c10::DeleterFnPtr raw_deleter() const override { return &release; }
  void copy_data(void*, const void*, std::size_t) const override { fail(ErrorKind::kInternal, "the strict device copies tensors only"); }

 private:
  static void release(void* context) {
    const auto* block = static_cast<Block*>(context);
    check(munmap(block->data, block->size), "munmap");
    delete block;
  }
};

ClosedAllocator& allocator() {
  static ClosedAllocator one;
  return one;
}

bool is_ours(const at::Tensor& t) { return t.device().type() == kType; }

/// A tensor's memory, open while this lives, as a tensor of the CPU.
class Opened {
 public:
  explicit Opened(const at::Tensor& t) : tensor_(t) {
    if (!is_ours(t) || t.numel() == 0) return;
    block_ = static_cast<const Block*>(t.storage().data_ptr().get_context());
    check(mprotect(block_->data, block_->size, PROT_READ | PROT_WRITE), "mprotect");
    tensor_ = at::from_blob(t.data_ptr(), t.sizes(), t.strides(), t.options().device(at::kCPU).requires_grad(false));
  }
  ~Opened() {
    if (block_ != nullptr) mprotect(block_->data, block_->size, PROT_NONE);
  }
  Opened(const Opened&) = delete;
  Opened& operator=(const Opened&) = delete;
  const at::Tensor& tensor() const { return tensor_; }

 private:
  at::Tensor tensor_;
  const Block* block_ = nullptr;
};

at::Tensor empty(c10::IntArrayRef size, std::optional<at::ScalarType> dtype, std::optional<at::Layout>, std::optional<at::Device>,
                 std::optional<bool>, std::optional<at::MemoryFormat> layout_in_memory) {
  return at::detail::empty_generic(size, &allocator(), c10::DispatchKeySet(c10::DispatchKey::PrivateUse1), dtype.value_or(at::kFloat),
                                   layout_in_memory);
}

at::Tensor empty_strided(c10::IntArrayRef size, c10::IntArrayRef stride, std::optional<at::ScalarType> dtype, std::optional<at::Layout>,
                         std::optional<at::Device>, std::optional<bool>) {
  return at::detail::empty_strided_generic(size, stride, &allocator(), c10::DispatchKeySet(c10::DispatchKey::PrivateUse1),
                                           dtype.value_or(at::kFloat));
}

at::Tensor copy_from(const at::Tensor& source, const at::Tensor& target, bool) {
  if (target.numel() == 0) return target;
  if (is_ours(source) && is_ours(target) && source.storage().is_alias_of(target.storage())) {  // one block opens once
    const auto through = source.cpu();
    return copy_from(through, target, false);
  }
  const Opened from(source), to(target);
  to.tensor().copy_(from.tensor());
  return target;
}

at::Tensor copy_from_and_resize(const at::Tensor& source, const at::Tensor& target) {
  if (!source.sizes().equals(target.sizes())) {
    if (target.numel() > 0) fail(ErrorKind::kInternal, "the strict device resizes only empty tensors");
    target.unsafeGetTensorImpl()->shallow_copy_from(at::empty(source.sizes(), target.options()).getIntrusivePtr());
  }
  return copy_from(source, target, false);
}

/// As on a GPU: indices may come from the CPU.
bool takes_indices_of_the_cpu(const c10::OperatorHandle& op) {
  constexpr std::array<std::string_view, 4> kNames = {"aten::index", "aten::index_put_", "aten::_index_put_impl_", "aten::index_put"};
  return std::ranges::find(kNames, std::string_view(op.operator_name().name)) != kNames.end();
}

void compute(const c10::OperatorHandle& op, torch::jit::Stack* stack) {
  bool has_ours = false, has_others = false;
  const auto look_at = [&](const at::Tensor& t) {
    if (!t.defined() || t.dim() == 0) return;
    (is_ours(t) ? has_ours : has_others) = true;
  };
  for (const auto& value : torch::jit::last(*stack, op.schema().arguments().size())) {
    if (value.isTensor()) look_at(value.toTensor());
    if (value.isTensorList()) {
      for (const auto& t : value.toTensorVector()) look_at(t);
    }
  }
  if (has_ours && has_others && !takes_indices_of_the_cpu(op)) {
    fail(ErrorKind::kInternal, "'{}' over tensors of the CPU and of the strict device: a GPU would refuse", op.operator_name().name);
  }
  at::native::cpu_fallback(op, stack);
}

struct Guard final : c10::impl::NoOpDeviceGuardImpl<kType> {
  c10::Device exchangeDevice(c10::Device) const override { return {kType, 0}; }
  c10::Device getDevice() const override { return {kType, 0}; }
  c10::Stream getStream(c10::Device) const noexcept override { return c10::Stream(c10::Stream::DEFAULT, {kType, 0}); }
  c10::Stream exchangeStream(c10::Stream stream) const noexcept override { return stream; }
  c10::DeviceIndex deviceCount() const noexcept override { return 1; }
};

C10_REGISTER_GUARD_IMPL(PrivateUse1, Guard);  // before the autograd engine counts devices

struct Hooks final : at::PrivateUse1HooksInterface {
  bool isBuilt() const override { return true; }
  bool isAvailable() const override { return true; }
  bool hasPrimaryContext(c10::DeviceIndex) const override { return true; }
  c10::DeviceIndex deviceCount() const override { return 1; }
};

// What has no tensor in it, or shares memory, or copies, is ours; all else is computed on the CPU.
TORCH_LIBRARY_IMPL(aten, PrivateUse1, m) {
  m.impl("empty.memory_format", &empty);
  m.impl("empty_strided", &empty_strided);
  m.impl("_copy_from", &copy_from);
  m.impl("_copy_from_and_resize", &copy_from_and_resize);
  m.impl("view", TORCH_FN(at::native::view));
  m.impl("as_strided", TORCH_FN(at::native::as_strided_tensorimpl));
  m.impl("_reshape_alias", TORCH_FN(at::native::_reshape_alias));
}

TORCH_LIBRARY_IMPL(_, PrivateUse1, m) { m.fallback(torch::CppFunction::makeFromBoxedFunction<&compute>()); }

}  // namespace

bool strict_device_is_gpu() { return torch::cuda::is_available(); }

torch::Device strict_device() {
  if (strict_device_is_gpu()) return {torch::kCUDA, 0};  // libtorch takes no second kind of accelerator beside it
  static const bool is_registered = [] {
    static Hooks hooks;
    c10::register_privateuse1_backend("strict");
    c10::SetAllocator(kType, &allocator());
    at::RegisterPrivateUse1HooksInterface(&hooks);
    return true;
  }();
  return is_registered ? torch::Device(kType, 0) : torch::kCPU;
}

}  // namespace quiver::testing
