#include "node-agent/machine/activity.h"

#include <sstream>

namespace dormouse {

std::map<std::string, uint64_t> PacketsByLink(std::string_view net_dev) {
  std::map<std::string, uint64_t> packets;
  std::istringstream lines{std::string(net_dev)};
  for (std::string line; std::getline(lines, line);) {
    const size_t colon = line.find(':');
    if (colon == line.npos) continue;
    std::istringstream name(line.substr(0, colon)), numbers(line.substr(colon + 1));
    std::string link;
    // Received: bytes packets errs drop fifo frame compressed multicast; sent: bytes packets ...
    uint64_t number = 0, sum = 0;
    int column = 0;
    for (; column < 10 && numbers >> number; ++column) {
      if (column == 1 || column == 9) sum += number;
    }
    if (name >> link && column == 10) packets[link] = sum;
  }
  return packets;
}

std::optional<std::chrono::microseconds> CpuTimeIn(std::string_view cpu_stat) {
  std::istringstream words{std::string(cpu_stat)};
  std::string name;
  int64_t value = 0;
  while (words >> name >> value) {
    if (name == "usage_usec") return std::chrono::microseconds(value);
  }
  return std::nullopt;
}

}  // namespace dormouse
