// What the tests of the event monitor and of the watch share.
#pragma once

#include <string>

namespace dormouse::vmm {

/// An event as v53.0 writes it: pretty, and followed by an empty line.
inline std::string EventText(const std::string& source, const std::string& name,
                             const std::string& properties = "null") {
  return "{\n  \"timestamp\": {\n    \"secs\": 6,\n    \"nanos\": 626069031\n  },\n  \"source\": "
         "\"" +
         source + "\",\n  \"event\": \"" + name + "\",\n  \"properties\": " + properties +
         "\n}\n\n";
}

}  // namespace dormouse::vmm
