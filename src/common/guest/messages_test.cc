#include "src/common/guest/messages.h"

#include <gtest/gtest.h>

#include "src/common/guest/messages_test_parts.h"

namespace dormouse::guest {
namespace {

TEST(MessagesTest, ConfigureComesBackAsItWentIn) {
  ConfigureRequest request;
  request.hostname = "sbx-1";
  request.machine_id = std::string(32, 'a');
  request.fresh_disk = true;
  request.dns = {{"9.9.9.9"}, {"a.example"}, {"ndots:2"}};
  request.resolvers = {"10.0.0.2"};
  request.wall_time_ns = 1'700'000'000'123'456'789;
  request.entropy = std::string("\0\xff\x10 bytes that are not text", 27);
  request.env = {{"A", "1"}, {"B", "x=y"}, {"A", ""}};
  request.working_dir = "/srv";
  request.user = "1000:1000";
  const auto back = ParseConfigure(Payload(Encode(request).value()));
  ASSERT_TRUE(back) << back.error().message();
  EXPECT_EQ(back->hostname, request.hostname);
  EXPECT_EQ(back->machine_id, request.machine_id);
  EXPECT_TRUE(back->fresh_disk);
  EXPECT_EQ(back->dns, request.dns);
  EXPECT_EQ(back->resolvers, request.resolvers);
  EXPECT_EQ(back->wall_time_ns, request.wall_time_ns);
  EXPECT_EQ(back->entropy, request.entropy);
  EXPECT_EQ(back->env, request.env);
  EXPECT_EQ(back->working_dir, "/srv");
  EXPECT_EQ(back->user, "1000:1000");
}

TEST(MessagesTest, WhatIsNotSetStaysUnset) {
  const auto back = ParseConfigure(Payload(Encode(ConfigureRequest{}).value()));
  ASSERT_TRUE(back);
  EXPECT_FALSE(back->hostname);
  EXPECT_FALSE(back->wall_time_ns);
  EXPECT_TRUE(back->entropy.empty());
}

TEST(MessagesTest, ExecAndWorkloadComeBackAsTheyWentIn) {
  ExecRequest exec;
  exec.process = {{"ls", "-l", "a b"}, {{"K", "v"}}, "/tmp", "nobody"};
  exec.tty = true;
  exec.stdin_open = true;
  exec.size = {50, 132};
  const auto back = ParseExec(Payload(Encode(exec).value()));
  ASSERT_TRUE(back) << back.error().message();
  EXPECT_EQ(back->process.argv, exec.process.argv);
  EXPECT_EQ(back->process.env, exec.process.env);
  EXPECT_TRUE(back->tty);
  EXPECT_TRUE(back->stdin_open);
  EXPECT_EQ(back->size.columns, 132);

  const auto start =
      ParseStartWorkload(Payload(Encode(StartWorkloadRequest{"id", exec.process, true}).value()));
  ASSERT_TRUE(start);
  EXPECT_EQ(start->id, "id");
  EXPECT_EQ(start->process.user, "nobody");
  EXPECT_TRUE(start->console);
}

TEST(MessagesTest, SmallRequestsComeBackAsTheyWentIn) {
  EXPECT_EQ(ParseWorkloadStatusRequest(Payload(Encode(WorkloadStatusRequest{77})))->wait_ms, 77U);
  EXPECT_EQ(ParseStopWorkload(Payload(Encode(StopWorkloadRequest{5})))->grace_ms, 5U);
  const auto logs = ParseLogs(Payload(Encode(LogsRequest{9, true})));
  ASSERT_TRUE(logs);
  EXPECT_EQ(logs->tail_bytes, 9U);
  EXPECT_TRUE(logs->follow);
  const auto off = ParsePowerOff(Payload(Encode(PowerOffRequest{true, 3})));
  ASSERT_TRUE(off);
  EXPECT_TRUE(off->reboot);
  EXPECT_EQ(off->grace_ms, 3U);
}

TEST(MessagesTest, AHealthReplyTellsTheWorkloadsEnd) {
  HealthReply reply;
  reply.agent_version = "0.1.0";
  reply.boot_id = "b";
  reply.uptime_ms = 5;
  reply.warnings = {"did not grow"};
  reply.workload = {WorkloadState::kExited, "w", {0, 9}, 10, 20};
  const auto back = ParseHealthReply(Payload(EncodeReply(reply)));
  ASSERT_TRUE(back) << back.error().message();
  EXPECT_EQ(back->workload.state, WorkloadState::kExited);
  EXPECT_EQ(back->workload.exit.signal, 9U);
  EXPECT_EQ(back->workload.finished_at_ms, 20);
  EXPECT_EQ(back->warnings, reply.warnings);
}

TEST(MessagesTest, TooMuchEnvironmentIsRefusedByName) {
  ExecRequest exec;
  exec.process.argv = {"x"};
  exec.process.env = {{"BIG", std::string(kMaxPayloadBytes, 'x')}};
  const auto frame = Encode(exec);
  ASSERT_FALSE(frame);
  EXPECT_EQ(frame.error().code(), ErrorCode::kInvalid);
  EXPECT_NE(frame.error().message().find("environment"), std::string::npos);
}

TEST(MessagesTest, TextThatIsNotUtf8DoesNotThrow) {
  ExecRequest exec;
  exec.process.argv = {"\xff\xfe"};
  EXPECT_TRUE(Encode(exec));
  EXPECT_FALSE(EncodeError(Error(ErrorCode::kInternal, "\xff")).empty());
}

TEST(MessagesTest, HostileRequestsAreRefused) {
  const std::string deep(60000, '[');
  const char* const execs[] = {
      "",
      "{",
      "[]",
      "null",
      "1",
      "{}",
      R"({"process":[]})",
      R"({"process":{}})",
      R"({"process":{"argv":[]}})",
      R"({"process":{"argv":[""]}})",
      R"({"process":{"argv":[1]}})",
      R"({"process":{"argv":"ls"}})",
      R"({"process":{"argv":["a\u0000b"]}})",
      R"({"process":{"argv":["a"],"env":{"A":"b"}}})",
      R"({"process":{"argv":["a"],"env":[["A=","b"]]}})",
      R"({"process":{"argv":["a"],"env":[["","b"]]}})",
      R"({"process":{"argv":["a"],"env":[["A"]]}})",
      R"({"process":{"argv":["a"]},"tty":1})",
      R"({"process":{"argv":["a"]},"rows":65536})",
      R"({"process":{"argv":["a"]},"rows":-1})",
      R"({"process":{"argv":["a"]},"rows":1.5})",
      deep.c_str(),
  };
  for (const char* json : execs) {
    const auto parsed = ParseExec(json);
    ASSERT_FALSE(parsed) << std::string_view(json).substr(0, 80);
    EXPECT_EQ(parsed.error().code(), ErrorCode::kInvalid);
  }
  for (const char* json :
       {R"({"entropy":"00"})", R"({"entropy":"0"})", R"({"hostname":""})",
        R"({"entropy":"zz000000000000000000000000000000"})", R"({"wallTimeNs":-1})",
        R"({"wallTimeNs":18446744073709551615})", R"({"wallTimeNs":"now"})"}) {
    EXPECT_FALSE(ParseConfigure(json)) << json;
  }
  EXPECT_FALSE(ParseWorkloadStatusRequest(R"({"waitMs":60001})"));
}

TEST(MessagesTest, HostileAnswersAreRefused) {
  for (const char* json :
       {"{}", R"({"agentVersion":"1","bootId":"b"})", R"({"agentVersion":1,"bootId":"b"})",
        R"({"agentVersion":"1","bootId":"b","workload":{"state":"flying"}})",
        R"({"agentVersion":"1","bootId":"b","workload":{"state":"none","exitCode":256}})"}) {
    EXPECT_FALSE(ParseHealthReply(json)) << json;
  }
  EXPECT_FALSE(ParseHealthReply(R"({"agentVersion":")" + std::string(65, 'v') +
                                R"(","bootId":"b","workload":{"state":"none"}})"));
  EXPECT_FALSE(ParseWorkloadStatus("[]"));
}

TEST(MessagesTest, AnErrorKeepsItsCodeButMayNotCallItselfCorrupt) {
  const Error back = ParseError(Payload(EncodeError(Error(ErrorCode::kNotFound, "no such file"))));
  EXPECT_EQ(back.code(), ErrorCode::kNotFound);
  EXPECT_EQ(back.message(), "no such file");
  EXPECT_EQ(ParseError(R"({"code":"Corrupt","message":"x"})").code(), ErrorCode::kInternal);
  EXPECT_EQ(ParseError(R"({"code":"Whatever"})").code(), ErrorCode::kInternal);
  EXPECT_EQ(ParseError("garbage").code(), ErrorCode::kCorrupt);
  EXPECT_LE(ParseError(Payload(EncodeError(Error(ErrorCode::kInternal, std::string(9999, 'm')))))
                .message()
                .size(),
            kMaxErrorText);
}

}  // namespace
}  // namespace dormouse::guest
