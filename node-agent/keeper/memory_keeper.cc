#include "node-agent/keeper/memory_keeper.h"

#include <fcntl.h>
#include <pthread.h>
#include <sched.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <unistd.h>

#include <algorithm>
#include <cerrno>
#include <utility>

#include "node-agent/host/sparse_files.h"
#include "node-agent/record/generation_files.h"
#include "src/common/base/files.h"
#include "src/common/base/log.h"
#include "src/common/base/metrics.h"

namespace dormouse {
namespace {

using namespace std::chrono_literals;

// Chunks between two looks at the records: some tens of milliseconds of reading.
constexpr int kChunksPerLook = 16;

// linux/ioprio.h, which Debian 12 has, and older nodes' headers do not.
constexpr int kIoprioWhoProcess = 1;
constexpr int kIoprioNone = 0;
constexpr int kIoprioIdle = 3 << 13;

// Of the calling thread. Where it is refused, memory is read all the same, only less quietly.
void SetQuiet(bool quiet) {
  const sched_param none{};
  (void)::sched_setscheduler(0, quiet ? SCHED_IDLE : SCHED_OTHER, &none);
  (void)::syscall(SYS_ioprio_set, kIoprioWhoProcess, 0, quiet ? kIoprioIdle : kIoprioNone);
}

// Around the reading, and not where a lock is held that others need: whoever is this quiet may wait
// long for the processor.
class Quiet {
 public:
  explicit Quiet(bool quiet) : quiet_(quiet) { SetQuiet(quiet_); }
  ~Quiet() { SetQuiet(!quiet_); }
  Quiet(const Quiet&) = delete;
  Quiet& operator=(const Quiet&) = delete;

