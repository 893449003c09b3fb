#include "quiver/train/gradient_free.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>
#include <torch/utils.h>

#include <algorithm>
#include <cmath>
#include <limits>
#include <map>
#include <string>

#include "quiver/base/error.h"
#include "quiver/base/random.h"
#include "quiver/tensor/tensor.h"
#include "quiver/testing/message_of.h"

namespace quiver::train {
namespace {

using quiver::testing::message_of;
using ::testing::HasSubstr;
using Vector = std::vector<double>;

double sphere(std::span<const double> x) {
  double sum = 0;
  for (const double value : x) sum += value * value;
  return sum;
}

double rosenbrock(std::span<const double> x) {
  double sum = 0;
  for (std::size_t i = 0; i + 1 < x.size(); ++i) {
    sum += 100 * std::pow(x[i + 1] - x[i] * x[i], 2) + std::pow(1 - x[i], 2);
  }
  return sum;
}

/// sum_i 10^(6 i / (n - 1)) (R x)_i^2 for a random rotation R (Gram-Schmidt).
class RotatedEllipsoid {
 public:
  explicit RotatedEllipsoid(std::size_t n) {
    RandomStream random(1, "rotation");
    for (std::size_t i = 0; i < n; ++i) {
      Vector row(n);
      for (double& value : row) value = random.uniform(-1, 1);
      for (const auto& other : rows_) {
        double product = 0;
        for (std::size_t j = 0; j < n; ++j) product += row[j] * other[j];
        for (std::size_t j = 0; j < n; ++j) row[j] -= product * other[j];
      }
      const double length = std::sqrt(sphere(row));
      for (double& value : row) value /= length;
      rows_.push_back(row);
    }
  }

  double operator()(std::span<const double> x) const {
    double sum = 0;
    for (std::size_t i = 0; i < rows_.size(); ++i) {
      double product = 0;
      for (std::size_t j = 0; j < x.size(); ++j) product += rows_[i][j] * x[j];
      sum += std::pow(10, 6 * static_cast<double>(i) / static_cast<double>(rows_.size() - 1)) * product * product;
    }
    return sum;
  }

