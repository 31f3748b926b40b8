#include "src/common/base/footprint.h"

#include <gtest/gtest.h>

#include <fstream>
#include <locale>
#include <sstream>
#include <string>

namespace dormouse {
namespace {

/// Of /proc/self/statm: resident pages.
long ResidentPages() {
  std::ifstream statm("/proc/self/statm");
  long size = 0, resident = 0;
  statm >> size >> resident;
  return resident;
}

TEST(FootprintTest, UnusedPagesGoAndEverythingStillWorks) {
  const long before = ResidentPages();
  const auto dropped = DropUnusedPages();
  ASSERT_TRUE(dropped) << dropped.error().message();
  EXPECT_LT(ResidentPages(), before);
  // Code, constants and relocated tables of several libraries, which come back from their files.
  std::ostringstream text;
  text.imbue(std::locale::classic());
  text << 1.5 << " " << std::hex << 255;
  EXPECT_EQ(text.str(), "1.5 ff");
  EXPECT_THROW(throw std::runtime_error("unwinds"), std::runtime_error);
}

}  // namespace
}  // namespace dormouse