 private:
  const bool quiet_;
};

std::string In(const GenerationName& generation, const char* file) {
  return generation.directory + "/" + file;
}

// Nothing where there is no such file.
std::optional<WallTime> ChangedAt(const std::string& path) {
  struct stat info {};
  if (::stat(path.c_str(), &info) != 0) return std::nullopt;
  return WallTime(std::chrono::seconds(info.st_mtim.tv_sec) +
                  std::chrono::nanoseconds(info.st_mtim.tv_nsec));
}

Result<> SetChangedAt(const std::string& path, WallTime time) {
  const auto since = time.time_since_epoch();
  const auto seconds = std::chrono::floor<std::chrono::seconds>(since);
  const timespec changed{seconds.count(), (since - seconds).count()};
  const timespec times[] = {changed, changed};
  if (::utimensat(AT_FDCWD, path.c_str(), times, 0) != 0) return FailErrno("set time of " + path);
  return {};
}

void NoteTime(const GenerationName& generation, WallTime verified) {
  if (auto set = SetChangedAt(In(generation, kDigestsFile), verified); !set) {
    log::Warning("when memory was verified is not kept", {{"error", set.error().message()}});
  }
}

// Anything else (no descriptor, no memory) says nothing of what is on the disk.
bool IsDamage(const Error& error) {
  return error.code() == ErrorCode::kCorrupt || error.code() == ErrorCode::kNotFound ||
         error.errnum() == EIO;
}

std::optional<memory::MemoryDigests> ReadParentDigests(const GenerationName& generation) {
  const auto text = ReadFile(In(generation, kParentDigestsFile), memory::kMaxDigestsBytes);
  if (!text) return std::nullopt;
  auto digests = memory::DecodeDigests(*text);
  if (!digests) return std::nullopt;
  return std::move(*digests);
}

void CountScrub(const Result<>& result) {
  if (!result && result.error().code() == ErrorCode::kCancelled) return;
  metrics::Registry::Default()
      .MakeCounter("dormouse_memory_scrubs_total",
                   "Memory that sleeps, read again and compared with its digests.",
                   {{"result", result                     ? "intact"
                               : IsDamage(result.error()) ? "damaged"
                                                          : "unread"}})
      .Increment();
}

// What is compared shall come from the disk, and push nothing else out of the page cache. What VMs
// map stays.
void DropCache(const std::string& path) {
  if (const auto file = host::OpenFile(path, O_RDONLY))
    (void)::posix_fadvise(file->get(), 0, 0, POSIX_FADV_DONTNEED);
}

}  // namespace

MemoryKeeper::MemoryKeeper(MemoryKeeperOptions options, Paths paths, const RecordStore& records,
                           const TemplateStore& templates, Tell tell, const Clock& clock)
    : options_(options),
      paths_(std::move(paths)),
      records_(records),
      templates_(templates),
      tell_(std::move(tell)),
      clock_(clock) {}

void MemoryKeeper::Start() {
  thread_ = std::jthread([this](const std::stop_token& stop) {
    std::unique_lock lock(mutex_);
    while (!stop.stop_requested()) {
      lock.unlock();
      Tend([&stop] { return !stop.stop_requested(); });
      lock.lock();
      wake_.wait_for(lock, stop, options_.look_every, [] { return false; });
    }
  });
}

void MemoryKeeper::Stop() {
  if (!thread_.joinable()) return;
  thread_.request_stop();
  // Somebody waits for it now.
  const sched_param none{};
  (void)::pthread_setschedparam(thread_.native_handle(), SCHED_OTHER, &none);
  thread_.join();
}

std::vector<GenerationName> MemoryKeeper::Sleeping() const {
  std::vector<GenerationName> all;
  for (const Record& record : records_.All()) {
    // Generation 0 is a template's, and comes with that.
    if (record.intent != Intent::kSuspended || record.sleeping.value_or(0) == 0) continue;
    all.push_back({record.uid, *record.sleeping, paths_.Generation(record.uid, *record.sleeping)});
  }
  for (const TemplateStore::Ptr& each : templates_.All())
    all.push_back({each->uid, 0, paths_.Template(each->uid)});
  return all;
}

bool MemoryKeeper::StillSleeps(const GenerationName& generation) const {
  if (generation.number == 0) return templates_.Find(generation.owner) != nullptr;
  const auto record = records_.Find(generation.owner);
  return record && record->intent == Intent::kSuspended && record->sleeping == generation.number;
}

memory::KeepGoing MemoryKeeper::WhileItSleeps(const GenerationName& generation,
                                              const memory::KeepGoing& keep_going) const {
  return [this, &generation, &keep_going, chunk = 0]() mutable {
    if (!keep_going()) return false;
    if (chunk++ % kChunksPerLook != 0) return true;
    const Quiet aloud(false);
    return StillSleeps(generation);
  };
}

bool MemoryKeeper::FoundDamagedLately(const GenerationName& generation) const {
  const auto& damaged = known_.at(KeyOf(generation)).damaged;
  return damaged && (options_.scrub_every == 0s || clock_.Now() - *damaged < options_.scrub_every);
}

void MemoryKeeper::Tend(const memory::KeepGoing& keep_going) {
  const std::vector<GenerationName> sleeping = Sleeping();
  std::map<Key, Known> known;
  for (const GenerationName& each : sleeping) {
    const auto before = known_.find(KeyOf(each));
    known[KeyOf(each)] = before == known_.end() ? Known{clock_.Now(), {}, {}} : before->second;
  }
  std::swap(known_, known);
  for (const auto& [key, gone] : known) {
    if (gone.damaged && !known_.contains(key))
      tell_(*api::SandboxUid::Parse(key.first), key.second, std::nullopt);
  }

  struct Due {
    WallTime verified;
    const GenerationName* generation;
  };
  std::vector<Due> due;
  const WallTime now = clock_.WallNow();
  for (const GenerationName& each : sleeping) {
    if (FoundDamagedLately(each)) continue;
    if (!keep_going()) return;
    TendMark(each);
    if (const auto verified = ChangedAt(In(each, kDigestsFile))) {
      // A time that is yet to come was written before the clock was set back.
      const bool old = *verified > now || now - *verified >= options_.scrub_every;
      if (old && options_.scrub_every > 0s) due.push_back({*verified, &each});
    } else if (clock_.Now() - known_.at(KeyOf(each)).first_seen >= options_.digest_after) {
      if (!keep_going()) return;
      Judge(each, Digest(each, keep_going));
    }
  }
  std::sort(due.begin(), due.end(),
            [](const Due& a, const Due& b) { return a.verified < b.verified; });
  for (const Due& each : due) {
    if (!keep_going()) return;
    const auto scrubbed = Scrub(*each.generation, keep_going);
    CountScrub(scrubbed);
    Judge(*each.generation, scrubbed);
  }
}

void MemoryKeeper::TendMark(const GenerationName& generation) {
  const auto marked = ReadMark(paths_, generation);
  Known& known = known_.at(KeyOf(generation));
  if (!marked || known.stale == marked) return;
  const FilesIdentity seen = IdentityOf(generation.directory, Holes::kLeave);
  if (seen.memory != marked->memory) return;
  const bool takes_less = seen.allocated_bytes < marked->allocated_bytes;
  // Nothing to do; or what it has lost was never counted, and the count would pass over that.
  if (takes_less != marked->data_bytes.has_value()) return;
  const auto count = [&] {
    const Quiet quiet(true);
    return IdentityOf(generation.directory, Holes::kCount);
  };
  const FilesIdentity counted = count();
  if (!counted.data_bytes) return;
  if (!IsStillGood(*marked, counted)) {
    known.stale = marked;
    return;
  }
  MarkVerified(paths_, generation, counted);
  // What was written for one that has gone meanwhile goes after it.
  if (!PathExists(generation.directory)) ForgetVerified(paths_, generation);
}

Result<> MemoryKeeper::Digest(const GenerationName& generation,
                              const memory::KeepGoing& keep_going) {
  DORMOUSE_ASSIGN(const auto manifest, ReadManifest(generation.directory));
  const auto parent = ReadParentDigests(generation);
  DORMOUSE_TRY(
      CheckNothingLost(paths_, generation, IdentityOf(generation.directory, Holes::kCount)));
  const auto compute = [&] {
    const Quiet quiet(true);
    return memory::DigestMemory(In(generation, kMemoryFile), manifest, parent ? &*parent : nullptr,
                                WhileItSleeps(generation, keep_going));
  };
  DORMOUSE_ASSIGN(const auto digests, compute());
  if (!StillSleeps(generation)) return {};
  const auto keep = [&]() -> Result<> {
    DORMOUSE_TRY(WriteFileAtomically(In(generation, kDigestsFile), memory::EncodeDigests(digests)));
    DORMOUSE_TRY(SetChangedAt(In(generation, kDigestsFile), clock_.WallNow()));
    return RemoveFile(In(generation, kParentDigestsFile));
  };
  if (auto kept = keep(); !kept && StillSleeps(generation)) {
    log::Warning("digests of memory are not kept",
                 {{"generation", generation.directory}, {"error", kept.error().message()}});
  }
  return {};
}

Result<> MemoryKeeper::Scrub(const GenerationName& generation,
                             const memory::KeepGoing& keep_going) {
  const std::string file = In(generation, kMemoryFile);
  DORMOUSE_ASSIGN(const auto manifest, ReadManifest(generation.directory));
  const auto digests = ReadDigests(generation.directory, manifest);
  if (!digests) return Digest(generation, keep_going);
  const FilesIdentity identity = IdentityOf(generation.directory, Holes::kCount);
  const auto verify = [&] {
    const Quiet quiet(true);
    DropCache(file);
    auto verified = memory::VerifyMemory(file, *digests, WhileItSleeps(generation, keep_going));
    DropCache(file);
    return verified;
  };
  DORMOUSE_TRY(verify());
  if (!StillSleeps(generation)) return {};
  MarkVerified(paths_, generation, identity);
  log::Debug("memory is as it was captured", {{"generation", generation.directory}});
  NoteTime(generation, clock_.WallNow());
  return {};
}

void MemoryKeeper::Judge(const GenerationName& generation, const Result<>& result) {
  if (!result && result.error().code() == ErrorCode::kCancelled) return;
  if (!StillSleeps(generation)) {
    // What was written for one that has gone meanwhile goes after it.
    if (!PathExists(generation.directory)) ForgetVerified(paths_, generation);
    return;
  }
  Known& known = known_.at(KeyOf(generation));
  if (result) {
    if (std::exchange(known.damaged, std::nullopt))
      tell_(generation.owner, generation.number, std::nullopt);
    return;
  }
  if (!IsDamage(result.error())) {
    log::Warning("memory that sleeps could not be read",
                 {{"generation", generation.directory}, {"error", result.error().message()}});
    return;
  }
  log::Error("memory that sleeps is not what was captured; nothing of it is removed",
             {{"generation", generation.directory}, {"error", result.error().message()}});
  known.damaged = clock_.Now();
  // The next use reads it, and fails by what it finds then. A mark that tells of lost extents is
  // not good any more, and stays: without digests nothing else tells of them.
  const FilesIdentity seen = IdentityOf(generation.directory, Holes::kCount);
  if (CheckNothingLost(paths_, generation, seen)) ForgetVerified(paths_, generation);
  if (PathExists(In(generation, kDigestsFile))) NoteTime(generation, WallTime{});
  tell_(generation.owner, generation.number, result.error().message());
}

}  // namespace dormouse
