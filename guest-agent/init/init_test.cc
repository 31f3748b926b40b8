// The parts of PID 1 that need no machine of their own.
#include <gtest/gtest.h>

#include <cstdlib>
#include <filesystem>

#include "guest-agent/init/files.h"
#include "guest-agent/init/modules.h"
#include "guest-agent/init/root_disk.h"
#include "guest-agent/init/stillness.h"

namespace dormouse::guest {
namespace {

class InitTest : public testing::Test {
 protected:
  void SetUp() override {
    char name[] = "/tmp/guest-init-test-XXXXXX";
    directory_ = ::mkdtemp(name);
  }
  void TearDown() override { std::filesystem::remove_all(directory_); }
  std::string directory_;
};

TEST(RootDiskTest, FileSystemsAreToldByTheirMagic) {
  const auto disk = [](size_t at, std::string_view magic) {
    std::string bytes(kSuperblockBytes, '\0');
    bytes.replace(at, magic.size(), magic);
    return bytes;
  };
  EXPECT_EQ(DetectFileSystem(disk(1080, "\x53\xef")), "ext4");
  EXPECT_EQ(DetectFileSystem(disk(0, "XFSB")), "xfs");
  EXPECT_EQ(DetectFileSystem(disk(0x10040, "_BHRfS_M")), "btrfs");
  EXPECT_EQ(DetectFileSystem(disk(0, "")), "");
  EXPECT_EQ(DetectFileSystem(""), "");
  EXPECT_EQ(DetectFileSystem(disk(1080, "\x53\xef").substr(0, 1081)), "");
}

TEST(ModulesTest, TheListIsReadInOrder) {
  const auto list = ParseModuleList("disk virtio.ko\ndisk virtio_blk.ko\n\nnet virtio_net.ko");
  ASSERT_TRUE(list);
  ASSERT_EQ(list->size(), 3U);
  EXPECT_EQ((*list)[1].second, "virtio_blk.ko");
  EXPECT_EQ((*list)[2].first, "net");
  for (const char* bad : {"disk", "disk ", " virtio.ko", "disk a b", "disk ../virtio.ko"}) {
    EXPECT_FALSE(ParseModuleList(bad)) << bad;
  }
}

TEST_F(InitTest, DirectoriesAreMadeWithAllThatLeadsToThem) {
  ASSERT_TRUE(MakeDirectories(directory_ + "/a/b"));
  EXPECT_TRUE(std::filesystem::is_directory(directory_ + "/a/b"));
  EXPECT_TRUE(MakeDirectories(directory_ + "/a/b")) << "twice is fine";
  EXPECT_TRUE(MakeDirectories("")) << "what leads to /tmp";
}

TEST_F(InitTest, NoListIsNoModulesAndAMissingFileIsSaid) {
  auto none = ModuleSet::Open(directory_);
  ASSERT_TRUE(none);
  EXPECT_TRUE(none->Load("disk"));
  ASSERT_TRUE(WriteSmallFile(directory_ + "/list", "disk nowhere.ko\n"));
  const auto missing = ModuleSet::Open(directory_);
  ASSERT_FALSE(missing);
  EXPECT_NE(missing.error().message().find("nowhere.ko"), std::string::npos);
}

TEST_F(InitTest, AKernelIsToldToStandStillAsFarAsItCan) {
  const std::string sysctls = directory_ + "/proc/sys";
  const std::string rcu = directory_ + "/sys/module/rcupdate/parameters";
  for (const std::string& directory : {sysctls + "/vm", sysctls + "/kernel", rcu})
    std::filesystem::create_directories(directory);
  ASSERT_TRUE(WriteSmallFile(sysctls + "/vm/stat_interval", "1\n"));
  ASSERT_TRUE(WriteSmallFile(sysctls + "/kernel/soft_watchdog", "1\n"));
  ASSERT_TRUE(WriteSmallFile(rcu + "/rcu_cpu_stall_suppress", "0\n"));
  ASSERT_TRUE(KeepStill(directory_));
  EXPECT_EQ(*ReadSmallFile(sysctls + "/vm/stat_interval"), "60");
  EXPECT_EQ(*ReadSmallFile(sysctls + "/kernel/soft_watchdog"), "0");
  EXPECT_EQ(*ReadSmallFile(rcu + "/rcu_cpu_stall_suppress"), "1");
  EXPECT_FALSE(std::filesystem::exists(sysctls + "/vm/compaction_proactiveness"))
      << "an older kernel's";
}

}  // namespace
}  // namespace dormouse::guest
