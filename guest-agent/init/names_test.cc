#include "guest-agent/init/names.h"

#include <arpa/inet.h>
#include <gtest/gtest.h>

namespace dormouse::guest {
namespace {

TEST(NamesTest, HostsHasLocalhostAndTheMachinesOwnNameBeforeTheImagesLines) {
  EXPECT_EQ(HostsText("web.example", inet_addr("169.254.0.21"), "10.0.0.9 db\n"),
            "127.0.0.1 localhost\n::1 localhost ip6-localhost ip6-loopback\n"
            "169.254.0.21 web.example web\n10.0.0.9 db\n");
  EXPECT_EQ(HostsText("web", 0, ""),
            "127.0.0.1 localhost\n::1 localhost ip6-localhost ip6-loopback\n127.0.1.1 web\n");
}

TEST(NamesTest, AnImagesResolverStandsWhereItCanAnswer) {
  const std::vector<std::string> node = {"10.0.0.2"};
  EXPECT_FALSE(ResolvConfText({}, node, "nameserver 9.9.9.9\n"));
  EXPECT_FALSE(ResolvConfText({}, node, "nameserver 127.0.0.1\nnameserver 9.9.9.9\n"));
  EXPECT_FALSE(ResolvConfText({}, {}, "nameserver 127.0.0.53\n")) << "nothing better is known";
  for (const char* image : {"", "# nothing\n", "nameserver 127.0.0.53\n", "nameserver ::1\n",
                            "#nameserver 9.9.9.9\n"}) {
    EXPECT_EQ(ResolvConfText({}, node, image), "nameserver 10.0.0.2\n") << image;
  }
  EXPECT_EQ(ResolvConfText({}, node, "nameserver 127.0.0.53\nsearch corp.example\noptions edns0\n"),
            "nameserver 10.0.0.2\nsearch corp.example\noptions edns0\n");
}

TEST(NamesTest, WhatTheUserAsksForWinsAndIsCompletedByTheNode) {
  const std::vector<std::string> node = {"10.0.0.2"};
  EXPECT_EQ(ResolvConfText({{"1.1.1.1", "8.8.8.8"}, {}, {"ndots:2"}}, node, "nameserver 9.9.9.9\n"),
            "nameserver 1.1.1.1\nnameserver 8.8.8.8\noptions ndots:2\n");
  EXPECT_EQ(ResolvConfText({{}, {"a.example", "b.example"}, {}}, node, ""),
            "nameserver 10.0.0.2\nsearch a.example b.example\n");
}

}  // namespace
}  // namespace dormouse::guest
