#include "quiver/serve/metrics.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

namespace quiver::serve {
namespace {

using ::testing::HasSubstr;

TEST(Metrics, WritesCountersAndGauges) {
  Metrics metrics;
  EXPECT_EQ(metrics.text({}), "");
  metrics.count("quiver_cancelled_total", {{"reason", "client_gone"}});
  metrics.count("quiver_cancelled_total", {{"reason", "client_gone"}}, 2);
  metrics.count("quiver_cancelled_total", {{"reason", "a \"b\" \\ c\nd"}});
  EXPECT_EQ(metrics.total("quiver_cancelled_total"), 4);
  EXPECT_EQ(metrics.total("quiver_rejected_total"), 0);
  EXPECT_EQ(metrics.text({{"quiver_running", {}, 3}, {"quiver_kv_pages", {{"state", "free"}}, 0.5}}),
            "# HELP quiver_cancelled_total Requests whose client went away, or that were too slow.\n"
            "# TYPE quiver_cancelled_total counter\n"
            "quiver_cancelled_total{reason=\"a \\\"b\\\" \\\\ c d\"} 1\n"
            "quiver_cancelled_total{reason=\"client_gone\"} 3\n"
            "# HELP quiver_running Requests that are computed.\n"
            "# TYPE quiver_running gauge\n"
            "quiver_running 3\n"
            "# HELP quiver_kv_pages Pages of the cache of keys and values, by state.\n"
            "# TYPE quiver_kv_pages gauge\n"
            "quiver_kv_pages{state=\"free\"} 0.5\n");
}

TEST(Metrics, BucketsOfAHistogramCountAllBelow) {
  Metrics metrics;
  for (const double seconds : {0.0005, 0.01, 0.03, 500.0}) metrics.observe("quiver_request_seconds", seconds);
  const auto text = metrics.text({});
  EXPECT_THAT(text, HasSubstr("# TYPE quiver_request_seconds histogram\n"));
  EXPECT_THAT(text, HasSubstr("quiver_request_seconds_bucket{le=\"0.001\"} 1\n"));
  EXPECT_THAT(text, HasSubstr("quiver_request_seconds_bucket{le=\"0.01\"} 2\n"));
  EXPECT_THAT(text, HasSubstr("quiver_request_seconds_bucket{le=\"0.05\"} 3\n"));
  EXPECT_THAT(text, HasSubstr("quiver_request_seconds_bucket{le=\"300\"} 3\n"));
  EXPECT_THAT(text, HasSubstr("quiver_request_seconds_bucket{le=\"+Inf\"} 4\n"));
  EXPECT_THAT(text, HasSubstr("quiver_request_seconds_count 4\n"));
  EXPECT_EQ(metrics.total("quiver_request_seconds"), 4);
}

TEST(Metrics, LabelsBeyondAsManyAsThereMayBeCountAsOther) {
  Metrics metrics;
  for (std::size_t i = 0; i < Metrics::kMostSeries + 5; ++i) metrics.count("quiver_requests_total", {{"model", std::to_string(i)}});
  metrics.count("quiver_requests_total", {{"model", "7"}});
  const auto text = metrics.text({});
  EXPECT_THAT(text, HasSubstr("quiver_requests_total{model=\"other\"} 5\n"));
  EXPECT_THAT(text, HasSubstr("quiver_requests_total{model=\"7\"} 2\n"));
  EXPECT_EQ(metrics.total("quiver_requests_total"), Metrics::kMostSeries + 6);
}

}  // namespace
}  // namespace quiver::serve
