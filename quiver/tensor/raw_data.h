// A tensor's memory as the element type of a kernel: the only place of the library that takes a tensor's raw pointer
// (scripts/check_layering.py), so that none is had without its checks.
#pragma once

#include <torch/types.h>

#include <cassert>
#include <cstddef>
#include <span>

namespace quiver::tensor {

/// The dtype whose elements a T holds. A struct of 16 `bits` is a kernel's own bfloat16 (backend/cpu/bf16.h).
template <typename T>
constexpr torch::Dtype element_dtype() {
  if constexpr (requires(T element) { element.bits; }) {
    static_assert(sizeof(T) == 2);
    return torch::kBFloat16;
  } else {
    return c10::CppTypeToScalarType<T>::value;
  }
}

namespace detail {
[[noreturn]] void refuse_layout(const torch::Tensor& t, torch::Device device, torch::Dtype dtype, const char* what,
                                at::OptionalIntArrayRef sizes);

inline void check_layout(const torch::Tensor& t, torch::Device device, torch::Dtype dtype, const char* what,
                         at::OptionalIntArrayRef sizes) {
  const bool fits = t.defined() && t.device() == device && t.scalar_type() == dtype && t.is_contiguous() && (!sizes || t.sizes() == *sizes);
  if (!fits) [[unlikely]]
    refuse_layout(t, device, dtype, what, sizes);
}
}  // namespace detail

/// Throws kInternal unless `t` is contiguous, on `device`, of `dtype` and of shape `sizes`. The message begins with `what` ("x of
/// rms_norm") and says what was found and what was expected. The check costs a few nanoseconds.
inline void expect_layout(const torch::Tensor& t, const char* what, torch::Device device, torch::Dtype dtype, at::IntArrayRef sizes) {
  detail::check_layout(t, device, dtype, what, sizes);
}

/// The elements of a contiguous tensor on the CPU whose dtype is T's and whose shape is `sizes`. Throws kInternal for any other,
/// beginning with `what` ("x of rms_norm") and saying what both are. The check costs a few nanoseconds.
template <typename T>
const T* raw_data(const torch::Tensor& t, const char* what, at::IntArrayRef sizes) {
  detail::check_layout(t, torch::kCPU, element_dtype<T>(), what, sizes);
  return static_cast<const T*>(t.const_data_ptr());
}
template <typename T>
T* mutable_raw_data(const torch::Tensor& t, const char* what, at::IntArrayRef sizes) {
  detail::check_layout(t, torch::kCPU, element_dtype<T>(), what, sizes);
  return static_cast<T*>(t.mutable_data_ptr());
}

/// The elements of a tensor that expect_layout has let pass, or that was made a moment ago.
template <typename T>
const T* trusted_data(const torch::Tensor& t) {
  assert(t.is_cpu() && t.scalar_type() == element_dtype<T>() && t.is_contiguous());
  return static_cast<const T*>(t.const_data_ptr());
}
template <typename T>
T* mutable_trusted_data(const torch::Tensor& t) {
  assert(t.is_cpu() && t.scalar_type() == element_dtype<T>() && t.is_contiguous());
  return static_cast<T*>(t.mutable_data_ptr());
}

/// Like raw_data, for any shape; the number of elements comes with them.
template <typename T>
std::span<const T> elements(const torch::Tensor& t, const char* what) {
  detail::check_layout(t, torch::kCPU, element_dtype<T>(), what, std::nullopt);
  return {static_cast<const T*>(t.const_data_ptr()), static_cast<std::size_t>(t.numel())};
}
template <typename T>
std::span<T> mutable_elements(const torch::Tensor& t, const char* what) {
  detail::check_layout(t, torch::kCPU, element_dtype<T>(), what, std::nullopt);
  return {static_cast<T*>(t.mutable_data_ptr()), static_cast<std::size_t>(t.numel())};
}

/// The bytes of a contiguous tensor on the CPU, of any dtype and shape.
inline std::span<const std::byte> raw_bytes(const torch::Tensor& t, const char* what) {
  detail::check_layout(t, torch::kCPU, t.scalar_type(), what, std::nullopt);
  return {static_cast<const std::byte*>(t.const_data_ptr()), t.nbytes()};
}
inline std::span<std::byte> mutable_raw_bytes(const torch::Tensor& t, const char* what) {
  detail::check_layout(t, torch::kCPU, t.scalar_type(), what, std::nullopt);
  return {static_cast<std::byte*>(t.mutable_data_ptr()), t.nbytes()};
}

}  // namespace quiver::tensor
