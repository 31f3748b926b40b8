#include "node-agent/vmm/event_monitor.h"

#include <fcntl.h>
#include <unistd.h>

#include <array>
#include <cerrno>
#include <nlohmann/json.hpp>
#include <utility>

#include "node-agent/host/beneath.h"

namespace dormouse::vmm {
namespace {

using nlohmann::json;

constexpr size_t kMaxObject = 16 * 1024;
constexpr size_t kMaxText = 128;
constexpr size_t kMaxProperties = 8;
constexpr size_t kEventReadBytes = 16 * 1024;
constexpr size_t kReadPerCall = 256 * 1024;
constexpr uint64_t kPunchEvery = 256 * 1024;
constexpr uint64_t kKeep =
    64 * 1024;  // what a restarted agent, and a person, still finds in the file

struct Known {
  std::string_view source;
  std::string_view name;
  EventKind kind;
};

constexpr std::array kKnown = {
    Known{"vmm", "starting", EventKind::kVmmStarting},
    Known{"vmm", "shutdown", EventKind::kVmmShutdown},
    Known{"vm", "booting", EventKind::kBooting},
    Known{"vm", "booted", EventKind::kBooted},
    Known{"vm", "pausing", EventKind::kPausing},
    Known{"vm", "paused", EventKind::kPaused},
    Known{"vm", "resuming", EventKind::kResuming},
    Known{"vm", "resumed", EventKind::kResumed},
    Known{"vm", "snapshotting", EventKind::kSnapshotting},
    Known{"vm", "snapshotted", EventKind::kSnapshotted},
    Known{"vm", "restoring", EventKind::kRestoring},
    Known{"vm", "restored", EventKind::kRestored},
    Known{"vm", "shutdown", EventKind::kShutdown},
    Known{"vm", "deleted", EventKind::kDeleted},
    Known{"vm", "rebooting", EventKind::kRebooting},
    Known{"vm", "rebooted", EventKind::kRebooted},
    Known{"guest", "panic", EventKind::kGuestPanic},
};

bool ShortText(const json& value) {
  return value.is_string() && value.get_ref<const std::string&>().size() <= kMaxText;
}

uint64_t NumberIn(const json& object, const char* key) {
  if (!object.is_object()) return 0;
  const auto found = object.find(key);
  return found != object.end() && found->is_number_unsigned() ? found->get<uint64_t>() : 0;
}

// False when the object is not an event.
bool ToEvent(const std::string& text, Event* event) {
  const json object = json::parse(text, nullptr, false);
  if (!object.is_object()) return false;
  const auto source = object.find("source");
  const auto name = object.find("event");
  if (source == object.end() || name == object.end() || !ShortText(*source) || !ShortText(*name))
    return false;
  event->source = source->get<std::string>();
  event->name = name->get<std::string>();
  for (const Known& known : kKnown) {
    if (known.source == event->source && known.name == event->name) event->kind = known.kind;
  }
  if (const auto time = object.find("timestamp"); time != object.end()) {
    // Bounded so that the sum cannot overflow: 30 years of seconds.
    const uint64_t seconds = std::min<uint64_t>(NumberIn(*time, "secs"), 1'000'000'000);
    const uint64_t nanos = std::min<uint64_t>(NumberIn(*time, "nanos"), 999'999'999);
    event->since_start = std::chrono::seconds(seconds) + std::chrono::nanoseconds(nanos);
  }
  if (const auto properties = object.find("properties");
      properties != object.end() && properties->is_object()) {
    for (const auto& [key, value] : properties->items()) {
      if (event->properties.size() < kMaxProperties && key.size() <= kMaxText && ShortText(value)) {
        event->properties[key] = value.get<std::string>();
      }
    }
  }
  return true;
}

}  // namespace

bool EndsTheVm(EventKind kind) {
  return kind == EventKind::kShutdown || kind == EventKind::kRebooting ||
         kind == EventKind::kGuestPanic;
}

std::string_view EventKindName(EventKind kind) {
  switch (kind) {
    case EventKind::kVmmStarting:
      return "vmm-starting";
    case EventKind::kVmmShutdown:
      return "vmm-shutdown";
    case EventKind::kGuestPanic:
      return "guest-panic";
    case EventKind::kOther:
      return "other";
    default:
      break;
  }
  for (const Known& known : kKnown) {
    if (known.kind == kind) return known.name;
  }
  return "?";
}

void EventParser::Finish(std::vector<Event>* events) {
  Event event;
  if (!oversize_ && ToEvent(object_, &event)) {
    events->push_back(std::move(event));
  } else {
    ++skipped_;
  }
  object_.clear();
  oversize_ = false;
}

std::vector<Event> EventParser::Feed(std::string_view bytes) {
  std::vector<Event> events;
  for (const char c : bytes) {
    const bool line_begins = std::exchange(previous_, c) == '\n';
    if (depth_ == 0) {
      if (c == '{') {
        depth_ = 1;
        object_ = "{";
      } else if (c != '\n' && c != '\0' && c != ' ' && c != '\r' && c != '\t') {
        ++skipped_;
      }
      continue;
    }
    if (object_.size() < kMaxObject) {
      object_ += c;
    } else {
      oversize_ = true;
    }
    if (in_string_) {
      // A string of serde_json holds no raw newline: one here means that bytes were lost, so begin
      // anew.
      if (c == '\n') {
        in_string_ = escaped_ = oversize_ = false;
        depth_ = 0;
        object_.clear();
        ++skipped_;
      } else if (escaped_) {
        escaped_ = false;
      } else if (c == '\\') {
        escaped_ = true;
      } else if (c == '"') {
        in_string_ = false;
      }
      continue;
    }
    if (c == '"') in_string_ = true;
    if (c == '{') {
      // An object starts at the start of a line in the VMM's form, and nothing within one does.
      if (line_begins) {
        ++skipped_;
        object_ = "{";
        depth_ = 1;
        oversize_ = false;
      } else {
        ++depth_;
      }
    }
    if (c == '}' && --depth_ == 0) Finish(&events);
  }
  return events;
}

Result<EventTail> EventTail::Open(const std::string& path, uid_t vmm) {
  DORMOUSE_ASSIGN(UniqueFd fd, host::OpenBeneath(path, O_RDWR, {vmm, host::kAnySize}));
  return EventTail(std::move(fd));
}

Result<std::vector<Event>> EventTail::Read() {
  std::vector<Event> events;
  std::array<char, kEventReadBytes> block;
  // What an earlier agent punched out is a hole: skipped in one step, not read as zeros.
  const off_t data = ::lseek(fd_.get(), static_cast<off_t>(offset_), SEEK_DATA);
  if (data > 0) offset_ = std::max(offset_, static_cast<uint64_t>(data));
  for (size_t total = 0; total < kReadPerCall;) {
    const ssize_t got = ::pread(fd_.get(), block.data(), block.size(), static_cast<off_t>(offset_));
    if (got < 0 && errno == EINTR) continue;
    if (got < 0) return FailErrno("read event file");
    if (got == 0) break;
    offset_ += static_cast<uint64_t>(got);
    total += static_cast<size_t>(got);
    auto found = parser_.Feed(std::string_view(block.data(), static_cast<size_t>(got)));
    events.insert(events.end(), std::make_move_iterator(found.begin()),
                  std::make_move_iterator(found.end()));
  }
  // The VMM writes on at its own offset, so the file must keep its length; only its blocks are
  // given back.
  if (offset_ > kKeep && offset_ - kKeep >= punched_ + kPunchEvery) {
    const uint64_t until = (offset_ - kKeep) & ~uint64_t{4095};
    (void)::fallocate(fd_.get(), FALLOC_FL_PUNCH_HOLE | FALLOC_FL_KEEP_SIZE,
                      static_cast<off_t>(punched_), static_cast<off_t>(until - punched_));
    punched_ = until;
  }
  return events;
}

}  // namespace dormouse::vmm
