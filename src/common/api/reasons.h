// Every reason that a condition or an event of Dormouse can carry. Reasons are API: they are
// listed, with what an operator does about each, in docs/reasons.md, and a test holds the two
// together.
#pragma once

#include <string_view>

namespace dormouse::api::reasons {

// Conditions that are as they should be.
inline constexpr std::string_view kReady = "Ready";
inline constexpr std::string_view kScheduled = "Scheduled";
inline constexpr std::string_view kStarted = "Started";
inline constexpr std::string_view kHealthy = "Healthy";
inline constexpr std::string_view kReleased = "Released";
inline constexpr std::string_view kCompleted = "Completed";
inline constexpr std::string_view kSuspended = "Suspended";
inline constexpr std::string_view kSuspending = "Suspending";
inline constexpr std::string_view kResuming = "Resuming";
inline constexpr std::string_view kResumed = "Resumed";
inline constexpr std::string_view kCaptured = "Captured";
inline constexpr std::string_view kCloned = "Cloned";
inline constexpr std::string_view kCapturing = "Capturing";
inline constexpr std::string_view kCompatible = "Compatible";
inline constexpr std::string_view kInUse = "InUse";
inline constexpr std::string_view kNotInUse = "NotInUse";
inline constexpr std::string_view kRunning = "Running";
inline constexpr std::string_view kTerminating = "Terminating";

inline constexpr std::string_view kStopping = "Stopping";
inline constexpr std::string_view kStopped = "Stopped";

// On the way, or wrong.
inline constexpr std::string_view kStarting = "Starting";
inline constexpr std::string_view kSourceNotReady = "SourceNotReady";
inline constexpr std::string_view kNoCapacity = "NoCapacity";
inline constexpr std::string_view kNoNode = "NoNode";
inline constexpr std::string_view kNotFinalized = "NotFinalized";
inline constexpr std::string_view kNodeLost = "NodeLost";
inline constexpr std::string_view kNodeNotLost = "NodeNotLost";
inline constexpr std::string_view kImageNotFound = "ImageNotFound";
inline constexpr std::string_view kImageDamaged = "ImageDamaged";
inline constexpr std::string_view kGuestAgentTimeout = "GuestAgentTimeout";
inline constexpr std::string_view kVmmCrashed = "VMMCrashed";
inline constexpr std::string_view kVmmHung = "VMMHung";
inline constexpr std::string_view kGuestRebooted = "GuestRebooted";
inline constexpr std::string_view kGuestPoweredOff = "GuestPoweredOff";
inline constexpr std::string_view kWorkloadFailed = "WorkloadFailed";
inline constexpr std::string_view kWorkloadEnded = "WorkloadEnded";
inline constexpr std::string_view kSnapshotFailed = "SnapshotFailed";
inline constexpr std::string_view kSnapshotIncompatible = "SnapshotIncompatible";
inline constexpr std::string_view kResumeFailed = "ResumeFailed";
inline constexpr std::string_view kMemoryGivenUp = "MemoryGivenUp";
inline constexpr std::string_view kCowFilling = "CoWFilling";
inline constexpr std::string_view kCowExhausted = "CoWExhausted";
inline constexpr std::string_view kNodeDiskFull = "NodeDiskFull";
inline constexpr std::string_view kIdleTimeout = "IdleTimeout";
inline constexpr std::string_view kSuspendedByUser = "SuspendedByUser";
inline constexpr std::string_view kExpired = "Expired";
inline constexpr std::string_view kInvalidSpec = "InvalidSpec";
inline constexpr std::string_view kRecordCorrupt = "RecordCorrupt";
/// Only a newer agent may write the record; until that is back everything is left alone.
inline constexpr std::string_view kAgentTooOld = "AgentTooOld";
inline constexpr std::string_view kRulesRepaired = "RulesRepaired";
inline constexpr std::string_view kHypervisorUnsupported = "HypervisorUnsupported";
inline constexpr std::string_view kHostError = "HostError";

}  // namespace dormouse::api::reasons
