#include "node-agent/node/node_facts.h"

#include <gtest/gtest.h>

#include <cstdlib>
#include <filesystem>
#include <string>

#include "node-agent/host/test_support.h"
#include "node-agent/node/node_name.h"

namespace dormouse {
namespace {

TEST(NodeFactsTest, TheCpuModelIsTheFirstProcessors) {
  EXPECT_EQ(CpuModelOf("processor\t: 0\nmodel name\t: QEMU TCG CPU version 2.5+\nprocessor\t: "
                       "1\nmodel name\t: other\n"),
            "QEMU TCG CPU version 2.5+");
  EXPECT_EQ(CpuModelOf("processor: 0\nCPU part\t: 0xd0c\n"), "0xd0c");
  EXPECT_EQ(CpuModelOf(""), "unknown");
  EXPECT_EQ(CpuModelOf("model name : a\x01z\n"), "a?z");
  EXPECT_LE(CpuModelOf("model name : " + std::string(4000, 'x')).size(), 256U);
}

TEST(NodeFactsTest, MemoryIsInBytes) {
  EXPECT_EQ(MemTotalOf("MemTotal:        3072 kB\nMemFree: 1 kB\n").value(), 3072 * 1024);
  EXPECT_FALSE(MemTotalOf("MemFree: 1 kB\n"));
  EXPECT_FALSE(MemTotalOf("MemTotal: much\n"));
}

TEST(NodeFactsTest, FileSystemsHaveTheirNames) {
  EXPECT_EQ(FileSystemName(0x58465342), "xfs");
  EXPECT_EQ(FileSystemName(0x9123683e), "btrfs");
  EXPECT_EQ(FileSystemName(0xef53), "ext4");
  EXPECT_EQ(FileSystemName(0xabc), "0xabc");
}

TEST(NodeFactsTest, ThisMachineCanBeRead) {
  const host::ScratchDirectory directory;
  const auto facts = ReadNodeFacts(directory.path());
  ASSERT_TRUE(facts) << facts.error().message();
  EXPECT_GE(facts->cpus, 1);
  EXPECT_GT(facts->memory_bytes, 64 << 20);
  EXPECT_FALSE(facts->kernel_version.empty());
  EXPECT_FALSE(facts->file_system.empty());
  EXPECT_TRUE(std::filesystem::is_empty(directory.path())) << "the probe left something behind";
}

TEST(NodeFactsTest, AStateDirectoryThatIsNotThereIsNamed) {
  const auto facts = ReadNodeFacts("/nonexistent/state");
  ASSERT_FALSE(facts);
  EXPECT_NE(facts.error().message().find("/nonexistent/state"), std::string::npos);
}

TEST(NodeNameTest, OnlyWhatKubernetesWouldNameANode) {
  EXPECT_EQ(NodeName::Parse("node-1.example.com").value().LeaseName(),
            "dormouse-node-node-1.example.com");
  for (const std::string bad :
       {"", "Node", "a/b", "../a", "a..b", "-a", "a-", "a.-b", ".a", "a b", "a,b=c"}) {
    EXPECT_FALSE(NodeName::Parse(bad)) << bad;
  }
  EXPECT_TRUE(NodeName::Parse(std::string(239, 'a')));
  EXPECT_FALSE(NodeName::Parse(std::string(240, 'a')));
}

}  // namespace
}  // namespace dormouse
