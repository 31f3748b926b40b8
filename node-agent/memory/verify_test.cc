#include "node-agent/memory/verify.h"

#include <fcntl.h>
#include <gmock/gmock.h>
#include <gtest/gtest.h>
#include <unistd.h>

#include "node-agent/host/test_support.h"
#include "src/common/base/files.h"
#include "src/common/base/hash.h"
#include "src/common/base/unique_fd.h"

namespace dormouse::memory {
namespace {

using host::ScratchDirectory;
using ::testing::HasSubstr;

class VerifyTest : public ::testing::Test {
 protected:
  void SetUp() override {
    ASSERT_OK(WriteFileAtomically(files_.memory, std::string(64 * kPageBytes, 'm')));
    ASSERT_OK(WriteFileAtomically(files_.store, std::string(32 * kPageBytes, 's')));
    ASSERT_OK(WriteFileAtomically(files_.config, "{\"cpus\":{}}"));
    ASSERT_OK(WriteFileAtomically(files_.state, "{\"snapshots\":{}}"));
    ASSERT_OK(SummarizeFiles(files_, &manifest_));
  }

  void ExpectCorrupt(const std::string& path, const std::string& why) {
    const auto verified = VerifyFiles(files_, manifest_);
    ASSERT_FALSE(verified);
    EXPECT_EQ(verified.error().code(), ErrorCode::kCorrupt);
    EXPECT_THAT(verified.error().message(), HasSubstr(path));
    EXPECT_THAT(verified.error().message(), HasSubstr(why));
  }

  ScratchDirectory scratch_;
  GenerationFiles files_ = {scratch_ / "memory", scratch_ / "config.json", scratch_ / "state.json",
                            scratch_ / "store"};
  Manifest manifest_;
};

TEST_F(VerifyTest, AnIntactGenerationRaisesNoDoubt) {
  const auto verified = VerifyFiles(files_, manifest_);
  ASSERT_OK(verified);
  EXPECT_EQ(*verified, std::nullopt);
  EXPECT_EQ(manifest_.config.sha256, Sha256("{\"cpus\":{}}"));
  EXPECT_GE(manifest_.memory.allocated_bytes, 64 * kPageBytes);
}

TEST_F(VerifyTest, AShortenedMemoryFileOrStoreIsCorrupt) {
  for (const std::string& path : {files_.memory, files_.store}) {
    SetUp();
    ASSERT_EQ(::truncate(path.c_str(), kPageBytes), 0);
    ExpectCorrupt(path, "has 4096 bytes, and had");
  }
}

TEST_F(VerifyTest, AFlippedByteOfConfigOrStateIsCorrupt) {
  ASSERT_OK(WriteFileAtomically(files_.config, "{\"cpuz\":{}}"));
  ExpectCorrupt(files_.config, "SHA-256");
  SetUp();
  ASSERT_OK(WriteFileAtomically(files_.state, "{\"snapshotz\":{}}"));
  ExpectCorrupt(files_.state, "SHA-256");
}

TEST_F(VerifyTest, AMissingFileIsNamed) {
  for (const std::string& path : {files_.memory, files_.store, files_.config, files_.state}) {
    SetUp();
    ASSERT_OK(RemoveFile(path));
    const auto verified = VerifyFiles(files_, manifest_);
    ASSERT_FALSE(verified);
    EXPECT_EQ(verified.error().code(), ErrorCode::kNotFound);
    EXPECT_THAT(verified.error().message(), HasSubstr(path));
  }
}

TEST_F(VerifyTest, LostExtentsRaiseADoubt) {
  const UniqueFd file(::open(files_.memory.c_str(), O_RDWR | O_CLOEXEC));
  ASSERT_EQ(::fallocate(file.get(), FALLOC_FL_PUNCH_HOLE | FALLOC_FL_KEEP_SIZE, 0, 16 * kPageBytes),
            0);
  const auto verified = VerifyFiles(files_, manifest_);
  ASSERT_OK(verified);
  ASSERT_TRUE(verified->has_value());
  EXPECT_THAT(**verified, HasSubstr(files_.memory + " takes "));
}

TEST(IncompatibilityTest, SaysWhatTheNodeLacks) {
  Manifest manifest;
  manifest.cpu_model = "AMD EPYC 7B13";
  manifest.vmm_version = "53.0";
  manifest.vmm_digest = "v";
  manifest.kernel_digest = "k";
  manifest.initramfs_digest = "i";
  manifest.image_digest = "b";
  std::string missing;
  NodeOffer offer;
  offer.cpu_model = manifest.cpu_model;
  offer.refuses_vmm = [](std::string_view version) -> std::optional<std::string> {
    if (version == "53.0") return std::nullopt;
    return std::string(version) + " is not supported";
  };
  offer.has_artifact = offer.has_image = [&](std::string_view digest) { return digest != missing; };
  EXPECT_EQ(Incompatibility(manifest, offer), std::nullopt);
  const std::pair<const char*, const char*> cases[] = {
      {"v", "VMM v"}, {"k", "kernel k"}, {"i", "initramfs i"}, {"b", "base image b"}};
  for (const auto& [digest, text] : cases) {
    missing = digest;
    EXPECT_THAT(Incompatibility(manifest, offer).value_or(""), HasSubstr(text));
  }
  missing.clear();
  manifest.vmm_version = "51.1";
  EXPECT_EQ(Incompatibility(manifest, offer), "its VMM: 51.1 is not supported");
  offer.cpu_model = "Intel Xeon";
  EXPECT_EQ(Incompatibility(manifest, offer),
            "captured on the CPU AMD EPYC 7B13, this node has Intel Xeon");
}

}  // namespace
}  // namespace dormouse::memory
