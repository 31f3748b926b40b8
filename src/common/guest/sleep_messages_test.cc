#include <gtest/gtest.h>

#include "src/common/guest/messages.h"
#include "src/common/guest/messages_test_parts.h"

namespace dormouse::guest {
namespace {

constexpr char kMachineId[] = "0123456789abcdef0123456789abcdef";

TEST(SleepMessagesTest, FreezeComesBackAsItWentIn) {
  EXPECT_EQ(ParseFreeze(Payload(Encode(FreezeRequest{77})))->limit_ms, 77U);
  EXPECT_EQ(ParseFreeze("{}")->limit_ms, 5'000U);
  const auto reply = ParseFreezeReply(Payload(EncodeReply(FreezeReply{true, "sync", 12, "0.1.0"})));
  ASSERT_TRUE(reply) << reply.error().message();
  EXPECT_TRUE(reply->frozen);
  EXPECT_EQ(reply->detail, "sync");
  EXPECT_EQ(reply->took_ms, 12U);
  EXPECT_EQ(reply->agent_version, "0.1.0");
  EXPECT_EQ(ParseFreezeReply(R"({"frozen":true})")->agent_version, "");
}

TEST(SleepMessagesTest, ThawComesBackAsItWentIn) {
  ThawRequest request;
  request.wall_time_ns = 1'700'000'000'123'456'789;
  request.entropy = std::string("\0\xff\x10 bytes that are not text", 27);
  request.new_identity = Identity{"clone-1", kMachineId};
  request.is_resume = true;
  const auto back = ParseThaw(Payload(Encode(request).value()));
  ASSERT_TRUE(back) << back.error().message();
  EXPECT_EQ(back->wall_time_ns, request.wall_time_ns);
  EXPECT_EQ(back->entropy, request.entropy);
  ASSERT_TRUE(back->new_identity);
  EXPECT_EQ(back->new_identity->hostname, "clone-1");
  EXPECT_EQ(back->new_identity->machine_id, kMachineId);
  EXPECT_TRUE(back->is_resume);

  const auto in_place = ParseThaw(Payload(Encode(ThawRequest{}).value()));
  ASSERT_TRUE(in_place);
  EXPECT_FALSE(in_place->new_identity);
  EXPECT_FALSE(in_place->is_resume);
}

TEST(SleepMessagesTest, WhatWokeFromASnapshotMustBringEntropy) {
  EXPECT_FALSE(ParseThaw(R"({"isResume":true})"));
  ThawRequest request;
  request.new_identity = Identity{"clone-1", kMachineId};
  EXPECT_FALSE(ParseThaw(Payload(Encode(request).value())));
  request.entropy = std::string(15, 'e');
  EXPECT_FALSE(ParseThaw(Payload(Encode(request).value())));
  request.entropy = std::string(513, 'e');
  EXPECT_FALSE(ParseThaw(Payload(Encode(request).value())));
  request.entropy = std::string(16, 'e');
  EXPECT_TRUE(ParseThaw(Payload(Encode(request).value())));
}

TEST(SleepMessagesTest, AnIdentityIsWholeOrRefused) {
  const std::string entropy = R"({"entropy":"000102030405060708090a0b0c0d0e0f","identity":)";
  const auto parse = [&](const std::string& identity) {
    return ParseThaw(entropy + identity + "}");
  };
  EXPECT_TRUE(parse(R"({"hostname":"h","machineId":"0123456789abcdef0123456789abcdef"})"));
  EXPECT_FALSE(parse("{}"));
  EXPECT_FALSE(parse("[]"));
  EXPECT_FALSE(parse(R"({"hostname":"h"})"));
  EXPECT_FALSE(parse(R"({"machineId":"0123456789abcdef0123456789abcdef"})"));
  EXPECT_FALSE(parse(R"({"hostname":"","machineId":"0123456789abcdef0123456789abcdef"})"));
  EXPECT_FALSE(parse(R"({"hostname":"h","machineId":"00000000000000000000000000000000"})"));
  EXPECT_FALSE(parse(R"({"hostname":"h","machineId":"0123456789ABCDEF0123456789ABCDEF"})"));
  EXPECT_FALSE(parse(R"({"hostname":"h","machineId":"0123456789abcdef0123456789abcde"})"));
  EXPECT_FALSE(parse(R"({"hostname":"h","machineId":"0123456789abcdef0123456789abcde\n"})"));
  EXPECT_FALSE(parse(R"({"hostname":")" + std::string(65, 'h') +
                     R"(","machineId":"0123456789abcdef0123456789abcdef"})"));
}

TEST(SleepMessagesTest, HostilePayloadsAreRefused) {
  const std::string deep(60'000, '[');
  for (const char* json : {"", "[]", "null", R"({"limitMs":60001})", R"({"limitMs":-1})",
                           R"({"limitMs":"5"})", deep.c_str()}) {
    EXPECT_FALSE(ParseFreeze(json)) << std::string_view(json).substr(0, 80);
  }
  for (const char* json :
       {"", "[]", R"({"wallTimeNs":-1})", R"({"wallTimeNs":18446744073709551615})",
        R"({"wallTimeNs":1.5})", R"({"entropy":"zz"})", R"({"isResume":1})", R"({"identity":1})",
        deep.c_str()}) {
    EXPECT_FALSE(ParseThaw(json)) << std::string_view(json).substr(0, 80);
  }
  for (const char* json :
       {"{}", "[]", R"({"frozen":1})", R"({"frozen":"true"})", R"({"frozen":true,"detail":[]})",
        R"({"frozen":true,"tookMs":-1})", R"({"frozen":true,"tookMs":4294967296})"}) {
    EXPECT_FALSE(ParseFreezeReply(json)) << json;
  }
}

TEST(SleepMessagesTest, ALongStoryIsCut) {
  const std::string frame = EncodeReply(FreezeReply{false, std::string(100'000, '\xff'), 0});
  const auto reply = ParseFreezeReply(Payload(frame));
  ASSERT_TRUE(reply) << reply.error().message();
  EXPECT_LE(reply->detail.size(), kMaxErrorText);
  EXPECT_FALSE(ParseFreezeReply(R"({"frozen":true,"detail":")" + std::string(9'000, 'x') + "\"}"));
}

TEST(SleepMessagesTest, HealthTellsThatTheGuestIsFrozen) {
  HealthReply health;
  health.agent_version = "1";
  health.boot_id = "b";
  EXPECT_FALSE(ParseHealthReply(Payload(EncodeReply(health)))->frozen);
  health.frozen = true;
  EXPECT_TRUE(ParseHealthReply(Payload(EncodeReply(health)))->frozen);
}

}  // namespace
}  // namespace dormouse::guest
