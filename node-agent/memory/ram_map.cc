#include "node-agent/memory/ram_map.h"

#include <sys/stat.h>
#include <sys/sysmacros.h>

#include <algorithm>
#include <charconv>
#include <cstdio>

#include "src/common/base/files.h"

namespace dormouse::memory {
namespace {

// A VMM has some 200 mappings; each vCPU and queue adds a stack and its guard.
constexpr size_t kMaxMapsBytes = size_t{4} << 20;

std::string Hex(uint64_t value) {
  char text[32];
  (void)std::snprintf(text, sizeof(text), "%#lx", value);
  return text;
}

// Takes a number and the one character after it off the front of `text`.
template <typename Number>
bool Take(std::string_view* text, int base, char terminator, Number* number) {
  const char* const end = text->data() + text->size();
  const auto [stop, error] = std::from_chars(text->data(), end, *number, base);
  if (error != std::errc() || stop == text->data()) return false;
  if (stop != end && *stop != terminator) return false;
  text->remove_prefix(static_cast<size_t>(stop - text->data()) + (stop == end ? 0 : 1));
  return true;
}

// "7f00-7f10 rw-p 00000000 fe:00 1234      /path", the path may be absent and hold spaces.
bool ParseLine(std::string_view line, Mapping* mapping) {
  if (!Take(&line, 16, '-', &mapping->start) || !Take(&line, 16, ' ', &mapping->end)) return false;
  if (mapping->end <= mapping->start || line.size() < 5 || line[4] != ' ') return false;
  mapping->readable = line[0] == 'r';
  mapping->writable = line[1] == 'w';
  mapping->shared = line[3] == 's';
  line.remove_prefix(5);
  if (!Take(&line, 16, ' ', &mapping->offset) || !Take(&line, 16, ':', &mapping->device_major) ||
      !Take(&line, 16, ' ', &mapping->device_minor) || !Take(&line, 10, ' ', &mapping->inode)) {
    return false;
  }
  line.remove_prefix(std::min(line.find_first_not_of(' '), line.size()));
  mapping->path = std::string(line);
  return true;
}

Result<> CheckRanges(const std::vector<GuestRange>& ranges) {
  uint64_t end = 0;
  for (const GuestRange& range : ranges) {
    if (range.length == 0 || range.length % kPageBytes != 0 || range.gpa < end ||
        range.gpa + range.length < range.gpa) {
      return Fail(ErrorCode::kUnsupported, "guest RAM at " + Hex(range.gpa) + ", " +
                                               std::to_string(range.length) +
                                               " bytes, is not whole pages in order of address");
    }
    end = range.gpa + range.length;
  }
  if (ranges.empty()) return Fail(ErrorCode::kUnsupported, "no range of guest RAM is known");
  return {};
}

// Where each of the ranges begins in the VMM.
using Addresses = std::vector<uint64_t>;

std::vector<uint64_t> AnonymousOfLength(const std::vector<Mapping>& mappings, uint64_t length) {
  std::vector<uint64_t> starts;
  for (const Mapping& mapping : mappings) {
    if (mapping.inode == 0 && mapping.path.empty() && mapping.readable && mapping.writable &&
        !mapping.shared && mapping.end - mapping.start == length) {
      starts.push_back(mapping.start);
    }
  }
  return starts;
}

tl::unexpected<Error> Uncertain(const std::vector<Mapping>& mappings,
                                const std::vector<uint64_t>& lengths) {
  std::string found;
  for (const uint64_t length : lengths) {
    found += (found.empty() ? "" : ", ") +
             std::to_string(AnonymousOfLength(mappings, length).size()) + " of " +
             std::to_string(length) + " bytes";
  }
  return Fail(ErrorCode::kUnsupported,
              "which anonymous mappings are the guest RAM is not certain: " + found);
}

// The orders in which two ranges may lie in what their lengths say is RAM: all of the same bytes.
Result<std::vector<Addresses>> OrdersOf(const std::vector<Mapping>& mappings,
                                        const std::vector<GuestRange>& ranges) {
  const uint64_t first = ranges[0].length;
  const uint64_t second = ranges[1].length;
  const auto firsts = AnonymousOfLength(mappings, first);
  const auto seconds = AnonymousOfLength(mappings, second);
  const auto wholes = AnonymousOfLength(mappings, first + second);
  using Orders = std::vector<Addresses>;
  if (wholes.size() == 1 && firsts.empty() && seconds.empty())
    return Orders{{wholes[0], wholes[0] + first}, {wholes[0] + second, wholes[0]}};
  if (wholes.empty() && first == second && firsts.size() == 2)
    return Orders{{firsts[0], firsts[1]}, {firsts[1], firsts[0]}};
  if (wholes.empty() && first != second && firsts.size() == 1 && seconds.size() == 1)
    return Orders{{firsts[0], seconds[0]}};
  return Uncertain(mappings, {first, second, first + second});
}

RamMap MapOf(const std::vector<GuestRange>& ranges, const Addresses& addresses) {
  RamMap map;
  for (size_t i = 0; i < ranges.size(); ++i) {
    map.segments.push_back({addresses[i], ranges[i].length, map.bytes});
    map.bytes += ranges[i].length;
  }
  return map;
}

}  // namespace

uint64_t TotalBytes(const std::vector<GuestRange>& ranges) {
  uint64_t total = 0;
  for (const GuestRange& range : ranges) total += range.length;
  return total;
}

std::vector<GuestRange> BootRanges(uint64_t bytes) {
  constexpr uint64_t kLowEnd = uint64_t{3} << 30;
  constexpr uint64_t kHighStart = uint64_t{4} << 30;
  if (bytes <= kLowEnd) return {{0, bytes}};
  return {{0, kLowEnd}, {kHighStart, bytes - kLowEnd}};
}

Result<std::vector<Mapping>> ParseMaps(std::string_view text) {
  std::vector<Mapping> mappings;
  while (!text.empty()) {
    const std::string_view line = text.substr(0, text.find('\n'));
    text.remove_prefix(std::min(line.size() + 1, text.size()));
    Mapping mapping;
    if (!ParseLine(line, &mapping)) {
      return Fail(ErrorCode::kInvalid, "not a line of maps: " + std::string(line.substr(0, 200)));
    }
    mappings.push_back(std::move(mapping));
  }
  return mappings;
}

Result<RamMap> FindAnonymousRam(const std::vector<Mapping>& mappings,
                                const std::vector<GuestRange>& ranges,
                                const GuestStartsAt& starts_at) {
  DORMOUSE_TRY(CheckRanges(ranges));
  if (ranges.size() == 1) {
    const auto found = AnonymousOfLength(mappings, ranges[0].length);
    if (found.size() != 1) return Uncertain(mappings, {ranges[0].length});
    return MapOf(ranges, {found[0]});
  }
  if (ranges.size() > 2)
    return Fail(ErrorCode::kUnsupported,
                "guest RAM is of " + std::to_string(ranges.size()) + " ranges");
  DORMOUSE_ASSIGN(const std::vector<Addresses> orders, OrdersOf(mappings, ranges));
  if (orders.size() == 1) return MapOf(ranges, orders.front());

  std::vector<Addresses> right;
  for (const Addresses& order : orders) {
    DORMOUSE_ASSIGN(const bool starts, starts_at(order[0]));
    if (starts) right.push_back(order);
  }
  if (right.size() != 1) {
    return Fail(ErrorCode::kUnsupported,
                "the two ranges of guest RAM may lie in either order, and " +
                    std::to_string(right.size()) +
                    " of them have the guest's first bytes in their place");
  }
  return MapOf(ranges, right.front());
}

Result<RamMap> FindFileRam(const std::vector<Mapping>& mappings,
                           const std::vector<GuestRange>& ranges,
                           const std::function<bool(const Mapping&)>& is_memory_file) {
  DORMOUSE_TRY(CheckRanges(ranges));
  RamMap map;
  map.from_file = true;
  for (const Mapping& mapping : mappings) {
    if (mapping.inode == 0 || !is_memory_file(mapping)) continue;
    if (!mapping.readable || !mapping.writable || mapping.shared) {
      return Fail(ErrorCode::kUnsupported, "the memory file is mapped at " + Hex(mapping.start) +
                                               " other than private and writable");
    }
    map.segments.push_back({mapping.start, mapping.end - mapping.start, mapping.offset});
  }
  std::sort(map.segments.begin(), map.segments.end(),
            [](const RamSegment& a, const RamSegment& b) { return a.file_offset < b.file_offset; });
  for (const RamSegment& segment : map.segments) {
    if (segment.file_offset != map.bytes) {
      return Fail(ErrorCode::kUnsupported,
                  "the memory file's mappings leave out or repeat what is at offset " +
                      std::to_string(std::min(map.bytes, segment.file_offset)));
    }
    map.bytes += segment.length;
  }
  if (map.bytes != TotalBytes(ranges)) {
    return Fail(ErrorCode::kUnsupported, std::to_string(map.bytes) +
                                             " bytes are mapped from the memory file, not " +
                                             std::to_string(TotalBytes(ranges)));
  }
  return map;
}

Result<RamMap> FindRam(const host::Process& process, const std::vector<GuestRange>& ranges,
                       const std::optional<std::string>& memory_file,
                       std::string_view command_line) {
  DORMOUSE_ASSIGN(const std::string text, ReadFile(process.ProcFile("maps"), kMaxMapsBytes));
  DORMOUSE_ASSIGN(const std::vector<Mapping> mappings, ParseMaps(text));
  if (!memory_file) {
    return FindAnonymousRam(mappings, ranges, [&](uint64_t address) -> Result<bool> {
      const std::string expected = std::string(command_line) + '\0';
      if (command_line.empty() || ranges[0].gpa != 0 ||
          kCommandLineGpa + expected.size() > ranges[0].length) {
        return false;
      }
      std::string found(expected.size(), '\0');
      DORMOUSE_TRY(process.ReadMemory(address + kCommandLineGpa, found.data(), found.size()));
      return found == expected;
    });
  }

  struct stat file {};
  if (::stat(memory_file->c_str(), &file) != 0) return FailErrno("stat " + *memory_file);
  return FindFileRam(mappings, ranges, [&](const Mapping& mapping) {
    if (mapping.inode != file.st_ino) return false;
    char link[64];
    (void)std::snprintf(link, sizeof(link), "map_files/%lx-%lx", mapping.start, mapping.end);
    struct stat mapped {};
    if (::stat(process.ProcFile(link).c_str(), &mapped) == 0) {
      return mapped.st_dev == file.st_dev && mapped.st_ino == file.st_ino;
    }
    return makedev(mapping.device_major, mapping.device_minor) == file.st_dev;
  });
}

}  // namespace dormouse::memory
