// What the tests of the messages share.
#pragma once

#include <string>
#include <string_view>

#include "src/common/guest/frame.h"

namespace dormouse::guest {

/// What a frame carries, which is what the parsers take.
inline std::string_view Payload(const std::string& frame) {
  return std::string_view(frame).substr(kFrameHeaderBytes);
}

}  // namespace dormouse::guest
