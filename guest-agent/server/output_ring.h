// The last bytes of a stream without end. Positions count from the stream's first byte, so that a
// reader who fell behind sees how much it lost. Not thread-safe.
#pragma once

#include <cstddef>
#include <cstdint>
#include <string>
#include <string_view>

namespace dormouse::guest {

class OutputRing {
 public:
  explicit OutputRing(size_t capacity_bytes) : capacity_(capacity_bytes) {}

  void Append(std::string_view bytes);
  /// Up to `max` bytes from `position` on (from the oldest kept, if that is later). Contiguous in
  /// memory, so it may be fewer than there are; valid until the next Append.
  struct Slice {
    uint64_t position;  ///< of its first byte
    std::string_view bytes;
  };
  [[nodiscard]] Slice Read(uint64_t position, size_t max) const;
  [[nodiscard]] uint64_t end() const { return end_; }
  [[nodiscard]] uint64_t begin() const { return end_ - data_.size(); }

 private:
  size_t capacity_;
  std::string data_;  ///< grows to capacity_, then byte p stands at p % capacity_
  uint64_t end_ = 0;
};

}  // namespace dormouse::guest
