#include "src/common/kube/token_source.h"

#include <gmock/gmock.h>
#include <stdlib.h>

#include "src/common/base/files.h"
#include "src/common/kube/exec_plugin.h"

namespace dormouse::kube {
namespace {

using namespace std::chrono_literals;
using testing::HasSubstr;

constexpr char kApi[] = "client.authentication.k8s.io/v1";

class TokenFileTest : public testing::Test {
 protected:
  TokenFileTest() {
    char name[] = "/tmp/dormouse-token-test-XXXXXX";
    directory_ = ::mkdtemp(name);
    Write("first\n");
    ClusterConfig config;
    config.token_file = Path();
    source_ = MakeTokenSource(config, clock_);
  }
  ~TokenFileTest() override { EXPECT_TRUE(RemoveTree(directory_)); }
  std::string Path() const { return directory_ + "/token"; }
  void Write(const std::string& text) { EXPECT_TRUE(WriteFileAtomically(Path(), text)); }
  std::string Token() { return source_->Get()->token; }

  FakeClock clock_;
  std::string directory_;
  std::unique_ptr<TokenSource> source_;
};

TEST_F(TokenFileTest, ARotatedTokenIsSeenWithinAMinute) {
  EXPECT_EQ(Token(), "first");
  Write("second");
  EXPECT_EQ(Token(), "first");
  clock_.Advance(50s);
  EXPECT_EQ(Token(), "second");
}

TEST_F(TokenFileTest, A401MakesItLookAtOnce) {
  EXPECT_EQ(Token(), "first");
  Write("second");
  source_->Drop({"first", "", ""});
  EXPECT_EQ(Token(), "second");
  Write("third");
  source_->Drop({"first", "", ""});
  EXPECT_EQ(Token(), "second") << "a late 401 of an older token says nothing about this one";
}

TEST_F(TokenFileTest, TheOldTokenIsKeptWhenTheFileIsGone) {
  EXPECT_EQ(Token(), "first");
  ASSERT_TRUE(RemoveFile(Path()));
  clock_.Advance(1h);
  EXPECT_EQ(Token(), "first");
  Write("second");
  clock_.Advance(10s);
  EXPECT_EQ(Token(), "second");
}

TEST(TokenSourceTest, NoFileFromTheStartIsAnError) {
  ClusterConfig config;
  config.token_file = "/nonexistent/token";
  EXPECT_EQ(MakeTokenSource(config)->Get().error().code(), ErrorCode::kNotFound);
}

TEST(ExecCredentialTest, WhatIsWrongIsNamed) {
  const auto message = [](const std::string& text) {
    const auto credential = ParseExecCredential(text, kApi);
    EXPECT_FALSE(credential) << text;
    return credential ? "" : credential.error().message();
  };
  const std::string head =
      "{\"kind\":\"ExecCredential\",\"apiVersion\":\"" + std::string(kApi) + "\"";
  EXPECT_THAT(message("hello"), HasSubstr("no JSON object"));
  EXPECT_THAT(message("{}"), HasSubstr("no ExecCredential"));
  EXPECT_THAT(message("{\"kind\":\"ExecCredential\",\"apiVersion\":\"v0\"}"),
              HasSubstr("answered in 'v0'"));
  EXPECT_THAT(message(head + "}"), HasSubstr("no status"));
  EXPECT_THAT(message(head + ",\"status\":{}}"), HasSubstr("neither a token"));
  EXPECT_THAT(message(head + ",\"status\":{\"clientKeyData\":\"k\"}}"), HasSubstr("without its"));
  EXPECT_THAT(message(head + ",\"status\":{\"token\":\"a\\nX: b\"}}"), HasSubstr("line break"));
  EXPECT_THAT(message(head + ",\"status\":{\"token\":\"a\",\"expirationTimestamp\":\"soon\"}}"),
              HasSubstr("soon"));
}

class ExecPluginTest : public testing::Test {
 protected:
  ExecConfig Config(std::vector<std::string> args) {
    return {.api_version = kApi,
            .command = "/usr/bin/python3",
            .args = std::move(args),
            .env = {{"NAME", "it's $HOME; `id`"}}};
  }
  FakeClock clock_;
};

TEST_F(ExecPluginTest, RunsOnceAndKeepsTheAnswerUntilItExpires) {
  auto plugin = MakeExecPlugin(Config({"-c", R"(
import json, os, time
info = json.loads(os.environ["KUBERNETES_EXEC_INFO"])
print(json.dumps({"kind": "ExecCredential", "apiVersion": info["apiVersion"], "status": {
  "token": os.environ["NAME"] + str(time.monotonic_ns()), "expirationTimestamp": "2026-01-01T01:00:00Z"}}))
)"}),
                               30s, clock_);
  const auto first = plugin->Get();
  ASSERT_TRUE(first) << first.error().message();
  EXPECT_THAT(first->token, testing::StartsWith("it's $HOME; `id`")) << "no shell has read it";
  EXPECT_EQ(*plugin->Get(), *first);
  plugin->Drop(*first);
  const auto second = plugin->Get();
  EXPECT_NE(*second, *first);
  clock_.Advance(1h);
  EXPECT_NE(*plugin->Get(), *second);
}

TEST_F(ExecPluginTest, APluginTrustsWhomTheUserTrusts) {
  ::setenv("SSL_CERT_FILE", kNoCertFile, 1);
  ::setenv("SSL_CERT_DIR", "/the/users/own", 1);
  auto plugin = MakeExecPlugin(Config({"-c", R"(
import json, os
print(json.dumps({"kind": "ExecCredential", "apiVersion": "client.authentication.k8s.io/v1", "status": {
  "token": os.environ.get("SSL_CERT_FILE", "unset") + os.environ.get("SSL_CERT_DIR", "unset")}}))
)"}),
                               30s, clock_);
  const auto identity = plugin->Get();
  ::unsetenv("SSL_CERT_FILE");
  ::unsetenv("SSL_CERT_DIR");
  ASSERT_TRUE(identity) << identity.error().message();
  EXPECT_EQ(identity->token, "unset/the/users/own");
}

TEST_F(ExecPluginTest, APluginThatHangsIsKilledInTime) {
  auto plugin = MakeExecPlugin(Config({"-c", "import time; time.sleep(600)"}), 1s, clock_);
  EXPECT_EQ(plugin->Get().error().code(), ErrorCode::kDeadline);
}

TEST_F(ExecPluginTest, AFailureSaysHow) {
  auto plugin = MakeExecPlugin(Config({"-c", "import sys; sys.exit(3)"}), 30s, clock_);
  EXPECT_THAT(plugin->Get().error().message(), HasSubstr("exit code 3"));
  auto missing = MakeExecPlugin(
      {.api_version = kApi, .command = "/nonexistent/login", .install_hint = "get it"});
  EXPECT_THAT(missing->Get().error().message(), HasSubstr("(get it)"));
}

}  // namespace
}  // namespace dormouse::kube
