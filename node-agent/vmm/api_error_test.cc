#include "node-agent/vmm/api_error.h"

#include <gtest/gtest.h>

namespace dormouse::vmm {
namespace {

// Bodies as v53.0 sent them.
constexpr const char* kNoDisk =
    R"(["Error from API","The VM could not boot","Error from device manager","Cannot open disk path",)"
    R"_("I/O error (path=/x op=open)","No such file or directory (os error 2)"])_";
constexpr const char* kOversize =
    "{ \"error\": \"Request payload with size 51201 is larger than the limit of 51200 allowed by "
    "server.\nAll previous unanswered requests will be dropped.\" }";

TEST(ApiErrorTest, AChainIsToldFromOutermostToInnermost) {
  const Error error = ErrorFromResponse("vm.boot", 500, kNoDisk);
  EXPECT_EQ(
      error.message(),
      "vm.boot: HTTP 500: The VM could not boot: Error from device manager: Cannot open disk path: "
      "I/O error (path=/x op=open): No such file or directory (os error 2)");
  EXPECT_EQ(error.code(), ErrorCode::kInternal);
}

TEST(ApiErrorTest, ABodyWithARawNewlineIsTakenAsText) {
  const Error error = ErrorFromResponse("vm.create", 400, kOversize);
  EXPECT_EQ(error.code(), ErrorCode::kInvalid);
  EXPECT_NE(error.message().find("larger than the limit of 51200 allowed by server. All previous"),
            std::string::npos);
  EXPECT_EQ(error.message().find('\n'), std::string::npos);
}

TEST(ApiErrorTest, StatusAndInnermostCauseDecideTheCode) {
  const struct {
    int status;
    const char* body;
    ErrorCode code;
  } cases[] = {
      {400, R"(["Bad Request"])", ErrorCode::kInvalid},
      {400, "", ErrorCode::kInvalid},
      {404, R"(["Error from API","The VM info is not available","VM is not created"])",
       ErrorCode::kNotFound},
      {429, R"(["Too Many Requests"])", ErrorCode::kBusy},
      {503, R"({ "error": "Too many open connections" })", ErrorCode::kUnavailable},
      {500, R"(["Error from API","x","Error locking disk images","The file is already locked"])",
       ErrorCode::kBusy},
      {500, R"_(["Error from API","x","Address already in use (os error 98)"])_", ErrorCode::kBusy},
      {500, R"_(["Error from API","x","File exists (os error 17)"])_", ErrorCode::kAlreadyExists},
      {500, R"_(["Error from API","x","No space left on device (os error 28)"])_",
       ErrorCode::kNoSpace},
      {500, R"_(["Error from API","x","Permission denied (os error 13)"])_",
       ErrorCode::kPermission},
      {500, R"(["Error from API","The VM could not be paused","VM is not running"])",
       ErrorCode::kInternal},
      {500, "", ErrorCode::kInternal},
  };
  for (const auto& c : cases) {
    EXPECT_EQ(ErrorFromResponse("vm.x", c.status, c.body).code(), c.code) << c.body;
  }
}

TEST(ApiErrorTest, AHostileBodyStaysSmallAndHarmless) {
  std::string many = "[";
  for (int i = 0; i < 1000; ++i) many += "\"cause " + std::to_string(i) + "\",";
  many += "\"File exists (os error 17)\"]";
  const auto chain = ParseErrorChain(many);
  EXPECT_EQ(chain.size(), 16u);
  EXPECT_EQ(chain.front(), "cause 0");
  EXPECT_EQ(chain.back(), "File exists (os error 17)");

  EXPECT_EQ(ParseErrorChain("[\"" + std::string(100'000, 'x') + "\"]").front().size(), 1024u);
  EXPECT_EQ(ParseErrorChain(std::string(100'000, '[')).front().size(), 1024u);
  EXPECT_EQ(ParseErrorChain("[1,2]").front(), "[1,2]");
  EXPECT_TRUE(ParseErrorChain("[]").empty());
  EXPECT_EQ(ParseErrorChain("[\"a\\u001b[31mb\"]").front(), "a [31mb");
}

}  // namespace
}  // namespace dormouse::vmm
