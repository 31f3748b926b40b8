// What an object's status means for someone who waits: pure functions of the object as the API
// server has it.
//
// A phase or condition is believed only when it speaks of the spec that the wish made, by
// observedGeneration; what is older is shown and decides nothing. Plain values; thread-safe.
#pragma once

#include <cstdint>
#include <nlohmann/json_fwd.hpp>
#include <string>

#include "src/common/api/sandbox.h"
#include "src/common/base/result.h"

namespace dormouse::cli {

struct Wish {
  api::OperatingMode mode = api::OperatingMode::kRunning;
  int64_t generation = 0;  ///< metadata.generation as the write that wished it left it
};

enum class Standing { kWaiting, kDone, kFailed };

struct Progress {
  Standing standing = Standing::kWaiting;
  std::string phase;   ///< as the status says it, or "Pending"
  std::string amount;  ///< "2.1 MiB written, 96 MiB kept"; empty where nothing is known
  std::string why;  ///< "Reason: message": of the failure, or of what is waited for; may be empty
  bool operator==(const Progress&) const = default;
};

/// Done: Suspended; or Running and Ready. Failed: what no waiting mends (a capture or wake that
/// failed, a sandbox that has ended, is being deleted, or was told otherwise by someone else
/// since). The agent may try a failed capture or wake again by itself. NoCapacity, NodeLost,
/// sources that are not there: waited for.
[[nodiscard]] Progress Judge(const api::Sandbox& sandbox, const Wish& wish);

/// The same of a SnapshotTemplate: done when sandboxes can start from it. Its spec is immutable, so
/// all that its status says is believed. The error is api::ParseSnapshotTemplate's.
[[nodiscard]] Result<Progress> JudgeTemplate(const nlohmann::json& object);

}  // namespace dormouse::cli
