#include "src/common/base/unix_socket.h"

#include <fcntl.h>
#include <gtest/gtest.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <unistd.h>

#include "src/common/base/files.h"

namespace dormouse {
namespace {

class UnixSocketTest : public testing::Test {
 protected:
  UnixSocketTest() {
    char name[] = "/tmp/dormouse-unix-socket-test-XXXXXX";
    directory_ = ::mkdtemp(name);
  }
  ~UnixSocketTest() override { EXPECT_TRUE(RemoveTree(directory_)); }
  [[nodiscard]] std::string Path(const std::string& name = "socket") const {
    return directory_ + "/" + name;
  }
  static ErrorCode CodeOf(const Result<UniqueFd>& result) {
    return result ? ErrorCode::kInternal : result.error().code();
  }

  std::string directory_;
};

TEST_F(UnixSocketTest, ConnectsToWhoListensAndSaysWhoThatIs) {
  const auto listener = ListenUnix(Path());
  ASSERT_TRUE(listener) << listener.error().message();
  struct stat info {};
  ASSERT_EQ(::stat(Path().c_str(), &info), 0);
  EXPECT_EQ(info.st_mode & 0777u, 0600u);
  const auto socket = ConnectUnix(Path());
  ASSERT_TRUE(socket) << socket.error().message();
  const auto peer = PeerOf(*socket);
  ASSERT_TRUE(peer);
  EXPECT_EQ(peer->pid, ::getpid());
  EXPECT_EQ(peer->uid, ::geteuid());
}

TEST_F(UnixSocketTest, APathMayBeLongerThanAnAddress) {
  std::string deep = directory_;
  for (int i = 0; i < 10; ++i) deep += "/a-directory-of-a-long-name";
  ASSERT_TRUE(MakeDirectories(deep));
  EXPECT_EQ(CodeOf(ListenUnix(deep + "/socket")), ErrorCode::kInvalid);
  const auto listener = ListenUnix(Path());
  ASSERT_TRUE(listener);
  ASSERT_EQ(::rename(Path().c_str(), (deep + "/socket").c_str()), 0);
  EXPECT_TRUE(ConnectUnix(deep + "/socket"));
}

TEST_F(UnixSocketTest, SaysWhyItDoesNotConnect) {
  EXPECT_EQ(CodeOf(ConnectUnix(Path())), ErrorCode::kNotFound);
  { ASSERT_TRUE(ListenUnix(Path())); }
  EXPECT_EQ(CodeOf(ConnectUnix(Path())), ErrorCode::kUnavailable) << "nobody listens any more";
}

TEST_F(UnixSocketTest, AFullBacklogIsUnavailable) {
  const auto listener = ListenUnix(Path(), 0);
  ASSERT_TRUE(listener);
  const auto waits = ConnectUnix(Path());
  ASSERT_TRUE(waits);
  EXPECT_EQ(CodeOf(ConnectUnix(Path(), std::chrono::milliseconds(1))), ErrorCode::kUnavailable);
}

TEST_F(UnixSocketTest, ALinkIsNotFollowed) {
  const auto listener = ListenUnix(Path());
  ASSERT_TRUE(listener);
  ASSERT_EQ(::symlink(Path().c_str(), Path("link").c_str()), 0);
  EXPECT_FALSE(ConnectUnix(Path("link")));
}

TEST_F(UnixSocketTest, OnlyASocketThatNobodyListensOnIsRemoved) {
  EXPECT_TRUE(RemoveDeadSocket(Path()));
  {
    const auto listener = ListenUnix(Path());
    ASSERT_TRUE(listener);
    EXPECT_EQ(RemoveDeadSocket(Path()).error().code(), ErrorCode::kBusy);
    EXPECT_EQ(CodeOf(ListenUnix(Path())), ErrorCode::kBusy);
  }
  EXPECT_TRUE(RemoveDeadSocket(Path()));
  EXPECT_FALSE(PathExists(Path()));

  ASSERT_TRUE(WriteFileAtomically(Path("file"), "somebody's"));
  EXPECT_TRUE(RemoveDeadSocket(Path("file")));
  EXPECT_TRUE(PathExists(Path("file")));
}

}  // namespace
}  // namespace dormouse
