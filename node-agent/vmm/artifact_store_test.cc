#include "node-agent/vmm/artifact_store.h"

#include <gtest/gtest.h>
#include <sys/stat.h>

#include <cstdlib>
#include <filesystem>
#include <fstream>

#include "node-agent/host/test_support.h"
#include "src/common/base/files.h"
#include "src/common/base/hash.h"

namespace dormouse::vmm {
namespace {

namespace fs = std::filesystem;

class ArtifactStoreTest : public ::testing::Test {
 protected:
  void SetUp() override { std::ofstream(source()) << "kernel one"; }
  [[nodiscard]] std::string source() const { return directory_ / "vmlinuz"; }
  [[nodiscard]] ArtifactStore store() const { return ArtifactStore(directory_ / "artifacts"); }
  std::string Script(const std::string& text) {
    const std::string path = directory_ / "cloud-hypervisor";
    std::ofstream(path) << text;
    ::chmod(path.c_str(), 0755);
    return path;
  }
  const host::ScratchDirectory directory_;
};

TEST_F(ArtifactStoreTest, AnUpgradeOfTheSourceKeepsWhatSleepersName) {
  const auto first = store().Keep(source(), "vmlinuz");
  ASSERT_TRUE(first) << first.error().message();
  EXPECT_EQ(first->sha256, Sha256("kernel one"));
  EXPECT_EQ(first->path, directory_ / "artifacts/" + first->sha256 + "/vmlinuz");

  // In place, as a package manager's careless neighbour might.
  std::ofstream(source()) << "kernel two";
  const auto second = store().Keep(source(), "vmlinuz");
  ASSERT_TRUE(second);
  EXPECT_NE(second->sha256, first->sha256);
  EXPECT_EQ(*ReadFile(first->path, 100), "kernel one");
  EXPECT_TRUE(store().Find(first->sha256, "vmlinuz"));
}

TEST_F(ArtifactStoreTest, KeepingAgainChangesNothing) {
  const auto first = store().Keep(source(), "vmlinuz");
  ASSERT_TRUE(first);
  const auto time = fs::last_write_time(first->path);
  const auto again = store().Keep(source(), "vmlinuz");
  ASSERT_TRUE(again);
  EXPECT_EQ(again->path, first->path);
  EXPECT_EQ(fs::last_write_time(first->path), time);
  EXPECT_EQ(std::distance(fs::directory_iterator(fs::path(first->path).parent_path()), {}), 1);
}

TEST_F(ArtifactStoreTest, EveryVmmMayReadAndRunItAndNoneMayWriteIt) {
  const mode_t before = ::umask(0077);
  const auto kept = store().Keep(source(), "vmlinuz");
  ::umask(before);
  ASSERT_TRUE(kept);
  struct stat info {};
  ASSERT_EQ(::stat(kept->path.c_str(), &info), 0);
  EXPECT_EQ(info.st_mode & 07777, 0555u);
}

TEST_F(ArtifactStoreTest, NamesCannotLeaveTheStore) {
  EXPECT_EQ(store().Keep(source(), "../x").error().code(), ErrorCode::kInvalid);
  EXPECT_EQ(store().Keep(source(), "..").error().code(), ErrorCode::kInvalid);
  EXPECT_EQ(store().Find("../../etc", "passwd").error().code(), ErrorCode::kInvalid);
  EXPECT_EQ(store().Find(std::string(64, 'a'), "x/../../y").error().code(), ErrorCode::kInvalid);
  EXPECT_EQ(store().Find(std::string(64, 'a'), "vmlinuz").error().code(), ErrorCode::kNotFound);
  EXPECT_EQ(store().Keep(directory_ / "none", "vmlinuz").error().code(), ErrorCode::kNotFound);
}

TEST_F(ArtifactStoreTest, TheBinaryIsTheNamedOneElseThatOfThePath) {
  const std::string binary = Script("");
  EXPECT_EQ(*FindVmmBinary(binary, "/nonexistent"), binary);
  EXPECT_EQ(*FindVmmBinary("", "/nonexistent::relative:" + directory_.path()), binary);
  // A wrong wish is an error, and never quietly another binary.
  EXPECT_EQ(FindVmmBinary("/nonexistent/ch", directory_.path()).error().code(),
            ErrorCode::kNotFound);
  EXPECT_EQ(FindVmmBinary("", "/nonexistent").error().code(), ErrorCode::kNotFound);
  EXPECT_EQ(FindVmmBinary("", "").error().code(), ErrorCode::kNotFound);
}

TEST_F(ArtifactStoreTest, TheVersionIsWhatTheBinarySays) {
  EXPECT_EQ(
      *ReadVersionOutput(Script("#!/bin/echo cloud-hypervisor v53.0\n")).transform([](auto text) {
        return text.substr(0, 23);
      }),
      "cloud-hypervisor v53.0 ");
  EXPECT_FALSE(ReadVersionOutput(directory_ / "none"));
}

}  // namespace
}  // namespace dormouse::vmm
