// Names and texts of device-mapper: the part of dm.h that needs no kernel.
#include <charconv>
#include <cstdio>
#include <cstdlib>

#include "node-agent/host/dm.h"

namespace dormouse::host {
namespace {

bool IsNameCharacter(char c) {
  return (c >= 'a' && c <= 'z') || (c >= '0' && c <= '9') || c == '-';
}

// Reads a decimal at the front of `text` and takes it off.
bool TakeNumber(std::string_view* text, uint64_t* value) {
  const auto [end, error] = std::from_chars(text->data(), text->data() + text->size(), *value);
  if (error != std::errc()) return false;
  text->remove_prefix(static_cast<size_t>(end - text->data()));
  return true;
}

bool TakeCharacter(std::string_view* text, char wanted) {
  if (text->empty() || text->front() != wanted) return false;
  text->remove_prefix(1);
  return true;
}

DmName MustParse(const std::string& text) {
  auto name = DmName::Parse(text);
  if (!name) {
    std::fprintf(stderr, "impossible device-mapper name: %s\n", name.error().message().c_str());
    std::abort();
  }
  return *std::move(name);
}

}  // namespace

Result<DmName> DmName::Parse(std::string_view text) {
  bool good = text.starts_with(kDmPrefix) && text.size() > kDmPrefix.size() && text.size() <= 127;
  for (char c : text) good = good && IsNameCharacter(c);
  if (!good)
    return Fail(ErrorCode::kInvalid,
                "'" + std::string(text) + "' is no device-mapper name of ours");
  return DmName(std::string(text));
}

DmName DmName::RootOf(std::string_view short_id) {
  return MustParse(std::string(kDmPrefix) + std::string(short_id) + "-root");
}

DmName DmName::OriginOf(std::string_view digest_hex, uint64_t sectors) {
  return MustParse(std::string(kDmPrefix) + "base-" + std::string(digest_hex.substr(0, 12)) + "-" +
                   std::to_string(sectors));
}

// drivers/md/dm-snap.c, snapshot_status(), STATUSTYPE_INFO.
Result<SnapshotStatus> ParseSnapshotStatus(std::string_view parameters) {
  SnapshotStatus status;
  if (parameters == "Invalid") {
    status.state = SnapshotStatus::State::kInvalid;
  } else if (parameters == "Overflow") {
    status.state = SnapshotStatus::State::kOverflow;
  } else if (parameters == "Merge failed") {
    status.state = SnapshotStatus::State::kMergeFailed;
  } else if (parameters == "Unknown") {
    status.state = SnapshotStatus::State::kUnknown;
  } else {
    std::string_view rest = parameters;
    if (!TakeNumber(&rest, &status.used_sectors) || !TakeCharacter(&rest, '/') ||
        !TakeNumber(&rest, &status.total_sectors) || !TakeCharacter(&rest, ' ') ||
        !TakeNumber(&rest, &status.metadata_sectors) || !rest.empty()) {
      return Fail(ErrorCode::kInvalid,
                  "snapshot status '" + std::string(parameters) + "' is not understood");
    }
    status.state = SnapshotStatus::State::kValid;
  }
  return status;
}

}  // namespace dormouse::host
