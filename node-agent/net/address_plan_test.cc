#include "node-agent/net/address_plan.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

namespace dormouse::net {
namespace {

TEST(AddressPlanTest, SlotsAndAddressesAreOneToOne) {
  const auto range = AddressRange::Parse(kDefaultRange);
  ASSERT_TRUE(range);
  EXPECT_EQ(range->gateway(), "10.201.0.1");
  EXPECT_EQ(range->cidr(), "10.201.0.0/16");
  EXPECT_EQ(range->slots(), 65533U);
  EXPECT_EQ(range->AddressOf(0), "10.201.0.2");
  EXPECT_EQ(range->AddressOf(254), "10.201.1.0");
  EXPECT_EQ(range->AddressOf(65532), "10.201.255.254") << "the last is the broadcast address";
  for (const uint32_t slot : {0U, 1U, 300U, 65532U})
    EXPECT_EQ(range->SlotOf(range->AddressOf(slot)).value(), slot);
  for (const char* bad : {"10.201.0.0", "10.201.0.1", "10.201.255.255", "10.202.0.2", "x", ""}) {
    EXPECT_FALSE(range->SlotOf(bad)) << bad;
  }
}

TEST(AddressPlanTest, ARangeIsLargeEnoughOrRefused) {
  EXPECT_TRUE(AddressRange::Parse("100.64.16.0/20"));
  for (const char* bad : {"10.201.0.0/21", "10.201.0.0", "10.201.0.1/16", "10.201.0.0/",
                          "fd00::/64", "x/16", "10.0.0.0/7"}) {
    EXPECT_EQ(AddressRange::Parse(bad).error().code(), ErrorCode::kInvalid) << bad;
  }
}

TEST(AddressPlanTest, AnInterfaceNameFits) {
  EXPECT_EQ(VethName("0123456789ab").size(), 15U);
}

}  // namespace
}  // namespace dormouse::net
