#include "node-agent/serve/ctl_protocol.h"

#include <gtest/gtest.h>

namespace dormouse {
namespace {

CtlRequest RoundTrip(const CtlRequest& request) {
  const auto line = EncodeCtlRequest(request);
  EXPECT_TRUE(line) << line.error().message();
  EXPECT_EQ(line->back(), '\n');
  const auto parsed = ParseCtlRequest(std::string_view(*line).substr(0, line->size() - 1));
  EXPECT_TRUE(parsed) << parsed.error().message();
  return parsed.value_or(CtlRequest{});
}

TEST(CtlProtocolTest, RequestsArriveAsTheyWereSent) {
  CtlRequest exec{.verb = CtlVerb::kExec, .sandbox = {"team-a", "web"}};
  exec.exec = guest::ExecRequest{};
  exec.exec->process.argv = {"sh", "-c", "echo \"a\nb\""};
  exec.exec->process.env = {{"A", "1"}};
  exec.exec->tty = true;
  exec.exec->stdin_open = true;
  exec.exec->size = {50, 132};
  const CtlRequest got = RoundTrip(exec);
  EXPECT_EQ(got.verb, CtlVerb::kExec);
  EXPECT_EQ(got.sandbox.ToString(), "team-a/web");
  ASSERT_TRUE(got.exec.has_value());
  EXPECT_EQ(got.exec->process.argv, exec.exec->process.argv);
  EXPECT_EQ(got.exec->process.env, exec.exec->process.env);
  EXPECT_TRUE(got.exec->tty);
  EXPECT_EQ(got.exec->size.columns, 132);

  const CtlRequest logs =
      RoundTrip({.verb = CtlVerb::kLogs, .sandbox = {"default", "x"}, .lines = 5, .follow = true});
  EXPECT_EQ(logs.lines, 5U);
  EXPECT_TRUE(logs.follow);
  EXPECT_TRUE(RoundTrip({.verb = CtlVerb::kSweep, .remove = true}).remove);
  EXPECT_EQ(RoundTrip({.verb = CtlVerb::kList}).verb, CtlVerb::kList);
}

TEST(CtlProtocolTest, WhatIsNoRequestIsRefused) {
  for (const std::string bad :
       {"", "x", "[]", "1", "null", R"({})", R"({"verb":1})", R"({"verb":"rm"})",
        R"({"verb":"show"})", R"({"verb":"show","sandbox":"../../etc"})",
        R"({"verb":"show","sandbox":"a/b/c"})", R"({"verb":"show","sandbox":""})",
        R"({"verb":"sweep","remove":"yes"})", R"({"verb":"logs","sandbox":"a/b","lines":-1})",
        R"({"verb":"exec","sandbox":"a/b"})", R"({"verb":"exec","sandbox":"a/b","exec":{}})",
        R"({"verb":"exec","sandbox":"a/b","exec":[1]})", "{\"verb\":\"list\"", "\xff\xfe"}) {
    const auto parsed = ParseCtlRequest(bad);
    ASSERT_FALSE(parsed) << bad;
    EXPECT_EQ(parsed.error().code(), ErrorCode::kInvalid)
        << bad << ": " << parsed.error().message();
  }
}

TEST(CtlProtocolTest, DeeplyNestedTextCostsNoStack) {
  EXPECT_FALSE(ParseCtlRequest(std::string(90'000, '[')));
  EXPECT_FALSE(ParseCtlRequest(R"({"verb":)" + std::string(80'000, '[')));
}

TEST(CtlProtocolTest, ACommandTooLargeForARequestIsRefusedBeforeItIsSent) {
  CtlRequest exec{.verb = CtlVerb::kExec, .sandbox = {"default", "web"}};
  exec.exec = guest::ExecRequest{};
  exec.exec->process.argv = {"echo", std::string(200'000, 'x')};
  EXPECT_FALSE(EncodeCtlRequest(exec));
}

TEST(CtlProtocolTest, ANameAloneIsInTheDefaultNamespace) {
  EXPECT_EQ(ParseSandboxName("web").value().ToString(), "default/web");
  EXPECT_EQ(ParseSandboxName("a/b").value().ToString(), "a/b");
  for (const std::string bad :
       {"", "/", "a/", "/b", "A/b", "a/b/c", "..", "a/..", "a b", "a/b\n"}) {
    EXPECT_FALSE(ParseSandboxName(bad)) << bad;
  }
}

}  // namespace
}  // namespace dormouse
