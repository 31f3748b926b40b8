#include "guest-agent/server/output_ring.h"

#include <algorithm>

namespace dormouse::guest {

void OutputRing::Append(std::string_view bytes) {
  if (bytes.size() > capacity_) {
    end_ += bytes.size() - capacity_;
    bytes.remove_prefix(bytes.size() - capacity_);
    // The ring is overwritten whole, so its order may begin anew at the right place.
    if (data_.size() < capacity_) data_.resize(capacity_);
  }
  const size_t grow = std::min(bytes.size(), capacity_ - data_.size());
  data_.append(bytes.substr(0, grow));
  end_ += grow;
  bytes.remove_prefix(grow);
  while (!bytes.empty()) {
    const size_t at = static_cast<size_t>(end_ % capacity_);
    const size_t count = std::min(bytes.size(), capacity_ - at);
    bytes.copy(data_.data() + at, count);
    end_ += count;
    bytes.remove_prefix(count);
  }
}

OutputRing::Slice OutputRing::Read(uint64_t position, size_t max) const {
  position = std::clamp(position, begin(), end_);
  const size_t at = static_cast<size_t>(position % capacity_);
  const size_t count = static_cast<size_t>(
      std::min<uint64_t>({uint64_t{max}, end_ - position, uint64_t{capacity_ - at}}));
  return {position, std::string_view(data_).substr(count == 0 ? 0 : at, count)};
}

}  // namespace dormouse::guest
