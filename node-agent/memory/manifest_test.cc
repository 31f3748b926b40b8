#include "node-agent/memory/manifest.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <nlohmann/json.hpp>

#include "node-agent/host/test_support.h"
#include "src/common/base/hash.h"
#include "src/common/base/units.h"

namespace dormouse::memory {
namespace {

using nlohmann::json;
using ::testing::HasSubstr;

Manifest Example() {
  Manifest manifest;
  manifest.owner = "6f1f2a9e-3f0e-4d7a-9f53-1b0f6a3e2c11";
  manifest.generation = 7;
  manifest.parent = 6;
  manifest.captured_at = WallTime(std::chrono::microseconds(1'795'000'000'123'456));
  manifest.memory = {4 * kGiB, 93 << 20};
  manifest.ranges = {{0, 3 * kGiB}, {4 * kGiB, kGiB}};
  manifest.changed_chunks = {{0, 2}, {2047, 1}};
  manifest.written_bytes = 1 << 20;
  manifest.config = {1200, Sha256("config")};
  manifest.state = {250'000, Sha256("state")};
  manifest.store = {1 << 30, 40 << 20};
  manifest.store_reflinked = true;
  manifest.vmm_digest = Sha256("vmm");
  manifest.kernel_digest = Sha256("kernel");
  manifest.initramfs_digest = Sha256("initramfs");
  manifest.image_digest = Sha256("image");
  manifest.vmm_version = "53.0.0";
  manifest.cpu_model = "AMD EPYC 7B13";
  manifest.guest_version = "0.4.0";
  manifest.vcpus = 2;
  manifest.disk_bytes = 5 * kGiB;
  return manifest;
}

// The example with one change to its body, and a checksum that fits.
std::string Altered(const std::string& pointer, const json& value) {
  json whole = json::parse(EncodeManifest(Example()));
  whole["manifest"][json::json_pointer(pointer)] = value;
  whole["checksum"] = Sha256(whole["manifest"].dump());
  return whole.dump();
}

TEST(ManifestTest, WhatIsWrittenIsRead) {
  const auto decoded = DecodeManifest(EncodeManifest(Example()));
  ASSERT_OK(decoded);
  EXPECT_EQ(*decoded, Example());
  Manifest first = Example();
  first.parent.reset();
  first.changed_chunks.clear();
  first.frozen = false;
  const auto again = DecodeManifest(EncodeManifest(first));
  ASSERT_OK(again);
  EXPECT_EQ(*again, first);
}

TEST(ManifestTest, NoByteCanChangeUnseen) {
  const std::string text = EncodeManifest(Example());
  for (size_t i = 0; i + 1 < text.size(); ++i) {
    std::string bad = text;
    bad[i] = static_cast<char>(bad[i] ^ 1);
    const auto decoded = DecodeManifest(bad);
    if (!decoded) {
      EXPECT_FALSE(decoded.error().IsRetryable()) << "byte " << i;
    } else {
      EXPECT_EQ(*decoded, Example()) << "byte " << i;
    }
  }
  for (size_t size = 0; size + 1 < text.size(); size += 17) {
    EXPECT_FALSE(DecodeManifest(text.substr(0, size)));
  }
}

TEST(ManifestTest, AnotherVersionIsNotGuessedAt) {
  json whole = json::parse(EncodeManifest(Example()));
  whole["version"] = whole["oldestWriter"] = Manifest::kVersion + 1;
  const auto decoded = DecodeManifest(whole.dump());
  ASSERT_FALSE(decoded);
  EXPECT_EQ(decoded.error().code(), ErrorCode::kUnsupported);
  EXPECT_THAT(decoded.error().message(), HasSubstr("manifest of version 2"));
}

TEST(ManifestTest, WhatCannotBeIsRefusedEvenWithAChecksumThatFits) {
  const std::pair<const char*, json> cases[] = {
      {"/generation", -1},
      {"/generation", "7"},
      {"/memory/bytes", 3 * kGiB},  // not the sum of the ranges
      {"/memory/chunkBytes", 4096},
      {"/memory/ranges/0/length", 4097},
      {"/memory/ranges/1/gpa", 4096},  // overlaps
      {"/memory/ranges", json::array()},
      {"/memory/changedChunks/1", {2048, 1}},  // past the end
      {"/memory/changedChunks/1", {1, 1}},     // not in order
      {"/memory/changedChunks/1", {2, ~uint64_t{0}}},
      {"/config/sha256", "../../etc/passwd"},
      {"/digests/vmm", std::string(64, 'G')},
      {"/vcpus", uint64_t{1} << 32},
      {"/capturedAt", "yesterday"},
      {"/store/reflinked", 1},
      {"/frozen", 0},
  };
  for (const auto& [pointer, value] : cases) {
    const auto decoded = DecodeManifest(Altered(pointer, value));
    ASSERT_FALSE(decoded) << pointer << " " << value;
    EXPECT_EQ(decoded.error().code(), ErrorCode::kCorrupt);
  }
  EXPECT_OK(DecodeManifest(Altered("/cpuModel", "another")));
}

TEST(ManifestTest, OneOfBeforeItSaidWhetherItsGuestStoodStillIsRead) {
  json whole = json::parse(EncodeManifest(Example()));
  ASSERT_EQ(whole["manifest"].erase("frozen"), 1U);
  whole["checksum"] = Sha256(whole["manifest"].dump());
  const auto decoded = DecodeManifest(whole.dump());
  ASSERT_OK(decoded);
  EXPECT_EQ(*decoded, Example());
}

TEST(ManifestTest, AGuestsTextCannotMakeItUnreadable) {
  Manifest manifest = Example();
  manifest.guest_version = "\xff\xfe\"}";
  EXPECT_OK(DecodeManifest(EncodeManifest(manifest)));
}

TEST(ManifestTest, ChunksOfRunsAreEachNamedOnce) {
  EXPECT_EQ(ChunksOf({}), std::vector<ChunkRun>{});
  EXPECT_EQ(ChunksOf({{0, 4096}, {8192, 4096}}), (std::vector<ChunkRun>{{0, 1}}));
  EXPECT_EQ(ChunksOf({{kChunkBytes - 4096, 8192}}), (std::vector<ChunkRun>{{0, 2}}));
  EXPECT_EQ(ChunksOf({{4096, 4096}, {kChunkBytes, 4096}, {2 * kChunkBytes + 4096, 4096}}),
            (std::vector<ChunkRun>{{0, 3}}));
  EXPECT_EQ(
      ChunksOf({{4096, 3 * kChunkBytes}, {3 * kChunkBytes + 8192, 4096}, {9 * kChunkBytes, 4096}}),
      (std::vector<ChunkRun>{{0, 4}, {9, 1}}));
}

}  // namespace
}  // namespace dormouse::memory
