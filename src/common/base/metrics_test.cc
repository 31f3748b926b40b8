#include "src/common/base/metrics.h"

#include <gmock/gmock.h>

namespace dormouse::metrics {
namespace {

using testing::HasSubstr;

TEST(MetricsTest, ASampleMadeBeforeItsFirstUseShowsZero) {
  Registry registry;
  (void)registry.MakeCounter("reconcile_total", "Reconciles.", {{"result", "error"}});
  EXPECT_THAT(registry.Text(), HasSubstr("# HELP reconcile_total Reconciles.\n"
                                         "# TYPE reconcile_total counter\n"
                                         "reconcile_total{result=\"error\"} 0\n"));
}

TEST(MetricsTest, TheSameNameAndLabelsAreTheSameCounter) {
  Registry registry;
  registry.MakeCounter("a_total", "", {{"x", "1"}}).Increment();
  registry.MakeCounter("a_total", "", {{"x", "1"}}).Increment(2);
  EXPECT_EQ(registry.MakeCounter("a_total", "", {{"x", "1"}}).Value(), 3);
}

TEST(MetricsTest, BucketsAreCumulativeAndEndAtInfinity) {
  Registry registry;
  const auto histogram = registry.MakeHistogram("t_seconds", "", {0.1, 1}, {{"q", "a"}});
  histogram.Observe(0.1);
  histogram.Observe(0.5);
  histogram.Observe(7);
  EXPECT_THAT(registry.Text(), HasSubstr("t_seconds_bucket{q=\"a\",le=\"0.1\"} 1\n"
                                         "t_seconds_bucket{q=\"a\",le=\"1\"} 2\n"
                                         "t_seconds_bucket{q=\"a\",le=\"+Inf\"} 3\n"
                                         "t_seconds_sum{q=\"a\"} 7.6\n"
                                         "t_seconds_count{q=\"a\"} 3\n"));
}

TEST(MetricsTest, LabelValuesAreEscaped) {
  Registry registry;
  registry.MakeGauge("g", "", {{"path", "a\"b\\c\nd"}}).Set(1);
  EXPECT_THAT(registry.Text(), HasSubstr(R"(g{path="a\"b\\c\nd"} 1)"));
}

TEST(MetricsTest, ARemovedLabelSetIsNotShown) {
  Registry registry;
  registry.MakeGauge("vm_up", "", {{"vm", "a"}}).Set(1);
  registry.MakeGauge("vm_up", "", {{"vm", "b"}}).Set(1);
  registry.Remove("vm_up", {{"vm", "a"}});
  EXPECT_THAT(registry.Text(), testing::Not(HasSubstr("vm=\"a\"")));
  EXPECT_THAT(registry.Text(), HasSubstr("vm=\"b\""));
}

TEST(MetricsTest, TheProcessIsDescribed) {
  EXPECT_THAT(Registry().Text(), HasSubstr("\nprocess_resident_memory_bytes "));
}

}  // namespace
}  // namespace dormouse::metrics
