#include "quiver/train/task_predictor.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>
#include <torch/utils.h>

#include <cmath>
#include <limits>
#include <string>
#include <vector>

#include "quiver/base/error.h"
#include "quiver/testing/draw.h"
#include "quiver/testing/message_of.h"

namespace quiver::train {
namespace {

using quiver::testing::draw;
using quiver::testing::message_of;
using ::testing::HasSubstr;

std::vector<std::int64_t> turns(std::int64_t count, std::int64_t num_classes) {
  std::vector<std::int64_t> labels;
  for (std::int64_t i = 0; i < count; ++i) labels.push_back(i % num_classes);
  return labels;
}

TEST(TaskPredictorGolden, IsScikitLearnsLogisticRegression) {
  const auto golden = tensor::load_tensors("tests/golden/task_predictor/cases.safetensors");
  const auto wanted = golden.at("labels");
  const std::vector<std::int64_t> labels(wanted.const_data_ptr<std::int64_t>(), wanted.const_data_ptr<std::int64_t>() + wanted.numel());
  const std::pair<const char*, double> cases[] = {{"overlapping-c1", 1}, {"overlapping-c0.01", 100}, {"separable-c10", 0.1}};
  for (const auto& [name, l2] : cases) {
    const auto at = [&, of = std::string(name)](const char* what) { return golden.at(of + "." + what); };
    const auto predictor = train_task_predictor(at("features"), labels, 4, {.l2 = l2});
    EXPECT_TRUE(torch::allclose(predictor.tensors().at("mean"), at("mean"), 1e-12, 1e-12)) << name;
    EXPECT_TRUE(torch::allclose(predictor.tensors().at("scale"), at("scale"), 1e-12, 1e-12)) << name;
    const double weights = (predictor.tensors().at("weight") - at("weight")).abs().max().item<double>();
    const double probabilities = (predictor.probabilities(at("unseen")) - at("probabilities")).abs().max().item<double>();
    EXPECT_LT(weights, 1e-5) << name;  // up to 7; what is left is where scikit-learn stops
    EXPECT_LT(probabilities, 1e-6) << name;
  }
}

TEST(TaskPredictor, EndsWhereTheGradientIsZero) {
  const auto features = draw({60, 5}, 1);
  const auto labels = turns(60, 3);
  const auto predictor = train_task_predictor(features, labels, 3, {.l2 = 0.5});
  // dLoss/dW = (p - y)^T x + l2 W and dLoss/db = sum (p - y), by hand.
  const auto& tensors = predictor.tensors();
  const auto x = (features.to(torch::kDouble) - tensors.at("mean")) / tensors.at("scale");
  const auto error = predictor.probabilities(features) - torch::one_hot(torch::tensor(labels), 3).to(torch::kDouble);
  EXPECT_LT((error.t().matmul(x) + 0.5 * tensors.at("weight")).abs().max().item<double>(), 1e-5);
  EXPECT_LT(error.sum(0).abs().max().item<double>(), 1e-5);
}

TEST(TaskPredictor, SeparatesWhatIsSeparable) {
  const auto labels = turns(90, 3);
  const auto features = (5 * draw({3, 8}, 2)).repeat({30, 1}) + 0.5 * draw({90, 8}, 3);
  for (const std::int64_t hidden : {0, 12}) {
    SCOPED_TRACE(hidden);
    const auto predictor = train_task_predictor(features, labels, 3, {.hidden = hidden, .l2 = 0.1});
    const auto probabilities = predictor.probabilities(features);
    EXPECT_TRUE(probabilities.argmax(1).equal(torch::tensor(labels))) << hidden;
    EXPECT_TRUE(torch::allclose(probabilities.sum(1), torch::ones({90}, torch::kDouble)));
    EXPECT_GT(probabilities.gather(1, torch::tensor(labels).unsqueeze(1)).min().item<double>(), 0.9) << hidden;
  }
}

TEST(TaskPredictor, AHiddenLayerLearnsWhatIsNotLinear) {
  const auto features = draw({200, 2}, 4);  // the label says whether the signs agree
  std::vector<std::int64_t> labels;
  for (std::int64_t i = 0; i < 200; ++i) labels.push_back(features[i][0].item<float>() * features[i][1].item<float>() > 0);
  const auto accuracy = [&](std::int64_t hidden) {
    const auto predictor = train_task_predictor(features, labels, 2, {.hidden = hidden, .l2 = 0.01});
    return (predictor.probabilities(features).argmax(1) == torch::tensor(labels)).to(torch::kDouble).mean().item<double>();
  };
  EXPECT_LT(accuracy(0), 0.7);
  EXPECT_GT(accuracy(16), 0.97);
}

TEST(TaskPredictor, WithAHiddenLayerIsItsDefinition) {
  const auto features = draw({20, 3}, 5);
  const auto predictor = train_task_predictor(features, turns(20, 2), 2, {.hidden = 4, .max_iterations = 3});
  const auto& t = predictor.tensors();
  const auto h = torch::relu(torch::matmul((features.to(torch::kDouble) - t.at("mean")) / t.at("scale"), t.at("hidden.weight").t()) +
                             t.at("hidden.bias"));
  const auto expected = torch::softmax(torch::matmul(h, t.at("weight").t()) + t.at("bias"), 1);
  EXPECT_TRUE(torch::allclose(predictor.probabilities(features), expected, 1e-12, 1e-12));
}

TEST(TaskPredictor, IsTheSameAgainAndAfterATripThroughItsTensors) {
  const auto features = draw({40, 6}, 6);
  for (const std::int64_t hidden : {0, 5}) {
    SCOPED_TRACE(hidden);
    const TaskPredictorOptions options{.hidden = hidden, .max_iterations = 20};
    const auto first = train_task_predictor(features, turns(40, 4), 4, options);
    const auto again = train_task_predictor(features, turns(40, 4), 4, options);
    EXPECT_TRUE(first.probabilities(features).equal(again.probabilities(features)));
    const TaskPredictor copy(first.tensors());
    EXPECT_TRUE(copy.probabilities(features).equal(first.probabilities(features)));
    EXPECT_EQ(copy.num_features(), 6);
    EXPECT_EQ(copy.num_classes(), 4);
  }
  const auto one = train_task_predictor(features, turns(40, 4), 4, {.hidden = 5, .max_iterations = 20, .seed = 1});
  const auto other = train_task_predictor(features, turns(40, 4), 4, {.hidden = 5, .max_iterations = 20, .seed = 2});
  EXPECT_FALSE(one.probabilities(features).equal(other.probabilities(features)));
}

TEST(TaskPredictor, DoesNotDependOnTheUnitOfAFeature) {
  const auto features = draw({40, 3}, 7).to(torch::kDouble);
  const auto other = features * torch::tensor({1e-4, 1.0, 1e4}, torch::kDouble) + torch::tensor({5.0, 0.0, -3e4}, torch::kDouble);
  const auto first = train_task_predictor(features, turns(40, 2), 2, {});
  const auto second = train_task_predictor(other, turns(40, 2), 2, {});
  EXPECT_TRUE(torch::allclose(first.probabilities(features), second.probabilities(other), 1e-6, 1e-6));
}

TEST(TaskPredictor, AClassWithoutExamplesIsUnlikely) {
  const auto features = (5 * draw({2, 4}, 8)).repeat({20, 1}) + 0.5 * draw({40, 4}, 9);
  const auto probabilities = train_task_predictor(features, turns(40, 2), 3, {}).probabilities(features);
  EXPECT_TRUE(probabilities.isfinite().all().item<bool>());
  EXPECT_LT(probabilities.select(1, 2).max().item<double>(), 0.01);
}

TEST(TaskPredictor, RefusesWhatDoesNotFit) {
  const auto features = draw({4, 3}, 10);
  const auto refusal = [](ErrorKind kind, const torch::Tensor& x, std::vector<std::int64_t> labels, std::int64_t num_classes,
                          const TaskPredictorOptions& options = {}) {
    return message_of(kind, [&] { train_task_predictor(x, labels, num_classes, options); });
  };
  EXPECT_THAT(refusal(ErrorKind::kMismatch, features, {0, 1}, 2), HasSubstr("2 labels do not fit features Float [4, 3]"));
  EXPECT_THAT(refusal(ErrorKind::kUsage, features[0], {0}, 2), HasSubstr("and these are Float [3]"));
  EXPECT_THAT(refusal(ErrorKind::kUsage, features, {0, 1, 2, 0}, 2), HasSubstr("label 2 is not one of 0 to 1"));
  EXPECT_THAT(refusal(ErrorKind::kUsage, features, {0, 0, 0, 0}, 1), HasSubstr("num_classes is 1"));
  EXPECT_THAT(refusal(ErrorKind::kUsage, features / 0, {0, 1, 0, 1}, 2), HasSubstr("NaN or infinite"));
  EXPECT_THAT(refusal(ErrorKind::kUsage, features, {0, 1, 0, 1}, 2, {.l2 = -1}), HasSubstr("l2 -1"));

  const auto predictor = train_task_predictor(features, turns(4, 2), 2, {.hidden = 3});
  EXPECT_THAT(message_of(ErrorKind::kMismatch,
                         [&] {
                           predictor.probabilities(draw({4, 5}, 1));
                         }),
              HasSubstr("features Float [4, 5] do not fit a task predictor of 3 features"));
  auto tensors = predictor.tensors();
  tensors.erase("hidden.weight");
  EXPECT_THAT(message_of(ErrorKind::kMismatch, [&] { TaskPredictor{tensors}; }), HasSubstr("needs a tensor 'hidden.weight'"));
  tensors["hidden.weight"] = torch::zeros({3, 9});
  EXPECT_THAT(message_of(ErrorKind::kMismatch, [&] { TaskPredictor{tensors}; }),
              HasSubstr("'hidden.weight' of a task predictor is Double [3, 9]"));
  tensors["hidden.weight"] = torch::zeros({3, 3}, torch::kLong);
  EXPECT_THAT(message_of(ErrorKind::kMismatch, [&] { TaskPredictor{tensors}; }), HasSubstr("expected a floating one"));
}

}  // namespace
}  // namespace quiver::train
