#include "node-agent/net/resolvers.h"

#include <gtest/gtest.h>

namespace dormouse::net {
namespace {

TEST(ResolversTest, WhatAGuestCanAskIsTakenInItsOrder) {
  EXPECT_EQ(
      ResolversIn("# nameserver 1.2.3.4\nnameserver 10.0.0.2\nsearch a.example\n"
                  "nameserver 127.0.0.53\nnameserver fd00::1\nnameserver 9.9.9.9\nnameserver\n"),
      (std::vector<std::string>{"10.0.0.2", "9.9.9.9"}));
  EXPECT_TRUE(ResolversIn("nameserver 127.0.0.53\n").empty());
  EXPECT_TRUE(ResolversIn("").empty());
}

}  // namespace
}  // namespace dormouse::net
