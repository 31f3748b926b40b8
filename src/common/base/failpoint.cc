#include "src/common/base/failpoint.h"

#include <fcntl.h>
#include <signal.h>
#include <sys/stat.h>
#include <unistd.h>

#include <atomic>
#include <charconv>
#include <cstdlib>
#include <cstring>
#include <map>
#include <mutex>
#include <thread>
#include <vector>

#include "src/common/base/files.h"
#include "src/common/base/unique_fd.h"

namespace dormouse::failpoint {
namespace {

enum class Verb { kOff, kError, kKill, kPark, kDelay };

struct Action {
  Verb verb = Verb::kOff;
  int argument = 0;    // errno or milliseconds
  int remaining = -1;  // hits left; -1 = for ever
};

using Key = std::pair<std::string, std::string>;  // name, subject ("" = any)

struct Registry {
  std::mutex mutex;
  std::map<Key, std::vector<Action>> armed;
  std::string file;
  timespec file_time{};
  UniqueFd trace;
};

std::atomic<bool> g_active{false};

Registry& Get() {
  static Registry* registry = new Registry;
  return *registry;
}

int ErrnoByName(std::string_view name) {
  for (int errnum = 1; errnum < 134; ++errnum) {
    const char* known = ::strerrorname_np(errnum);
    if (known != nullptr && name == known) return errnum;
  }
  return 0;
}

bool ParseNumber(std::string_view text, int* number) {
  const auto [end, code] = std::from_chars(text.data(), text.data() + text.size(), *number);
  return code == std::errc() && end == text.data() + text.size() && *number >= 0;
}

bool ParseAction(std::string_view text, Action* action) {
  if (const auto star = text.find('*'); star != std::string_view::npos) {
    if (!ParseNumber(text.substr(0, star), &action->remaining)) return false;
    text.remove_prefix(star + 1);
  }
  std::string_view argument;
  if (const auto open = text.find('('); open != std::string_view::npos) {
    if (text.back() != ')') return false;
    argument = text.substr(open + 1, text.size() - open - 2);
    text = text.substr(0, open);
  }
  if (text == "off") {
    action->verb = Verb::kOff;
  } else if (text == "kill") {
    action->verb = Verb::kKill;
  } else if (text == "park") {
    action->verb = Verb::kPark;
  } else if (text == "error") {
    action->verb = Verb::kError;
    action->argument = ErrnoByName(argument);
    return action->argument != 0;
  } else if (text == "delay") {
    action->verb = Verb::kDelay;
    return ParseNumber(argument, &action->argument);
  } else {
    return false;
  }
  return argument.empty();
}

Result<std::map<Key, std::vector<Action>>> Parse(std::string_view list) {
  std::map<Key, std::vector<Action>> armed;
  while (!list.empty()) {
    const auto semicolon = list.find_first_of(";\n");
    std::string_view entry = list.substr(0, semicolon);
    list.remove_prefix(semicolon == std::string_view::npos ? list.size() : semicolon + 1);
    if (entry.empty()) continue;
    const auto equals = entry.find('=');
    const Error invalid(ErrorCode::kInvalid, "failpoint entry \"" + std::string(entry) +
                                                 "\" is not name[@subject]=action");
    if (equals == std::string_view::npos || equals == 0) return Fail(invalid);
    std::string_view name = entry.substr(0, equals);
    std::string_view subject;
    if (const auto at = name.find('@'); at != std::string_view::npos) {
      subject = name.substr(at + 1);
      name = name.substr(0, at);
    }
    std::string_view actions = entry.substr(equals + 1);
    auto& parsed = armed[{std::string(name), std::string(subject)}];
    while (true) {
      const auto arrow = actions.find("->");
      Action action;
      if (!ParseAction(actions.substr(0, arrow), &action)) return Fail(invalid);
      parsed.push_back(action);
      if (arrow == std::string_view::npos) break;
      actions.remove_prefix(arrow + 2);
    }
  }
  return armed;
}

// Reads the file again when it has changed. The caller holds the mutex.
void Refresh(Registry& registry) {
  if (registry.file.empty()) return;
  struct stat info {};
  if (::stat(registry.file.c_str(), &info) != 0) return;
  if (info.st_mtim.tv_sec == registry.file_time.tv_sec &&
      info.st_mtim.tv_nsec == registry.file_time.tv_nsec)
    return;
  registry.file_time = info.st_mtim;
  if (auto text = ReadFile(registry.file, 1 << 20)) {
    if (auto parsed = Parse(*text)) registry.armed = std::move(*parsed);
  }
}

// What is armed for this hit, counted down. The caller holds the mutex.
Action Take(Registry& registry, std::string_view name, std::string_view subject) {
  for (const std::string_view wanted : {subject, std::string_view{}}) {
    const auto found = registry.armed.find({std::string(name), std::string(wanted)});
    if (found == registry.armed.end()) continue;
    for (Action& action : found->second) {
      if (action.remaining == 0) continue;
      if (action.remaining > 0) --action.remaining;
      return action;
    }
  }
  return {};
}

}  // namespace

Result<> Hit(std::string_view name, std::string_view subject) {
  if (!g_active.load(std::memory_order_relaxed)) return {};
  Action action;
  {
    Registry& registry = Get();
    std::lock_guard lock(registry.mutex);
    Refresh(registry);
    action = Take(registry, name, subject);
    if (registry.trace) {
      // The test process reads this file; a lost line only makes it wait longer.
      (void)WriteAll(registry.trace.get(), std::string(name) + " " + std::string(subject) + "\n");
    }
  }
  switch (action.verb) {
    case Verb::kOff:
      return {};
    case Verb::kError:
      return Fail(Error::FromErrno("failpoint " + std::string(name), action.argument));
    case Verb::kKill:
      ::kill(::getpid(), SIGKILL);
      [[fallthrough]];
    case Verb::kPark:
      while (true) ::pause();
    case Verb::kDelay:
      std::this_thread::sleep_for(std::chrono::milliseconds(action.argument));
      return {};
  }
  return {};
}

Result<> Arm(std::string_view list) {
  DORMOUSE_ASSIGN(auto parsed, Parse(list));
  Registry& registry = Get();
  std::lock_guard lock(registry.mutex);
  registry.armed = std::move(parsed);
  g_active.store(true);
  return {};
}

void DisarmAll() {
  Registry& registry = Get();
  std::lock_guard lock(registry.mutex);
  registry.armed.clear();
  registry.file.clear();
  registry.trace.Reset();
  g_active.store(false);
}

Result<> ArmFromEnvironment() {
  const char* list = std::getenv("DORMOUSE_FAILPOINTS");
  const char* file = std::getenv("DORMOUSE_FAILPOINTS_FILE");
  const char* trace = std::getenv("DORMOUSE_FAILPOINTS_TRACE");
  if (list == nullptr && file == nullptr && trace == nullptr) return {};
  DORMOUSE_TRY(Arm(list != nullptr ? list : ""));
  Registry& registry = Get();
  std::lock_guard lock(registry.mutex);
  if (file != nullptr) registry.file = file;
  if (trace != nullptr) {
    registry.trace.Reset(::open(trace, O_WRONLY | O_CREAT | O_APPEND | O_CLOEXEC, 0600));
    if (!registry.trace) return FailErrno(std::string("open ") + trace);
  }
  return {};
}

}  // namespace dormouse::failpoint
