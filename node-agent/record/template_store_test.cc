#include "node-agent/record/template_store.h"

#include <fcntl.h>
#include <gtest/gtest.h>
#include <poll.h>
#include <sys/fanotify.h>
#include <unistd.h>

#include <future>

#include "node-agent/host/test_support.h"
#include "src/common/base/files.h"
#include "src/common/base/unique_fd.h"

namespace dormouse {
namespace {

using namespace std::chrono_literals;

const api::SandboxUid kOne = *api::SandboxUid::Parse("0b9c1f0e-8a52-4a39-9d0c-6f3c1f1f7a11");
const api::SandboxUid kTwo = *api::SandboxUid::Parse("0b9c1f0e-8a52-4a39-9d0c-6f3c1f1f7a22");

class TemplateStoreTest : public ::testing::Test {
 protected:
  TemplateStoreTest() {
    paths_.state = scratch_ / "state";
    paths_.run = scratch_ / "run";
    store_.emplace(paths_, "c1");
  }
  void SetUp() override { ASSERT_OK(store_->Load()); }
  void Add(const api::SandboxUid& uid) {
    ASSERT_OK(MakeDirectories(paths_.Template(uid) + "/large/inside"));
    TemplateRecord record;
    record.uid = uid;
    record.name = uid.short_id();
    ASSERT_OK(store_->Commit(record));
  }

  const host::ScratchDirectory scratch_;
  Paths paths_;
  std::optional<TemplateStore> store_;
};

// Whoever opens a directory waits as long as this is there, as for a file of many gigabytes.
class SlowDirectory {
 public:
  explicit SlowDirectory(const std::string& path)
      : events_(::fanotify_init(FAN_CLASS_CONTENT | FAN_CLOEXEC, O_RDONLY | O_CLOEXEC)) {
    held_ = events_ && ::fanotify_mark(events_.get(), FAN_MARK_ADD, FAN_OPEN_PERM | FAN_ONDIR,
                                       AT_FDCWD, path.c_str()) == 0;
  }
  [[nodiscard]] bool held() const { return held_; }
  [[nodiscard]] bool WaitUntilSomebodyOpens() const {
    pollfd waiting{events_.get(), POLLIN, 0};
    return ::poll(&waiting, 1, 10'000) == 1;
  }
  // The kernel lets all go on that wait.
  void LetGo() { events_.Reset(); }

 private:
  UniqueFd events_;
  bool held_ = false;
};

TEST_F(TemplateStoreTest, NobodyWaitsForTheFilesOfATemplateThatIsRemoved) {
  Add(kTwo);
  for (const bool committed : {true, false}) {
    if (committed) Add(kOne);
    ASSERT_OK(MakeDirectories(paths_.Template(kOne) + "/large/inside"));
    SlowDirectory large(paths_.Template(kOne) + "/large");
    if (!large.held()) GTEST_SKIP() << "fanotify is not ours to use";
    auto removal = std::async(std::launch::async, [&]() -> Result<> {
      if (committed) return store_->Remove(kOne);
      store_->Discard(kOne);
      return {};
    });
    ASSERT_TRUE(large.WaitUntilSomebodyOpens());
    auto others = std::async(std::launch::async, [&] {
      return store_->Find(kOne) == nullptr && store_->Find(kTwo) != nullptr &&
             store_->All().size() == 1;
    });
    EXPECT_EQ(others.wait_for(10s), std::future_status::ready) << "held up by a removal";
    EXPECT_FALSE(PathExists(paths_.Template(kOne))) << "a new capture may begin";
    large.LetGo();
    EXPECT_TRUE(others.get());
    EXPECT_OK(removal.get());
    EXPECT_TRUE(ListDirectory(paths_.Condemned())->empty());
  }
}

TEST_F(TemplateStoreTest, WhatAnAgentThatDiedHadNotRemovedGoesAtTheNextStart) {
  ASSERT_OK(MakeDirectories(paths_.Condemned() + "/7/large"));
  ASSERT_OK(store_->Load());
  EXPECT_FALSE(PathExists(paths_.Condemned()));
}

}  // namespace
}  // namespace dormouse
