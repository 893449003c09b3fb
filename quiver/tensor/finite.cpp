#include "quiver/tensor/finite.h"

#include <algorithm>
#include <bit>
#include <cstdint>
#include <span>

#include "quiver/tensor/raw_data.h"

namespace quiver::tensor {
namespace {

/// A number is finite unless all bits of its exponent are set. A block of numbers is one loop without a branch, which the compiler makes
/// into vectors.
template <typename Number, typename Bits>
bool all_exponents_below(const torch::Tensor& values, Bits exponent) {
  static_assert(sizeof(Number) == sizeof(Bits));
  constexpr std::size_t kBlock = 4096;
  const auto numbers = elements<Number>(values, "numbers to check");
  for (std::size_t begin = 0; begin < numbers.size(); begin += kBlock) {
    Bits found = 0;
    for (const auto& number : numbers.subspan(begin, std::min(kBlock, numbers.size() - begin))) {
      const auto is_not_finite = static_cast<Bits>((std::bit_cast<Bits>(number) & exponent) == exponent);
      found = static_cast<Bits>(found | is_not_finite);
    }
    if (found != 0) return false;
  }
  return true;
}

}  // namespace

bool all_finite(const torch::Tensor& values) {
  if (values.is_cpu() && values.is_contiguous()) {
    switch (values.scalar_type()) {
      case torch::kFloat: return all_exponents_below<float, std::uint32_t>(values, 0x7f800000U);
      case torch::kDouble: return all_exponents_below<double, std::uint64_t>(values, 0x7ff0000000000000U);
      case torch::kBFloat16: return all_exponents_below<c10::BFloat16, std::uint16_t>(values, 0x7f80U);
      case torch::kHalf: return all_exponents_below<c10::Half, std::uint16_t>(values, 0x7c00U);
      default: break;
    }
  }
  return values.isfinite().all().item<bool>();
}

}  // namespace quiver::tensor