 private:
  std::vector<Vector> rows_;
};

TEST(Minimize, CmaEsReachesTheMinimumOfASphere) {
  for (std::uint64_t seed = 1; seed <= 5; ++seed) {
    SCOPED_TRACE(seed);
    const auto result = minimize(sphere, Vector(10, 1.0), {.max_evaluations = 2500, .target = 1e-9, .seed = seed});
    EXPECT_LE(result.value, 1e-9) << seed;
    EXPECT_EQ(result.value, sphere(result.x));
    EXPECT_LT(result.evaluations, 2500);
  }
}

TEST(Minimize, CmaEsLearnsARotatedEllipsoid) {
  const RotatedEllipsoid ellipsoid(10);
  for (std::uint64_t seed = 1; seed <= 3; ++seed) {
    const auto result = minimize(ellipsoid, Vector(10, 1.0), {.max_evaluations = 9000, .target = 1e-9, .seed = seed});
    EXPECT_LE(result.value, 1e-9) << seed;
    // One step size for all directions does not get there: the covariance does it.
    const auto isotropic =
        minimize(ellipsoid, Vector(10, 1.0), {.method = SearchMethod::kOnePlusOne, .max_evaluations = 9000, .seed = seed});
    EXPECT_GT(isotropic.value, 1e-3) << seed;
  }
}

TEST(Minimize, CmaEsFollowsTheValleyOfRosenbrock) {
  for (std::uint64_t seed = 1; seed <= 3; ++seed) {
    SCOPED_TRACE(seed);
    const auto result = minimize(rosenbrock, Vector(5, 0.0), {.max_evaluations = 6000, .target = 1e-9, .seed = seed});
    EXPECT_LE(result.value, 1e-9) << seed;
    for (const double value : result.x) EXPECT_NEAR(value, 1, 1e-3) << value;
  }
}

TEST(Minimize, OnePlusOneReachesTheMinimumOfASphere) {
  for (std::uint64_t seed = 1; seed <= 5; ++seed) {
    const auto result = minimize(sphere, Vector(10, 1.0), {.method = SearchMethod::kOnePlusOne, .max_evaluations = 1500, .seed = seed});
    EXPECT_LE(result.value, 1e-6) << seed;
  }
  // Few evaluations in 20 dimensions, as LoraHub has.
  const auto few = minimize(sphere, Vector(20, 1.0), {.method = SearchMethod::kOnePlusOne, .max_evaluations = 40, .bound = 1.5});
  EXPECT_LT(few.value, 15);
}

TEST(Minimize, OneDimensionIsEnough) {
  const auto shifted = [](std::span<const double> x) { return std::abs(x[0] - 0.7) + 3; };
  for (const auto method : {SearchMethod::kCmaEs, SearchMethod::kOnePlusOne, SearchMethod::kCobyla}) {
    SCOPED_TRACE(static_cast<int>(method));
    const auto result = minimize(shifted, Vector{0.0}, {.method = method, .max_evaluations = 200});
    EXPECT_NEAR(result.x[0], 0.7, 1e-4);
    EXPECT_NEAR(result.value, 3, 1e-4);
  }
}

TEST(Minimize, StaysWithinTheBoundsAndFindsAMinimumThere) {
  // Without bounds the minimum is at (3, -3, 0.5); within them at (1.5, -1.5, 0.5).
  for (const auto method : {SearchMethod::kCmaEs, SearchMethod::kOnePlusOne, SearchMethod::kCobyla}) {
    SCOPED_TRACE(static_cast<int>(method));
    double furthest = 0;
    const auto objective = [&](std::span<const double> x) {
      for (const double value : x) furthest = std::max(furthest, std::abs(value));
      return std::pow(x[0] - 3, 2) + std::pow(x[1] + 3, 2) + std::pow(x[2] - 0.5, 2);
    };
    const auto result = minimize(objective, Vector(3, 0.0), {.method = method, .max_evaluations = 400, .bound = 1.5});
    EXPECT_EQ(furthest, 1.5);
    EXPECT_NEAR(result.x[0], 1.5, 1e-3);
    EXPECT_NEAR(result.x[1], -1.5, 1e-3);
    EXPECT_NEAR(result.x[2], 0.5, 1e-2);
  }
}

TEST(Minimize, ThePenaltyBringsTheMeanBackFromOutside) {
  // The best point lies on the bound in one coordinate while the others still have far to go.
  const auto objective = [](std::span<const double> x) {
    double sum = 10 * std::pow(x[0] - 5, 2);
    for (std::size_t i = 1; i < x.size(); ++i) sum += std::pow(x[i] - 1, 2);
    return sum;
  };
  const auto result = minimize(objective, Vector(8, -1.0), {.max_evaluations = 2500, .bound = 1.5});
  EXPECT_NEAR(result.x[0], 1.5, 1e-6);
  for (std::size_t i = 1; i < 8; ++i) EXPECT_NEAR(result.x[i], 1, 1e-3) << i;
}

TEST(Minimize, CallsTheObjectiveExactlyAsOftenAsTheBudgetSays) {
  for (const auto method : {SearchMethod::kCmaEs, SearchMethod::kOnePlusOne, SearchMethod::kCobyla}) {
    SCOPED_TRACE(static_cast<int>(method));
    for (const std::int64_t budget : {1, 2, 9, 40, 101}) {  // ends in the middle of generations of 10
      SCOPED_TRACE(budget);
      std::int64_t calls = 0;
      Vector values;
      const auto objective = [&](std::span<const double> x) {
        ++calls;
        values.push_back(sphere(x));
        return values.back();
      };
      const auto result = minimize(objective, Vector(8, 1.0), {.method = method, .max_evaluations = budget});
      EXPECT_EQ(calls, budget);
      EXPECT_EQ(result.evaluations, budget);
      EXPECT_EQ(result.history, values);
      EXPECT_EQ(result.history.front(), 8) << "the start is evaluated first";
      EXPECT_EQ(result.value, *std::min_element(values.begin(), values.end()));
      EXPECT_EQ(sphere(result.x), result.value);
    }
  }
}

TEST(Minimize, EndsAtTheTarget) {
  for (const auto method : {SearchMethod::kCmaEs, SearchMethod::kOnePlusOne, SearchMethod::kCobyla}) {
    SCOPED_TRACE(static_cast<int>(method));
    const auto result = minimize(sphere, Vector(4, 1.0), {.method = method, .max_evaluations = 1000, .target = 0.5});
    EXPECT_LE(result.value, 0.5);
    EXPECT_LE(result.history.back(), 0.5);
    EXPECT_LT(result.evaluations, 1000);
    EXPECT_EQ(minimize(sphere, Vector(4, 0.0), {.method = method, .target = 0}).evaluations, 1);
  }
}

TEST(Minimize, CobylaIsWhatLoraHubSearchesWith) {
  const auto golden = tensor::load_tensors("tests/golden/search/cases.safetensors");
  const auto weighted_squares = [](std::span<const double> x) {
    double sum = 0;
    for (std::size_t i = 0; i < x.size(); ++i) sum += static_cast<double>(i + 1) * std::pow(x[i] - (i % 2 == 1 ? 1 : -0.7), 2);
    return sum;
  };
  const auto distances = [](std::span<const double> x) {
    double sum = 0;
    for (std::size_t i = 0; i < x.size(); ++i) sum += std::abs(x[i] - 0.3 * static_cast<double>(i % 3));
    return sum;
  };
  const std::map<std::string, Objective> functions = {
      {"weighted-squares", weighted_squares}, {"rosenbrock", rosenbrock}, {"distances", distances}};
  for (const auto& [name, function] : functions) {
    SCOPED_TRACE(name);
    const auto simplex = golden.at(name + ".simplex"), simplex_values = golden.at(name + ".simplex_values"),
               best = golden.at(name + ".best");
    std::vector<Vector> points;
    const Objective keeping = [&, &f = function](std::span<const double> x) {
      points.emplace_back(x.begin(), x.end());
      return f(x);
    };
    const std::int64_t budgets[] = {30, 120};
    for (std::int64_t b = 0; b < 2; ++b) {
      SCOPED_TRACE(b);
      points.clear();
      const auto result =
          minimize(keeping, Vector(10, 0.0), {.method = SearchMethod::kCobyla, .max_evaluations = budgets[b], .bound = 1.5});
      EXPECT_EQ(result.evaluations, budgets[b]);
      EXPECT_LT(result.value, 1.3 * best[b].item<double>()) << name << ' ' << budgets[b];
      for (std::int64_t i = 0; i < simplex.size(0); ++i) {
        SCOPED_TRACE(i);
        const auto point = torch::tensor(points.at(static_cast<std::size_t>(i)), torch::kDouble);
        EXPECT_LT((point - simplex[i]).abs().max().item<double>(), 1e-12) << name << " point " << i;
        EXPECT_NEAR(result.history.at(static_cast<std::size_t>(i)), simplex_values[i].item<double>(),
                    1e-12 * simplex_values[i].item<double>());
      }
    }
    const auto small = minimize(function, Vector(10, 0.0), {.method = SearchMethod::kOnePlusOne, .max_evaluations = 30, .bound = 1.5});
    EXPECT_NE(small.history,
              minimize(function, Vector(10, 0.0), {.method = SearchMethod::kCobyla, .max_evaluations = 30, .bound = 1.5}).history);
    EXPECT_GT(small.value, 0.99 * best[0].item<double>()) << name;  // models of a smooth function are worth their evaluations
  }
}

TEST(Minimize, DependsOnTheSeedAlone) {
  for (const auto method : {SearchMethod::kCmaEs, SearchMethod::kOnePlusOne}) {
    SCOPED_TRACE(static_cast<int>(method));
    const SearchOptions options{.method = method, .max_evaluations = 120};
    const auto first = minimize(rosenbrock, Vector(6, 0.0), options);
    const auto again = minimize(rosenbrock, Vector(6, 0.0), options);
    EXPECT_EQ(first.x, again.x);
    EXPECT_EQ(first.history, again.history);
    auto other = options;
    other.seed = 43;
    EXPECT_NE(minimize(rosenbrock, Vector(6, 0.0), other).history, first.history);
  }
}

TEST(Minimize, OnlyTheOrderOfValuesMattersWithoutBounds) {
  const auto cubed = [](std::span<const double> x) { return std::pow(sphere(x), 3) - 7; };
  for (const auto method : {SearchMethod::kCmaEs, SearchMethod::kOnePlusOne}) {
    SCOPED_TRACE(static_cast<int>(method));
    const SearchOptions options{.method = method, .max_evaluations = 150};
    EXPECT_EQ(minimize(cubed, Vector(5, 1.0), options).x, minimize(sphere, Vector(5, 1.0), options).x);
  }
}

TEST(Minimize, SurvivesAnObjectiveThatIsFlatAndOneThatHasConverged) {
  const auto flat = [](std::span<const double>) { return 1.0; };
  for (const auto method : {SearchMethod::kCmaEs, SearchMethod::kOnePlusOne}) {
    SCOPED_TRACE(static_cast<int>(method));
    const auto result = minimize(flat, Vector(3, 0.5), {.method = method, .max_evaluations = 3000, .bound = 1});
    EXPECT_EQ(result.x, Vector(3, 0.5)) << "the first of equals";
    EXPECT_EQ(minimize(sphere, Vector(3, 0.5), {.method = method, .max_evaluations = 20000}).evaluations, 20000);
  }
}

TEST(Minimize, RefusesWhatHasNoOrder) {
  std::int64_t calls = 0;
  const auto breaks = [&](std::span<const double> x) { return ++calls == 13 ? std::nan("") : sphere(x); };
  for (const auto method : {SearchMethod::kCmaEs, SearchMethod::kOnePlusOne, SearchMethod::kCobyla}) {
    SCOPED_TRACE(static_cast<int>(method));
    calls = 0;
    const auto message = message_of(ErrorKind::kUsage, [&] { minimize(breaks, Vector(3, 0.5), {.method = method}); });
    EXPECT_THAT(message, HasSubstr("the objective of a search is nan at ["));
    EXPECT_THAT(message, HasSubstr("(evaluation 13)"));
    EXPECT_EQ(calls, 13);
  }
  const auto infinite = [](std::span<const double>) { return std::numeric_limits<double>::infinity(); };
  EXPECT_THAT(message_of(ErrorKind::kUsage, [&] { minimize(infinite, Vector(3, 0.5), {}); }),
              HasSubstr("search is inf at [0.5, 0.5, 0.5]"));
}

TEST(Minimize, RefusesOptionsOutOfRange) {
  const auto refusal = [](const Vector& start, const SearchOptions& options) {
    return message_of(ErrorKind::kUsage, [&] { minimize(sphere, start, options); });
  };
  EXPECT_THAT(refusal({}, {}), HasSubstr("at least one number"));
  EXPECT_THAT(refusal({0}, {.max_evaluations = 0}), HasSubstr("max_evaluations is 0"));
  EXPECT_THAT(refusal({0}, {.step = 0}), HasSubstr("step is 0"));
  EXPECT_THAT(refusal({0}, {.bound = -1}), HasSubstr("bound is -1"));
  EXPECT_THAT(refusal({0}, {.population = 3}), HasSubstr("population is 3"));
  EXPECT_THAT(refusal({0, 2}, {.bound = 1.5}), HasSubstr("cannot start at [0, 2]: 2 is not within [-1.5, 1.5]"));
}

}  // namespace
}  // namespace quiver::train
