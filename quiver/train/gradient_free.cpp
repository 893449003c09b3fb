#include "quiver/train/gradient_free.h"

#include <nlopt.h>
#include <torch/utils.h>

#include <algorithm>
#include <cmath>
#include <exception>
#include <memory>
#include <numbers>
#include <numeric>
#include <string>

#include "quiver/base/error.h"
#include "quiver/base/random.h"
#include "quiver/tensor/raw_data.h"

namespace quiver::train {
namespace {

using Vector = std::vector<double>;

std::string describe(std::span<const double> x) {
  std::string text;
  for (const double value : x) text += format("{}{:.6g}", text.empty() ? "" : ", ", value);
  return "[" + text + "]";
}

void check(std::span<const double> start, const SearchOptions& options) {
  if (start.empty()) fail(ErrorKind::kUsage, "a search needs at least one number to choose");
  if (options.max_evaluations < 1) {
    fail(ErrorKind::kUsage, "max_evaluations is {}: a search needs at least 1", options.max_evaluations);
  }
  if (!(options.step > 0 && std::isfinite(options.step))) fail(ErrorKind::kUsage, "step is {}: it must be above 0", options.step);
  if (!(options.bound > 0)) fail(ErrorKind::kUsage, "bound is {}: it must be above 0", options.bound);
  if (options.population != 0 && options.population < 4) {
    fail(ErrorKind::kUsage, "population is {}: CMA-ES needs at least 4, and 0 chooses", options.population);
  }
  for (const double value : start) {
    if (std::isfinite(value) && std::abs(value) <= options.bound) continue;
    fail(ErrorKind::kUsage, "the search cannot start at {}: {} is not within [-{}, {}]", describe(start), value, options.bound,
         options.bound);
  }
}

/// Standard normal numbers, by pairs (Box and Muller 1958).
class Normals {
 public:
  explicit Normals(std::uint64_t seed) : random_(seed, "gradient_free") {}

  double next() {
    if (has_spare_) {
      has_spare_ = false;
      return spare_;
    }
    const double radius = std::sqrt(-2 * std::log(1 - random_.uniform()));  // 1 - u is in (0, 1]
    const double angle = 2 * std::numbers::pi * random_.uniform();
    spare_ = radius * std::sin(angle);
    has_spare_ = true;
    return radius * std::cos(angle);
  }

 private:
  RandomStream random_;
  double spare_ = 0;
  bool has_spare_ = false;
};

/// Counts, checks and remembers what is evaluated.
class Evaluations {
 public:
  Evaluations(const Objective& objective, const SearchOptions& options) : objective_(objective), options_(options) {}

  bool is_over() const {
    return result_.evaluations >= options_.max_evaluations || (result_.evaluations > 0 && result_.value <= options_.target);
  }
  Vector clipped(const Vector& x) const {
    Vector inside = x;
    for (double& value : inside) value = std::clamp(value, -options_.bound, options_.bound);
    return inside;
  }
  /// The objective at x, which is within the bounds.
  double at(const Vector& x) {
    const double value = objective_(x);
    if (!std::isfinite(value)) {
      fail(ErrorKind::kUsage, "the objective of a search is {} at {} (evaluation {}): it must be finite everywhere within the bounds",
           value, describe(x), result_.evaluations + 1);
    }
    if (result_.evaluations == 0 || value < result_.value) {
      result_.x = x;
      result_.value = value;
    }
    ++result_.evaluations;
    result_.history.push_back(value);
    return value;
  }
  const SearchResult& result() const { return result_; }

