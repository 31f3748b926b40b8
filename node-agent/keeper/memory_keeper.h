// Looks after the memory of what sleeps, when nobody waits for it: computes the digests that a
// capture leaves for later, and reads all of it again now and then (the scrub), so that what a disk
// loses is known before a wake needs it. At each look it counts what a capture had no time to
// count, and renews marks of files that gave space back (memory_check.h): nobody else does, and it
// is the one that forgets marks, so neither undoes the other.
//
// One thread that runs when nothing else wants the processor. It is in nobody's way: it holds no
// lock of a sandbox, lets go of a generation that is woken or removed, and what goes while it is
// read is no error. It changes and removes nothing but digests and marks (memory_check.h); what it
// finds it tells.
//
// When a generation was last verified is the time of change of its memory.digests, so that the
// order of the scrub outlives the agent; 1970 there says that it was found damaged.
#pragma once

#include <chrono>
#include <condition_variable>
#include <cstdint>
#include <functional>
#include <map>
#include <mutex>
#include <optional>
#include <string>
#include <thread>
#include <vector>

#include "node-agent/machine/memory_check.h"
#include "node-agent/record/record_store.h"
#include "node-agent/record/template_store.h"
#include "src/common/base/clock.h"

namespace dormouse {

struct MemoryKeeperOptions {
  std::chrono::seconds digest_after{60};            ///< a sleep that is shorter costs nothing
  std::chrono::seconds scrub_every{7 * 24 * 3600};  ///< each one at most so often; 0 = never
  std::chrono::milliseconds look_every{5000};
};

class MemoryKeeper {
 public:
  /// Told of a generation whose memory is not what was captured, with what differs; without a word
  /// when that is over: it is as captured again, or gone. Must not block.
  using Tell = std::function<void(const api::SandboxUid& owner, uint64_t generation,
                                  std::optional<std::string> damage)>;

  /// The stores must outlive it.
  MemoryKeeper(MemoryKeeperOptions options, Paths paths, const RecordStore& records,
               const TemplateStore& templates, Tell tell, const Clock& clock = Clock::System());
  ~MemoryKeeper() { Stop(); }

  void Start();
  /// Returns when its thread has ended: after the chunk that it reads just now.
  void Stop();

  /// What is due now, one after the other. Not on two threads.
  void Tend(const memory::KeepGoing& keep_going);

 private:
  using Key = std::pair<std::string, uint64_t>;  // owner, number
  struct Known {
    MonotonicTime first_seen{};
    std::optional<MonotonicTime> damaged;  ///< when it was found to be
    std::optional<FilesIdentity> stale;  ///< a mark that was counted for, and is not good any more
  };
  static Key KeyOf(const GenerationName& generation) {
    return {generation.owner.text(), generation.number};
  }

  /// All whose memory nobody writes, and that are not just being woken.
  [[nodiscard]] std::vector<GenerationName> Sleeping() const;
  [[nodiscard]] bool StillSleeps(const GenerationName& generation) const;
  /// `keep_going`, and that it still sleeps, which is asked now and then.
  [[nodiscard]] memory::KeepGoing WhileItSleeps(const GenerationName& generation,
                                                const memory::KeepGoing& keep_going) const;
  [[nodiscard]] bool FoundDamagedLately(const GenerationName& generation) const;
  void TendMark(const GenerationName& generation);
  /// kCorrupt, and nothing is read, where extents were lost since the mark was counted: digests of
  /// the zeros in their place would verify.
  Result<> Digest(const GenerationName& generation, const memory::KeepGoing& keep_going);
  Result<> Scrub(const GenerationName& generation, const memory::KeepGoing& keep_going);
  void Judge(const GenerationName& generation, const Result<>& result);

  const MemoryKeeperOptions options_;
  const Paths paths_;
  const RecordStore& records_;
  const TemplateStore& templates_;
  const Tell tell_;
  const Clock& clock_;
  std::map<Key, Known> known_;
  std::mutex mutex_;
  std::condition_variable_any wake_;
  std::jthread thread_;
};

}  // namespace dormouse
