#include "node-agent/memory/manifest.h"

#include <algorithm>
#include <nlohmann/json.hpp>
#include <stdexcept>

#include "src/common/base/hash.h"
#include "src/common/base/sealed_json.h"
#include "src/common/base/time.h"

namespace dormouse::memory {
namespace {

using nlohmann::json;

constexpr Seal kManifestSeal{"manifest", Manifest::kVersion};

json ToJson(const FileSummary& file) {
  return {{"bytes", file.bytes}, {"sha256", file.sha256}};
}
json ToJson(const ExtentSummary& file) {
  return {{"bytes", file.bytes}, {"allocatedBytes", file.allocated_bytes}};
}

// get<uint64_t>() would take a negative or fractional number too.
uint64_t Number(const json& object, const char* key) {
  const json& value = object.at(key);
  if (!value.is_number_unsigned()) throw std::invalid_argument(key);
  return value.get<uint64_t>();
}

std::string Digest(const json& object, const char* key) {
  auto text = object.at(key).get<std::string>();
  if (!IsSha256(text)) throw std::invalid_argument(key);
  return text;
}

FileSummary ReadFileSummary(const json& object) {
  return {Number(object, "bytes"), Digest(object, "sha256")};
}
ExtentSummary ReadExtentSummary(const json& object) {
  return {Number(object, "bytes"), Number(object, "allocatedBytes")};
}

json ToJson(const Manifest& manifest) {
  json ranges = json::array();
  for (const GuestRange& range : manifest.ranges) {
    ranges.push_back({{"gpa", range.gpa}, {"length", range.length}});
  }
  json chunks = json::array();
  for (const ChunkRun& run : manifest.changed_chunks) {
    chunks.push_back(json::array({run.first, run.count}));
  }
  json memory = ToJson(manifest.memory);
  memory["ranges"] = std::move(ranges);
  memory["chunkBytes"] = kChunkBytes;
  memory["changedChunks"] = std::move(chunks);
  memory["writtenBytes"] = manifest.written_bytes;
  json store = ToJson(manifest.store);
  store["reflinked"] = manifest.store_reflinked;
  return {
      {"owner", manifest.owner},
      {"generation", manifest.generation},
      {"parent", manifest.parent ? json(*manifest.parent) : json(nullptr)},
      {"capturedAt", FormatMicroTime(manifest.captured_at)},
      {"memory", std::move(memory)},
      {"config", ToJson(manifest.config)},
      {"state", ToJson(manifest.state)},
      {"store", std::move(store)},
      {"digests",
       {{"vmm", manifest.vmm_digest},
        {"kernel", manifest.kernel_digest},
        {"initramfs", manifest.initramfs_digest},
        {"image", manifest.image_digest}}},
      {"vmmVersion", manifest.vmm_version},
      {"cpuModel", manifest.cpu_model},
      {"guestVersion", manifest.guest_version},
      {"vcpus", manifest.vcpus},
      {"diskBytes", manifest.disk_bytes},
      {"frozen", manifest.frozen},
  };
}

void ReadMemory(const json& memory, Manifest* manifest) {
  manifest->memory = ReadExtentSummary(memory);
  manifest->written_bytes = Number(memory, "writtenBytes");
  if (Number(memory, "chunkBytes") != kChunkBytes) throw std::invalid_argument("chunkBytes");
  uint64_t total = 0;
  uint64_t end = 0;
  for (const json& range : memory.at("ranges")) {
    const GuestRange next = {Number(range, "gpa"), Number(range, "length")};
    if (next.length == 0 || next.length % kPageBytes != 0 || next.gpa < end ||
        next.gpa + next.length < next.gpa) {
      throw std::invalid_argument("ranges");
    }
    end = next.gpa + next.length;
    total += next.length;
    manifest->ranges.push_back(next);
  }
  if (total == 0 || total != manifest->memory.bytes) throw std::invalid_argument("ranges");
  const uint64_t chunks = ChunkCount(total);
  uint64_t after = 0;
  for (const json& pair : memory.at("changedChunks")) {
    if (pair.size() != 2 || !pair[0].is_number_unsigned() || !pair[1].is_number_unsigned()) {
      throw std::invalid_argument("changedChunks");
    }
    const ChunkRun run = {pair[0].get<uint64_t>(), pair[1].get<uint64_t>()};
    if (run.count == 0 || run.first < after || run.first >= chunks ||
        run.count > chunks - run.first) {
      throw std::invalid_argument("changedChunks");
    }
    after = run.first + run.count;
    manifest->changed_chunks.push_back(run);
  }
}

Manifest FromJson(const json& object) {
  Manifest manifest;
  manifest.owner = object.at("owner");
  manifest.generation = Number(object, "generation");
  if (!object.at("parent").is_null()) manifest.parent = Number(object, "parent");
  const auto captured = ParseTime(object.at("capturedAt").get<std::string>());
  if (!captured) throw std::invalid_argument("capturedAt");
  manifest.captured_at = *captured;
  ReadMemory(object.at("memory"), &manifest);
  manifest.config = ReadFileSummary(object.at("config"));
  manifest.state = ReadFileSummary(object.at("state"));
  manifest.store = ReadExtentSummary(object.at("store"));
  manifest.store_reflinked = object.at("store").at("reflinked").get<bool>();
  const json& digests = object.at("digests");
  manifest.vmm_digest = Digest(digests, "vmm");
  manifest.kernel_digest = Digest(digests, "kernel");
  manifest.initramfs_digest = Digest(digests, "initramfs");
  manifest.image_digest = Digest(digests, "image");
  manifest.vmm_version = object.at("vmmVersion");
  manifest.cpu_model = object.at("cpuModel");
  manifest.guest_version = object.at("guestVersion");
  const uint64_t vcpus = Number(object, "vcpus");
  if (vcpus > UINT32_MAX) throw std::invalid_argument("vcpus");
  manifest.vcpus = static_cast<uint32_t>(vcpus);
  manifest.disk_bytes = Number(object, "diskBytes");
  manifest.frozen = object.value("frozen", true);
  return manifest;
}

}  // namespace

std::vector<ChunkRun> ChunksOf(const std::vector<FileRun>& changed) {
  std::vector<ChunkRun> chunks;
  for (const FileRun& run : changed) {
    if (run.length == 0) continue;
    uint64_t first = run.offset / kChunkBytes;
    const uint64_t end = (run.offset + run.length - 1) / kChunkBytes + 1;
    if (!chunks.empty()) {
      ChunkRun& last = chunks.back();
      first = std::max(first, last.first + last.count);
      if (end <= first) continue;
      if (first == last.first + last.count) {
        last.count += end - first;
        continue;
      }
    }
    chunks.push_back({first, end - first});
  }
  return chunks;
}

std::string EncodeManifest(const Manifest& manifest) {
  return SealJson(kManifestSeal, ToJson(manifest));
}

Result<Manifest> DecodeManifest(std::string_view text) {
  Manifest manifest;
  DORMOUSE_TRY(
      OpenSealedJson(kManifestSeal, text, [&](const json& body) { manifest = FromJson(body); }));
  return manifest;
}

}  // namespace dormouse::memory