 private:
  const Objective& objective_;
  const SearchOptions& options_;
  SearchResult result_;
};

/// The parent itself may lie two steps outside the bounds. Were it clipped, a parent in a corner could only improve by children that leave
/// the bounds in all of the corner's coordinates, which are few, and the step would shrink before its time.
void one_plus_one(Evaluations& evaluations, const Vector& start, const SearchOptions& options) {
  Normals normals(options.seed);
  Vector parent = start;
  double value = evaluations.result().value;
  double step = options.step;
  while (!evaluations.is_over()) {
    Vector child = parent;
    for (double& coordinate : child) {
      coordinate = std::clamp(coordinate + step * normals.next(), -options.bound - 2 * step, options.bound + 2 * step);
    }
    const double child_value = evaluations.at(evaluations.clipped(child));
    if (child_value > value) {
      step *= std::pow(2, -0.25);  // a fifth of successes keeps the step: 2 (2^(-1/4))^4 = 1
      continue;
    }
    if (child_value < value) step *= 2;
    parent = child;
    value = child_value;
  }
}

/// The default strategy parameters, in the notation of Hansen 2016, table 1; n is the dimension.
struct Strategy {
  std::int64_t lambda = 0;
  std::int64_t mu = 0;
  Vector weights;  ///< [mu], descending, sum 1
  double mu_eff = 0, c_sigma = 0, d_sigma = 0, c_c = 0, c_1 = 0, c_mu = 0;
  double chi = 0;  ///< expected length of n standard normal numbers

  Strategy(double n, std::int64_t population) {
    lambda = population > 0 ? population : 4 + static_cast<std::int64_t>(3 * std::log(n));
    mu = lambda / 2;
    double square_sum = 0;
    for (std::int64_t i = 1; i <= mu; ++i) {
      weights.push_back(std::log((static_cast<double>(lambda) + 1) / 2) - std::log(static_cast<double>(i)));
    }
    const double sum = std::accumulate(weights.begin(), weights.end(), 0.0);
    for (double& weight : weights) {
      weight /= sum;
      square_sum += weight * weight;
    }
    mu_eff = 1 / square_sum;
    c_sigma = (mu_eff + 2) / (n + mu_eff + 5);
    d_sigma = 1 + 2 * std::max(0.0, std::sqrt((mu_eff - 1) / (n + 1)) - 1) + c_sigma;
    c_c = (4 + mu_eff / n) / (n + 4 + 2 * mu_eff / n);
    c_1 = 2 / ((n + 1.3) * (n + 1.3) + mu_eff);
    c_mu = std::min(1 - c_1, 2 * (mu_eff - 2 + 1 / mu_eff) / ((n + 2) * (n + 2) + mu_eff));
    chi = std::sqrt(n) * (1 - 1 / (4 * n) + 1 / (21 * n * n));
  }
};

/// One offspring: x = mean + sigma y, y = B D z.
struct Offspring {
  torch::Tensor y;
  Vector outside;      ///< [n], how far x is outside the bounds
  double value = 0;    ///< of the objective where x is clipped to
  double rank_by = 0;  ///< value with the penalty
};

class CmaEs {
 public:
  CmaEs(Evaluations& evaluations, const Vector& start, const SearchOptions& options)
      : evaluations_(evaluations),
        options_(options),
        normals_(options.seed),
        n_(static_cast<std::int64_t>(start.size())),
        strategy_(static_cast<double>(n_), options.population),
        mean_(torch::tensor(start, torch::kDouble)),
        covariance_(torch::eye(n_, torch::kDouble)),
        axes_(torch::eye(n_, torch::kDouble)),
        lengths_(torch::ones({n_}, torch::kDouble)),
        path_sigma_(torch::zeros({n_}, torch::kDouble)),
        path_c_(torch::zeros({n_}, torch::kDouble)),
        weights_(start.size(), 0.0),
        sigma_(options.step) {}

  void run() {
    while (!evaluations_.is_over()) {
      std::vector<Offspring> offspring;
      while (static_cast<std::int64_t>(offspring.size()) < strategy_.lambda) {
        if (evaluations_.is_over()) return;  // what there is of this generation can no longer move the mean
        offspring.push_back(sample());
      }
      penalize(offspring);
      std::stable_sort(offspring.begin(), offspring.end(), [](const auto& a, const auto& b) { return a.rank_by < b.rank_by; });
      update(offspring);
    }
  }

