#include "tests/kernels/support.h"

#include <algorithm>
#include <chrono>
#include <cstdlib>

namespace quiver::kernel_test {

std::vector<CpuIsa> instruction_sets() {
  std::vector<CpuIsa> present;
  for (const auto isa : {CpuIsa::kV2, CpuIsa::kV3, CpuIsa::kV4, CpuIsa::kV4Bf16}) {
    if (tensor::has_cpu_isa(isa)) present.push_back(isa);
  }
  return present;
}

void from_double(double x, float& out) { out = static_cast<float>(x); }
void from_double(double x, Bf16& out) {
  const auto bits = __builtin_bit_cast(std::uint32_t, static_cast<float>(x));
  out.bits = std::isnan(x) ? std::uint16_t{0x7fc0} : static_cast<std::uint16_t>((bits + 0x7fffu + ((bits >> 16) & 1u)) >> 16);
}

std::int64_t Draw::width() {
  switch (size(0, 3)) {
    case 0: return size(1, 9);
    case 1: return std::max<std::int64_t>(1, 16 * size(1, 5) + size(-1, 1));
    case 2: return size(1, 80);
    default: return size(1, 300);
  }
}

void expect_near(const std::function<double(std::size_t)>& actual, std::size_t size, const Expected& expected, Tolerance tolerance,
                 const std::string& what, CpuIsa isa) {
  ASSERT_EQ(size, expected.size()) << what;
  double largest = 0;
  for (const double value : expected) {
    if (value != kUntouched && std::isfinite(value)) largest = std::max(largest, std::abs(value));
  }
  for (std::size_t i = 0; i < size; ++i) {
    const double found = actual(i), wanted = expected[i];
    const bool is_same = found == wanted || (std::isnan(found) && std::isnan(wanted));
    const double most =
        wanted == kUntouched ? 0 : tolerance.relative * std::abs(wanted) + tolerance.of_largest * largest + tolerance.absolute;
    if (is_same || std::abs(found - wanted) <= most) continue;
    FAIL() << what << " on " << tensor::cpu_isa_name(isa) << ": element " << i << " of " << size << " is " << found << "; expected "
           << wanted << " within " << most;
  }
}

void for_rounds(const std::string& name, const std::function<void(Draw&)>& check) {
  constexpr std::int64_t kRounds = 60;
  const char* wanted = std::getenv("SECONDS_EACH");
  const double seconds = wanted == nullptr ? 0 : std::strtod(wanted, nullptr);
  const auto start = std::chrono::steady_clock::now();
  const auto is_over = [&](std::int64_t round) {
    if (seconds <= 0) return round >= kRounds;
    return std::chrono::duration<double>(std::chrono::steady_clock::now() - start).count() >= seconds;
  };
  std::int64_t round = 0;
  for (; !is_over(round) && !::testing::Test::HasFailure(); ++round) {
    const ::testing::ScopedTrace trace(__FILE__, __LINE__, name + ", round " + std::to_string(round));
    Draw draw(name, round);
    check(draw);
  }
  ::testing::Test::RecordProperty("rounds", std::to_string(round));
}

TEST(InstructionSets, OfThisCpuAreAllTried) {
  std::string missing;
  for (const auto isa : {CpuIsa::kV3, CpuIsa::kV4, CpuIsa::kV4Bf16}) {
    if (!tensor::has_cpu_isa(isa)) missing += std::string(missing.empty() ? "" : ", ") + tensor::cpu_isa_name(isa);
  }
  EXPECT_TRUE(tensor::has_cpu_isa(CpuIsa::kV2));
  if (!missing.empty()) GTEST_SKIP() << "this CPU lacks " << missing << ": the kernels for these were not run";
}

}  // namespace quiver::kernel_test
