#include "node-agent/host/loop.h"

#include <fcntl.h>
#include <gmock/gmock.h>
#include <gtest/gtest.h>
#include <unistd.h>

#include <chrono>
#include <thread>

#include "node-agent/host/sparse_files.h"
#include "node-agent/host/test_support.h"

namespace dormouse::host {
namespace {

class LoopTest : public ::testing::Test {
 protected:
  void SetUp() override {
    if (!IsRoot()) GTEST_SKIP() << "needs root";
    auto opened = OpenLoopDevices(scratch_ / "nodes");
    if (!opened) GTEST_SKIP() << "no loop devices here: " << opened.error().message();
    loops_ = *std::move(opened);
    MakeFile("store", 4 << 20);
  }
  void TearDown() override {
    if (!loops_) return;
    const auto left = loops_->List(Tag(""));
    for (const auto& loop : *left) EXPECT_OK(DetachBesideOthers(loop));
  }
  void MakeFile(const std::string& name, off_t size) {
    auto file = OpenFile(scratch_ / name, O_RDWR | O_CREAT);
    ASSERT_OK(file);
    ASSERT_EQ(::ftruncate(file->get(), size), 0);
  }
  // Tests that run beside this one open every loop of the machine to look at it: for that long a
  // detach is for later, and says so.
  Result<> DetachBesideOthers(const LoopDevice& loop) {
    Result<> detached;
    const auto detach = [&] {
      detached = loops_->Detach(loop);
      return detached || detached.error().code() != ErrorCode::kBusy;
    };
    (void)Eventually(detach, std::chrono::seconds(30));
    return detached;
  }
  static std::string Tag(const std::string& name) {
    return "dormouse-t" + std::to_string(::getpid()) + "-" + name;
  }

  ScratchDirectory scratch_;
  std::unique_ptr<LoopDevices> loops_;
};

TEST_F(LoopTest, OneLoopPerFileHoweverOftenItIsAsked) {
  const auto first = loops_->Attach(scratch_ / "store", {Tag("store")});
  ASSERT_OK(first);
  const auto again = loops_->Attach(scratch_ / "store", {Tag("store")});
  ASSERT_OK(again);
  EXPECT_EQ(first->index, again->index);
  ASSERT_EQ(::link((scratch_ / "store").c_str(), (scratch_ / "other-name").c_str()), 0);
  EXPECT_EQ(loops_->Attach(scratch_ / "other-name", {Tag("second")}).error().code(),
            ErrorCode::kAlreadyExists);
}

TEST_F(LoopTest, ParallelCallersGetOneLoopOrAreTurnedAway) {
  std::vector<int> indices(4, -1);
  std::vector<std::thread> threads;
  for (int& index : indices) {
    threads.emplace_back([&] {
      const auto loop = loops_->Attach(scratch_ / "store", {Tag("store")});
      if (loop) index = loop->index;
    });
  }
  for (auto& thread : threads) thread.join();
  EXPECT_EQ(loops_->List(Tag("")).value().size(), 1U);
}

TEST_F(LoopTest, IsFoundByFileAndByTagAndGoneAfterDetach) {
  const auto loop = loops_->Attach(scratch_ / "store", {Tag("store"), /*read_only=*/true});
  ASSERT_OK(loop);
  EXPECT_TRUE(loop->read_only);
  EXPECT_EQ(loops_->FindByFile(scratch_ / "store").value()->index, loop->index);
  ASSERT_EQ(::unlink((scratch_ / "store").c_str()), 0);
  EXPECT_EQ(loops_->FindByTag(Tag("store")).value()->index, loop->index)
      << "also when its file is gone";
  ASSERT_OK(DetachBesideOthers(*loop));
  EXPECT_FALSE(loops_->FindByTag(Tag("store")).value().has_value());
  EXPECT_OK(loops_->Detach(*loop));
}

TEST_F(LoopTest, WhatAnEarlierProcessAttachedIsFoundAndWhatOthersDetachedIsNot) {
  ASSERT_FALSE(loops_->FindByTag(Tag("store")).value());
  const auto loop = loops_->Attach(scratch_ / "store", {Tag("store")});
  ASSERT_OK(loop);
  const auto successor = *OpenLoopDevices(scratch_ / "successor");
  EXPECT_EQ(successor->FindByTag(Tag("store")).value()->index, loop->index);
  EXPECT_EQ(successor->FindByFile(scratch_ / "store").value()->index, loop->index);
  EXPECT_EQ(successor->Attach(scratch_ / "store", {Tag("store")})->index, loop->index);
  ASSERT_OK(DetachBesideOthers(*loop));
  EXPECT_FALSE(successor->FindByTag(Tag("store")).value());
  EXPECT_FALSE(successor->FindByFile(scratch_ / "store").value());
  const auto anew = successor->Attach(scratch_ / "store", {Tag("store")});
  ASSERT_OK(anew);
  EXPECT_EQ(successor->FindByTag(Tag("store")).value()->index, anew->index);
}

TEST_F(LoopTest, ALoopThatIsOpenIsBusyNotDetachedLater) {
  const auto loop = loops_->Attach(scratch_ / "store", {Tag("store")});
  ASSERT_OK(loop);
  {
    auto opener = OpenFile(scratch_ / ("nodes/loop" + std::to_string(loop->index)), O_RDONLY);
    ASSERT_OK(opener);
    EXPECT_EQ(loops_->Detach(*loop).error().code(), ErrorCode::kBusy);
  }
  EXPECT_OK(DetachBesideOthers(*loop));
}

TEST_F(LoopTest, RefusesATagThatIsNotOurs) {
  EXPECT_EQ(loops_->Attach(scratch_ / "store", {"x"}).error().code(), ErrorCode::kInvalid);
  EXPECT_EQ(loops_->Attach(scratch_ / "missing", {Tag("x")}).error().code(), ErrorCode::kNotFound);
}

}  // namespace
}  // namespace dormouse::host