 private:
  Offspring sample() {
    auto z = torch::empty({n_}, torch::kDouble);
    for (std::int64_t i = 0; i < n_; ++i) z[i] = normals_.next();
    Offspring offspring{.y = axes_.matmul(lengths_ * z)};
    const auto x = (mean_ + sigma_ * offspring.y).contiguous();
    const auto coordinates = tensor::elements<double>(x, "a point of CMA-ES");
    const Vector point(coordinates.begin(), coordinates.end());
    const auto inside = evaluations_.clipped(point);
    for (std::size_t i = 0; i < point.size(); ++i) offspring.outside.push_back(std::abs(point[i] - inside[i]));
    offspring.value = evaluations_.at(inside);
    return offspring;
  }

  /// rank_by = value + sum_i w_i outside_i^2 (Hansen et al. 2009, "A method for handling uncertainty in evolutionary optimization ...").
  /// The weights are 0 until the mean first leaves the bounds; then a point one standard deviation outside loses about as much as values of
  /// that generation differ, and w_i grows as long as the mean is three standard deviations outside. They do not grow when the step
  /// shrinks: the ranking would then see little but the penalty.
  void penalize(std::vector<Offspring>& offspring) {
    const auto deviations = (sigma_ * covariance_.diagonal().sqrt()).contiguous();
    const auto deviation = tensor::elements<double>(deviations, "deviations of CMA-ES");
    const auto mean = tensor::elements<double>(mean_, "mean of CMA-ES");
    for (std::size_t i = 0; i < weights_.size(); ++i) {
      const double outside = std::abs(mean[i]) - options_.bound;
      if (outside > 0 && weights_[i] == 0) {
        std::fill(weights_.begin(), weights_.end(), 2 * spread(offspring) / deviations.square().mean().item<double>());
      }
      if (outside > 3 * deviation[i]) weights_[i] *= 1.2;
    }
    for (auto& one : offspring) {
      one.rank_by = one.value;
      for (std::size_t i = 0; i < weights_.size(); ++i) one.rank_by += weights_[i] * one.outside[i] * one.outside[i];
    }
  }

  /// The interquartile range of the generation's values; 1 if it is flat.
  static double spread(const std::vector<Offspring>& offspring) {
    Vector values;
    for (const auto& one : offspring) values.push_back(one.value);
    std::sort(values.begin(), values.end());
    const double range = values[values.size() * 3 / 4] - values[values.size() / 4];
    return range > 0 ? range : 1;
  }

  /// The next mean, paths, step and covariance from the generation, best first.
  void update(const std::vector<Offspring>& offspring) {
    const auto& s = strategy_;
    const double n = static_cast<double>(n_);
    auto step = torch::zeros({n_}, torch::kDouble);  // <y>_w
    auto rank_mu = torch::zeros({n_, n_}, torch::kDouble);
    for (std::size_t i = 0; i < s.weights.size(); ++i) {
      const auto& y = offspring[i].y;
      step += s.weights[i] * y;
      rank_mu += s.weights[i] * torch::outer(y, y);
    }
    ++generation_;
    mean_ = mean_ + sigma_ * step;
    const auto whitened = axes_.matmul(axes_.t().matmul(step) / lengths_);  // C^(-1/2) <y>_w
    path_sigma_ = (1 - s.c_sigma) * path_sigma_ + std::sqrt(s.c_sigma * (2 - s.c_sigma) * s.mu_eff) * whitened;
    const double length = path_sigma_.norm().item<double>();
    // A path that grows fast means sigma is far too small; the covariance would then only learn that.
    const double grown = std::sqrt(1 - std::pow(1 - s.c_sigma, 2.0 * static_cast<double>(generation_)));
    const double h = length / grown < (1.4 + 2 / (n + 1)) * s.chi ? 1 : 0;
    path_c_ = (1 - s.c_c) * path_c_ + h * std::sqrt(s.c_c * (2 - s.c_c) * s.mu_eff) * step;
    const double lost = (1 - h) * s.c_c * (2 - s.c_c);
    covariance_ = (1 + s.c_1 * lost - s.c_1 - s.c_mu) * covariance_ + s.c_1 * torch::outer(path_c_, path_c_) + s.c_mu * rank_mu;
    sigma_ *= std::exp(std::min(1.0, s.c_sigma / s.d_sigma * (length / s.chi - 1)));
    decompose();
  }

  /// axes_ and lengths_ of the covariance. Its condition is held at 1e14, which rounding would else exceed where the search has converged.
  void decompose() {
    covariance_ = (covariance_ + covariance_.t()) / 2;
    const auto [values, vectors] = torch::linalg_eigh(covariance_);
    const double largest = values[-1].item<double>();
    const auto kept = values.clamp_min(1e-14 * largest);
    axes_ = vectors;
    lengths_ = kept.sqrt();
    if (values[0].item<double>() < 1e-14 * largest) covariance_ = (vectors * kept).matmul(vectors.t());
  }

  Evaluations& evaluations_;
  const SearchOptions& options_;
  Normals normals_;
  std::int64_t n_;
  Strategy strategy_;
  torch::Tensor mean_;                 // [n]
  torch::Tensor covariance_;           // [n, n] = axes diag(lengths^2) axes^T
  torch::Tensor axes_, lengths_;       // [n, n], [n]: B and D
  torch::Tensor path_sigma_, path_c_;  // [n]
  Vector weights_;                     // [n], of the penalty
  double sigma_;
  std::int64_t generation_ = 0;
};

/// NLopt's, which evaluates the start itself. An exception of the objective must not pass through C: it is kept, and the search ends.
void cobyla(Evaluations& evaluations, const Vector& start, const SearchOptions& options) {
  struct Context {
    Evaluations& evaluations;
    std::exception_ptr error;
    nlopt_opt search;
  };
  const auto n = static_cast<unsigned>(start.size());
  const std::unique_ptr<nlopt_opt_s, decltype(&nlopt_destroy)> search(nlopt_create(NLOPT_LN_COBYLA, n), nlopt_destroy);
  if (search == nullptr) fail(ErrorKind::kInternal, "NLopt has no COBYLA in {} dimensions", n);
  Context context{evaluations, nullptr, search.get()};
  nlopt_set_min_objective(
      search.get(),
      [](unsigned size, const double* x, double*, void* data) {
        auto& own = *static_cast<Context*>(data);
        double value = 0;
        try {
          value = own.evaluations.at(own.evaluations.clipped(Vector(x, x + size)));
        } catch (...) {
          own.error = std::current_exception();
        }
        if (own.error || own.evaluations.is_over()) nlopt_force_stop(own.search);
        return value;
      },
      &context);
  nlopt_set_lower_bounds1(search.get(), -options.bound);
  nlopt_set_upper_bounds1(search.get(), options.bound);
  nlopt_set_initial_step1(search.get(), options.step);
  auto x = start;
  double value = 0;
  const auto status = nlopt_optimize(search.get(), x.data(), &value);
  if (context.error) std::rethrow_exception(context.error);
  if (status < 0 && status != NLOPT_FORCED_STOP && status != NLOPT_ROUNDOFF_LIMITED) {
    fail(ErrorKind::kInternal, "NLopt's COBYLA ended with {}", static_cast<int>(status));
  }
}

}  // namespace

SearchResult minimize(const Objective& objective, std::span<const double> start, const SearchOptions& options) {
  check(start, options);
  const torch::NoGradGuard no_grad;
  const Vector first(start.begin(), start.end());
  Evaluations evaluations(objective, options);
  if (options.method == SearchMethod::kCobyla) {
    cobyla(evaluations, first, options);
    return evaluations.result();
  }
  evaluations.at(first);
  if (options.method == SearchMethod::kOnePlusOne) {
    one_plus_one(evaluations, first, options);
  } else {
    CmaEs(evaluations, first, options).run();
  }
  return evaluations.result();
}

}  // namespace quiver::train
